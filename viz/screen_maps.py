"""Screen figures of tables and maps: factors, image to image, overlays. Imported through ``viz.screens``."""

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from PIL import Image
from plotly.subplots import make_subplots

from viz import cells, shapes, style
from viz.screen_parts import heat_trace, house_style, new_figure

_MAX_NUMBERED = 12


def factor_heatmap(
    factors: npt.ArrayLike,
    layers: Sequence[int],
    *,
    target: int | None = None,
    per_layer: bool = False,
    limits: tuple[float, float] | None = None,
    title: str = "",
) -> go.Figure:
    """Draw attention factors, layers upwards and images across; see ``viz.papers.factor_heatmap``.

    Raises:
        FigureError: if shapes do not match, or the target is not an image.
    """
    table, names = shapes.factor_table(factors, layers, target, per_layer)
    rows, columns = table.shape
    images = style.image_labels(columns, target, mark="<br>")
    quantity = "share of the layer" if per_layer else "attention factor"
    figure = new_figure(title, min(220 + 26 * rows, 900))
    hover = "layer %{customdata}, image %{x}: %{z:.4g}<extra></extra>"
    numbers = np.repeat(np.array(names)[:, None], columns, axis=1)
    x, y = list(range(1, columns + 1)), list(range(rows))
    limit = shapes.color_limits([table], limits)
    figure.add_trace(heat_trace(table, limit, quantity, x=x, y=y, customdata=numbers, hovertemplate=hover))
    peaks = [row for row in y if np.isfinite(table[row]).any()]
    marker = {"color": "white", "size": 8, "line": {"color": "black", "width": 1.5}}
    figure.add_trace(
        go.Scatter(
            x=[int(np.nanargmax(table[row])) + 1 for row in peaks], y=peaks, mode="markers", marker=marker,
            name="largest of its layer", showlegend=True, hoverinfo="skip",
        )
    )  # fmt: skip
    if target is not None:
        line = {"color": style.TARGET_COLOR, "width": 4}
        figure.add_shape(type="rect", x0=target + 0.5, x1=target + 1.5, y0=-0.5, y1=rows - 0.5, line=line)
    every = max(1, -(-rows // 24))
    ticks = {"tickvals": y[::every], "ticktext": [str(name) for name in names[::every]]}
    return figure.update_layout(
        xaxis={"tickvals": x, "ticktext": images, "showgrid": False, "range": [0.5, columns + 0.5]},
        yaxis={"title": {"text": "layer"}, **ticks, "showgrid": False, "zeroline": False, "range": [-0.5, rows - 0.5]},
        plot_bgcolor=style.EMPTY_COLOR,
    )


def image_to_image(matrix: npt.ArrayLike, *, limits: tuple[float, float] | None = None, title: str = "") -> go.Figure:
    """Draw how strongly images and text attend to each other; see ``viz.papers.image_to_image``.

    Raises:
        FigureError: if the matrix is not square, or has no image.
    """
    table = shapes.pair_table(matrix)
    size = len(table)
    names = [*style.image_labels(size - 1), "text"]
    figure = new_figure(title, 220 + 46 * size)
    hover = "%{y} attends to %{x}: %{z:.4g}<extra></extra>"
    trace = heat_trace(table, shapes.color_limits([table], limits), "attention factor", x=names, y=names)
    trace.update(hovertemplate=hover)
    if size <= _MAX_NUMBERED:
        texts = [[style.cell_text(float(value)) for value in row] for row in table]
        trace.update(text=texts, texttemplate="%{text}")
    figure.add_trace(trace)
    return figure.update_layout(
        xaxis={"title": {"text": "attended to"}, "showgrid": False},
        yaxis={"title": {"text": "attending"}, "autorange": "reversed", "showgrid": False},
        plot_bgcolor=style.EMPTY_COLOR,
    )


def overlay(
    images: Any,
    boxes: Any,
    scores: Any,
    *,
    labels: Sequence[str] | None = None,
    target: int | None = None,
    focus: int | None = None,
    gold: npt.ArrayLike | None = None,
    primary: Any = None,
    kept: Any = None,
    limits: tuple[float, float] | None = None,
    columns: int = 4,
    title: str = "",
) -> go.Figure:
    """Lay each image's map over it, all images on one color scale; see ``viz.papers.overlay``.

    Raises:
        FigureError: if shapes do not match, a box lies outside its image, or a gold box has no image to lie in.
    """
    count = cells.picture_count(images)
    home, regions = cells.gold_regions(gold, target, focus, count)
    names = list(labels) if labels is not None else style.image_labels(count, target, focus)
    first, rest = cells.panels(images, boxes, scores, names, primary, kept)
    panels = [*first, *rest]
    rows, across = style.grid_shape(len(panels), columns)
    titles = [panel.label for panel in first] + [f"{panel.label} (thumbnail)" for panel in rest]
    gaps = {"horizontal_spacing": 0.12 / across, "vertical_spacing": 0.22 / rows}
    figure = make_subplots(rows, across, subplot_titles=titles, **gaps)
    tallest = max(panel.image.shape[0] / panel.image.shape[1] for panel in panels)
    house_style(figure, title, int(70 + rows * (50 + 840 / max(across, 2) * min(max(tallest, 0.3), 3.0))))
    for place, panel in enumerate(panels):
        row, column = divmod(place, across)
        _panel(figure, panel, row + 1, column + 1)
        _missing(figure, panel, row + 1, column + 1, named=not any(before.missing.any() for before in panels[:place]))
        _frames(figure, place, panel.index, target, focus)
        if panel.index == home:
            _gold(figure, regions, row + 1, column + 1)
    low, high = shapes.color_limits([panel.scores for panel in panels], limits)
    bar = {"title": {"text": "attention to cell", "side": "right"}, "thickness": 14, "outlinewidth": 0}
    scale = [[at, f"rgba({red},{green},{blue},{alpha:g})"] for at, (red, green, blue), alpha in style.OVERLAY_STOPS]
    figure.update_layout(coloraxis={"cmin": low, "cmax": high, "colorscale": scale, "colorbar": bar})
    return figure.update_layout(margin={"l": 10, "b": 10})


def _panel(figure: go.Figure, panel: cells.Panel, row: int, column: int) -> None:
    height, width = panel.image.shape[:2]
    picture = go.Image(source=_data_uri(panel.image), x0=0.5, y0=0.5, hoverinfo="skip")
    figure.add_trace(picture, row=row, col=column)
    x, y, table = cells.raster(panel.boxes, panel.scores)
    hover = f"{panel.label}: %{{z:.4g}}<extra></extra>"
    figure.add_trace(go.Heatmap(x=x, y=y, z=table, coloraxis="coloraxis", hovertemplate=hover), row=row, col=column)
    bare = {"visible": False, "constrain": "domain"}
    figure.update_xaxes(range=[0, width], **bare, row=row, col=column)
    name = next(iter(figure.select_traces(row=row, col=column))).xaxis
    figure.update_yaxes(range=[height, 0], scaleanchor=name, constraintoward="top", **bare, row=row, col=column)


def _missing(figure: go.Figure, panel: cells.Panel, row: int, column: int, named: bool) -> None:
    """Hatch the cells without a token, in one trace; `named` gives it the legend's entry."""
    if not panel.missing.any():
        return
    left, top, right, bottom = panel.boxes[panel.missing].T
    gap = np.full(len(left), np.nan)
    x = np.stack([left, right, right, left, left, gap], axis=1).ravel()
    y = np.stack([top, top, bottom, bottom, top, gap], axis=1).ravel()
    pattern = {
        "shape": "/", "size": 6, "solidity": 0.2, "fgcolor": style.MISSING_INK,
        "bgcolor": style.rgba(style.MISSING_COLOR, style.MISSING_OPACITY),
    }  # fmt: skip
    trace = go.Scatter(
        x=x, y=y, mode="lines", line={"width": 0}, fill="toself", fillpattern=pattern, hoveron="fills",
        fillcolor=style.rgba(style.MISSING_COLOR, style.MISSING_OPACITY), name=style.MISSING_LABEL,
        text=style.MISSING_LABEL, hoverinfo="text", legendgroup=style.MISSING_LABEL, showlegend=named,
    )  # fmt: skip
    figure.add_trace(trace, row=row, col=column)


def _frames(figure: go.Figure, place: int, index: int, target: int | None, focus: int | None) -> None:
    number = "" if place == 0 else str(place + 1)
    for chosen, color, pad in (
        (target, style.TARGET_COLOR, 0.0),
        (focus, style.FOCUS_COLOR, -0.03 * (target == focus)),
    ):
        if index == chosen:
            ends = {"x0": -pad, "x1": 1 + pad, "y0": -pad, "y1": 1 + pad}
            refs = {"xref": f"x{number} domain", "yref": f"y{number} domain"}
            figure.add_shape(type="rect", **refs, **ends, line={"color": color, "width": 4})


def _gold(figure: go.Figure, regions: shapes.FloatArray, row: int, column: int) -> None:
    for left, top, right, bottom in regions:
        for color, width in (("black", 5), (style.GOLD_COLOR, 2.5)):
            line = {"color": color, "width": width}
            figure.add_shape(type="rect", x0=left, x1=right, y0=top, y1=bottom, line=line, row=row, col=column)


def _data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
