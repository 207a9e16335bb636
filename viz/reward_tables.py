"""Figures of pair accuracies in tables: transfer, styles, and rulers. Imported through ``viz.rewards``."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from viz import shapes, style
from viz.paper_maps import draw_mesh
from viz.paper_parts import add_colorbar, add_title, draw_chance, dress, label_axes, new_figure

_COIN = 0.5
Limits = tuple[float, float]


def transfer_matrix(
    environments: Sequence[str],
    value: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    *,
    limits: Limits | None = None,
    title: str = "",
    quantity: str = "pair accuracy",
) -> Figure:
    """Draw an accuracy for every environment that was trained on, downwards, and tested on, across.

    The diagonal, trained and tested on one environment (i.i.d.), is framed.

    Args:
        environments: names, in the order of both axes.
        value: (train, test); NaN cells stay grey.
        low: lower interval ends, of the shape of ``value``, written below it.
        high: upper interval ends.
        limits: color scale; from one half, or the smallest value below it, to 1 when None.
        title: above the figure.
        quantity: name of the color bar.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    table, ends = _square(environments, value, low, high, "environments")
    figure, axes = new_figure(*_table_size(environments), title)
    scale = limits or _from_coin(table)
    _numbered(figure, axes, table, ends, scale, quantity)
    for place in range(len(table)):
        axes.add_patch(_frame(place, place, _ink(float(table[place, place]), scale)))
    _name_cells(axes, environments, "tested on", "trained on")
    return figure


