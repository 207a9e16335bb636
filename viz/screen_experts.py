"""Screen figures of mixtures of experts: load, pairs, specialisation, training, effects. See ``viz.screens``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from viz import expert_shapes, style
from viz.screen_parts import heat_trace, house_style, new_figure, unit_axis
from viz.shapes import FloatArray, color_limits


def expert_load(
    load: npt.ArrayLike,
    layers: Sequence[int],
    difference: npt.ArrayLike | None = None,
    *,
    even: float | None = None,
    title: str = "",
    beside: str = "image − text",
) -> go.Figure:
    """Draw the load of every expert, and beside it a difference of two loads; see ``viz.papers.expert_load``.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    drawn = expert_shapes.loads(load, layers, difference)
    panels = 1 if drawn.difference is None else 2
    figure = house_style(make_subplots(1, panels, horizontal_spacing=0.17), title, _height(len(drawn.layers)))
    limits = color_limits([drawn.load], None)
    figure.add_trace(_table(drawn.load, drawn.layers, limits, "load", 0.0 if panels == 1 else 0.42), row=1, col=1)
    _grid_axes(figure, drawn.layers, 1, "expert" if even is None else f"expert (even load: {even:.3f})")
    if drawn.difference is not None:
        end = expert_shapes.reach(drawn.difference)
        trace = _table(drawn.difference, drawn.layers, (-end, end), f"load, {beside}", 0.0, style.GAIN_MAP)
        figure.add_trace(trace, row=1, col=2)
        _grid_axes(figure, drawn.layers, 2, "expert")
    return figure.update_layout(plot_bgcolor=style.EMPTY_COLOR)


def co_activation(ratio: npt.ArrayLike, layers: Sequence[int], *, most: int = 6, title: str = "") -> go.Figure:
    """Draw how much oftener than by chance experts are called together; see ``viz.papers.co_activation``.

    Raises:
        FigureError: if shapes do not match, or nothing is finite and above zero.
    """
    drawn = expert_shapes.pairs(ratio, layers, most)
    down, across = drawn.grid
    titles = [f"layer {layer}" for layer in drawn.layers]
    # None: a place without a layer has no axes, which would look like one without common pairs.
    places: list[list[dict[str, Any] | None]] = [
        [{} if row * across + column < len(titles) else None for column in range(across)] for row in range(down)
    ]
    panels = make_subplots(
        down, across, subplot_titles=titles, specs=places, horizontal_spacing=0.08, vertical_spacing=0.28 / down
    )
    figure = house_style(panels, title, 340 * down + 60)
    experts = list(range(drawn.lift.shape[1]))
    for place, (lift, layer) in enumerate(zip(drawn.lift, titles, strict=True)):
        row, column = place // across + 1, place % across + 1
        trace = heat_trace(
            lift, (-drawn.reach, drawn.reach), drawn.label, x=experts, y=experts, name=layer,
            hovertemplate="experts %{y} and %{x}: %{z:.2f}<extra>" + layer + "</extra>", showscale=place == 0,
        )  # fmt: skip
        gap = 1 if drawn.ruled else 0
        figure.add_trace(trace.update(colorscale=style.GAIN_MAP, xgap=gap, ygap=gap), row=row, col=column)
        figure.update_xaxes(title_text="expert", showgrid=False, zeroline=False, row=row, col=column)
        name = "expert" if column == 1 else ""
        figure.update_yaxes(title_text=name, showgrid=False, zeroline=False, row=row, col=column)
    return figure.update_layout(plot_bgcolor=style.EMPTY_COLOR)


