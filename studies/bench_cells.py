"""A way to run a model beside another: ratios of time and memory with their spread, and whether a bar holds.

Numbers of processes in, cells out; knows nothing of what was run. No torch.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Protocol, Self

from probes.estimates import Estimate
from probes.estimates import median as median_with_interval
from probes.files import without_nan
from studies.bench_process import OUT_OF_MEMORY, Run
from studies.bench_results import median, pairwise, quotient, with_nan

__all__ = ["PairedCell", "all_pass", "first_error", "none_missed", "paired_numbers", "verdict", "within"]


@dataclass(frozen=True)
class PairedCell:
    """A way to run beside another, over alternating pairs and processes.

    Args:
        kind: What was run.
        time: Wall-clock seconds over those of the other beside it: median over pairs, with the exact interval of a
            median.
        cpu_ratio: Median of the same in processor time, which other work on the machine disturbs less.
        peak_ratio: Median peak memory over the other's: of the process, or allocated on the GPU.
        increment_ratio: The same for peak minus what was there before, the model loaded.
        seconds: Median seconds.
        plain_seconds: Of the other's.
        peak: Median peak bytes.
        plain_peak: Of the other's.
        increment: Median bytes beyond what was there before.
        plain_increment: Of the other's.
        error: The first failure, None when all ran; `out of memory` is a result of its own.
        passes: Whether no bar is missed, as `verdict` judges it, and nothing failed; None where there is no bar.
        time_ratios: Every pair's ratio of wall clocks, so that their spread can be seen.
    """

    kind: str
    time: Estimate
    cpu_ratio: float
    peak_ratio: float
    increment_ratio: float
    seconds: float
    plain_seconds: float
    peak: float
    plain_peak: float
    increment: float
    plain_increment: float
    error: str | None = None
    passes: bool | None = None
    time_ratios: tuple[float, ...] = ()

    @property
    def out_of_memory(self) -> bool:
        """Whether it met its memory limit."""
        return self.error is not None and self.error.endswith(OUT_OF_MEMORY)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: NaN is null."""
        record = asdict(self)
        estimates = {name: value.to_dict() for name, value in vars(self).items() if isinstance(value, Estimate)}
        plain: dict[str, Any] = without_nan({**record, **estimates})
        return plain

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Undo `to_dict`."""
        typed: dict[str, Any] = with_nan(record)
        for each in fields(cls):
            if each.type is Estimate:
                typed[each.name] = Estimate.from_dict(record[each.name])
        return cls(**{**typed, "time_ratios": tuple(record["time_ratios"])})


def paired_numbers(timed: Sequence[Run], ours: Sequence[Run], plain: Sequence[Run]) -> dict[str, Any]:
    """The numbers of a `PairedCell`, by their names.

    Args:
        timed: Processes in which both took turns.
        ours: Processes that ran this way, for memory.
        plain: Those that ran the other way.
    """
    timed, ours, plain = ([run for run in runs if not run.error] for runs in (timed, ours, plain))

    def pooled(name: str) -> list[float]:
        return [value for run in timed for value in getattr(run, name)]

    ratios = pairwise(pooled("seconds"), pooled("plain_seconds"))
    peak, plain_peak = median([run.peak for run in ours]), median([run.peak for run in plain])
    increment, plain_increment = (median([run.peak - run.loaded for run in runs]) for runs in (ours, plain))
    return {
        "time": median_with_interval(ratios),
        "cpu_ratio": median(pairwise(pooled("cpu_seconds"), pooled("plain_cpu_seconds"))),
        "peak_ratio": quotient(peak, plain_peak),
        "increment_ratio": quotient(increment, plain_increment),
        "seconds": median(pooled("seconds")),
        "plain_seconds": median(pooled("plain_seconds")),
        "peak": peak,
        "plain_peak": plain_peak,
        "increment": increment,
        "plain_increment": plain_increment,
        "time_ratios": tuple(ratios),
    }


def first_error(ours: Iterable[Run], plain: Iterable[Run], baseline: str) -> str | None:
    """The first failure of either side; of the other, with its name before it."""
    own = next((run.error for run in ours if run.error), None)
    other = next((run.error for run in plain if run.error), None)
    return own or (f"{baseline}: {other}" if other else None)


def within(bars: Iterable[tuple[float, float | None]], error: str | None) -> bool | None:
    """Whether each number is within its bar, and none failed; None where there is no bar.

    For numbers without an interval; those that have one are judged by `none_missed`.

    >>> within([(1.2, 1.3), (2.0, None)], None), within([(1.2, 1.3)], "boom"), within([(2.0, None)], None)
    (True, False, None)
    """
    barred = [value <= bar for value, bar in bars if bar is not None]
    return (error is None and all(barred)) if barred else None


def none_missed(bars: Iterable[tuple[Estimate | float, float | None]], error: str | None) -> bool | None:
    """Whether no bar is missed, as `verdict` judges it, and none failed; None where there is no bar.

    A bar that is undecided is not missed: what was measured neither keeps it nor breaks it.

    >>> wide = Estimate(1.4, 9, 1.2, 1.5)
    >>> none_missed([(wide, 1.3)], None), none_missed([(wide, 1.1)], None), none_missed([(wide, None)], "boom")
    (True, False, None)
    """
    found = [verdict(ratio, bar) for ratio, bar in bars if bar is not None]
    return (error is None and "missed" not in found) if found else None


class Judged(Protocol):
    """A cell of any bench, as far as its bars go."""

    @property
    def passes(self) -> bool | None:
        """Whether it misses none of its bars; None where it has none."""

    @property
    def error(self) -> str | None:
        """Why it failed."""

    @property
    def out_of_memory(self) -> bool:
        """Whether it met its memory limit, which is a result."""


def all_pass(cells: Iterable[Judged]) -> bool:
    """Whether no cell misses a bar, and none failed but by memory."""
    return all(cell.passes is not False and (not cell.error or cell.out_of_memory) for cell in cells)


def verdict(ratio: Estimate | float, bar: float) -> Literal["holds", "missed", "undecided"]:
    """Whether a ratio is within its bar, as far as its interval tells: the rule of tables and of the exit status.

    It holds where the whole interval is within the bar, is missed where all of it is beyond, and is undecided
    otherwise, as from fewer than six pairs, whose interval has no ends: a bench that is to decide needs more. A number
    that is not there holds nothing.

    Args:
        ratio: The ratio.
        bar: The largest that is allowed.

    >>> [verdict(Estimate(1.2, 9, low, high), 1.3) for low, high in ((1.1, 1.3), (1.1, 1.4), (1.31, 1.4))]
    ['holds', 'undecided', 'missed']
    >>> verdict(1.2, 1.3), verdict(math.nan, 1.3), verdict(Estimate(math.nan, 0, 0.0, 9.0), 1.3)
    ('holds', 'missed', 'missed')
    """
    if not isinstance(ratio, Estimate) or math.isnan(ratio.value):
        return "holds" if float(ratio) <= bar else "missed"
    if ratio.high <= bar:
        return "holds"
    return "missed" if ratio.low > bar else "undecided"
