"""The figure of reward against length. Imported through ``viz.rewards``."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from viz import shapes, style
from viz.paper_parts import add_legend, label_axes, new_figure

MOST_PAIRS = 400
"""Pairs that are drawn: more hide each other."""


def reward_against_length(
    chosen: npt.ArrayLike,
    rejected: npt.ArrayLike,
    chosen_lengths: npt.ArrayLike,
    rejected_lengths: npt.ArrayLike,
    correlation: Sequence[float] | None = None,
    *,
    most: int = MOST_PAIRS,
    unit: str = "characters",
    title: str = "",
    quantity: str = "reward",
) -> Figure:
    """Draw the rewards of better and worse answers against their lengths; a line joins the two of a pair.

    Of more than ``most`` pairs as many are drawn, evenly spread over the list, and the axis says so. Lines where the
    longer answer scores higher have one color, the others another.

    Args:
        chosen: (pairs,) rewards of better answers.
        rejected: (pairs,) rewards of worse answers.
        chosen_lengths: (pairs,) lengths of better answers, at least 1; the axis is logarithmic.
        rejected_lengths: (pairs,) lengths of worse answers.
        correlation: value, low and high of the partial correlation, written into the figure.
        most: pairs that are drawn.
        unit: of lengths.
        title: above the figure.
        quantity: name of the vertical axis.

    Raises:
        FigureError: if shapes do not match, a number is not finite, or a length is below 1.
    """
    rewards, lengths = _pairs(chosen, rejected, "rewards"), _pairs(chosen_lengths, rejected_lengths, "lengths")
    if rewards.shape != lengths.shape:
        raise shapes.FigureError(f"rewards are of {len(rewards)} pairs, and lengths of {len(lengths)}")
    if lengths.min() < 1:
        raise shapes.FigureError(f"lengths must be 1 or more on a logarithmic axis, got {lengths.min():g}")
    if most < 1:
        raise shapes.FigureError(f"most is {most}: draw at least one pair")
    total = len(rewards)
    shown = np.unique(np.linspace(0, total - 1, min(total, most)).astype(int))
    rewards, lengths = rewards[shown], lengths[shown]
    figure, axes = new_figure(1.3 * style.COLUMN_WIDTH, 3.0, title)
    axes.set_xscale("log", base=2)
    along = np.diff(rewards, axis=1)[:, 0] * np.diff(lengths, axis=1)[:, 0]
    names = ("longer scores higher", "longer does not, or a tie")
    for kept, color, name in ((along > 0, "#999999", names[0]), (along <= 0, style.SERIES_COLORS[4], names[1])):
        segments = np.stack([lengths[kept], rewards[kept]], axis=2)
        if len(segments):
            axes.add_collection(LineCollection(list(segments), colors=color, lw=0.5, alpha=0.55, zorder=1, label=name))
    size = 12 if len(shown) <= 100 else 6
    for side, name in enumerate(("better", "worse")):
        axes.scatter(
            lengths[:, side], rewards[:, side], s=size, c=style.series_color(side), marker=style.PAPER_MARKERS[side],
            linewidths=0, alpha=0.8, label=f"{name} answer", zorder=2,
        )  # fmt: skip
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)
    if correlation is not None:
        _write(axes, correlation)
    drawn = f"{total} pairs" if len(shown) == total else f"{len(shown)} of {total} pairs drawn"
    label_axes(axes, f"length ({unit}); {drawn}", quantity)
    add_legend(figure, axes)
    return figure


def _write(axes: Axes, correlation: Sequence[float]) -> None:
    """Put the correlation above the panel, where no point can lie under it."""
    value, low, high = (float(number) for number in correlation)
    told = "undefined" if np.isnan(value) else f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
    axes.set_title(f"partial correlation at fixed quality: {told}", fontsize=style.SMALL_FONT_SIZE, loc="left")


def _pairs(better: npt.ArrayLike, worse: npt.ArrayLike, name: str) -> shapes.FloatArray:
    sides = [shapes.numbers(side, name) for side in (better, worse)]
    if sides[0].ndim != 1 or sides[0].size == 0 or sides[0].shape != sides[1].shape:
        raise shapes.FigureError(f"{name} must be of the same pairs, at least one: {sides[0].shape}, {sides[1].shape}")
    if not all(np.isfinite(side).all() for side in sides):
        raise shapes.FigureError(f"{name} hold a number that is not finite: leave those pairs out")
    return np.column_stack(sides)
