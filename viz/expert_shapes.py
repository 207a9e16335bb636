"""Check the arrays that figures of experts are drawn from. Knows nothing of where they come from, nor of a library."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from viz.shapes import FigureError, FloatArray, heat, numbers

MOST_DOUBLINGS = 3.0
"""Pairs called eight times as often as expected, or an eighth as often, end the scale: beyond are those never seen."""
_MOST_RULED = 32
_PANELS_ACROSS = 3


class Loads(NamedTuple):
    """Loads to draw side by side."""

    load: FloatArray
    """(layers, experts)."""
    difference: FloatArray | None
    """(layers, experts)."""
    layers: list[str]


class Gaps(NamedTuple):
    """Series by layer, each above a level of its own that chance gives."""

    layers: FloatArray
    value: FloatArray
    """(series, layers)."""
    chance: FloatArray
    """(series, layers)."""
    labels: tuple[str, ...]


class Course(NamedTuple):
    """Something by layer along the points of a training run."""

    points: list[str]
    value: FloatArray
    """(points, layers, 3): value, low, high."""
    floors: FloatArray | None
    """(points, layers)."""
    layers: list[str]


class Effects(NamedTuple):
    """Effects of single experts, and of the shared ones of a layer."""

    value: FloatArray
    """(layers, experts)."""
    shared: FloatArray | None
    """(layers, 3): value, low, high; NaN where a layer has none. None where no layer has any."""
    layers: list[str]


class Pairs(NamedTuple):
    """How much oftener than by chance experts are called together, in some layers."""

    lift: FloatArray
    """(layers drawn, experts, experts) log2 of the ratio, no further from 0 than `reach`; NaN stays empty."""
    reach: float
    """Where the scale ends on either side of 0."""
    layers: list[str]
    """Of those drawn."""
    label: str
    """Name of the scale, which says where it was cut."""
    ruled: bool
    """Whether there is room for lines between cells."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of panels, one for each layer, the last row perhaps not full."""
        across = min(_PANELS_ACROSS, len(self.lift))
        return -(-len(self.lift) // across), across


def loads(load: npt.ArrayLike, layers: Sequence[int], difference: npt.ArrayLike | None) -> Loads:
    """Check loads of layers and experts.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    table = heat(load, "load")
    names = _names(layers, len(table), "load")
    beside = None if difference is None else heat(difference, "difference")
    if beside is not None and beside.shape != table.shape:
        raise FigureError(f"difference must have the shape of load, {table.shape}; got {beside.shape}")
    return Loads(table, beside, names)


def gaps(layers: Sequence[int], value: npt.ArrayLike, chance: npt.ArrayLike, labels: Sequence[str]) -> Gaps:
    """Check series by layer with their own levels of chance.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    table, level = heat(np.atleast_2d(numbers(value, "value")), "value"), np.atleast_2d(numbers(chance, "chance"))
    if level.shape != table.shape or table.shape[1] != len(layers) or len(labels) != len(table):
        raise FigureError(
            f"value and chance are (series, layers) for {len(labels)} labels and {len(layers)} layers, got the shapes "
            f"{table.shape} and {level.shape}"
        )
    return Gaps(numbers(list(layers), "layers"), table, level, tuple(labels))


def course(points: Sequence[str], value: npt.ArrayLike, layers: Sequence[int], floors: npt.ArrayLike | None) -> Course:
    """Check a course of training.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    table = numbers(value, "value")
    if table.shape != (len(points), len(layers), 3) or not table.size:
        raise FigureError(
            f"value is (points, layers, 3) for {len(points)} points and {len(layers)} layers, got the shape "
            f"{table.shape}"
        )
    if not np.isfinite(table[..., 0]).any():
        raise FigureError("value holds no finite number: there is nothing to draw")
    lowest = None if floors is None else numbers(floors, "floors")
    if lowest is not None and lowest.shape != table.shape[:2]:
        raise FigureError(f"floors are (points, layers), {table.shape[:2]}; got {lowest.shape}")
    return Course(list(points), table, lowest, [str(layer) for layer in layers])


def effects(value: npt.ArrayLike, layers: Sequence[int], shared: npt.ArrayLike | None) -> Effects:
    """Check effects of experts.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    table = heat(value, "effects")
    names = _names(layers, len(table), "effects")
    beside = None if shared is None else numbers(shared, "shared")
    if beside is not None and beside.shape != (len(table), 3):
        raise FigureError(f"effects of shared experts are (layers, 3), ({len(table)}, 3); got {beside.shape}")
    if beside is not None and not np.isfinite(beside[:, 0]).any():
        beside = None
    return Effects(table, beside, names)


def pairs(ratio: npt.ArrayLike, layers: Sequence[int], most: int) -> Pairs:
    """Check ratios of pairs of experts, and choose the layers that are drawn.

    Raises:
        FigureError: if shapes do not match, or nothing is finite and above zero.
    """
    table = numbers(ratio, "ratio")
    if table.ndim != 3 or table.shape[1] != table.shape[2] or not table.size:
        raise FigureError(f"ratio is (layers, experts, experts), got the shape {table.shape}")
    names = _names(layers, len(table), "ratio")
    if most < 1:
        raise FigureError(f"at least one layer is drawn, got {most}")
    if not (np.isfinite(table) & (table > 0)).any():
        raise FigureError("ratio holds no finite number above zero: there is nothing to draw")
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = np.log2(table)
    chosen = evenly(len(table), most)
    lift = np.clip(lift, -MOST_DOUBLINGS, MOST_DOUBLINGS)[chosen]
    end = reach(lift) if np.isfinite(lift).any() else 1.0
    cut = f" (cut at ±{end:g})" if end == MOST_DOUBLINGS else ""
    label = f"log₂ of observed over expected{cut}"
    return Pairs(lift, end, [names[at] for at in chosen], label, table.shape[1] <= _MOST_RULED)


def evenly(count: int, most: int) -> list[int]:
    """Places of at most so many, evenly spread from the first to the last.

    >>> evenly(9, 3), evenly(2, 6)
    ([0, 4, 8], [0, 1])
    """
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most))})


def reach(table: FloatArray) -> float:
    """How far a scale around zero goes: to the largest size there is, and never nowhere."""
    largest = float(np.nanmax(np.abs(table)))
    return largest if largest > 0 else 1.0


def ticks(count: int, most: int) -> list[int]:
    """Places of at most so many ticks, evenly apart.

    >>> ticks(5, 3)
    [0, 2, 4]
    """
    return list(range(0, count, max(1, -(-count // most))))


def _names(layers: Sequence[int], count: int, name: str) -> list[str]:
    if len(layers) != count:
        raise FigureError(f"{name} has {count} layers, but {len(layers)} layer numbers were given")
    return [str(layer) for layer in layers]
