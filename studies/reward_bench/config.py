"""What the reward bench measures: its settings, the trainings that it compares, and bars. No torch, no processes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

__all__ = ["ARMS", "KINDS", "PAPER", "Arm", "Kind", "KindName", "RewardBench", "timed_pairs"]


class Arm(NamedTuple):
    """One way to train.

    Args:
        reads: "text", or "images" beside it.
        trains: What is trained: "whole" is all but the image encoder, "lora" adapters of the decoder and the head.
        trainer: Whose trainer: "trl", or "ours".
        proxy: The text-only proxy: "none", "lora" (a branch on the same frozen weights) or "copy" (a full one).
        view: What the proxy sees in place of the images.
    """

    reads: Literal["text", "images"]
    trains: Literal["whole", "lora"]
    trainer: Literal["trl", "ours"] = "ours"
    proxy: Literal["none", "lora", "copy"] = "none"
    view: str = "blank"


ARMS = {
    "trl": Arm("text", "whole", "trl"),
    "text": Arm("text", "whole"),
    "plain-lora": Arm("images", "lora"),
    "plain-whole": Arm("images", "whole"),
    "branch-removed": Arm("images", "lora", proxy="lora", view="removed"),
    "branch-blank": Arm("images", "lora", proxy="lora", view="blank"),
    "copy-removed": Arm("images", "whole", proxy="copy", view="removed"),
    "copy-blank": Arm("images", "whole", proxy="copy", view="blank"),
}
"""Every training by its name."""


class Kind(NamedTuple):
    """A comparison.

    Args:
        label: What a table calls it.
        baseline: The arm that it is measured against.
        against: What a table calls that.
        time_bar: Largest ratio of time; None where there is no bar.
        memory_bar: Largest ratio of peak memory.
    """

    label: str
    baseline: str
    against: str
    time_bar: float | None = None
    memory_bar: float | None = None


KindName = Literal["text", "branch-removed", "branch-blank", "copy-removed", "copy-blank"]
THROUGHPUT_BAR = 0.97
"""Least steps a second on text, over TRL's."""
PAPER = "copy-blank"
"""The form of the shortcut-aware reward model paper's released code."""
_PLAIN_LORA = "the same LoRA without a proxy"
_PLAIN_WHOLE = "the same weights without a proxy"
KINDS: dict[str, Kind] = {
    "text": Kind("Text only, whole model", "trl", "TRL's `RewardTrainer`", time_bar=1 / THROUGHPUT_BAR),
    "branch-removed": Kind("LoRA branch, images removed", "plain-lora", _PLAIN_LORA, 1.30, 1.15),
    "branch-blank": Kind("LoRA branch, blank images", "plain-lora", _PLAIN_LORA),
    "copy-removed": Kind("Full copy, images removed", "plain-whole", _PLAIN_WHOLE),
    "copy-blank": Kind("Full copy, blank images (the paper's)", "plain-whole", _PLAIN_WHOLE),
}
"""Every comparison, by the arm that is measured."""


@dataclass(frozen=True)
class RewardBench:
    """Measure what a training step costs: ours over TRL's on text, and with a text-only proxy over without.

    Tiny random models, made here, on CPU or GPU. Each comparison takes its steps in turn in a process of its own;
    peak memory is compared between processes that trained one way each. Results are written as JSON, cell by cell.

    A bar holds where the whole interval of a ratio is within it, is missed where all of it is beyond, and is undecided
    otherwise: then more pairs, or a quieter machine, would tell. Memory has no interval, and decides by its ratio. Exit
    status 1 is for a missed bar, and not for an undecided one.
    """

    kinds: tuple[KindName, ...] = get_args(KindName)
    """Comparisons: text beside TRL's trainer, and proxies (a branch or a copy) that see blank images or none."""
    pairs: int = 16
    """Timed pairs of steps for a comparison with a bar; on text twice as many, without a bar half."""
    warmup: int = 2
    """Steps of each training before the first timed one, and before memory is read."""
    processes: int = 1
    """Processes for each training, for memory."""
    memory_limit: int = 12 * 2**30
    """Bytes that a training may take beyond its loaded model."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto is the GPU if there is one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Weights and arithmetic."""
    threads: int = 2
    """torch threads."""
    text_hidden: int = 256
    """Hidden size of the model that reads text."""
    text_layers: int = 4
    """Its layers."""
    text_tokens: int = 128
    """About so many tokens has a conversation there."""
    text_batch: int = 4
    """Preference pairs a step there."""
    hidden: int = 384
    """Hidden size of the decoder that reads images."""
    layers: int = 6
    """Its layers."""
    grid: int = 28
    """An image is grid x grid tokens, three quarters of a conversation."""
    batch: int = 1
    """Preference pairs a step there."""
    lora: int = 16
    """Rank of the adapters, on all linear layers of the decoder."""
    seed: int = 0
    """Seed of weights and data."""
    out: Path | None = None
    """Where results are written as JSON, anew after every cell; none writes nothing."""
    resume: bool = False
    """Go on from what an interrupted bench left in --out."""
    overwrite: bool = False
    """Replace what --out holds, cell by cell."""

    @property
    def image_tokens(self) -> int:
        """Tokens of an image."""
        return self.grid**2

    @property
    def tokens(self) -> int:
        """Tokens of a conversation with its image, about."""
        return 4 * self.image_tokens // 3


def timed_pairs(config: RewardBench, kind: str) -> int:
    """Timed pairs of a comparison: more on text, where a step is shorter and the bar closer; fewer without a bar.

    >>> [timed_pairs(RewardBench(pairs=16), kind) for kind in KINDS]
    [32, 16, 8, 8, 8]
    """
    if kind == "text":
        return 2 * config.pairs
    return config.pairs if KINDS[kind].time_bar is not None else max(1, config.pairs // 2)
