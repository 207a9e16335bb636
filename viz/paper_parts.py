"""Pieces that paper figures are put together from. Knows matplotlib, and nothing of what is drawn."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from viz import shapes, style


def new_figure(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """Make a figure of one panel, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    dress(axes)
    add_title(figure, title)
    return figure, axes


def add_title(figure: Figure, title: str) -> None:
    """Write a title above a figure, if there is one."""
    if title:
        figure.suptitle(title, fontsize=style.FONT_SIZE + 1)


def dress(axes: Axes) -> None:
    """Take off the upper and right spines, and set small tick labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=style.SMALL_FONT_SIZE)


def label_axes(axes: Axes, across: str, up: str) -> None:
    """Name the horizontal and the vertical axis."""
    axes.set_xlabel(across, fontsize=style.FONT_SIZE)
    axes.set_ylabel(up, fontsize=style.FONT_SIZE)


def draw_lines(axes: Axes, drawn: shapes.Curves) -> None:
    """Draw each series as a line with its interval band, and the chance lines."""
    for index, (values, label) in enumerate(zip(drawn.value, drawn.labels, strict=True)):
        color = style.series_color(index)
        axes.plot(
            drawn.x,
            values,
            color=color,
            marker=style.PAPER_MARKERS[index % len(style.PAPER_MARKERS)],
            linestyle=style.PAPER_DASHES[index % len(style.PAPER_DASHES)],
            markersize=3.5,
            linewidth=1.3,
            label=label or None,
        )
        if drawn.low is not None and drawn.high is not None:
            axes.fill_between(drawn.x, drawn.low[index], drawn.high[index], color=color, alpha=0.18, linewidth=0)
    draw_chance(axes, drawn.chance)
    axes.set_ylim(0, 1.03)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)


def draw_chance(axes: Axes, levels: Sequence[float], upright: bool = False) -> None:
    """Draw dashed chance lines, across or upright, one legend entry for all."""
    draw = axes.axvline if upright else axes.axhline
    for index, level in enumerate(levels):
        label = "chance" if index == 0 else None
        draw(level, color=style.CHANCE_COLOR, linestyle=(0, (4, 3)), linewidth=0.9, label=label, zorder=1)


def draw_dots(axes: Axes, drawn: shapes.Curves, named: bool = False) -> None:
    """Draw each series as dots with interval bars, side by side at each point; `named` gives them legend entries."""
    for index, offset in enumerate(shapes.offsets(drawn, 0.15)):
        for point, value in enumerate(drawn.value[index]):
            low = value if drawn.low is None else drawn.low[index, point]
            high = value if drawn.high is None else drawn.high[index, point]
            label = drawn.labels[index] if named and point == 0 else ""
            draw_dot(axes, point + offset, value, low, high, index, label)
    draw_chance(axes, drawn.chance)
    axes.set_xlim(-0.5, drawn.x.size - 0.5)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)


def draw_dot(axes: Axes, at: float, value: float, low: float, high: float, series: int, label: str = "") -> None:
    """Draw one dot with its interval bar, in the color and marker of a series; a label goes into the legend."""
    marker = style.PAPER_MARKERS[series % len(style.PAPER_MARKERS)]
    reach = [[value - low], [high - value]]
    color = style.series_color(series)
    axes.errorbar([at], [value], yerr=reach, fmt=marker, ms=4.5, lw=1.3, capsize=2.5, color=color, label=label or None)


def draw_across(axes: Axes, drawn: shapes.Curves) -> None:
    """Draw each series as dots with horizontal interval bars, one point below the other, the series side by side."""
    for index, (centre, offset) in enumerate(zip(drawn.value, shapes.offsets(drawn, 0.17), strict=True)):
        reach = None
        if drawn.low is not None and drawn.high is not None:
            reach = np.stack([centre - drawn.low[index], drawn.high[index] - centre])
        axes.errorbar(
            centre, drawn.x + offset, xerr=reach, fmt=style.PAPER_MARKERS[index % len(style.PAPER_MARKERS)], ms=4.5,
            lw=1.3, capsize=2.5, color=style.series_color(index), label=drawn.labels[index] or None,
        )  # fmt: skip
    draw_chance(axes, drawn.chance, upright=True)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)


def add_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend above the figure, or below it where a title stands above; make room for its rows."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    width, height = figure.get_size_inches()
    across = max(1, min(len(labels), int(width * 15 / (max(map(len, labels)) + 6))))
    extra = 0.15 * (-(-len(labels) // across) - 1)
    figure.set_size_inches(width, height + extra)
    figure.legend(
        handles,
        labels,
        loc="outside lower center" if figure.get_suptitle() else "outside upper center",
        ncols=across,
        frameon=False,
        fontsize=style.SMALL_FONT_SIZE,
    )


def add_colorbar(figure: Figure, source: ScalarMappable, axes: Axes | list[Axes], label: str) -> None:
    """Add a color bar beside the axes."""
    bar = figure.colorbar(source, ax=axes, aspect=25, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=style.SMALL_FONT_SIZE)
    bar.ax.yaxis.get_offset_text().set_fontsize(style.SMALL_FONT_SIZE)
    bar.set_label(label, fontsize=style.FONT_SIZE)
