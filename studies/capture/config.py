"""What the capture bench measures: its settings, the kinds of forward, and the memory that each must take.

Plain data and arithmetic: no torch, no processes, no files.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = ["KINDS", "CaptureBench", "CellKey", "Kind", "image_spans", "plan", "predicted_bytes"]

FLOAT = 4
"""Bytes of a float32."""
FIRST_LENGTH, LATER_LENGTH = 1024, 4096


class Kind(NamedTuple):
    """A kind of forward.

    Args:
        label: What a table calls it.
        tool: Whose it is.
        baseline: The kind that it is measured against.
        packages: Distributions that it needs besides ours.
        time_bars: Largest ratio of time from a length on, the longest first; empty where there is no bar.
    """

    label: str
    tool: str
    baseline: str = "plain"
    packages: tuple[str, ...] = ()
    time_bars: tuple[tuple[int, float], ...] = ()


OURS = "sightcheck"
_ROW_BARS = ((LATER_LENGTH, 1.05), (FIRST_LENGTH, 1.15))
MEMORY_BAR = 1.10
"""Largest ratio of peak memory of the kinds that have a bar."""

KINDS = {
    "rows": Kind("{rows} rows", OURS, time_bars=_ROW_BARS),
    "anchor": Kind("every row of the last image", OURS, time_bars=_ROW_BARS),
    "heads": Kind("{rows} rows, per head", OURS, time_bars=((FIRST_LENGTH, 1.10),)),
    "maps": Kind("{rows} rows, with maps", OURS, time_bars=_ROW_BARS),
    "padded": Kind("{rows} rows of a left-padded batch", OURS, "padded plain", time_bars=_ROW_BARS),
    "decode": Kind("every decode step", OURS, "decode plain", time_bars=((FIRST_LENGTH, 1.25),)),
    "eager": Kind("output_attentions, kept", "transformers, eager"),
    "eager_hooks": Kind("output_attentions, reduced by a hook", "transformers, eager"),
    "lens_cache": Kind("run_with_cache, everything", "TransformerLens", packages=("transformer-lens",)),
    "lens_hooks": Kind("patterns, reduced by a hook", "TransformerLens", packages=("transformer-lens",)),
    "nnsight": Kind("weights, reduced in the trace", "nnsight", packages=("nnsight",)),
}
"""Every kind by its name; the plain forwards stand beside each."""


@dataclass(frozen=True)
class CaptureBench:
    """What is measured.

    A bar is missed where the median of its ratio is beyond it, and exit status 1 says that one was: a cell's few pairs
    have no interval that could leave it undecided.

    Args:
        lengths: Prompt lengths in tokens.
        rows: Numbers of query rows that are recorded; kinds that take one number take the first.
        kinds: Kinds of forward; see the table in the README for all.
        repeats: Timed pairs per cell; three beyond 4,096 tokens, and for other tools three, or one beyond.
        processes: Processes per cell, for memory; the timed pairs are shared out among them.
        memory_limit: Bytes of address space that a cell may take beyond what it has when its model is loaded.
        images: Images in the prompt; their tokens are three quarters of the columns.
        padded_length: Tokens of the longest sequence of the left-padded batch.
        padded_batch: Sequences in it, each an eighth shorter than the one before.
        decode_length: Tokens of the prompt before the decode steps.
        decode_steps: Decode steps.
        threads: torch threads.
        hidden: Hidden size of the decoder.
        layers: Its layers.
        heads: Its heads.
        key_value_heads: Its key-value heads.
        seed: Seed of its weights.
        out: Where the results are written as JSON, anew after every cell; None writes nothing.
        resume: Go on from what an interrupted bench left in ``out``.
        overwrite: Replace what ``out`` holds, cell by cell.
    """

    lengths: tuple[int, ...] = (1024, 4096, 8192, 16384)
    rows: tuple[int, ...] = (64, 1)
    kinds: tuple[str, ...] = tuple(KINDS)
    repeats: int = 5
    processes: int = 2
    memory_limit: int = 12 * 2**30
    images: int = 8
    padded_length: int = 1024
    padded_batch: int = 4
    decode_length: int = 4096
    decode_steps: int = 64
    threads: int = 2
    hidden: int = 512
    layers: int = 8
    heads: int = 8
    key_value_heads: int = 2
    seed: int = 0
    out: Path | None = None
    resume: bool = False
    overwrite: bool = False


class CellKey(NamedTuple):
    """What one cell measures: kind, tokens of the longest prompt, and rows (0 where the kind fixes them)."""

    kind: str
    length: int
    rows: int


def plan(config: CaptureBench) -> list[CellKey]:
    """Every cell, in order of length; the padded batch and the decode steps last."""
    cells = []
    for length in config.lengths:
        for kind in config.kinds:
            if kind in ("padded", "decode"):
                continue
            cells += [CellKey(kind, length, count) for count in _row_numbers(config, kind)]
    if "padded" in config.kinds:
        cells.append(CellKey("padded", config.padded_length, config.rows[0]))
    if "decode" in config.kinds:
        cells.append(CellKey("decode", config.decode_length, 0))
    return cells


def _row_numbers(config: CaptureBench, kind: str) -> tuple[int, ...]:
    if kind == "rows":
        return config.rows
    return (0,) if kind == "anchor" else config.rows[:1]


def label(key: CellKey) -> str:
    """What a table calls a cell's forward.

    >>> label(CellKey("rows", 1024, 1)), label(CellKey("heads", 1024, 64))
    ('1 row', '64 rows, per head')
    """
    text = KINDS[key.kind].label.format(rows=key.rows)
    return text.replace("1 rows", "1 row", 1) if key.rows == 1 else text


def timed_pairs(config: CaptureBench, key: CellKey) -> int:
    """Timed pairs of a cell: fewer where a forward is long, or far from any bar.

    >>> [timed_pairs(CaptureBench(repeats=9), CellKey(*key)) for key in (("rows", 4096, 1), ("rows", 16384, 1))]
    [9, 3]
    >>> [timed_pairs(CaptureBench(repeats=9), CellKey(*key)) for key in (("eager", 1024, 0), ("eager", 8192, 0))]
    [3, 1]
    """
    few = min(3, config.repeats)
    if KINDS[key.kind].tool != OURS:
        return few if key.length <= LATER_LENGTH else 1
    return config.repeats if key.length <= LATER_LENGTH else few


def predicted_bytes(config: CaptureBench, key: CellKey) -> int:
    """Bytes of attention that a kind of forward holds at once beside its model and activations: a closed form.

    A lower bound of what it takes. Kept: layers x heads x tokens², once for `output_attentions`, twice in a cache of
    scores and patterns. Reduced by a hook: logits and softmax of one layer, 2 x heads x tokens². Ours: one chunk of
    rows, and sums of heads x image tokens.

    >>> predicted_bytes(CaptureBench(), CellKey("eager", 4096, 64)) / 2**30
    4.0
    """
    square = config.heads * key.length**2 * FLOAT
    if key.kind == "eager":
        return config.layers * square
    if key.kind == "lens_cache":
        return 2 * config.layers * square
    if KINDS[key.kind].tool != OURS:
        return 2 * square
    batch = config.padded_batch if key.kind == "padded" else 1
    rows = {"anchor": image_size(key.length, config.images), "decode": 1}.get(key.kind, key.rows)
    logits = batch * config.heads * min(rows, _chunk_rows(config, key, batch)) * key.length
    sums = batch * (config.heads if key.kind == "heads" else 1) * key.length
    return FLOAT * (logits + sums)


def _chunk_rows(config: CaptureBench, key: CellKey, batch: int) -> int:
    """Rows that the recorder makes at a time on a CPU: as many as eight mebibytes of logits hold."""
    return max(1, 2**23 // (FLOAT * batch * config.heads * key.length))


def image_size(length: int, images: int) -> int:
    """Tokens of each image."""
    return 3 * length // (4 * images)


def image_spans(length: int, images: int) -> list[tuple[int, int]]:
    """Columns of evenly spaced images that take three quarters of a prompt, with text between and behind them.

    >>> image_spans(64, 2)
    [(4, 28), (32, 56)]
    """
    size = image_size(length, images)
    gap = (length - size * images) // (2 * images)
    return [(gap + image * (size + gap), gap + image * (size + gap) + size) for image in range(images)]
