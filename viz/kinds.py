"""What figures by kind of layer are drawn from: series that each belong to one kind, and what every layer is made of.

Knows nothing of where the arrays come from, nor of a plotting library.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from viz import shapes, style

KIND_COLORS = {
    "attention": "#0072B2",
    "state space": "#D55E00",
    "linear attention": "#009E73",
    "convolution": "#CC79A7",
    "mixture of experts": "#E69F00",
    "mlp": "#56B4E9",
}
"""A colour of its own for every kind of part that a decoder layer is known to have, the same in every figure."""


_BESIDE = 0.15
"""How far series of one kind stand apart, in layers, so that none hides another."""


@dataclass(frozen=True)
class KindCurves:
    """Named series over all layers of a decoder, and the kinds of its layers' parts."""

    curves: shapes.Curves
    """The series over the true indices of all layers; NaN in layers that a series does not have."""
    kinds: tuple[str, ...]
    """The kind of each series."""
    styles: tuple[int, ...]
    """How many series of the same kind stand before each: those of one kind share its colour, and no marker."""
    rows: tuple[str, ...]
    """Every kind of part that a layer has, in the order in which layers name them."""
    places: tuple[tuple[int, ...], ...]
    """For each of `rows`, the true indices of the layers that have it."""

    def across(self, series: int) -> shapes.FloatArray:
        """Where the points of a series stand: at their layers, a little to the right of those of its kind before it."""
        return self.curves.x + _BESIDE * self.styles[series]


def kind_curves(
    layers: Sequence[int],
    value: npt.ArrayLike,
    low: npt.ArrayLike | None,
    high: npt.ArrayLike | None,
    chance: npt.ArrayLike | None,
    labels: Sequence[str] | None,
    kinds: Sequence[str],
    parts: Sequence[Sequence[str]],
) -> KindCurves:
    """Check series by kind over all layers.

    Raises:
        FigureError: if shapes do not match, nothing is finite, a kind is not named for each series or parts for each
            layer, or a series has a value in a layer without its kind.
    """
    drawn = shapes.curves(layers, value, low, high, chance, labels)
    if len(kinds) != len(drawn.value):
        raise shapes.FigureError(f"kinds must name the kind of each of the {len(drawn.value)} series, got {kinds!r}")
    if len(parts) != drawn.x.size:
        raise shapes.FigureError(f"parts must be given for each of the {drawn.x.size} layers, got {len(parts)}")
    for kind, values, label in zip(kinds, drawn.value, drawn.labels, strict=True):
        for place in np.flatnonzero(np.isfinite(values)).tolist():
            if kind not in parts[place]:
                raise shapes.FigureError(
                    f"the series {label!r} of {kind} has a value in layer {layers[place]}, which is made of "
                    f"{', '.join(parts[place]) or 'nothing known'}"
                )
    rows = tuple(sorted(dict.fromkeys(part for each in parts for part in each), key=_rank))
    places = tuple(tuple(layer for layer, each in zip(layers, parts, strict=True) if row in each) for row in rows)
    styles = tuple(list(kinds[:index]).count(kind) for index, kind in enumerate(kinds))
    return KindCurves(drawn, tuple(kinds), styles, rows, places)


def kind_color(kind: str) -> str:
    """The colour of a kind; black for one that is not known.

    >>> kind_color("state space"), kind_color("something new")
    ('#D55E00', '#000000')
    """
    return KIND_COLORS.get(kind, style.SERIES_COLORS[-1])


def _rank(kind: str) -> int:
    known = list(KIND_COLORS)
    return known.index(kind) if kind in known else len(known)
