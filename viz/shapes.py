"""Check the arrays that figures are drawn from, and bring them into one form for paper and screen.

Knows nothing of where the arrays come from, nor of a plotting library.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


_SAME_LEVEL = 5e-4
"""Chance levels closer than this are one line to the eye."""


class FigureError(ValueError):
    """Arrays that no figure can be drawn from."""


@dataclass(frozen=True)
class Curves:
    """Named series over one axis, with intervals where known."""

    x: FloatArray
    """(points,)"""
    value: FloatArray
    """(series, points)"""
    low: FloatArray | None
    """(series, points), or None without intervals"""
    high: FloatArray | None
    labels: tuple[str, ...]
    """One name for each series."""
    chance: tuple[float, ...]
    """Chance levels to draw: none, or the different ones among the series."""


def curves(
    x: npt.ArrayLike,
    value: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    chance: npt.ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    axis: str = "layers",
) -> Curves:
    """Check series over one axis.

    Raises:
        FigureError: if shapes do not match, nothing is finite, an interval lacks an end, or does not hold its value.
    """
    points = numbers(x, axis)
    if points.ndim != 1 or points.size == 0:
        raise FigureError(f"{axis} must be a non-empty list of numbers, got the shape {points.shape}")
    lines = np.atleast_2d(numbers(value, "value"))
    if lines.ndim != 2 or lines.shape[1] != points.size:
        raise FigureError(f"value must be (series, {axis}) with {points.size} {axis}, got the shape {lines.shape}")
    if not np.isfinite(lines).any():
        raise FigureError("value holds no finite number: there is nothing to draw")
    if (low is None) != (high is None):
        raise FigureError("an interval needs both low and high")
    ends = [None if end is None else np.atleast_2d(numbers(end, "interval")) for end in (low, high)]
    for end in ends:
        if end is not None and end.shape != lines.shape:
            raise FigureError(f"intervals must have the shape of value, {lines.shape}; got {end.shape}")
    if ends[0] is not None and ends[1] is not None and ((ends[0] > lines) | (ends[1] < lines)).any():
        raise FigureError("an interval does not hold its value: are low and high swapped?")
    names = tuple(labels) if labels is not None else ("",) if len(lines) == 1 else None
    if names is None or len(names) != len(lines):
        raise FigureError(f"labels must name each of the {len(lines)} series, got {labels!r}")
    levels = np.atleast_1d(numbers([] if chance is None else chance, "chance"))
    if levels.size > 1 and levels.size != len(lines):
        raise FigureError(f"chance is one number, or one for each of the {len(lines)} series; got {levels.size}")
    return Curves(points, lines, ends[0], ends[1], names, _different(levels))


def differences(
    metrics: Sequence[str], value: npt.ArrayLike, low: npt.ArrayLike | None, high: npt.ArrayLike | None
) -> Curves:
    """Check a single series of differences, numbered from 0 in the order of their names.

    Raises:
        FigureError: if shapes do not match, there is more than one series, or nothing is finite.
    """
    drawn = curves(np.arange(len(metrics)), value, low, high, None, None, axis="metrics")
    return replace(drawn, labels=("difference",))


def offsets(drawn: Curves, reach: float) -> FloatArray:
    """How far each series' dots stand from their point, at most `reach`, so that several lie side by side."""
    return np.linspace(-reach, reach, len(drawn.value)) if len(drawn.value) > 1 else np.zeros(1)


def _different(levels: FloatArray) -> tuple[float, ...]:
    """The finite levels in the order given, without those that would be drawn over one another."""
    kept: list[float] = []
    for level in levels[np.isfinite(levels)].tolist():
        if not any(abs(level - other) < _SAME_LEVEL for other in kept):
            kept.append(level)
    return tuple(kept)


def spread_top(spreads: FloatArray) -> float:
    """Where the axis of (points, 3) spreads ends: above the largest finite number, and at 0.1 at least."""
    finite = spreads[np.isfinite(spreads)]
    return max(0.1, 1.1 * float(finite.max(initial=0.0)))


