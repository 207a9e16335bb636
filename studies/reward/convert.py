"""`sightcheck reward convert`: a value-head checkpoint in, a reward model that loads everywhere out.

What is known of value heads is in `rewardmodels.conversion`. Importing it loads no torch.
"""

from dataclasses import dataclass
from pathlib import Path

from studies.bundled import BUNDLED
from studies.options import Precision


@dataclass(frozen=True)
class ConvertConfig:
    """Turn a value-head checkpoint into a sequence classifier with one output and no bias, with its card.

    Known are LLaMA-Factory's value_head.safetensors beside a backbone, TRL's old v_head.summary, and OpenRLHF's
    value_head or score. Writes OUT, whole or not at all. A head's bias is left out and noted: it adds the same to every
    score. A pickled head: sightcheck reward convert --model path/to/old --out runs/new --allow-pickle
    """

    model: str | None = None
    """Folder or hub id of the value-head checkpoint."""
    out: Path = Path("runs/converted")
    """The folder to write; it must not exist, or be empty."""
    dtype: Precision = "auto"
    """Number format of backbone and head; by default the backbone's, to which the head is rounded."""
    device: str | None = None
    """Where the model is loaded, such as cpu; by default a GPU if there is one."""
    trust_remote_code: bool = False
    """Run Python code that the checkpoint brings along. Only for checkpoints that you trust."""
    allow_pickle: bool = False
    """Read pickled weights and heads, which can run code. Only for checkpoints that you trust."""


def run(config: ConvertConfig) -> int:
    """Convert, and say what became of the head; returns 0.

    Raises:
        InputError: If there is no such checkpoint or no single linear head with one output, or --out is taken.
    """
    from probes.inputs import InputError
    from studies.options import refuse_file

    if config.model is None:
        raise InputError("nothing says what to convert: give the value-head checkpoint as --model")
    if config.model == BUNDLED:
        raise InputError("the bundled model has no value head: train one on it by sightcheck reward train")
    refuse_file(config.out)
    if config.out.is_dir() and any(config.out.iterdir()):
        raise InputError(f"--out {config.out} is not empty: give a new folder")
    from transformers.utils.logging import disable_progress_bar

    from rewardmodels.card_facts import facts_of
    from rewardmodels.cards import write_card
    from rewardmodels.conversion import convert
    from studies.auditing.inputs import check_device
    from studies.reward.exporting import export_whole

    check_device(config.device)
    disable_progress_bar()
    found = convert(
        config.model,
        dtype=config.dtype,
        device=config.device,
        trust_remote_code=config.trust_remote_code,
        allow_pickle=config.allow_pickle,
    )
    facts = facts_of(found.reward, config.out.resolve().name, converted=found.source)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    export_whole(config.out, found.reward, lambda folder: write_card(folder, facts))
    print(f"Head: {found.source}, {found.reward!r}")
    if found.reward.meta.offset:
        print(f"Its bias is left out: the old scores are these plus {found.reward.meta.offset:.6g}.")
    if found.rounded:
        print(f"The head was rounded to the backbone's number format, by {found.rounded:.2g} of its largest weight.")
    print(f"Written: {config.out}")
    return 0
