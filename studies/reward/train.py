"""`sightcheck reward train`: preferences in, a reward model with its card out. Reads the config and calls the parts.

It knows options and the order of the work. Data are read in `data`, the model is made ready in `parts`, `folder` keeps
what a run leaves, `results` measures and exports. Importing it loads no torch.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from studies.bundled import BUNDLED

if TYPE_CHECKING:
    from studies.auditing.processes import Processes
    from studies.reward.folder import TrainFolder
    from studies.reward.parts import Prepared

ObjectiveName = Literal[
    "bradley-terry", "shortcut-aware", "text-only-weight", "product-of-experts", "group-dro", "image-contrast"
]
BUNDLED_RATE, LORA_RATE, WHOLE_RATE = 5e-4, 1e-4, 1e-5


@dataclass(frozen=True)
class TrainConfig:
    """Train a reward model on preference pairs with images.

    Writes OUT/model (merged, with its card), OUT/checkpoints, OUT/log.jsonl and OUT/train.json. Without options it
    trains on the bundled pictures, in about a minute. With a text-only proxy beside it the loss can weigh each pair by
    how far the text alone fails it: --objective shortcut-aware --proxy copy.
    """

    model: str = BUNDLED
    """Folder or hub id of the language or vision-language model that the scalar head is put on."""
    data: str = BUNDLED
    """Preferences: a file, folder or hub id in any format that is read."""
    out: Path = Path("runs/reward")
    """The folder to write; it must be new, unless --resume is given."""
    eval_data: str | None = None
    """Held-out preferences to measure on at the end; of the bundled data the bundled test pairs."""
    format: str | None = None
    """Format of --data, such as vlfeedback or rlhf-v; recognised by its columns if not given."""
    split: str | None = None
    """Split of --data."""
    eval_split: str | None = None
    """Split of --eval-data."""
    subset: str | None = None
    """Configuration of a data set on the hub; by default all."""
    image_root: Path | None = None
    """Folder that relative image paths start from; by default the folder of the file that names them."""
    limit: int | None = None
    """Take at most this many records, drawn by the seed."""
    on_bad: Literal["refuse", "skip"] = "refuse"
    """Rows that make no record, and pairs that the model cannot read: refuse to train, or leave them out and say so."""
    objective: ObjectiveName = "bradley-terry"
    """What the model learns by."""
    exponent: float | None = None
    """Power of the shortcut-failure coefficient; 1 is the paper's."""
    normalize: bool = False
    """Divide the shortcut-failure coefficients by their batch mean."""
    floor: float | None = None
    """Least weight of a pair, of --objective text-only-weight."""
    group_step: float | None = None
    """Step of the group weights, of --objective group-dro."""
    ranking: float | None = None
    """Strength of plain Bradley-Terry, of --objective image-contrast; by default 1."""
    contrast: float | None = None
    """Strength of the contrast with other pairs' images, of --objective image-contrast; by default 1."""
    center: float = 0.0
    """Strength of the pull of the scores' mean towards 0."""
    proxy: Literal["none", "copy", "lora"] = "none"
    """The text-only proxy: none, a full copy as in the paper, or a LoRA branch beside the model's own (with --lora)."""
    proxy_sees: Literal["blank", "removed", "shuffled", "blank-224"] = "blank"
    """What the proxy sees in place of the images: white ones of their sizes, none, another pair's, or white ones of
    224 x 224 as in the paper's code."""
    proxy_model: str | None = None
    """A reward model that was trained before, as the copy to start from."""
    proxy_frozen: bool = False
    """Leave the proxy of --proxy-model as it is."""
    lora: int = 0
    """Rank of LoRA adapters; 0 trains the weights themselves."""
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Linear layers that get adapters, by the end of their names."""
    freeze: str = "vision"
    """What is not trained: vision (the image encoder), none, or a regular expression of parameter names."""
    steps: int | None = None
    """Optimiser steps; by default --epochs decides."""
    epochs: float = 1.0
    """Times that all pairs are seen."""
    batch_size: int = 16
    """Pairs in one step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts that each step is computed in, to save memory."""
    learning_rate: float | None = None
    """Peak rate; by default 5e-4 for the bundled model, 1e-4 with --lora, else 1e-5."""
    seed: int = 0
    """Seed of every draw."""
    dtype: Literal["float32", "mixed", "bfloat16"] = "float32"
    """Weights and arithmetic; mixed computes in bfloat16 over float32 weights, bfloat16 is meant for --lora."""
    max_length: int | None = None
    """Most tokens of a prompt with its response; longer pairs are bad, nothing is cut off."""
    save_every: int = 100
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints to keep, the newest."""
    gradient_checkpointing: bool = False
    """Compute activations twice, to save memory."""
    log_to: Literal["none", "tensorboard", "trackio"] = "none"
    """Where losses go besides OUT/log.jsonl."""
    resume: bool = False
    """Go on with a run that was interrupted, to the same result."""
    overwrite: bool = False
    """Replace the run that --out holds, once model and data have proved usable."""
    device: str | None = None
    """cpu, or by default a GPU if there is one; which one says CUDA_VISIBLE_DEVICES, several accelerate launch."""
    trust_remote_code: bool = False
    """Run Python code that the checkpoint brings along. Only for checkpoints that you trust."""
    allow_pickle: bool = False
    """Load pickled weights, which can run code. Only for checkpoints that you trust."""

    @property
    def rate(self) -> float:
        """The peak learning rate that holds."""
        if self.learning_rate is not None:
            return self.learning_rate
        return LORA_RATE if self.lora else BUNDLED_RATE if self.model == BUNDLED else WHOLE_RATE


