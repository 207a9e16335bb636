"""`sightcheck reward card`: the model card of a reward model, with the numbers of evaluations, printed or written.

How a card reads is `rewardmodels.cards`. Importing it loads no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewardmodels.cards import CardFacts


@dataclass(frozen=True)
class CardConfig:
    """Print the model card of a reward model, or write it beside the weights.

    A checkpoint of `reward train` or `reward convert` keeps what its card was written from; of any other one, the card
    tells what the checkpoint itself does. Numbers come from the folders that `reward eval --out` wrote about this
    very checkpoint; numbers of the same name and set are replaced.
    """

    model: str | None = None
    """Folder or hub id of the reward model."""
    eval: tuple[Path, ...] = ()
    """Evaluations to add: folders that `reward eval` wrote, or other JSON files that hold estimates."""
    write: bool = False
    """Write README.md and reward_card.json into the folder, instead of printing the card."""
    overwrite: bool = False
    """With --write, also over a README.md that is not ours."""
    device: str | None = None
    """Where the model is loaded, such as cpu; by default a GPU if there is one."""
    trust_remote_code: bool = False
    """Run Python code that the checkpoint brings along. Only for checkpoints that you trust."""
    allow_pickle: bool = False
    """Load pickled weights, which can run code. Only for checkpoints that you trust."""


def run(config: CardConfig) -> int:
    """Print or write the card; returns 0.

    Raises:
        InputError: If there is no such reward model or evaluation, an evaluation is of another checkpoint, or a card
            that is not ours would go.
    """
    from probes.inputs import InputError
    from rewardmodels.cards import CARD_FILE, FACTS_FILE, card_text, write_card

    if config.model is None:
        raise InputError("nothing says whose card: give the reward model as --model")
    folder = Path(config.model)
    if config.write and not folder.is_dir():
        raise InputError(f"--write: {config.model} is no local folder to write a card into")
    if config.write and (folder / CARD_FILE).is_file() and not (folder / FACTS_FILE).is_file() and not config.overwrite:
        raise InputError(f"{folder / CARD_FILE} was not written by sightcheck: give --overwrite to replace it")
    facts = _facts(config, config.model)
    if config.write:
        print(f"Written: {write_card(folder, facts)}")
    else:
        print(card_text(facts), end="")
    return 0


def _facts(config: CardConfig, model: str) -> "CardFacts":
    from rewardmodels.card_facts import facts_of
    from rewardmodels.cards import FACTS_FILE, read_facts
    from studies.reward.asking import AskOptions, load_scorer

    known = (Path(model) / FACTS_FILE).is_file()
    if known and not config.eval:
        return read_facts(model)
    loading = AskOptions(
        device=config.device, trust_remote_code=config.trust_remote_code, allow_pickle=config.allow_pickle
    )
    reward, digest = load_scorer(loading, model)
    facts = read_facts(model) if known else facts_of(reward, Path(model).resolve().name)
    for path in config.eval:
        facts = _with(facts, path, digest)
    return facts


def _with(facts: "CardFacts", path: Path, digest: str | None) -> "CardFacts":
    from probes.files import read_json
    from probes.inputs import InputError
    from rewardmodels.card_numbers import Measured
    from rewardmodels.cards import with_evaluation, with_measured
    from studies.reward.evaluating import METRICS

    file = path / METRICS if path.is_dir() else path
    content: Any = read_json(file)
    if not isinstance(content, dict) or "summary" not in content:
        return with_evaluation(facts, file)
    if content.get("model_digest") is None or content["model_digest"] != digest:
        other = content.get("scorer") or "several models or sets, each in a folder of its own in it"
        raise InputError(f"--eval {path} is of {other}, and not of this checkpoint: evaluate this one")
    entries = [Measured.from_json(entry) for entry in content["summary"] if entry["value"] is not None]
    return with_measured(facts, entries)
