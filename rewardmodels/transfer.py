"""Transfer between environments: train on one, test on all; what holds at home (i.i.d.) and elsewhere (o.o.d.).

The unit is the training seed: intervals say what another seed would give on the same test pairs. Imports no torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.clustering import FloatArray
from probes.estimates import Estimate, mean

Bounds = tuple[float, float]


@dataclass(frozen=True)
class TransferMatrix:
    """A number for every pair of training and test environment, over seeds."""

    environments: tuple[str, ...]
    """Rows are where a model was trained, columns where it was tested, both in this order."""
    cells: tuple[tuple[Estimate, ...], ...]
    """``cells[train][test]``; ``n`` is the seeds."""
    iid: Estimate
    """Mean over the diagonal."""
    ood: Estimate
    """Mean over the cells off the diagonal."""
    gap: Estimate
    """``iid`` minus ``ood``, paired by seed."""

    def __iter__(self) -> Iterator[tuple[str, str, Estimate]]:
        """Yield (train, test, estimate) row by row."""
        for train, row in zip(self.environments, self.cells, strict=True):
            for test, cell in zip(self.environments, row, strict=True):
                yield train, test, cell

    def values(self) -> FloatArray:
        """Return the (train, test) array of point estimates."""
        return np.array([[cell.value for cell in row] for row in self.cells])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "environments": list(self.environments),
            "cells": [[cell.to_dict() for cell in row] for row in self.cells],
            **{name: getattr(self, name).to_dict() for name in ("iid", "ood", "gap")},
        }


def transfer_matrix(
    values: npt.ArrayLike,
    environments: Sequence[str],
    *,
    bounds: Bounds = (0.0, 1.0),
    level: float = 0.95,
) -> TransferMatrix:
    """Estimate every cell of a transfer matrix, its mean i.i.d. and its mean o.o.d., with intervals over seeds.

    Args:
        values: (seeds, train, test) accuracies, or another number for each cell of each seed.
        environments: names, in the order of both axes.
        bounds: what a value cannot leave; (0, 1) suits accuracies.
        level: confidence level in (0, 1).

    Returns:
        The matrix; with one seed every interval is the bounds.

    Raises:
        ValueError: if shapes or names do not fit, or a cell is missing or outside the bounds.

    >>> found = transfer_matrix([[[0.9, 0.6], [0.5, 0.8]]], ["a", "b"])
    >>> round(found.iid.value, 2), round(found.ood.value, 2)
    (0.85, 0.55)
    """
    table = _checked(values, environments, bounds)
    low, high = bounds
    iid, ood = _by_seed(table)
    return TransferMatrix(
        environments=tuple(environments),
        cells=tuple(
            tuple(mean(table[:, train, test], None, level, bounds) for test in range(len(environments)))
            for train in range(len(environments))
        ),
        iid=mean(iid, None, level, bounds),
        ood=mean(ood, None, level, bounds),
        gap=mean(iid - ood, None, level, (low - high, high - low)),
    )


def transfer_difference(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    environments: Sequence[str],
    *,
    bounds: Bounds = (0.0, 1.0),
    level: float = 0.95,
) -> TransferMatrix:
    """Estimate one method's transfer minus another's, paired by seed: cells, i.i.d., o.o.d. and gap are differences.

    Args:
        first: (seeds, train, test) values of the first method.
        second: (seeds, train, test) values of the second method, with the same seeds in the same order.
        environments: names, in the order of both axes.
        bounds: what a value of either method cannot leave.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if the two have different shapes, or as :func:`transfer_matrix` does.

    >>> found = transfer_difference([[[0.9, 0.7], [0.7, 0.9]]], [[[0.9, 0.6], [0.6, 0.9]]], ["a", "b"])
    >>> round(found.ood.value, 3)
    0.1
    """
    one, other = _checked(first, environments, bounds), _checked(second, environments, bounds)
    if one.shape != other.shape:
        raise ValueError(f"a paired difference needs the same seeds, got {one.shape[0]} and {other.shape[0]}")
    width = bounds[1] - bounds[0]
    return transfer_matrix(one - other, environments, bounds=(-width, width), level=level)


def _by_seed(table: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(seeds,) mean of the diagonal and of the rest."""
    diagonal = np.eye(table.shape[1], dtype=bool)
    return table[:, diagonal].mean(1), table[:, ~diagonal].mean(1)


def _checked(values: npt.ArrayLike, environments: Sequence[str], bounds: Bounds) -> FloatArray:
    table, count = np.asarray(values, dtype=np.float64), len(environments)
    if count < 2 or len(set(environments)) != count:
        raise ValueError(f"transfer needs at least two environments of different names, got {list(environments)}")
    if table.ndim != 3 or table.shape[0] == 0 or table.shape[1:] != (count, count):
        raise ValueError(f"values must have the shape (seeds, {count}, {count}), got {table.shape}")
    if not np.isfinite(table).all():
        seed, train, test = np.argwhere(~np.isfinite(table))[0].tolist()
        where = f"trained on {environments[train]!r}, tested on {environments[test]!r}, seed number {seed}"
        raise ValueError(f"the cell {where}, is missing; run it, or leave the seed out of every cell")
    if table.min() < bounds[0] - 1e-9 or table.max() > bounds[1] + 1e-9:
        raise ValueError(f"values must lie in [{bounds[0]:g}, {bounds[1]:g}], got {table.min():g} to {table.max():g}")
    return table
