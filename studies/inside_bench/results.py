"""What the inside bench found: cells, what is equal to the full computation, and the JSON file that holds them.

Knows nothing of processes, forwards or tables. No torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from probes.estimates import Estimate
from probes.estimates import median as median_with_interval
from probes.files import read_json, without_nan, write_json
from studies.bench_cells import PairedCell, all_pass, first_error, none_missed, paired_numbers
from studies.bench_child import config_from
from studies.bench_process import Run
from studies.bench_results import (
    cells_before,
    kept_cells,
    pairwise,
    refusing_others,
    settings_of,
    this_machine,
    with_nan,
)
from studies.inside_bench.config import (
    DIFFERENCE_BAR,
    WRONG_ATTENTION,
    WRONG_ROUTING,
    CellKey,
    InsideBench,
    bars,
    plan,
)

__all__ = [
    "Equality",
    "InsideCell",
    "InsideResults",
    "make_cell",
    "measured_before",
    "read_results",
    "write_results",
]


@dataclass(frozen=True)
class Equality:
    """What is recorded beside the full computation of the same prompt.

    Args:
        question: "hidden attention" or "routing".
        model: The decoder.
        length: Tokens.
        difference: Largest difference of a recorded number from the full computation, over the largest number of its
            layer and form.
        own_difference: The same between the full computation, or what was recorded, and what the layers themselves
            used: of hidden attention the scan's output, of routing the weights that the experts were handed.
        control: What a wrong formula gives in place of the full computation: of hidden attention without the time step
            the least `difference` of any layer and form; of routing by logits alone the share of equal choices.
        equal: Share of tokens and layers whose choice is equal, all experts of it; None of hidden attention.
        error: Why the check could not be made.
    """

    question: str
    model: str
    length: int
    difference: float = float("nan")
    own_difference: float = float("nan")
    control: float = float("nan")
    equal: float | None = None
    error: str | None = None

    @property
    def passes(self) -> bool:
        """Whether both differences are within the bar, every choice is equal, and the wrong formula shows."""
        near = self.difference <= DIFFERENCE_BAR and self.own_difference <= DIFFERENCE_BAR
        if self.question == "routing":
            return self.error is None and near and self.equal == 1.0 and self.control < WRONG_ROUTING
        return self.error is None and near and self.control > WRONG_ATTENTION

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the bar and whether it holds."""
        record: dict[str, Any] = without_nan({**asdict(self), "bar": DIFFERENCE_BAR, "passes": self.passes})
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Equality":
        """Undo `to_dict`."""
        numbers = with_nan(record, words=("equal", "error"))
        return cls(**{name: value for name, value in numbers.items() if name not in ("bar", "passes")})


@dataclass(frozen=True, kw_only=True)
class InsideCell(PairedCell):
    """What is recorded at one length, beside the plain forward; the kind is a name of `KINDS`.

    Args:
        length: Tokens.
        memory: Peak memory of the process over the plain one's: median over pairs of processes, with its interval.
    """

    length: int
    memory: Estimate

    @property
    def key(self) -> CellKey:
        """Which cell of the plan this is."""
        return CellKey(self.kind, self.length)


@dataclass(frozen=True)
class InsideResults:
    """Every cell and check, with the configuration and the machine that they were measured on."""

    config: InsideBench
    equality: tuple[Equality, ...] = ()
    cells: tuple[InsideCell, ...] = ()
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Whether all is equal, no cell misses a bar, and none failed but by memory."""
        return all_pass(self.cells) and all(check.passes for check in self.equality)


def make_cell(key: CellKey, ours: Sequence[Run], plain: Sequence[Run]) -> InsideCell:
    """A cell from its own processes and those of its plain forward."""
    error = first_error(ours, plain, "plain forward")
    numbers = paired_numbers(ours, ours, plain)
    ran = [pair for pair in zip(ours, plain, strict=False) if not any(run.error for run in pair)]
    memory = median_with_interval(pairwise([own.peak for own, _ in ran], [other.peak for _, other in ran]))
    bar = bars(key)
    return InsideCell(
        **numbers,
        kind=key.kind,
        length=key.length,
        memory=memory,
        error=error,
        passes=none_missed([(numbers["time"], bar.time), (memory, bar.memory)], error),
    )


def write_results(results: InsideResults, out: Path) -> None:
    """Write the results as JSON, whole or not at all; `passes` stays null until every planned cell is there."""
    whole = set(plan(results.config)) <= {cell.key for cell in results.cells}
    record = {
        "config": settings_of(results.config),
        "machine": results.machine,
        "equality": [check.to_dict() for check in results.equality],
        "cells": [cell.to_dict() for cell in results.cells],
        "passes": results.passes if whole else None,
    }
    write_json(out, record)


def read_results(path: Path) -> InsideResults:
    """Read what `write_results` wrote.

    Raises:
        InputError: If the file is no result of this bench.
    """
    with refusing_others("bench inside", path):
        found = read_json(path)
        cells = tuple(InsideCell.from_dict(row) for row in found["cells"])
        equality = tuple(Equality.from_dict(row) for row in found["equality"])
        return InsideResults(config_from(InsideBench, found["config"]), equality, cells, dict(found["machine"]))


def measured_before(config: InsideBench) -> list[InsideCell]:
    """The cells that an interrupted bench left; those that failed for another reason than memory are left out.

    Raises:
        InputError: As `cells_before`, or if the file holds other cells.
    """
    rows = cells_before("bench inside", config.out, settings_of(config), this_machine())
    return kept_cells("bench inside", config.out, rows, InsideCell.from_dict)
