"""Screen figures that rank and compare many: a ranking, and a map of heads. Imported through ``viz.screens``."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from viz import shapes, style
from viz.screen_parts import add_across, heat_trace, new_figure


def ranking(
    names: Sequence[str],
    value: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    chance: npt.ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    *,
    title: str = "",
    quantity: str = "agreement",
) -> go.Figure:
    """Draw a value for each of several names, largest on top; see ``viz.papers.ranking``.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    drawn, order = shapes.ranked(names, value, low, high, chance, labels)
    figure = new_figure(title, 200 + 34 * len(order))
    add_across(figure, drawn, order)
    ticks = {"tickvals": list(range(len(order))), "ticktext": order, "range": [len(order) - 0.5, -0.5]}
    return figure.update_layout(
        xaxis={"title": {"text": quantity}, "range": [0, 1.03], "zeroline": False},
        yaxis={**ticks, "zeroline": False, "automargin": True},
    )


def head_map(
    value: npt.ArrayLike,
    layers: Sequence[int],
    *,
    chosen: Sequence[tuple[int, int]] = (),
    limits: tuple[float, float] | None = None,
    title: str = "",
    quantity: str = "agreement",
) -> go.Figure:
    """Draw a value for each head of each layer; chosen heads are framed; see ``viz.papers.head_map``.

    Raises:
        FigureError: if shapes do not match, or a chosen head is not there.
    """
    table, places = shapes.head_table(value, layers, chosen)
    rows, columns = table.shape
    figure = new_figure(title, min(220 + 26 * rows, 900))
    hover = "layer %{customdata}, head %{x}: %{z:.3f}<extra></extra>"
    numbers = np.repeat(np.array(layers)[:, None], columns, axis=1)
    trace = heat_trace(
        table, shapes.color_limits([table], limits), quantity,
        x=list(range(columns)), y=list(range(rows)), customdata=numbers, hovertemplate=hover,
    )  # fmt: skip
    figure.add_trace(trace)
    for row, column in places:
        line = {"color": style.FOCUS_COLOR, "width": 3}
        figure.add_shape(type="rect", x0=column - 0.5, x1=column + 0.5, y0=row - 0.5, y1=row + 0.5, line=line)
    every = max(1, -(-rows // 24))
    ticks = {"tickvals": list(range(0, rows, every)), "ticktext": [str(layer) for layer in layers[::every]]}
    return figure.update_layout(
        xaxis={"title": {"text": "head"}, "dtick": max(1, -(-columns // 16)), "showgrid": False, "zeroline": False},
        yaxis={"title": {"text": "layer"}, **ticks, "showgrid": False, "zeroline": False},
        plot_bgcolor=style.EMPTY_COLOR,
    )