def run(config: TrainConfig) -> int:
    """Train a reward model and say what was measured.

    Returns:
        0 if every pair was used, 1 if some were left out, 130 if interrupted.

    Raises:
        InputError: If arguments, model or data cannot be used (nothing has been written then), or the loss is not
            finite (checkpoints are intact).
    """
    from studies.auditing.processes import join
    from studies.reward.folder import TrainFolder, remove_training
    from studies.reward.parts import prepare

    processes = join(config.device)
    with processes.together():
        check(config)
    with processes.together(), processes.one_voice():
        prepared = prepare(config, processes)
    processes.refuse_difference(
        model=prepared.manifest.model_digest, data=prepared.manifest.data_digest, pairs=len(prepared.pairs)
    )
    with processes.together():
        if config.overwrite and processes.is_main:
            remove_training(config.out)
    with TrainFolder.opened(config.out, prepared, processes) as folder:
        status = _train(config, prepared, folder, processes)
    status = processes.agreed(status)
    processes.leave()
    return status


def _train(config: TrainConfig, prepared: "Prepared", folder: "TrainFolder", processes: "Processes") -> int:
    import torch

    from probes.inputs import InputError
    from studies.options import say_interrupted
    from studies.reward.loop import train
    from studies.reward.results import conclude

    if folder.finished:
        if processes.is_main:
            print(f"{config.out} is finished already; its model is {config.out / 'model'}", file=sys.stderr)
        return 1 if prepared.left_out else 0
    try:
        whole = train(config, prepared, folder, processes)
    except KeyboardInterrupt:
        whole = False
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"the memory does not hold a step ({str(error).splitlines()[0]}): raise --accumulate, give "
            "--gradient-checkpointing, or take --lora; checkpoints already written are intact"
        ) from error
    if not whole:
        if processes.is_main:
            say_interrupted("reward train", config, "steps up to the last checkpoint")
        return 130
    with processes.together():
        if processes.is_main:
            conclude(config, prepared, folder)
    return 1 if prepared.left_out else 0


def check(config: TrainConfig) -> None:
    """Refuse impossible options before anything is loaded.

    Raises:
        InputError: Naming the option and what it takes.
    """
    from probes.inputs import InputError
    from studies.options import refuse_below
    from studies.reward.folder import refuse_taken

    least = {"batch_size": 1, "accumulate": 1, "steps": 1, "limit": 1, "lora": 0, "seed": 0, "save_every": 1, "keep": 1}
    refuse_below(config, {**least, "max_length": 1})
    for name in ("epochs", "learning_rate"):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"--{name.replace('_', '-')} is a number above 0, not {value}")
    given_proxy, on_device = config.proxy_model is not None, config.device in (None, "cpu")
    plain_bfloat16 = config.dtype == "bfloat16" and not config.lora
    refusals = {
        "--resume goes on with a run and --overwrite replaces it: leave one out": config.resume and config.overwrite,
        f"--device {config.device} is not taken: give cpu, or choose a GPU by CUDA_VISIBLE_DEVICES": not on_device,
        "--proxy lora needs adapters of the model's own, as both share the frozen backbone: give --lora a rank": (
            config.proxy == "lora" and not config.lora
        ),
        "--proxy-model is used as --proxy copy: give that": config.proxy != "copy" and given_proxy,
        "--proxy-frozen keeps a trained proxy as it is: give its --proxy-model": config.proxy_frozen
        and not given_proxy,
        "--lora-targets names no layer": bool(config.lora) and not config.lora_targets,
        "--eval-split needs --eval-data": config.eval_split is not None and config.eval_data is None,
        "--dtype bfloat16 loses small steps of whole weights: give --lora a rank, or --dtype mixed": plain_bfloat16,
    }
    for words, refused in refusals.items():
        if refused:
            raise InputError(words)
    if config.objective in ("shortcut-aware", "text-only-weight", "product-of-experts") and config.proxy == "none":
        raise InputError(f"--objective {config.objective} weighs pairs by a text-only proxy: give --proxy copy or lora")
    _check_tracker(config.log_to)
    refuse_taken(config.out, config.resume, config.overwrite)


def _check_tracker(name: str) -> None:
    from importlib.util import find_spec

    from probes.inputs import InputError

    if name != "none" and find_spec(name) is None:
        raise InputError(f"--log-to {name}: it is not installed; pip install {name}")
