"""The paper figure of what looking costs against the number of tokens. Knows matplotlib, and nothing of benches."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from viz import style
from viz.costs import PANELS, costs_of, length_name
from viz.paper_parts import add_legend, add_title, dress, label_axes


def costs(
    lengths: npt.ArrayLike,
    time: npt.ArrayLike,
    memory: npt.ArrayLike,
    labels: Sequence[str],
    foreseen: npt.ArrayLike | None = None,
    *,
    title: str = "",
) -> Figure:
    """Draw ratios of time and of memory to a plain forward's, against tokens; axes are logarithmic, but those of ratios
    that lie within a factor of two.

    Args:
        lengths: (points,) tokens, increasing.
        time: (series, points); NaN where nothing was measured.
        memory: (series, points).
        labels: one name for each series.
        foreseen: (series, points) least ratio of memory where a process ran out of it; drawn hollow.
        title: above the figure.

    Raises:
        FigureError: if shapes do not match, lengths do not increase, or a ratio is not positive.
    """
    drawn = costs_of(lengths, time, memory, labels, foreseen)
    figure = Figure(figsize=(style.PAGE_WIDTH, 2.7), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, name, ratios in zip(panels, PANELS, drawn.panels, strict=True):
        dress(axes)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.axhline(1, color=style.CHANCE_COLOR, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        for index, label in enumerate(drawn.labels):
            look = {"color": style.series_color(index), "marker": style.PAPER_MARKERS[index % 7], "markersize": 4}
            dash = style.PAPER_DASHES[index % 7]
            axes.plot(drawn.lengths, ratios[index], linestyle=dash, linewidth=1.3, label=label, **look)
            if name == PANELS[1]:
                axes.plot(drawn.lengths, drawn.foreseen[index], linestyle="", markerfacecolor="none", **look)
        axes.set_xticks(drawn.lengths, [length_name(length) for length in drawn.lengths])
        axes.xaxis.set_minor_formatter(NullFormatter())
        low, high = axes.get_ylim()
        if high < 2 * low:
            axes.set_yscale("linear")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
        axes.set_axisbelow(True)
        label_axes(axes, "tokens", name)
    if np.isfinite(drawn.foreseen).any():
        panels[1].plot(
            [], [], "o", color=style.CHANCE_COLOR, markerfacecolor="none", markersize=4, label="out of memory"
        )
    add_legend(figure, panels[1])
    add_title(figure, title)
    return figure
