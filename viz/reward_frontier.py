"""The figure of accuracy at home against accuracy elsewhere. Imported through ``viz.rewards``."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from viz import shapes, style
from viz.paper_parts import add_legend, label_axes, new_figure


def home_and_elsewhere(
    methods: Sequence[str],
    home: npt.ArrayLike,
    elsewhere: npt.ArrayLike,
    frontier: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Draw one point a method: i.i.d. accuracy across, o.o.d. accuracy upwards, with the interval of each.

    Args:
        methods: names.
        home: (methods, 3) value, low and high of the accuracy where the shortcut holds.
        elsewhere: (methods, 3) of the accuracy where it does not.
        frontier: accuracies at home and elsewhere that no weight on image and cue exceeds, drawn as a line.
        title: above the figure.

    Raises:
        FigureError: if shapes do not match, a value is not finite, or an interval does not hold its value.
    """
    across, up = _intervals(methods, home, "home"), _intervals(methods, elsewhere, "elsewhere")
    figure, axes = new_figure(1.4 * style.COLUMN_WIDTH, 3.4, title)
    if frontier is not None:
        line = [shapes.numbers(side, "frontier") for side in frontier]
        if line[0].shape != line[1].shape or line[0].ndim != 1:
            raise shapes.FigureError(f"the frontier's sides must match: {line[0].shape}, {line[1].shape}")
        axes.plot(*line, color=style.CHANCE_COLOR, linestyle="--", linewidth=0.9, label="two-cue frontier", zorder=1)
    for place, name in enumerate(methods):
        _point(axes, across[place], up[place], place, name)
    axes.grid(color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)
    _keep_to(axes, across, up)
    label_axes(axes, "accuracy where the shortcut holds (i.i.d.)", "accuracy where it does not (o.o.d.)")
    add_legend(figure, axes)
    return figure


def _point(axes: Axes, across: shapes.FloatArray, up: shapes.FloatArray, place: int, name: str) -> None:
    color = style.series_color(place)
    again = place >= len(style.SERIES_COLORS)
    axes.errorbar(
        across[0], up[0],
        xerr=[[across[0] - across[1]], [across[2] - across[0]]], yerr=[[up[0] - up[1]], [up[2] - up[0]]],
        color=color, marker=style.PAPER_MARKERS[place % len(style.PAPER_MARKERS)], markersize=5,
        markerfacecolor="white" if again else color, linestyle="none", elinewidth=0.7, label=name, zorder=2,
    )  # fmt: skip


def _keep_to(axes: Axes, across: shapes.FloatArray, up: shapes.FloatArray) -> None:
    """Keep the axes to the points: a frontier goes on beyond them."""
    for ends, limit in ((across, axes.set_xlim), (up, axes.set_ylim)):
        margin = 0.06 * (ends.max() - ends.min()) + 0.005
        limit(ends.min() - margin, min(ends.max() + margin, 1.005))


def _intervals(methods: Sequence[str], values: npt.ArrayLike, name: str) -> shapes.FloatArray:
    found = shapes.numbers(values, name)
    if found.shape != (len(methods), 3) or not len(methods):
        raise shapes.FigureError(f"{name} must be (methods, 3) for {len(methods)} methods, got {found.shape}")
    if not np.isfinite(found).all() or (found[:, 0] < found[:, 1]).any() or (found[:, 0] > found[:, 2]).any():
        raise shapes.FigureError(f"{name} must be finite values within their low and high ends")
    return found
