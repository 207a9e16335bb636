"""What the reward bench found: cells, their bars, and the JSON file that holds them.

Knows nothing of processes, trainers or tables. No torch.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from probes.estimates import Estimate
from probes.estimates import median as median_with_interval
from probes.files import read_json, without_nan, write_json
from studies.bench_child import config_from
from studies.bench_results import (
    cells_before,
    kept_cells,
    median,
    pairwise,
    quotient,
    refusing_others,
    settings_of,
    this_machine,
    with_nan,
)
from studies.capture.process import OUT_OF_MEMORY, Run
from studies.reward_bench.config import KINDS, RewardBench

__all__ = [
    "RewardCell",
    "RewardResults",
    "bench_machine",
    "make_cell",
    "measured_before",
    "read_results",
    "verdict",
    "write_results",
]

_APART = ("kinds",)
"""Options that a bench may go on without: further comparisons."""


@dataclass(frozen=True)
class RewardCell:
    """A way to train beside another, over alternating steps and processes.

    Args:
        kind: A name of `KINDS`.
        time: Wall-clock seconds of a step over those of the other's beside it: median over pairs of steps, with the
            exact interval of a median.
        cpu_ratio: Median of the same in processor time, which other work on the machine disturbs less.
        peak_ratio: Median peak memory over the other's: of the process, or allocated on the GPU.
        increment_ratio: The same for peak minus what was there before training, the model loaded.
        seconds: Median seconds of a step.
        plain_seconds: Of the other's.
        peak: Median peak bytes.
        plain_peak: Of the other's.
        increment: Median bytes beyond what was there before training.
        plain_increment: Of the other's.
        error: The first failure, None when all ran; `out of memory` is a result of its own.
        passes: Whether medians are within the bars; None where there is none. How sure that is says `verdict`.
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

    @property
    def throughput(self) -> Estimate:
        """Steps a second over the other's."""
        low, high = (quotient(1.0, end) for end in (self.time.high, max(self.time.low, 0.0)))
        ends = (low, high if high == high else float("inf"))
        return Estimate(quotient(1.0, self.time.value), self.time.n, *ends)


@dataclass(frozen=True)
class RewardResults:
    """Cells in the order of `KINDS`, with the configuration and the machine that they were measured on."""

    config: RewardBench
    cells: tuple[RewardCell, ...]
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Whether every cell that has a bar is within it by its medians, and none failed but by memory."""
        return all(cell.passes is not False and (not cell.error or cell.out_of_memory) for cell in self.cells)


def make_cell(kind: str, timed: Run, ours: Sequence[Run], plain: Sequence[Run]) -> RewardCell:
    """A cell.

    Args:
        kind: The comparison.
        timed: The process in which both took turns.
        ours: Processes that trained this way, for memory.
        plain: Those that trained the other way.
    """
    failed = next((run.error for run in (*ours, timed) if run.error), None)
    other = next((run.error for run in plain if run.error), None)
    error = failed or (f"{KINDS[kind].baseline}: {other}" if other else None)
    ours, plain = [run for run in ours if not run.error], [run for run in plain if not run.error]
    ratios = pairwise(timed.seconds, timed.plain_seconds)
    time = median_with_interval(ratios)
    peak, plain_peak = median([run.peak for run in ours]), median([run.peak for run in plain])
    increment, plain_increment = (median([run.peak - run.loaded for run in runs]) for runs in (ours, plain))
    peak_ratio = quotient(peak, plain_peak)
    return RewardCell(
        kind=kind,
        time=time,
        cpu_ratio=median(pairwise(timed.cpu_seconds, timed.plain_cpu_seconds)),
        peak_ratio=peak_ratio,
        increment_ratio=quotient(increment, plain_increment),
        seconds=median(timed.seconds),
        plain_seconds=median(timed.plain_seconds),
        peak=peak,
        plain_peak=plain_peak,
        increment=increment,
        plain_increment=plain_increment,
        error=error,
        passes=_passes(kind, error, time.value, peak_ratio),
        time_ratios=tuple(ratios),
    )


def verdict(time: Estimate, bar: float) -> Literal["holds", "missed", "undecided"]:
    """Whether a ratio of time is within its bar, as far as its interval tells.

    Args:
        time: The ratio.
        bar: The largest that is allowed.

    >>> [verdict(Estimate(1.2, 9, low, high), 1.3) for low, high in ((1.1, 1.3), (1.1, 1.4), (1.31, 1.4))]
    ['holds', 'undecided', 'missed']
    """
    if time.high <= bar:
        return "holds"
    return "missed" if time.low > bar else "undecided"


def _passes(kind: str, error: str | None, time: float, peak: float) -> bool | None:
    bars = [(time, KINDS[kind].time_bar), (peak, KINDS[kind].memory_bar)]
    barred = [value <= bar for value, bar in bars if bar is not None]
    return (error is None and all(barred)) if barred else None


def bench_machine() -> dict[str, Any]:
    """What this bench is measured on, the libraries that train included."""
    return this_machine(("torch", "transformers", "trl", "peft"))


def write_results(results: RewardResults, out: Path) -> None:
    """Write the results as JSON, whole or not at all; `passes` stays null until every planned cell is there."""
    whole = set(results.config.kinds) <= {cell.kind for cell in results.cells}
    record = {
        "config": settings_of(results.config, _APART),
        "machine": results.machine,
        "cells": [without_nan({**asdict(cell), "time": cell.time.to_dict()}) for cell in results.cells],
        "passes": results.passes if whole else None,
    }
    write_json(out, record)


def read_results(path: Path) -> RewardResults:
    """Read what `write_results` wrote.

    Raises:
        InputError: If the file is no result of this bench.
    """
    with refusing_others("bench reward", path):
        found = read_json(path)
        cells = tuple(_read_cell(row) for row in found["cells"])
        settings = {**found["config"], "kinds": [cell.kind for cell in cells]}
        return RewardResults(config_from(RewardBench, settings), cells, dict(found["machine"]))


def _read_cell(row: dict[str, Any]) -> RewardCell:
    time, ratios = Estimate.from_dict(row["time"]), tuple(row["time_ratios"])
    return RewardCell(**{**with_nan(row), "time": time, "time_ratios": ratios})


def measured_before(config: RewardBench) -> list[RewardCell]:
    """The cells that an interrupted bench left; those that failed and are asked for again are left out.

    Raises:
        InputError: As `cells_before`, or if the file holds other cells.
    """
    rows = cells_before("bench reward", config.out, settings_of(config, _APART), bench_machine())
    return kept_cells("bench reward", config.out, rows, _read_cell, lambda cell: cell.kind in config.kinds)
