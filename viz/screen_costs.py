"""The screen figure of what looking costs against the number of tokens. Knows plotly, and nothing of benches."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from viz import style
from viz.costs import PANELS, costs_of, length_name
from viz.screen_parts import house_style


def costs(
    lengths: npt.ArrayLike,
    time: npt.ArrayLike,
    memory: npt.ArrayLike,
    labels: Sequence[str],
    foreseen: npt.ArrayLike | None = None,
    *,
    title: str = "",
) -> go.Figure:
    """Draw ratios of time and of memory to a plain forward's, against tokens; see ``viz.papers.costs``.

    Raises:
        FigureError: if shapes do not match, lengths do not increase, or a ratio is not positive.
    """
    drawn = costs_of(lengths, time, memory, labels, foreseen)
    figure = house_style(make_subplots(cols=2), title, 460)
    for column, ratios in enumerate(drawn.panels, start=1):
        for index, label in enumerate(drawn.labels):
            marker = {"color": style.series_color(index), "symbol": style.SCREEN_MARKERS[index % 7], "size": 8}
            line = {"color": marker["color"], "dash": style.SCREEN_DASHES[index % 7], "width": 2}
            shown = go.Scatter(
                x=drawn.lengths, y=ratios[index], mode="lines+markers", name=label, legendgroup=label,
                showlegend=column == 1, marker=marker, line=line, hovertemplate="%{x} tokens: %{y:.2f}",
            )  # fmt: skip
            figure.add_trace(shown, row=1, col=column)
            if column == 2 and np.isfinite(drawn.foreseen[index]).any():
                hollow = {**marker, "symbol": f"{marker['symbol']}-open"}
                missed = go.Scatter(
                    x=drawn.lengths, y=drawn.foreseen[index], mode="markers", name=f"{label}, out of memory",
                    legendgroup=label, showlegend=False, marker=hollow, hovertemplate="at least %{y:.2f}",
                )  # fmt: skip
                figure.add_trace(missed, row=1, col=2)
    ticks = {"tickvals": drawn.lengths, "ticktext": [length_name(length) for length in drawn.lengths]}
    figure.update_xaxes(type="log", title={"text": "tokens"}, **ticks)
    for column, name in enumerate(PANELS, start=1):
        figure.update_yaxes(type="log", title={"text": name}, row=1, col=column)
    return figure