def specialisation(
    layers: Sequence[int],
    value: npt.ArrayLike,
    chance: npt.ArrayLike,
    labels: Sequence[str],
    *,
    title: str = "",
    quantity: str = "mutual information, bits",
) -> go.Figure:
    """Draw what routing tells of labels by layer, with chance; see ``viz.papers.specialisation``.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    drawn = expert_shapes.gaps(layers, value, chance, labels)
    figure = new_figure(title)
    for index, (own, level, label) in enumerate(zip(drawn.value, drawn.chance, drawn.labels, strict=True)):
        color = style.series_color(index)
        symbol = style.SCREEN_MARKERS[index % len(style.SCREEN_MARKERS)]
        figure.add_trace(
            go.Scatter(
                x=drawn.layers, y=own, mode="lines+markers", name=label, line={"color": color, "width": 2},
                marker={"color": color, "symbol": symbol, "size": 8},
                hovertemplate="layer %{x}: %{y:.3f}<extra>" + label + "</extra>",
            )
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=drawn.layers, y=level, mode="lines", name="chance, of the same colour", legendgroup="chance",
                showlegend=index == 0, line={"color": color, "width": 1.5, "dash": "dash"},
                hovertemplate="layer %{x}: chance %{y:.3f}<extra>" + label + "</extra>",
            )
        )  # fmt: skip
    return figure.update_layout(
        xaxis={"title": {"text": "layer"}, "tickvals": drawn.layers.tolist(), "zeroline": False},
        yaxis={"title": {"text": quantity}, "rangemode": "tozero", "zeroline": False},
    )


def training_course(
    points: Sequence[str],
    value: npt.ArrayLike,
    layers: Sequence[int],
    floors: npt.ArrayLike | None = None,
    *,
    floor: float | None = None,
    floor_name: str = "floor of these loads",
    title: str = "",
    quantity: str = "experts shared with the last",
    is_share: bool = True,
) -> go.Figure:
    """Draw something by layer along training, with its floors; see ``viz.papers.training_course``.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    drawn = expert_shapes.course(points, value, layers, floors)
    figure = new_figure(title)
    at = list(range(len(drawn.points)))
    depths = sample_colorscale(style.HEAT_MAP, list(0.05 + 0.8 * np.linspace(0, 1, len(drawn.layers))))
    for index, (name, color) in enumerate(zip(drawn.layers, depths, strict=True)):
        centre, low, high = drawn.value[:, index].T
        symbol = style.SCREEN_MARKERS[index % len(style.SCREEN_MARKERS)]
        bars = {"type": "data", "symmetric": False, "array": high - centre, "arrayminus": centre - low}
        figure.add_trace(
            go.Scatter(
                x=at, y=centre, mode="lines+markers", name=f"layer {name}", legendgroup=name,
                line={"color": color, "width": 2}, marker={"color": color, "symbol": symbol, "size": 8},
                error_y=bars, customdata=drawn.points,
                hovertemplate="%{customdata}: %{y:.3f}<extra>layer " + name + "</extra>",
            )
        )  # fmt: skip
        if drawn.floors is not None:
            figure.add_trace(
                go.Scatter(
                    x=at, y=drawn.floors[:, index], mode="lines", name=floor_name, legendgroup=name,
                    showlegend=index == 0, line={"color": color, "width": 1.5, "dash": "dot"},
                    hovertemplate="floor %{y:.3f}<extra>layer " + name + "</extra>",
                )
            )  # fmt: skip
    if floor is not None:
        line = {"color": style.CHANCE_COLOR, "dash": "dash", "width": 1.5}
        ends = [at[0], at[-1]]
        figure.add_trace(
            go.Scatter(x=ends, y=[floor, floor], mode="lines", name="floor at random", line=line, hoverinfo="skip")
        )
    shown = expert_shapes.ticks(len(drawn.points), 12)
    return figure.update_layout(
        xaxis={
            "title": {"text": "checkpoint"},
            "tickvals": shown,
            "ticktext": [drawn.points[place] for place in shown],
            "zeroline": False,
            "automargin": True,
        },
        yaxis=unit_axis(quantity) if is_share else {**unit_axis(quantity), "range": None, "rangemode": "tozero"},
    )


def expert_effects(
    value: npt.ArrayLike,
    layers: Sequence[int],
    shared: npt.ArrayLike | None = None,
    *,
    title: str = "",
    quantity: str = "drop in log-probability, nats",
) -> go.Figure:
    """Draw what an answer loses without each expert, and without shared ones; see ``viz.papers.expert_effects``.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    drawn = expert_shapes.effects(value, layers, shared)
    panels = 1 if drawn.shared is None else 2
    widths = [1.0] if panels == 1 else [0.7, 0.3]
    spaced = make_subplots(1, panels, column_widths=widths, horizontal_spacing=0.2)
    figure = house_style(spaced, title, _height(len(drawn.layers)))
    end = expert_shapes.reach(drawn.value)
    right = 1.0 if panels == 1 else 0.57
    trace = _table(drawn.value, drawn.layers, (-end, end), quantity, right if panels == 2 else 0.0, style.GAIN_MAP)
    figure.add_trace(trace, row=1, col=1)
    _grid_axes(figure, drawn.layers, 1, "routed expert")
    if drawn.shared is not None:
        there = np.flatnonzero(np.isfinite(drawn.shared[:, 0]))
        centre, low, high = drawn.shared[there].T
        bars = {"type": "data", "symmetric": False, "array": high - centre, "arrayminus": centre - low}
        figure.add_trace(
            go.Scatter(
                x=centre, y=there, mode="markers", error_x=bars, showlegend=False,
                marker={"color": style.series_color(0), "size": 8}, customdata=[drawn.layers[row] for row in there],
                hovertemplate="layer %{customdata}, shared: %{x:.3f}<extra></extra>",
            ),
            row=1, col=2,
        )  # fmt: skip
        figure.update_xaxes(title_text="shared experts, nats", rangemode="tozero", row=1, col=2)
        figure.update_yaxes(range=[-0.5, len(drawn.layers) - 0.5], showticklabels=False, row=1, col=2)
    return figure


def _table(
    table: FloatArray,
    layers: Sequence[str],
    limits: tuple[float, float],
    label: str,
    bar_at: float = 0.0,
    colors: str = style.HEAT_MAP,
) -> go.Heatmap:
    """A heat map of layers and experts; `bar_at` is where its colour bar stands, 0 for the right edge."""
    rows, columns = table.shape
    trace = heat_trace(
        table, limits, label, x=list(range(columns)), y=list(range(rows)),
        customdata=np.repeat(np.array(layers)[:, None], columns, axis=1),
        hovertemplate="layer %{customdata}, expert %{x}: %{z:.3f}<extra></extra>",
    )  # fmt: skip
    place: dict[str, Any] = {"x": bar_at, "xanchor": "left"} if bar_at else {}
    return trace.update(colorscale=colors, colorbar=place)


def _grid_axes(figure: go.Figure, layers: Sequence[str], column: int, across: str) -> None:
    rows = expert_shapes.ticks(len(layers), 24)
    figure.update_xaxes(title_text=across, showgrid=False, zeroline=False, row=1, col=column)
    figure.update_yaxes(
        title_text="layer" if column == 1 else "", tickvals=rows, ticktext=[layers[row] for row in rows],
        showgrid=False, zeroline=False, row=1, col=column,
    )  # fmt: skip


def _height(rows: int) -> int:
    return min(260 + 26 * rows, 900)
