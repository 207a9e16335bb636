"""How an audit grows: time and peak memory over thousands of questions, and how soon the explorer shows the run.

Every cell makes its questions, audits them in a process of its own, opens the run in another, and cleans up. Knows
nothing of how an audit works.
"""

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from probes.files import write_json
from probes.inputs import InputError
from studies.bench_results import cells_before, check_out, in_order, settings_of, telling_how_to_go_on, this_machine
from studies.bench_scale_process import GENERATED, GIVEN, ScaleBench, in_process, save_model, write_questions

__all__ = ["ScaleBench", "ScaleCell", "print_scale", "run", "run_scale"]

MEGABYTE = 2**20
_APART = ("rows", "kinds", "folder")
"""Options that a bench may go on without: further cells, made elsewhere."""


@dataclass(frozen=True)
class ScaleCell:
    """One audit of the bench.

    Args:
        kind: "generated", or "given" where answers are given.
        rows: Questions.
        seconds: Wall clock of the whole audit, model loading, figures and report included.
        loaded: Resident bytes before it, libraries imported.
        peak: Resident bytes at its height.
        opened: Seconds until the explorer's Runs view has its filters, summary and first page.
        last_page: Seconds for the last page of the same list.
        open_loaded: Resident bytes before opening.
        open_peak: Resident bytes at the height of both.
        size: Bytes of the run folder.
        files: Its files, images left out.
        error: Why it failed, None when all went well.
    """

    kind: str
    rows: int
    seconds: float | None = None
    loaded: float | None = None
    peak: float | None = None
    opened: float | None = None
    last_page: float | None = None
    open_loaded: float | None = None
    open_peak: float | None = None
    size: int | None = None
    files: int | None = None
    error: str | None = None


def run(config: ScaleBench) -> int:
    """Measure and print; returns 0, or 1 if a cell failed."""
    with telling_how_to_go_on("bench scale", config):
        cells = run_scale(config)
    return 1 if any(cell.error for cell in cells) else 0


def run_scale(config: ScaleBench, show: bool = True) -> list[ScaleCell]:
    """Measure every cell, the smallest first.

    Returns:
        The cells, also written to `out` as JSON where one is given, anew after every cell. Of a bench that is gone on
        with, also the cells that it left and that are not asked for now.

    Raises:
        InputError: If there is no cell, a kind is unknown or a number below 1; if `out` or the folder is there; if
            there is nothing to resume, or it was measured with other settings.
    """
    _check(config)
    plan = [(kind, rows) for rows in sorted(config.rows) for kind in config.kinds]
    done = _measured_before(config, plan) if config.resume else {}
    cells: list[ScaleCell] = []
    for number, (kind, rows) in enumerate(plan, start=1):
        if (kind, rows) not in done:
            if show:
                print(f"cell {number} of {len(plan)}: {rows:,} questions, answers {kind}", file=sys.stderr, flush=True)
            done[kind, rows] = measure(config, kind, rows)
        cells = list(in_order(done, sorted(done, key=lambda key: (key[1], key[0]))))
        if config.out is not None:
            write_json(config.out, _record(config, cells))
    if show:
        print_scale(cells)
    return cells


def measure(config: ScaleBench, kind: str, rows: int) -> ScaleCell:
    """Measure one cell in a folder of its own, which is deleted afterwards."""
    folder = config.folder / f"{kind}-{rows}"
    if folder.exists() and not (config.resume or config.overwrite):
        raise InputError(f"{folder} is there: give --overwrite to replace it, --resume to go on, or another --folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        save_model(config, folder / "model")
        write_questions(config, rows, folder / "data")
        found = in_process(config, "audit", folder, kind)
        if "error" not in found:
            found |= in_process(config, "open", folder, kind)
            files = [path for path in (folder / "run").rglob("*") if path.is_file()]
            found["size"] = sum(path.stat().st_size for path in files)
            found["files"] = sum(path.parent.name != "images" for path in files)
        return ScaleCell(kind, rows, **found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def print_scale(cells: Sequence[ScaleCell]) -> None:
    """Print the results as a table, and what each further question costs in memory."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="An audit by its number of questions")
    for name in (
        "questions",
        "answers",
        "seconds",
        "questions/s",
        "peak MB",
        "of which loaded",
        "first page s",
        "run MB",
    ):
        table.add_column(name, justify="left" if name == "answers" else "right")
    for cell in cells:
        if cell.seconds is None or cell.peak is None or cell.loaded is None:
            continue
        table.add_row(
            f"{cell.rows:,}",
            cell.kind,
            f"{cell.seconds:.0f}",
            f"{cell.rows / cell.seconds:.0f}",
            f"{cell.peak / MEGABYTE:.0f}",
            f"{cell.loaded / MEGABYTE:.0f}",
            f"{cell.opened or float('nan'):.2f}",
            f"{(cell.size or 0) / MEGABYTE:.0f}",
        )
    console = Console()
    console.print(table)
    for cell in cells:
        if cell.error is not None:
            console.print(f"{cell.rows:,} questions, answers {cell.kind}: {cell.error}")
    for kind in dict.fromkeys(cell.kind for cell in cells):
        growth = bytes_per_row([cell for cell in cells if cell.kind == kind])
        if growth is not None:
            console.print(f"answers {kind}: {growth / 1024:.1f} kB of memory for each further question")


def bytes_per_row(cells: Sequence[ScaleCell]) -> float | None:
    """Growth of the peak from the smallest measured cell to the largest, in bytes for each question.

    >>> bytes_per_row([ScaleCell("given", 10, peak=500.0), ScaleCell("given", 110, peak=700.0)])
    2.0
    """
    peaks = {cell.rows: cell.peak for cell in cells if cell.peak is not None and cell.error is None}
    if len(peaks) < 2:
        return None
    low, high = min(peaks), max(peaks)
    return (peaks[high] - peaks[low]) / (high - low)


def _check(config: ScaleBench) -> None:
    from studies.options import refuse_below

    refuse_below(config, {"pictures": 1, "pixels": 1, "batch_size": 1, "max_new_tokens": 1, "threads": 1, "seed": 0})
    unknown = sorted(set(config.kinds) - {GENERATED, GIVEN})
    if not config.rows or min(config.rows) < 10 or not config.kinds or unknown:
        raise InputError(f"bench scale needs --rows from 10 on, and --kinds of {GENERATED} and {GIVEN}")
    if config.folder.exists() and not config.folder.is_dir():
        raise InputError(f"--folder {config.folder} is a file; give a folder")
    check_out(config)


def _record(config: ScaleBench, cells: Sequence[ScaleCell]) -> dict[str, Any]:
    return {
        "config": settings_of(config, _APART),
        "machine": this_machine(),
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
        "cells": [asdict(cell) for cell in cells],
    }


def _measured_before(config: ScaleBench, plan: Sequence[tuple[str, int]]) -> dict[tuple[str, int], ScaleCell]:
    """The cells that an interrupted bench left; failed ones that are planned again are left out."""
    rows = cells_before("bench scale", config.out, settings_of(config, _APART), this_machine())
    try:
        cells = [ScaleCell(**row) for row in rows]
    except TypeError as error:
        raise InputError(f"{config.out} is no result of bench scale ({error}): choose another --out") from None
    found = {(cell.kind, cell.rows): cell for cell in cells}
    return {key: cell for key, cell in found.items() if cell.error is None or key not in plan}
