"""The screen figure of an accuracy by layer, coloured by kind of layer. Imported through ``viz.screens``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from viz import style
from viz.kinds import KindCurves, kind_color, kind_curves
from viz.screen_parts import add_chance, house_style, unit_axis

ROW_HEIGHT = 24
"""Pixels of one kind's row in the strip."""


def accuracy_by_kind(
    layers: Sequence[int],
    value: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    chance: npt.ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    *,
    kinds: Sequence[str],
    parts: Sequence[Sequence[str]],
    title: str = "",
    quantity: str = "attention accuracy",
) -> go.Figure:
    """Draw an accuracy by layer in the colour of the layer's kind; see ``viz.papers.accuracy_by_kind``.

    Raises:
        FigureError: if shapes do not match, nothing is finite, or a series has a value in a layer without its kind.
    """
    drawn = kind_curves(layers, value, low, high, chance, labels, kinds, parts)
    strip = ROW_HEIGHT * len(drawn.rows)
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[300, strip], vertical_spacing=0.05)
    house_style(figure, title, 440 + strip)
    for index in range(len(drawn.kinds)):
        figure.add_trace(_series(drawn, index), row=1, col=1)
    add_chance(figure, drawn.curves.x, drawn.curves.chance, row=1, col=1)
    for row, (kind, places) in enumerate(zip(drawn.rows, drawn.places, strict=True)):
        marker = {"color": kind_color(kind), "symbol": "square", "size": 10}
        trace = go.Scatter(
            x=list(places), y=[row] * len(places), mode="markers", marker=marker, name=kind, showlegend=False,
            hovertemplate=f"layer %{{x}}: {kind}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(trace, row=2, col=1)
    named = {"tickvals": list(range(len(drawn.rows))), "ticktext": list(drawn.rows), "automargin": True}
    return figure.update_layout(
        yaxis={**unit_axis(quantity), "range": [-0.03, 1.03]},
        xaxis2={"title": {"text": "layer"}, "dtick": max(1, -(-len(layers) // 24)), "zeroline": False},
        yaxis2={**named, "range": [len(drawn.rows) - 0.5, -0.5], "zeroline": False, "showgrid": False},
    )


def _series(drawn: KindCurves, index: int) -> go.Scatter:
    curves, kind, label = drawn.curves, drawn.kinds[index], drawn.curves.labels[index]
    value, seen = curves.value[index], np.isfinite(curves.value[index])
    symbol = style.SCREEN_MARKERS[index % len(style.SCREEN_MARKERS)] + ("-open" if drawn.styles[index] else "")
    bars: dict[str, Any] | None = None
    if curves.low is not None and curves.high is not None:
        up, down = curves.high[index] - value, value - curves.low[index]
        bars = {"type": "data", "symmetric": False, "array": up[seen], "arrayminus": down[seen], "width": 3}
    dash = style.SCREEN_DASHES[drawn.styles[index] % len(style.SCREEN_DASHES)]
    return go.Scatter(
        x=drawn.across(index)[seen], y=value[seen], customdata=curves.x[seen], mode="lines+markers",
        name=label or kind, showlegend=bool(label),
        line={"color": kind_color(kind), "dash": dash, "width": 1}, error_y=bars,
        marker={"color": kind_color(kind), "symbol": symbol, "size": 9},
        hovertemplate=f"layer %{{customdata}} ({kind}): %{{y:.3f}}<extra>{label}</extra>",
    )  # fmt: skip
