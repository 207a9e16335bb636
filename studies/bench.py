"""What recording costs: time and peak memory of a forward with the recorder against the plain forward.

Every cell runs in processes of its own. Memory is compared between processes that each ran one forward; time between
forwards that alternate inside one process, so that a busy machine slows both. Knows nothing of questions, processors
or trained models.
"""

import json
import math
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from probes.inputs import InputError
from studies.bench_process import EAGER, PLAIN, RECORDED, CaptureBench, Run, in_process
from studies.run_folder.files import write_bytes

__all__ = ["CaptureBench", "CaptureCell", "CaptureResults", "print_capture", "run_capture"]

MEGABYTE = 2**20
TIME_BARS = ((4096, 1.05), (1024, 1.15))
"""Largest ratio of time from a length on, the longest first; the bar is on the largest number of rows."""
MEMORY_BAR = 1.10


@dataclass(frozen=True)
class CaptureCell:
    """A kind of forward at one length against the plain sdpa forward, medians over paired runs.

    Args:
        kind: RECORDED (recorded) or "eager".
        length: Tokens.
        rows: Recorded rows; 0 for eager.
        time_ratio: Wall-clock seconds over the plain forward's right before or after it, median over pairs.
        cpu_ratio: The same in processor time, which other work on the machine disturbs less.
        peak_ratio: Peak resident memory of a process over that of one that ran plain, median over pairs.
        increment_ratio: The same for peak minus what was resident before the forward.
        seconds: Median seconds of the cell's own forwards.
        plain_seconds: Of the plain ones.
        peak: Median peak bytes of the cell's own processes.
        plain_peak: Of the plain ones.
        pairs: Timed pairs that ran through.
        error: The first failure, None when all ran.
        passes: Whether the bars hold; None where there is none.
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
    pairs: int
    error: str | None = None
    passes: bool | None = None


@dataclass(frozen=True)
class CaptureResults:
    """Every cell, with the configuration and the machine it was measured on."""

    config: CaptureBench
    cells: tuple[CaptureCell, ...]
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Whether every cell that has a bar holds it."""
        return all(cell.passes is not False for cell in self.cells)


def run_capture(
    lengths: Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
    repeats: int | None = None,
    memory_limit: int | None = None,
    out: Path | None = None,
    *,
    config: CaptureBench | None = None,
    show: bool = True,
) -> CaptureResults:
    """Measure every cell, in order of length.

    Args:
        lengths: Overrides the configuration's.
        rows: Overrides the configuration's.
        repeats: Overrides the configuration's.
        memory_limit: Overrides the configuration's.
        out: Overrides the configuration's.
        config: Everything else.
        show: Print progress and a table.

    Returns:
        The results, also written to `out` as JSON where one is given, anew after every cell.

    Raises:
        InputError: If lengths, rows or repeats are empty or not positive; if ``out`` is there and neither replaced nor
            resumed; if there is nothing to resume, or it was measured with other settings or on another machine.
    """
    config = config or CaptureBench()
    config = replace(
        config,
        lengths=config.lengths if lengths is None else tuple(lengths),
        rows=config.rows if rows is None else tuple(rows),
        repeats=config.repeats if repeats is None else repeats,
        memory_limit=config.memory_limit if memory_limit is None else memory_limit,
        out=config.out if out is None else out,
    )
    _check(config)
    if config.out is not None and config.out.exists() and not (config.resume or config.overwrite):
        raise InputError(f"--out {config.out} is there: give --overwrite to replace it, --resume to go on, or another")
    plan = _plan(config)
    done = {(cell.kind, cell.length, cell.rows): cell for cell in _measured_before(config)} if config.resume else {}
    results = CaptureResults(config, (), machine())
    for number, (kind, length, count) in enumerate(plan, start=1):
        cell = done.get((kind, length, count))
        if cell is None:
            if show:
                label = f"measuring {_label(kind, count)} at {length} tokens"
                print(f"cell {number} of {len(plan)}: {label}", file=sys.stderr, flush=True)
            cell = _measure(config, kind, length, count)
        results = replace(results, cells=(*results.cells, cell))
        if config.out is not None:
            _write(results, config.out, len(plan))
    if show:
        print_capture(results)
    return results