def heat(matrix: npt.ArrayLike, name: str) -> FloatArray:
    """Check a heat map.

    Raises:
        FigureError: if it is not two-dimensional, is empty, or holds nothing finite.
    """
    table = numbers(matrix, name)
    if table.ndim != 2 or table.size == 0:
        raise FigureError(f"{name} must be a non-empty table, got the shape {table.shape}")
    if not np.isfinite(table).any():
        raise FigureError(f"{name} holds no finite number: there is nothing to draw")
    return table


def factor_table(
    factors: npt.ArrayLike, layers: Sequence[int], target: int | None, per_layer: bool
) -> tuple[FloatArray, list[int]]:
    """Check (layers, images) factors, drop padding columns of NaN, and take shares within each layer if asked.

    Raises:
        FigureError: if shapes do not match, or the target is not an image.
    """
    table = heat(factors, "factors")
    names = [int(layer) for layer in layers]
    if len(names) != len(table):
        raise FigureError(f"factors have {len(table)} layers, but {len(names)} layer numbers were given")
    table = table[:, : int(np.flatnonzero(~np.isnan(table).all(axis=0))[-1]) + 1]
    check_image(target, table.shape[1], "target")
    if per_layer:
        total = np.nansum(table, axis=1, keepdims=True)
        table = np.divide(table, total, out=np.full_like(table, np.nan), where=total > 0)
    return table, names


def pair_table(matrix: npt.ArrayLike) -> FloatArray:
    """Check an (images + 1, images + 1) table of factors.

    Raises:
        FigureError: if it is not square, or has no image.
    """
    table = heat(matrix, "the image-to-image matrix")
    if table.shape[0] != table.shape[1] or len(table) < 2:
        raise FigureError(f"an image-to-image matrix is (images + 1, images + 1), got the shape {table.shape}")
    return table


def position_curves(
    answer: npt.ArrayLike,
    attention: npt.ArrayLike,
    answer_interval: npt.ArrayLike | None,
    attention_interval: npt.ArrayLike | None,
    answer_spread: Sequence[float] | None,
    attention_spread: Sequence[float] | None,
    chance: float | None,
) -> tuple[Curves, FloatArray]:
    """Check two accuracies by target position, counted from 1, and their spreads: (2, 3) value, low, high, or (0, 3).

    Raises:
        FigureError: if shapes do not match, or only one of two intervals or spreads is given.
    """
    accuracies = numbers([answer, attention], "answer and attention")
    if accuracies.ndim != 2:
        raise FigureError(f"answer and attention are (positions,) each, got the shape {accuracies.shape}")
    low, high = _both([answer_interval, attention_interval], (accuracies.shape[1], 2), "interval")
    places = np.arange(1, accuracies.shape[1] + 1)
    names = ("answer accuracy", "attention accuracy")
    drawn = curves(places, accuracies, low, high, chance, names, axis="positions")
    if answer_spread is None and attention_spread is None:
        return drawn, np.empty((0, 3))
    if answer_spread is None or attention_spread is None:
        raise FigureError("give the spread of both accuracies, or of neither")
    spreads = numbers([answer_spread, attention_spread], "spread")
    if spreads.shape != (2, 3):
        raise FigureError(f"a spread is (value, low, high), got the shape {spreads.shape[1:]}")
    return drawn, spreads


def rule_curves(
    rules: Sequence[str],
    value: npt.ArrayLike | None,
    low: npt.ArrayLike | None,
    high: npt.ArrayLike | None,
    beside: Curves,
) -> Curves | None:
    """Check values by focus rule that stand beside the same series by layer; None without rules.

    Raises:
        FigureError: if rules come without values or the other way round, or shapes do not match.
    """
    if (value is None) != (not rules):
        raise FigureError("rules and rule_value belong together: give both, or neither")
    if value is None:
        return None
    drawn = curves(np.arange(len(rules)), value, low, high, None, beside.labels, axis="rules")
    return replace(drawn, chance=beside.chance)