def style_matrix(
    styles: Sequence[str],
    value: npt.ArrayLike,
    chosen: npt.ArrayLike,
    rejected: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    *,
    limits: Limits | None = None,
    title: str = "",
) -> Figure:
    """Draw the mean score of right and of wrong answers in each style, and how often the right one scores higher.

    Args:
        styles: names, from plain to rich.
        value: (right answer's style, wrong answer's style) accuracies.
        chosen: (styles,) mean scores of right answers, or (styles, 3) with low and high.
        rejected: the same of wrong answers.
        low: lower interval ends of ``value``.
        high: upper interval ends.
        limits: color scale of the table; from 0 to 1 when None.
        title: above the figure.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    table, ends = _square(styles, value, low, high, "styles")
    figure = Figure(figsize=(style.PAGE_WIDTH, 2.9), layout="constrained")
    means, axes = figure.subplots(1, 2, width_ratios=(1, 1.25))
    dress(means)
    for index, (name, given) in enumerate((("right answers", chosen), ("wrong answers", rejected))):
        part = shapes.numbers(given, name)
        if part.shape not in ((len(styles),), (len(styles), 3)):
            raise shapes.FigureError(f"{name} must be ({len(styles)},) or ({len(styles)}, 3), got {part.shape}")
        centre = part if part.ndim == 1 else part[:, 0]
        reach = None if part.ndim == 1 else np.stack([centre - part[:, 1], part[:, 2] - centre])
        means.errorbar(
            range(len(styles)), centre, yerr=reach, fmt=style.PAPER_MARKERS[index], ms=4.5, lw=1.3, capsize=2.5,
            linestyle=style.PAPER_DASHES[index], color=style.series_color(index), label=name,
        )  # fmt: skip
    means.set_xticks(range(len(styles)), styles)
    means.set_xlim(-0.4, len(styles) - 0.6)
    means.grid(axis="y", color="#DDDDDD", linewidth=0.5)
    means.legend(frameon=False, fontsize=style.SMALL_FONT_SIZE)
    label_axes(means, "style", "mean score")
    _numbered(figure, axes, table, ends, limits or (0.0, 1.0), "right answer scores higher")
    _name_cells(axes, styles, "wrong answer", "right answer")
    add_title(figure, title)
    return figure


def rulers(
    names: Sequence[str],
    value: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    *,
    scored: int = 1,
    title: str = "",
    quantity: str = "pair accuracy",
) -> Figure:
    """Draw accuracies as bars from the top: what is measured first, then the rulers that see no content.

    Args:
        names: of the bars.
        value: (names,)
        low: lower interval ends.
        high: upper interval ends.
        scored: how many of the first bars are what is measured; the others are rulers, hatched.
        title: above the figure.
        quantity: name of the horizontal axis.

    Raises:
        FigureError: if shapes do not match, nothing is finite, or ``scored`` is no number of bars.
    """
    drawn = shapes.curves(np.arange(len(names)), value, low, high, None, None, axis="names")
    if not 0 <= scored <= len(names):
        raise shapes.FigureError(f"scored is {scored}, and there are {len(names)} bars")
    figure, axes = new_figure(1.4 * style.COLUMN_WIDTH, 0.85 + 0.3 * len(names), title)
    for place, (name, size) in enumerate(zip(names, drawn.value[0], strict=True)):
        own = place < scored
        color = style.series_color(0) if own else style.EMPTY_COLOR
        axes.barh(place, size, 0.62, color=color, edgecolor="#555555", hatch="" if own else "////", lw=0.6, label=name)
    if drawn.low is not None and drawn.high is not None:
        reach = np.stack([drawn.value[0] - drawn.low[0], drawn.high[0] - drawn.value[0]])
        axes.errorbar(drawn.value[0], drawn.x, xerr=reach, fmt="none", ecolor="black", lw=1.1, capsize=2.5)
    right = drawn.value[0] if drawn.high is None else drawn.high[0]
    for place, (size, end) in enumerate(zip(drawn.value[0], right, strict=True)):
        if np.isfinite(size):
            axes.text(max(end, 0) + 0.015, place, f"{size:.3f}", va="center", fontsize=style.SMALL_FONT_SIZE)
    draw_chance(axes, [_COIN], upright=True)
    axes.set(xlim=(0, 1.12), ylim=(len(names) - 0.5, -0.5))
    axes.set_xticks(np.arange(0, 1.01, 0.25))
    axes.set_yticks(range(len(names)), names)
    label_axes(axes, f"{quantity} (dashed: a coin)", "")
    return figure


def _square(
    names: Sequence[str], value: npt.ArrayLike, low: npt.ArrayLike | None, high: npt.ArrayLike | None, axis: str
) -> tuple[shapes.FloatArray, tuple[shapes.FloatArray, shapes.FloatArray] | None]:
    table = shapes.heat(value, "value")
    if table.shape != (len(names), len(names)):
        raise shapes.FigureError(f"value must be ({len(names)}, {len(names)}) for {axis}, got {table.shape}")
    # Row by row they are series with intervals, and checked as such; a row without a number is fine.
    lower, upper = (None if end is None else np.ravel(end) for end in (low, high))
    flat = shapes.curves(np.arange(table.size), table.ravel(), lower, upper, axis="cells")
    if flat.low is None or flat.high is None:
        return table, None
    return table, (flat.low.reshape(table.shape), flat.high.reshape(table.shape))


def _numbered(
    figure: Figure,
    axes: Axes,
    table: shapes.FloatArray,
    ends: tuple[shapes.FloatArray, shapes.FloatArray] | None,
    limits: Limits,
    quantity: str,
) -> None:
    """Draw a table from the top with its numbers, and intervals in small below them."""
    mesh = draw_mesh(axes, table, limits)
    axes.invert_yaxis()
    for (row, column), value in np.ndenumerate(table):
        if not np.isfinite(value):
            continue
        ink = _ink(float(value), limits)
        lift = 0.0 if ends is None else 0.1
        axes.text(column, row - lift, f"{value:.3f}", ha="center", va="center", fontsize=style.FONT_SIZE, color=ink)
        if ends is not None:
            text = f"{ends[0][row, column]:.2f}–{ends[1][row, column]:.2f}"
            axes.text(
                column, row + 0.22, text, ha="center", va="center", fontsize=style.SMALL_FONT_SIZE - 1.5, color=ink
            )
    add_colorbar(figure, mesh, axes, quantity)


def _ink(value: float, limits: Limits) -> str:
    if not np.isfinite(value):
        return "black"
    share = min(max((value - limits[0]) / (limits[1] - limits[0]), 0.0), 1.0)
    red, green, blue, _ = colormaps[style.HEAT_MAP](share)
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "black"


def _from_coin(table: shapes.FloatArray) -> Limits:
    return min(_COIN, float(np.nanmin(table))), max(1.0, float(np.nanmax(table)))


def _table_size(names: Sequence[str]) -> tuple[float, float]:
    widest = max(map(len, names))
    return max(style.COLUMN_WIDTH, 0.75 * len(names) + 1.3 + 0.06 * widest), max(2.4, 0.62 * len(names) + 0.9)


def _name_cells(axes: Axes, names: Sequence[str], across: str, up: str) -> None:
    long = max(map(len, names)) > 12
    turned = {"rotation": 20, "ha": "right"} if long else {}
    axes.set_xticks(range(len(names)), names, **turned)  # type: ignore[arg-type]
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(labelsize=style.SMALL_FONT_SIZE)
    label_axes(axes, across, up)


def _frame(row: int, column: int, color: str) -> Rectangle:
    box = Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, ec=color, lw=1.6)
    box.set_linestyle("--")
    return box
