"""What the capture bench found: cells, their bars, and the JSON file that holds them.

Knows nothing of processes, forwards or tables. No torch.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from probes.files import write_bytes
from studies.bench_cells import all_pass, first_error, paired_numbers, within
from studies.bench_child import config_from
from studies.bench_process import OUT_OF_MEMORY, Run
from studies.bench_results import (
    cells_before,
    kept_cells,
    refusing_others,
    settings_of,
    this_machine,
    with_nan,
)
from studies.capture.config import KINDS, MEMORY_BAR, OURS, CaptureBench, CellKey, plan, predicted_bytes

__all__ = ["CaptureCell", "CaptureResults", "make_cell", "read_results", "write_results"]


@dataclass(frozen=True)
class CaptureCell:
    """A kind of forward at one length against its plain sdpa forward, medians over paired runs.

    Args:
        kind: A name of `KINDS`.
        length: Tokens.
        rows: Recorded rows; 0 where the kind fixes them.
        time_ratio: Wall-clock seconds over the plain forward's right before or after it, median over pairs.
        cpu_ratio: The same in processor time, which other work on the machine disturbs less.
        peak_ratio: Median peak resident memory of the cell's processes over that of those that ran plain.
        increment_ratio: The same for peak minus what was resident before the forward.
        seconds: Median seconds of the cell's own forwards.
        plain_seconds: Of the plain ones.
        peak: Median peak bytes of the cell's own processes.
        plain_peak: Of the plain ones.
        increment: Median bytes by which its processes' peaks exceed what was resident before the forward.
        pairs: Timed pairs that ran through.
        predicted: Bytes of attention that the kind must hold at once, by `predicted_bytes`.
        error: The first failure, None when all ran; `out of memory` is a result of its own.
        passes: Whether the bars hold; None where there is none.
        time_ratios: Every timed pair's ratio of wall clocks, so that their spread can be seen.
    """

    kind: str
    length: int
    rows: int
    time_ratio: float
    cpu_ratio: float
    peak_ratio: float
    increment_ratio: float
    seconds: float
    plain_seconds: float
    peak: float
    plain_peak: float
    increment: float
    pairs: int
    predicted: int
    error: str | None = None
    passes: bool | None = None
    time_ratios: tuple[float, ...] = ()

    @property
    def key(self) -> CellKey:
        """Which cell of the plan this is."""
        return CellKey(self.kind, self.length, self.rows)

    @property
    def out_of_memory(self) -> bool:
        """Whether it met its memory limit."""
        return self.error == OUT_OF_MEMORY


@dataclass(frozen=True)
class CaptureResults:
    """Every cell, with the configuration and the machine it was measured on."""

    config: CaptureBench
    cells: tuple[CaptureCell, ...]
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Whether every cell that has a bar holds it, and none failed but by memory."""
        return all_pass(self.cells)


def make_cell(config: CaptureBench, key: CellKey, plain: Sequence[Run], ours: Sequence[Run]) -> CaptureCell:
    """A cell from its own processes and those of its plain forward."""
    error = first_error(ours, plain, "plain forward")
    numbers = paired_numbers(ours, ours, plain)
    time, peak_ratio = numbers.pop("time"), numbers["peak_ratio"]
    del numbers["plain_increment"]
    bar = next((bar for start, bar in KINDS[key.kind].time_bars if key.length >= start), None)
    return CaptureCell(
        kind=key.kind,
        length=key.length,
        rows=key.rows,
        time_ratio=time.value,
        pairs=sum(len(run.seconds) for run in ours if not run.error),
        predicted=predicted_bytes(config, key),
        error=error,
        passes=within([(time.value, bar), (peak_ratio, None if bar is None else MEMORY_BAR)], error),
        **numbers,
    )


def closest_peer(cells: Sequence[CaptureCell], length: int) -> dict[str, tuple[CaptureCell, float]]:
    """The peer nearest to ours at a length, in time and in memory, with how many times ours it takes.

    Ours is the cell of the most recorded rows; peers that ran out of memory are out of the contest.

    Returns:
        {"time": (cell, multiple), "memory": (cell, multiple)}; empty where ours or every peer is missing.
    """
    here = [cell for cell in cells if cell.length == length and not cell.error]
    ours = max((cell for cell in here if cell.kind == "rows"), key=lambda cell: cell.rows, default=None)
    peers = [cell for cell in here if KINDS[cell.kind].tool != OURS]
    if ours is None or not peers:
        return {}
    found = {}
    for name, measure in (("time", "time_ratio"), ("memory", "peak_ratio")):
        nearest = min(peers, key=lambda cell: getattr(cell, measure))
        found[name] = (nearest, getattr(nearest, measure) / getattr(ours, measure))
    return found


def bench_machine() -> dict[str, Any]:
    """What this bench is measured on, the other tools included."""
    return this_machine(("torch", "transformers", "transformer-lens", "nnsight"))


def write_results(results: CaptureResults, out: Path) -> None:
    """Write the results as JSON, whole or not at all; `passes` stays null until every planned cell is there."""
    write_bytes(out, f"{json.dumps(_record(results), indent=2)}\n".encode())


def _record(results: CaptureResults) -> dict[str, Any]:
    whole = set(plan(results.config)) <= {cell.key for cell in results.cells}
    return {
        "config": settings_of(results.config),
        "machine": results.machine,
        "cells": [_without_nan(asdict(cell)) for cell in results.cells],
        "passes": results.passes if whole else None,
    }


def _without_nan(record: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in record.items()}


def read_results(path: Path) -> CaptureResults:
    """Read what `write_results` wrote.

    Raises:
        InputError: If the file is no result of this bench.
    """
    with refusing_others("bench capture", path):
        found = json.loads(path.read_text())
        cells = tuple(_read_cell(row) for row in found["cells"])
        return CaptureResults(config_from(CaptureBench, found["config"]), cells, dict(found["machine"]))


def _read_cell(row: dict[str, Any]) -> CaptureCell:
    return CaptureCell(**{**with_nan(row), "time_ratios": tuple(row["time_ratios"])})


def measured_before(config: CaptureBench) -> list[CaptureCell]:
    """The cells that an interrupted bench left; those that failed for another reason than memory are left out.

    Raises:
        InputError: As `cells_before`, or if the file holds other cells.
    """
    rows = cells_before("bench capture", config.out, settings_of(config), bench_machine())
    return kept_cells("bench capture", config.out, rows, _read_cell)