def ordered(drawn: Curves) -> Curves:
    """Sort points along a positive axis.

    Raises:
        FigureError: if a point is not positive.
    """
    if not (np.isfinite(drawn.x) & (drawn.x > 0)).all():
        raise FigureError("numbers of parameters must be positive")
    return along(drawn)


def along(drawn: Curves) -> Curves:
    """Sort points along their axis."""
    order = np.argsort(drawn.x, kind="stable")
    ends = [None if end is None else end[:, order] for end in (drawn.low, drawn.high)]
    return Curves(drawn.x[order], drawn.value[:, order], ends[0], ends[1], drawn.labels, drawn.chance)


def ranked(
    names: Sequence[str],
    value: npt.ArrayLike,
    low: npt.ArrayLike | None,
    high: npt.ArrayLike | None,
    chance: npt.ArrayLike | None,
    labels: Sequence[str] | None,
) -> tuple[Curves, list[str]]:
    """Check series over names and sort these by their largest value, the largest first; names without any go last.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    drawn = curves(np.arange(len(names)), value, low, high, chance, labels, axis="names")
    best = np.where(np.isfinite(drawn.value), drawn.value, -np.inf).max(axis=0)
    order = np.argsort(-best, kind="stable")
    ends = [None if end is None else end[:, order] for end in (drawn.low, drawn.high)]
    ordered_curves = replace(drawn, value=drawn.value[:, order], low=ends[0], high=ends[1])
    return ordered_curves, [names[index] for index in order]


def head_table(
    value: npt.ArrayLike, layers: Sequence[int], chosen: Sequence[tuple[int, int]]
) -> tuple[FloatArray, list[tuple[int, int]]]:
    """Check a (layers, heads) table, and turn chosen (layer, head) pairs into (row, column).

    Raises:
        FigureError: if shapes do not match, or a chosen head is not there.
    """
    table, names = heat(value, "head values"), list(layers)
    if len(names) != len(table):
        raise FigureError(f"head values have {len(table)} layers, but {len(names)} layer numbers were given")
    places = []
    for layer, head in chosen:
        if layer not in names or not 0 <= head < table.shape[1]:
            raise FigureError(f"head {head} of layer {layer} is chosen, and not in the table")
        places.append((names.index(layer), head))
    return table, places


def color_limits(values: Sequence[FloatArray], limits: tuple[float, float] | None) -> tuple[float, float]:
    """Return one colour scale for all: the given one, or from zero (or the smallest, if negative) to the largest.

    Raises:
        FigureError: if the given limits are not increasing.
    """
    if limits is not None:
        if not limits[0] < limits[1]:
            raise FigureError(f"color limits must increase, got {limits}")
        return float(limits[0]), float(limits[1])
    flat = np.concatenate([np.ravel(part) for part in values])
    low, high = min(0.0, float(np.nanmin(flat))), float(np.nanmax(flat))
    return low, high if high > low else low + 1.0


def check_image(index: int | None, count: int, name: str) -> None:
    """Raise FigureError unless a 0-based image index (or None) is below the count."""
    if index is not None and not 0 <= index < count:
        raise FigureError(f"{name} is the 0-based index of one of the {count} images, got {index}")


def numbers(values: object, name: str) -> FloatArray:
    """Return values as floats.

    Raises:
        FigureError: if they are no numbers, or ragged.
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise FigureError(f"{name} must be an array of numbers, each row as long as the others") from None


def _both(
    intervals: Sequence[npt.ArrayLike | None], shape: tuple[int, int], name: str
) -> tuple[FloatArray | None, FloatArray | None]:
    if all(interval is None for interval in intervals):
        return None, None
    if any(interval is None for interval in intervals):
        raise FigureError(f"give the {name} of both accuracies, or of neither")
    table = [numbers(interval, name) for interval in intervals]
    if any(part.shape != shape for part in table):
        raise FigureError(f"an {name} is (positions, 2) for {shape[0]} positions, got {[part.shape for part in table]}")
    return np.stack([part[:, 0] for part in table]), np.stack([part[:, 1] for part in table])
