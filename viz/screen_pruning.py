"""Screen figure of what pruning costs, against the pruning rate. Imported through ``viz.screens``."""

from collections.abc import Sequence

import numpy.typing as npt
import plotly.graph_objects as go

from viz import style
from viz.rates import rate_curves
from viz.screen_parts import add_lines, new_figure, unit_axis


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
) -> go.Figure:
    """Draw accuracies against the share of a video's tokens that is dropped; see ``viz.papers.pruning``.

    Raises:
        FigureError: if shapes do not match, nothing is finite, or a rate is no share.
    """
    figure = new_figure(title)
    add_lines(figure, rate_curves(rates, value, low, high, labels, first_frame_only))
    if first_frame_only is not None:
        note = {"text": style.FIRST_FRAME_LABEL, "textangle": -90, "yanchor": "middle", "y": 0.5, "showarrow": False}
        band = {"fillcolor": style.EMPTY_COLOR, "line_width": 0, "layer": "below"}
        figure.add_vrect(x0=first_frame_only, x1=1, annotation=note, annotation_position="inside right", **band)
    return figure.update_layout(
        xaxis={"title": {"text": "pruning rate"}, "range": [0, 1], "zeroline": False}, yaxis=unit_axis(quantity)
    )
