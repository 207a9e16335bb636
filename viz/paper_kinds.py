"""The paper figure of an accuracy by layer, coloured by kind of layer. Imported through ``viz.papers``."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from viz import style
from viz.kinds import KindCurves, kind_color, kind_curves
from viz.paper_parts import add_legend, add_title, draw_chance, dress, label_axes

EVERY_TICK = 24
"""Most layers that each get a number on the axis."""


def accuracy_by_kind(
    layers: Sequence[int],
    value: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    chance: npt.ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    *,
    kinds: Sequence[str],
    parts: Sequence[Sequence[str]],
    title: str = "",
    quantity: str = "attention accuracy",
) -> Figure:
    """Draw an accuracy by layer in the colour of the layer's kind, above a strip of what every layer is made of.

    Layers that a series does not have are gaps, which a thin line crosses: nothing is drawn, or averaged, across kinds.

    Args:
        layers: (layers,) true indices of all layers of the decoder.
        value: (series, layers), NaN in layers that a series does not have.
        low: lower interval ends, of the shape of ``value``.
        high: upper interval ends.
        chance: one level, or one for each series.
        labels: one name for each series; may be left out for a single one.
        kinds: the kind of each series, one of those in ``parts``.
        parts: for each layer, the kinds of its parts, experts and feed-forward blocks included.
        title: above the figure.
        quantity: name of the vertical axis.

    Raises:
        FigureError: if shapes do not match, nothing is finite, or a series has a value in a layer without its kind.
    """
    drawn = kind_curves(layers, value, low, high, chance, labels, kinds, parts)
    strip = 0.16 * len(drawn.rows) + 0.1
    width = style.COLUMN_WIDTH if len(layers) <= EVERY_TICK else style.PAGE_WIDTH
    figure = Figure(figsize=(width + 0.8, 2.6 + strip), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.1, strip))
    _draw_series(above, drawn)
    draw_strip(below, drawn.rows, drawn.places)
    dress(above)
    label_axes(above, "", quantity)
    label_axes(below, "layer", "")
    if len(layers) <= EVERY_TICK:
        below.set_xticks(drawn.curves.x)
    else:
        below.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    add_legend(figure, above)
    add_title(figure, title)
    return figure


def _draw_series(axes: Axes, drawn: KindCurves) -> None:
    curves = drawn.curves
    for index, (values, label) in enumerate(zip(curves.value, curves.labels, strict=True)):
        color, seen = kind_color(drawn.kinds[index]), np.isfinite(values)
        reach = None
        if curves.low is not None and curves.high is not None:
            reach = np.stack([values - curves.low[index], curves.high[index] - values])[:, seen]
        first = drawn.styles[index] == 0
        axes.errorbar(
            drawn.across(index)[seen], values[seen], yerr=reach, color=color, label=label or None, markersize=4,
            linewidth=0.8, marker=style.PAPER_MARKERS[index % len(style.PAPER_MARKERS)], elinewidth=1.1, capsize=1.8,
            linestyle=style.PAPER_DASHES[drawn.styles[index] % len(style.PAPER_DASHES)],
            markerfacecolor=color if first else "white",
        )  # fmt: skip
    draw_chance(axes, curves.chance)
    axes.set_ylim(-0.03, 1.03)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=0)


def draw_strip(axes: Axes, rows: Sequence[str], places: Sequence[Sequence[int]]) -> None:
    """One row a kind of part, a square in its colour at each layer that has it."""
    for row, (kind, own) in enumerate(zip(rows, places, strict=True)):
        # A line without points would take the layout its width.
        if own:
            axes.plot(own, [row] * len(own), "s", color=kind_color(kind), markersize=4, clip_on=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(labelsize=style.SMALL_FONT_SIZE)
    axes.tick_params(axis="y", length=0)
