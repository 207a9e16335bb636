"""What the inside bench measures: its settings, what is recorded of which decoder, and bars. No torch, no processes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

__all__ = ["KINDS", "Bars", "CellKey", "InsideBench", "Kind", "KindName", "bars", "checks", "plan", "timed_pairs"]

ModelName = Literal["hybrid", "dots1"]
Question = Literal["hidden attention", "routing"]
LONG = 4096
"""Tokens beyond which a forward is timed half as often."""
FULL_LENGTH = 16_384


class Bars(NamedTuple):
    """Largest ratios of time and of peak memory; None where there is no bar."""

    time: float | None = None
    memory: float | None = None


class Kind(NamedTuple):
    """What is recorded beside a forward.

    Args:
        label: What a table calls it.
        question: What it answers, and what its numbers are held against.
        model: The decoder.
        bars: The bars.
        bars_from: Tokens from which on they hold.
    """

    label: str
    question: Question
    model: ModelName
    bars: Bars
    bars_from: int = 0


KindName = Literal["rows", "maps", "routing", "routing-dots1"]
_HIDDEN, _ROUTING = Bars(1.25, 1.20), Bars(1.05, 1.05)
KINDS: dict[str, Kind] = {
    "rows": Kind("hidden attention of {rows} rows", "hidden attention", "hybrid", _HIDDEN, FULL_LENGTH),
    "maps": Kind("hidden attention of {rows} rows, with maps", "hidden attention", "hybrid", Bars()),
    "routing": Kind("routing of every token, Nemotron-H", "routing", "hybrid", _ROUTING),
    "routing-dots1": Kind("routing of every token, dots.llm1", "routing", "dots1", _ROUTING),
}
"""Everything that is recorded, by its name; the plain forward of its decoder stands beside each."""
DIFFERENCE_BAR = 1e-5
"""Largest relative difference from the full computation."""
WRONG_ATTENTION, WRONG_ROUTING = 0.1, 0.9
"""By how much a wrong formula differs at least, and of how many choices it gives the same at most."""


@dataclass(frozen=True)
class InsideBench:
    """Measure what looking inside hybrid and mixture-of-experts decoders costs, beside the plain forward.

    Random Nemotron-H and dots.llm1 decoders, made here, on CPU. What is recorded is first held against the full
    computation. Each cell then runs in processes of its own; results are written as JSON, cell by cell.

    A bar holds where the whole interval of a ratio is within it, is missed where all of it is beyond, and is undecided
    otherwise: then more pairs, or a quieter machine, would tell. Exit status 1 is for a missed bar, and for what is not
    equal, and not for an undecided one.
    """

    kinds: tuple[KindName, ...] = get_args(KindName)
    """What is recorded: hidden attention (rows, or maps too), or the routing of either decoder."""
    lengths: tuple[int, ...] = (1024, 4096, FULL_LENGTH)
    """Prompt lengths in tokens."""
    rows: int = 64
    """Query rows, the last of the prompt; routing is of every token."""
    pairs: int = 24
    """Timed pairs of forwards for each cell, recorded and plain; half as many beyond 4,096 tokens."""
    processes: int = 6
    """Processes for each cell, for memory; the timed pairs are shared out among them. Fewer than six leave its median
    without an interval, and bars on memory undecided."""
    memory_limit: int = 6 * 2**30
    """Bytes that a forward may take beyond its loaded model."""
    checked_length: int = 1024
    """Tokens at which what is recorded is held against the full computation."""
    images: int = 8
    """Images in the prompt; their tokens are three quarters of the columns."""
    threads: int = 2
    """torch threads."""
    hidden: int = 512
    """Hidden size of both decoders; all other widths are in proportion to Nemotron 3 Nano's and dots.llm1's."""
    pattern: str = "MEMEM*E"
    """Layers of the hybrid: M is Mamba-2, E experts, * attention."""
    layers: int = 3
    """Layers of the other decoder, all but the first with experts."""
    experts: int = 64
    """Routed experts of a layer, of which every token goes to six."""
    seed: int = 0
    """Seed of weights and tokens."""
    out: Path | None = None
    """Where results are written as JSON, anew after every cell; none writes nothing."""
    resume: bool = False
    """Go on from what an interrupted bench left in --out."""
    overwrite: bool = False
    """Replace what --out holds, cell by cell."""


class CellKey(NamedTuple):
    """What one cell measures."""

    kind: str
    length: int


def plan(config: InsideBench) -> list[CellKey]:
    """Every cell, in order of length."""
    return [CellKey(kind, length) for length in config.lengths for kind in config.kinds]


def checks(config: InsideBench) -> list[tuple[str, str]]:
    """Question and decoder of everything that is held against the full computation.

    >>> checks(InsideBench(kinds=("rows", "maps", "routing")))
    [('hidden attention', 'hybrid'), ('routing', 'hybrid')]
    """
    return list(dict.fromkeys((KINDS[kind].question, KINDS[kind].model) for kind in config.kinds))


def bars(key: CellKey) -> Bars:
    """The bars of a cell.

    >>> bars(CellKey("rows", 4096)).time, bars(CellKey("rows", 16384)).time, bars(CellKey("routing", 1024)).time
    (None, 1.25, 1.05)
    """
    kind = KINDS[key.kind]
    return kind.bars if key.length >= kind.bars_from else Bars()


def timed_pairs(config: InsideBench, length: int) -> int:
    """Timed pairs of a cell.

    >>> [timed_pairs(InsideBench(pairs=24), length) for length in (4096, 16384)]
    [24, 12]
    """
    return config.pairs if length <= LONG else max(1, config.pairs // 2)


def label(config: InsideBench, kind: str) -> str:
    """What a table calls what is recorded."""
    return KINDS[kind].label.format(rows=config.rows)