def print_capture(results: CaptureResults) -> None:
    """Print the results as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Recording against the plain sdpa forward: ratios, and absolute values (plain in brackets)")
    for name in ("tokens", "forward", "time", "cpu", "peak", "own peak", "seconds", "peak MB", "bars"):
        table.add_column(name, justify="left" if name in ("forward", "bars") else "right")
    for cell in results.cells:
        bars = {True: "hold", False: "missed", None: ""}[cell.passes]
        table.add_row(
            str(cell.length),
            f"{cell.rows} rows" if cell.kind == RECORDED else cell.kind,
            *(f"{ratio:.3f}" for ratio in (cell.time_ratio, cell.cpu_ratio, cell.peak_ratio, cell.increment_ratio)),
            f"{cell.seconds:.2f} ({cell.plain_seconds:.2f})",
            f"{cell.peak / MEGABYTE:.0f} ({cell.plain_peak / MEGABYTE:.0f})",
            cell.error or bars,
        )
    Console().print(table)


def _check(config: CaptureBench) -> None:
    if not config.lengths or not config.rows or config.repeats < 1:
        raise InputError("bench capture needs at least one length, one number of rows and one repeat")
    shortest = min(config.lengths)
    if shortest < 8 * config.images or not 1 <= max(config.rows) <= shortest // 4 or min(config.rows) < 1:
        raise InputError(
            f"lengths must be at least {8 * config.images} tokens for {config.images} images, and rows between 1 and a "
            f"quarter of the shortest length, got lengths {config.lengths} and rows {config.rows}"
        )


def _plan(config: CaptureBench) -> list[tuple[str, int, int]]:
    plan = []
    for length in config.lengths:
        plan += [(RECORDED, length, count) for count in config.rows]
        plan += [(EAGER, length, 0)] if length in config.eager_lengths else []
    return plan


def _label(kind: str, rows: int) -> str:
    return f"{rows} recorded rows" if kind == RECORDED else f"{kind} with output_attentions"


def _measure(config: CaptureBench, kind: str, length: int, rows: int) -> CaptureCell:
    """Run plain and measured processes in turn, in an order that turns round every time."""
    plain: list[Run] = []
    ours: list[Run] = []
    count = min(config.processes, config.repeats)
    for turn in range(count):
        pairs = config.repeats // count + (turn < config.repeats % count)
        order = [(plain, PLAIN, 0), (ours, kind, pairs)]
        for into, name, timed in order if turn % 2 == 0 else order[::-1]:
            into.append(in_process(config, name, length, rows, timed))
        if plain[-1].error or ours[-1].error:
            break
    return _cell(kind, length, rows, plain, ours)


def _cell(kind: str, length: int, rows: int, plain: Sequence[Run], ours: Sequence[Run]) -> CaptureCell:
    def pooled(name: str) -> list[float]:
        return [value for run in ours for value in getattr(run, name)]

    error = next((run.error for run in (*ours, *plain) if run.error), None)
    whole = [both for both in zip(ours, plain, strict=True) if not (both[0].error or both[1].error)]
    ours, plain = [mine for mine, _ in whole], [theirs for _, theirs in whole]
    time_ratio = _ratio(pooled("seconds"), pooled("plain_seconds"))
    peak_ratio = _ratio([run.peak for run in ours], [run.peak for run in plain])
    bar = next((bar for start, bar in TIME_BARS if length >= start), None)
    passes = None
    if kind == RECORDED and bar is not None:
        passes = error is None and time_ratio <= bar and peak_ratio <= MEMORY_BAR
    return CaptureCell(
        kind=kind,
        length=length,
        rows=rows,
        time_ratio=time_ratio,
        cpu_ratio=_ratio(pooled("cpu_seconds"), pooled("plain_cpu_seconds")),
        peak_ratio=peak_ratio,
        increment_ratio=_ratio([run.peak - run.loaded for run in ours], [run.peak - run.loaded for run in plain]),
        seconds=_median(pooled("seconds")),
        plain_seconds=_median(pooled("plain_seconds")),
        peak=_median([run.peak for run in ours]),
        plain_peak=_median([run.peak for run in plain]),
        pairs=len(pooled("seconds")),
        error=error,
        passes=passes,
    )


def _ratio(ours: Sequence[float], plain: Sequence[float]) -> float:
    return _median([mine / theirs for mine, theirs in zip(ours, plain, strict=True) if theirs > 0])


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")


def machine() -> dict[str, Any]:
    """What a figure was measured on."""
    import platform
    from importlib.metadata import version

    return {
        "machine": platform.machine(),
        "processor": platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def _without_nan(record: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in record.items()}


def _record(results: CaptureResults, planned: int) -> dict[str, Any]:
    settings = {
        name: value for name, value in asdict(results.config).items() if name not in ("out", "resume", "overwrite")
    }
    return {
        "config": settings,
        "machine": results.machine,
        "cells": [_without_nan(asdict(cell)) for cell in results.cells],
        "passes": results.passes if len(results.cells) == planned else None,
    }


def _write(results: CaptureResults, out: Path, planned: int) -> None:
    write_bytes(out, f"{json.dumps(_record(results, planned), indent=2)}\n".encode())


def _read_cell(row: dict[str, Any]) -> CaptureCell:
    words = ("error", "passes")
    given: dict[str, Any] = {name: math.nan if v is None and name not in words else v for name, v in row.items()}
    return CaptureCell(**given)


def _measured_before(config: CaptureBench) -> list[CaptureCell]:
    """The whole cells that an interrupted bench left; failed ones are measured again."""
    if config.out is None or not config.out.is_file():
        raise InputError(f"there is nothing to resume at {config.out}: give --out of the bench that was interrupted")
    try:
        before = json.loads(config.out.read_text())
        cells = [_read_cell(row) for row in before["cells"] if row["error"] is None]
        same = {name: before[name] for name in ("config", "machine")}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{config.out} is no result of bench capture ({error}): choose another --out") from None
    ours = json.loads(json.dumps(_record(CaptureResults(config, (), machine()), 0)))
    for name, found in same.items():
        differing = [key for key in ours[name] if not isinstance(found, dict) or found.get(key) != ours[name][key]]
        if differing:
            raise InputError(
                f"{config.out} was measured with another {name} ({', '.join(differing)}): start again with --overwrite"
            )
    return cells
