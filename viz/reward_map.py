"""The figure of what methods change, place by place of a study's map. Imported through ``viz.rewards``."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from viz import shapes, style
from viz.paper_parts import add_colorbar, add_title, dress, label_axes

_MOST_COLUMNS = 9
"""Of all panels in a row together."""


def gain_map(
    methods: Sequence[str],
    rows: Sequence[str],
    columns: Sequence[str],
    elsewhere: npt.ArrayLike,
    home: npt.ArrayLike,
    *,
    across: str = "",
    title: str = "",
) -> Figure:
    """Draw a table for each method: colour and number the change of o.o.d. accuracy, and below it the i.i.d. change.

    Args:
        methods: names, one panel each, as many in a row as fit.
        rows: names of places downwards, such as how strong the shortcut is.
        columns: names of places across, such as how long was trained.
        elsewhere: (methods, rows, columns, 3) value, low and high of the change of o.o.d. accuracy; shares. NaN where
            nothing was run: those cells stay grey and say nothing; NaN ends where one run gives no interval.
        home: (methods, rows, columns) change of i.i.d. accuracy.
        across: name of the horizontal axis.
        title: above the figure.

    Raises:
        FigureError: if shapes do not match, an interval does not hold its value, or nothing is finite.
    """
    shape = (len(methods), len(rows), len(columns))
    gains, losses = shapes.numbers(elsewhere, "elsewhere"), shapes.numbers(home, "home")
    _check(gains, losses, shape)
    reach = float(np.nanmax(np.abs(gains[..., 0]))) or 1.0
    wide = min(len(methods), max(1, _MOST_COLUMNS // len(columns)))
    high = -(-len(methods) // wide)
    size = (2.2 + 0.66 * wide * len(columns), 0.5 + high * (0.75 + 0.5 * len(rows)))
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(high, wide, squeeze=False, sharey=True).flat)
    for axes in panels[len(methods) :]:
        axes.remove()
    panels = panels[: len(methods)]
    for axes, name, gain, loss in zip(panels, methods, gains, losses, strict=True):
        mesh = _panel(axes, gain, loss, reach)
        axes.set_title(name, fontsize=style.FONT_SIZE)
        axes.set_xticks(range(len(columns)), columns)
        label_axes(axes, across, "")
    panels[0].set_yticks(range(len(rows)), rows)
    add_colorbar(figure, mesh, panels, "o.o.d. points gained; below: i.i.d.")
    add_title(figure, title)
    return figure


def _check(gains: shapes.FloatArray, losses: shapes.FloatArray, shape: tuple[int, int, int]) -> None:
    if gains.shape != (*shape, 3) or losses.shape != shape or not np.prod(shape):
        raise shapes.FigureError(f"elsewhere must be {(*shape, 3)} and home {shape}, got {gains.shape}, {losses.shape}")
    run = np.isfinite(gains[..., 0])
    if not run.any():
        raise shapes.FigureError("elsewhere holds no finite number: there is nothing to draw")
    ends = np.isfinite(gains[run][:, 1:])
    if (ends[:, 0] != ends[:, 1]).any() or not np.isfinite(losses[run]).all():
        raise shapes.FigureError("a place that was run needs the change at home and elsewhere, and both ends or none")
    if (gains[run][:, 1] > gains[run][:, 0]).any() or (gains[run][:, 2] < gains[run][:, 0]).any():
        raise shapes.FigureError("elsewhere must lie within its low and high ends")


def _panel(axes: Axes, gain: shapes.FloatArray, loss: shapes.FloatArray, reach: float) -> ScalarMappable:
    dress(axes)
    rows, columns = loss.shape
    edges = np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5
    points = np.ma.masked_invalid(100 * gain[..., 0])
    mesh = axes.pcolormesh(*edges, points, cmap=style.GAIN_MAP, vmin=-100 * reach, vmax=100 * reach)
    mesh.set(edgecolor="white", linewidth=0.8)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), facecolor=style.EMPTY_COLOR)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for row, column in np.argwhere(np.isfinite(gain[..., 0])):
        _write(axes, row, column, gain[row, column], float(loss[row, column]), reach)
    return mesh


def _write(axes: Axes, row: int, column: int, gain: shapes.FloatArray, loss: float, reach: float) -> None:
    value, low, high = 100 * gain
    red, green, blue, _ = colormaps[style.GAIN_MAP](0.5 + gain[0] / (2 * reach))
    ink = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "black"
    lines = (
        (-0.24, f"{_unsigned_zero(value):+.1f}", style.FONT_SIZE),
        (0.05, f"[{low:.1f}, {high:.1f}]" if np.isfinite(low) else "one run", style.SMALL_FONT_SIZE - 2),
        (0.3, f"{_unsigned_zero(100 * loss):+.1f}", style.SMALL_FONT_SIZE - 1),
    )
    for lift, text, points in lines:
        axes.text(column, row + lift, text, ha="center", va="center", fontsize=points, color=ink)


def _unsigned_zero(points: float) -> float:
    """A change that rounds to nothing, without the sign that would make it look like a loss."""
    return round(points, 1) + 0.0
