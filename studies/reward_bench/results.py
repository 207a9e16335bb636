"""What the reward bench found: cells, their bars, and the JSON file that holds them.

Knows nothing of processes, trainers or tables. No torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probes.estimates import Estimate
from probes.files import read_json, write_json
from studies.bench_cells import PairedCell, all_pass, first_error, none_missed, paired_numbers
from studies.bench_child import config_from
from studies.bench_process import Run
from studies.bench_results import (
    cells_before,
    kept_cells,
    quotient,
    refusing_others,
    settings_of,
    this_machine,
)
from studies.reward_bench.config import KINDS, RewardBench

__all__ = [
    "RewardCell",
    "RewardResults",
    "bench_machine",
    "make_cell",
    "measured_before",
    "read_results",
    "write_results",
]

_APART = ("kinds",)
"""Options that a bench may go on without: further comparisons."""


@dataclass(frozen=True)
class RewardCell(PairedCell):
    """A way to train beside another: steps of training and processes; the kind is a name of `KINDS`."""

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
        """Whether no cell misses a bar, and none failed but by memory."""
        return all_pass(self.cells)


def make_cell(kind: str, timed: Run, ours: Sequence[Run], plain: Sequence[Run]) -> RewardCell:
    """A cell.

    Args:
        kind: The comparison.
        timed: The process in which both took turns.
        ours: Processes that trained this way, for memory.
        plain: Those that trained the other way.
    """
    error = first_error((*ours, timed), plain, KINDS[kind].baseline)
    numbers = paired_numbers([timed], ours, plain)
    bars = [(numbers["time"], KINDS[kind].time_bar), (numbers["peak_ratio"], KINDS[kind].memory_bar)]
    return RewardCell(kind=kind, error=error, passes=none_missed(bars, error), **numbers)


def bench_machine() -> dict[str, Any]:
    """What this bench is measured on, the libraries that train included."""
    return this_machine(("torch", "transformers", "trl", "peft"))


def write_results(results: RewardResults, out: Path) -> None:
    """Write the results as JSON, whole or not at all; `passes` stays null until every planned cell is there."""
    whole = set(results.config.kinds) <= {cell.kind for cell in results.cells}
    record = {
        "config": settings_of(results.config, _APART),
        "machine": results.machine,
        "cells": [cell.to_dict() for cell in results.cells],
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
        cells = tuple(RewardCell.from_dict(row) for row in found["cells"])
        settings = {**found["config"], "kinds": [cell.kind for cell in cells]}
        return RewardResults(config_from(RewardBench, settings), cells, dict(found["machine"]))


def measured_before(config: RewardBench) -> list[RewardCell]:
    """The cells that an interrupted bench left; those that failed and are asked for again are left out.

    Raises:
        InputError: As `cells_before`, or if the file holds other cells.
    """
    rows = cells_before("bench reward", config.out, settings_of(config, _APART), bench_machine())
    return kept_cells("bench reward", config.out, rows, RewardCell.from_dict, lambda cell: cell.kind in config.kinds)
