"""Check and shape the arrays of a cost figure, for paper and screen. Knows nothing of a plotting library."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from viz.shapes import FigureError, FloatArray, numbers

__all__ = ["PANELS", "Costs", "costs_of", "length_name"]

PANELS = ("time over the plain forward's", "peak memory over the plain forward's")


class Costs(NamedTuple):
    """Ratios to draw.

    Args:
        lengths: (points,), increasing.
        panels: Time and memory, each (series, points); NaN where nothing was measured.
        foreseen: (series, points): least ratio of memory where a process ran out of it, NaN elsewhere.
        labels: One name for each series.
    """

    lengths: FloatArray
    panels: tuple[FloatArray, FloatArray]
    foreseen: FloatArray
    labels: tuple[str, ...]


def costs_of(
    lengths: npt.ArrayLike,
    time: npt.ArrayLike,
    memory: npt.ArrayLike,
    labels: Sequence[str],
    foreseen: npt.ArrayLike | None,
) -> Costs:
    """Check the arrays of a cost figure.

    Raises:
        FigureError: if shapes do not match, lengths do not increase, a ratio is not positive, or nothing is finite.
    """
    points = numbers(lengths, "lengths")
    if points.ndim != 1 or points.size == 0 or points.min() <= 0 or (np.diff(points) <= 0).any():
        raise FigureError(f"lengths must be positive numbers that increase, got {lengths!r}")
    shape = (len(labels), points.size)
    given = {"time": numbers(time, "time"), "memory": numbers(memory, "memory")}
    given["foreseen"] = np.full(shape, np.nan) if foreseen is None else numbers(foreseen, "foreseen")
    for name, table in given.items():
        if table.shape != shape:
            raise FigureError(f"{name} must be (series, lengths) = {shape}, got the shape {table.shape}")
        if (table <= 0).any():
            raise FigureError(f"{name} must be positive: it is drawn on a logarithmic axis")
    if not np.isfinite(given["time"]).any() or not np.isfinite(given["memory"]).any():
        raise FigureError("time or memory holds no finite number: there is nothing to draw")
    return Costs(points, (given["time"], given["memory"]), given["foreseen"], tuple(labels))


def length_name(length: float) -> str:
    """Write a number of tokens shortly.

    >>> [length_name(n) for n in (1024, 16384, 1000)]
    ['1k', '16k', '1000']
    """
    return f"{length / 1024:g}k" if length % 1024 == 0 else f"{length:g}"
