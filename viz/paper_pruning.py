"""Paper figure of what pruning costs, against the pruning rate. Imported through ``viz.papers``."""

from collections.abc import Sequence

import numpy.typing as npt
from matplotlib.figure import Figure

from viz import style
from viz.paper_parts import add_legend, draw_lines, label_axes, new_figure
from viz.rates import rate_curves


def pruning(
    rates: Sequence[float],
    value: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    *,
    first_frame_only: float | None = None,
    title: str = "",
    quantity: str = "accuracy",
) -> Figure:
    """Draw accuracies against the share of a video's tokens that is dropped, with interval bands.

    Args:
        rates: (rates,) from 0 to 1, in any order.
        value: (rates,), or (series, rates); a series may be chance, which changes as frames lose their tokens.
        low: lower interval ends, of the shape of ``value``; NaN where there is no interval.
        high: upper interval ends.
        labels: one name for each series; may be left out for a single one.
        first_frame_only: rate from which on only the first frame is left, shaded.
        title: above the figure.
        quantity: name of the vertical axis.

    Raises:
        FigureError: if shapes do not match, nothing is finite, or a rate is no share.
    """
    drawn = rate_curves(rates, value, low, high, labels, first_frame_only)
    figure, axes = new_figure(style.COLUMN_WIDTH, 2.5, title)
    draw_lines(axes, drawn)
    if first_frame_only is not None:
        axes.axvspan(first_frame_only, 1, color=style.EMPTY_COLOR, lw=0, zorder=0, label=style.FIRST_FRAME_LABEL)
    axes.set_xlim(0, 1)
    label_axes(axes, "pruning rate", quantity)
    add_legend(figure, axes)
    return figure
