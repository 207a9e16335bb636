"""Pieces that screen figures are put together from. Knows plotly, and nothing of what is drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from viz import shapes, style


def new_figure(title: str, height: int = 420) -> go.Figure:
    """Make an empty figure in the house style; height in pixels, width that of its place."""
    return house_style(go.Figure(), title, height)


def house_style(figure: go.Figure, title: str, height: int) -> go.Figure:
    """Set font, margins and a legend above the data, where it covers none."""
    figure.update_layout(
        template="plotly_white",
        font={"size": style.SCREEN_FONT_SIZE},
        title={"text": title, "x": 0.5, "xanchor": "center"} if title else None,
        height=height,
        margin={"l": 70, "r": 30, "t": 90 if title else 50, "b": 60},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0},
    )
    return figure


def add_lines(figure: go.Figure, drawn: shapes.Curves, **place: Any) -> None:
    """Draw each series as a line with its interval band, and the chance lines."""
    for index, (value, label) in enumerate(zip(drawn.value, drawn.labels, strict=True)):
        color = style.series_color(index)
        if drawn.low is not None and drawn.high is not None:
            figure.add_trace(_band(drawn.x, drawn.low[index], drawn.high[index], color, label), **place)
        figure.add_trace(_line(drawn, index, value, label, color), **place)
    add_chance(figure, drawn.x, drawn.chance, **place)


def add_chance(
    figure: go.Figure,
    x: shapes.FloatArray,
    levels: Sequence[float],
    legend: bool = True,
    upright: bool = False,
    **place: Any,
) -> None:
    """Draw dashed chance lines over the range of x, or upright over that of y; one legend entry for all."""
    ends = [float(np.min(x)), float(np.max(x))]
    along, axis = ("y", "x") if upright else ("x", "y")
    for index, level in enumerate(levels):
        line = {"color": style.CHANCE_COLOR, "dash": "dash", "width": 1.5}
        trace = go.Scatter(
            {along: ends, axis: [level, level]}, mode="lines", line=line, name="chance", legendgroup="chance",
            showlegend=legend and index == 0, hovertemplate=f"chance %{{{axis}:.3f}}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(trace, **place)


def add_dots(figure: go.Figure, drawn: shapes.Curves, names: Sequence[str], legend: bool = False, **place: Any) -> None:
    """Draw each series as dots with interval bars, side by side at each point; beside lines the legend is theirs."""
    offsets = shapes.offsets(drawn, 0.15)
    for index, (value, label) in enumerate(zip(drawn.value, drawn.labels, strict=True)):
        trace = go.Scatter(
            x=drawn.x + offsets[index], y=value, mode="markers", name=label, legendgroup=label,
            showlegend=legend and bool(label), marker=_marker(index), error_y=_bars(drawn, index),
            customdata=list(names), hovertemplate="%{customdata}: %{y:.3f}<extra>" + label + "</extra>",
        )  # fmt: skip
        figure.add_trace(trace, **place)
    add_chance(figure, np.array([-0.5, drawn.x.size - 0.5]), drawn.chance, legend=False, **place)


def add_dot(
    figure: go.Figure, at: float, value: float, low: float, high: float, series: int, label: str, **place: Any
) -> None:
    """Draw one dot with its interval bar, in the color and marker of a series."""
    bars = {"type": "data", "symmetric": False, "array": [high - value], "arrayminus": [value - low]}
    trace = go.Scatter(
        x=[at], y=[value], mode="markers", name=label, legendgroup=label, showlegend=False, marker=_marker(series),
        error_y=bars, hovertemplate="%{y:.3f}<extra>" + label + "</extra>",
    )  # fmt: skip
    figure.add_trace(trace, **place)


def add_across(figure: go.Figure, drawn: shapes.Curves, names: Sequence[str]) -> None:
    """Draw each series as dots with horizontal interval bars, one point below the other, the series side by side."""
    offsets = shapes.offsets(drawn, 0.17)
    for index, (value, label) in enumerate(zip(drawn.value, drawn.labels, strict=True)):
        trace = go.Scatter(
            x=value, y=drawn.x + offsets[index], mode="markers", name=label, showlegend=bool(label),
            marker=_marker(index), error_x=_bars(drawn, index), customdata=list(names),
            hovertemplate="%{customdata}: %{x:.3f}<extra>" + label + "</extra>",
        )  # fmt: skip
        figure.add_trace(trace)
    add_chance(figure, np.array([-0.5, drawn.x.size - 0.5]), drawn.chance, upright=True)


def heat_trace(table: shapes.FloatArray, limits: tuple[float, float], label: str, **extra: Any) -> go.Heatmap:
    """Make a heat map in the house colors; cells of NaN stay empty."""
    bar = {"title": {"text": label, "side": "right"}, "thickness": 14, "outlinewidth": 0}
    return go.Heatmap(
        z=table, zmin=limits[0], zmax=limits[1], colorscale=style.HEAT_MAP, xgap=1, ygap=1, colorbar=bar, **extra
    )


def unit_axis(title: str) -> dict[str, Any]:
    """Settings of a vertical axis from 0 to 1."""
    return {"title": {"text": title}, "range": [0, 1.03], "zeroline": False}


def _line(drawn: shapes.Curves, index: int, value: shapes.FloatArray, label: str, color: str) -> go.Scatter:
    hover = "%{x}: %{y:.3f}"
    ends = None
    if drawn.low is not None and drawn.high is not None:
        ends = np.stack([drawn.low[index], drawn.high[index]], axis=1)
        hover += " [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
    dash = style.SCREEN_DASHES[index % len(style.SCREEN_DASHES)]
    return go.Scatter(
        x=drawn.x, y=value, mode="lines+markers", name=label, legendgroup=label, showlegend=bool(label),
        line={"color": color, "dash": dash, "width": 2}, marker=_marker(index), customdata=ends,
        hovertemplate=hover + f"<extra>{label}</extra>",
    )  # fmt: skip


def _band(x: shapes.FloatArray, low: shapes.FloatArray, high: shapes.FloatArray, color: str, label: str) -> go.Scatter:
    known = np.isfinite(low) & np.isfinite(high)
    return go.Scatter(
        x=np.concatenate([x[known], x[known][::-1]]), y=np.concatenate([high[known], low[known][::-1]]),
        fill="toself", fillcolor=style.rgba(color, 0.18), line={"width": 0}, mode="lines", hoverinfo="skip",
        name=f"{label} interval", legendgroup=label, showlegend=False,
    )  # fmt: skip


def _marker(index: int) -> dict[str, Any]:
    symbol = style.SCREEN_MARKERS[index % len(style.SCREEN_MARKERS)]
    return {"color": style.series_color(index), "symbol": symbol, "size": 8}


def _bars(drawn: shapes.Curves, index: int) -> dict[str, Any] | None:
    if drawn.low is None or drawn.high is None:
        return None
    value = drawn.value[index]
    return {
        "type": "data",
        "symmetric": False,
        "array": drawn.high[index] - value,
        "arrayminus": value - drawn.low[index],
    }
