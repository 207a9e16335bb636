"""Screen figures of reward models: the twins of those in ``viz.rewards`` that a page shows. Knows no model."""

from collections.abc import Sequence

import numpy.typing as npt
import plotly.graph_objects as go

from viz import shapes
from viz.screen_parts import add_lines, new_figure


def score_against_length(
    lengths: npt.ArrayLike,
    value: npt.ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    title: str = "",
    unit: str = "tokens",
    quantity: str = "score",
) -> go.Figure:
    """Draw scores of an answer that grows, and what does not grow; see ``viz.rewards.score_against_length``.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    figure = new_figure(title)
    add_lines(figure, shapes.curves(lengths, value, labels=labels, axis="lengths"))
    return figure.update_layout(
        xaxis={"title": {"text": f"{unit} of the answer"}}, yaxis={"title": {"text": quantity}, "zeroline": False}
    )
