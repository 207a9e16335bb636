"""Paper figures of tables and maps: factors, image to image, overlays. Imported through ``viz.papers``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from viz import cells, shapes, style
from viz.paper_parts import add_colorbar, add_title, label_axes, new_figure

_MAX_NUMBERED = 12


def factor_heatmap(
    factors: npt.ArrayLike,
    layers: Sequence[int],
    *,
    target: int | None = None,
    per_layer: bool = False,
    limits: tuple[float, float] | None = None,
    title: str = "",
) -> Figure:
    """Draw attention factors, layers upwards and images across; a dot marks each layer's largest.

    Args:
        factors: (layers, images), padding columns of NaN left out.
        layers: (layers,) true layer indices.
        target: 0-based target image, framed.
        per_layer: show each factor's share of its layer instead, so that quiet layers can be read.
        limits: color scale; from zero to the largest when None.
        title: above the figure.

    Raises:
        FigureError: if shapes do not match, or the target is not an image.
    """
    table, names = shapes.factor_table(factors, layers, target, per_layer)
    rows, columns = table.shape
    figure, axes = new_figure(max(style.COLUMN_WIDTH, 0.55 * columns + 1.4), min(1.4 + 0.2 * rows, 7.0), title)
    mesh = draw_mesh(axes, table, shapes.color_limits([table], limits))
    peaks = [row for row in range(rows) if np.isfinite(table[row]).any()]
    axes.plot([float(np.nanargmax(table[row])) for row in peaks], peaks, "o", ms=3.5, mfc="white", mec="black", mew=0.7)
    if target is not None:
        frame = Rectangle(
            (target - 0.5, -0.5), 1, rows, fill=False, ec=style.TARGET_COLOR, lw=2, clip_on=False, zorder=5
        )
        axes.add_patch(frame)
    every = max(1, -(-rows // 24))
    axes.set_yticks(range(0, rows, every), [str(name) for name in names[::every]])
    axes.set_xticks(range(columns), style.image_labels(columns, target, mark="\n"))
    label_axes(axes, "dot: largest of its layer", "layer")
    add_colorbar(figure, mesh, axes, "share of the layer" if per_layer else "attention factor")
    return figure


def image_to_image(matrix: npt.ArrayLike, *, limits: tuple[float, float] | None = None, title: str = "") -> Figure:
    """Draw how strongly each image's tokens, and the text, attend to each image, and to the text.

    Args:
        matrix: (images + 1, images + 1); rows attend to columns; the last index is the text. NaN cells stay grey.
        limits: color scale; from zero to the largest when None.
        title: above the figure.

    Raises:
        FigureError: if the matrix is not square, or has no image.
    """
    table = shapes.pair_table(matrix)
    size = len(table)
    names = [*style.image_labels(size - 1), "text"]
    figure, axes = new_figure(max(style.COLUMN_WIDTH, 0.48 * size + 1.6), max(2.6, 0.42 * size + 0.9), title)
    scale = shapes.color_limits([table], limits)
    mesh = draw_mesh(axes, table, scale)
    axes.invert_yaxis()
    if size <= _MAX_NUMBERED:
        _numbers(axes, table, scale)
    axes.set_xticks(range(size), names)
    axes.set_yticks(range(size), names)
    label_axes(axes, "attended to", "attending")
    add_colorbar(figure, mesh, axes, "attention factor")
    return figure


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
) -> Figure:
    """Lay each image's map over it, all images on one color scale.

    Cells that overlap the primary tiling (a thumbnail's) are drawn over a second copy of the image. Cells without a
    token are hatched grey, apart from those of little attention, which leave the picture bare.

    Args:
        images: one (height, width, 3) picture, or a sequence of them.
        boxes: (cells, 4) left, top, right, bottom in pixels, or one such table for each image.
        scores: (cells,), or one such list for each image.
        labels: names of the images; "image 1" and so on when None.
        target: 0-based image that holds the answer, framed.
        focus: 0-based image in focus, framed.
        gold: (4,) box, or (regions, 4), in the target image (in the only one, if there is one) that holds the answer,
            outlined.
        primary: (cells,) booleans for each image; None finds a tiling without overlaps, smallest cells first.
        kept: (cells,) booleans for each image, false where the model dropped the cell's token; None: all have one.
        limits: color scale; from zero to the largest score when None.
        columns: most images side by side.
        title: above the figure.

    Raises:
        FigureError: if shapes do not match, a box lies outside its image, or a gold box has no image to lie in.
    """
    count = cells.picture_count(images)
    home, regions = cells.gold_regions(gold, target, focus, count)
    names = list(labels) if labels is not None else style.image_labels(count, target, focus)
    first, rest = cells.panels(images, boxes, scores, names, primary, kept)
    panels = [*first, *rest]
    rows, across = style.grid_shape(len(panels), columns)
    tallest = max(panel.image.shape[0] / panel.image.shape[1] for panel in panels)
    size = max(style.COLUMN_WIDTH, 1.75 * across + 0.5), rows * (1.7 * min(max(tallest, 0.3), 3.0) + 0.25) + 0.1
    figure = Figure(figsize=size, layout="constrained")
    norm = Normalize(*shapes.color_limits([panel.scores for panel in panels], limits))
    ramp = _ramp()
    grid = figure.subplots(rows, across, squeeze=False)
    for place, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
        _panel(axes, panel, ramp, norm, "" if place < len(first) else " (thumbnail)")
        _frames(axes, panel.index, target, focus)
        if panel.index == home:
            _gold(axes, regions)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    add_colorbar(figure, ScalarMappable(norm, ramp), list(grid.flat), "attention to cell")
    if any(panel.missing.any() for panel in panels):
        figure.legend(handles=[_missing_patch()], loc="outside lower center", frameon=False, fontsize=style.FONT_SIZE)
    add_title(figure, title)
    return figure


def draw_mesh(axes: Axes, table: shapes.FloatArray, limits: tuple[float, float], ruled: bool = True) -> ScalarMappable:
    """Draw a table as a heat map, its first row at the bottom; cells of NaN stay empty, `ruled` sets cells apart."""
    rows, columns = table.shape
    edges = np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5
    mesh = axes.pcolormesh(*edges, np.ma.masked_invalid(table), cmap=style.HEAT_MAP, vmin=limits[0], vmax=limits[1])
    mesh.set(edgecolor="white" if ruled else "face", linewidth=0.4 if ruled else 0)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(-0.5, rows - 0.5), facecolor=style.EMPTY_COLOR)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return mesh


def _numbers(axes: Axes, table: shapes.FloatArray, scale: tuple[float, float]) -> None:
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            color = colormaps[style.HEAT_MAP]((float(value) - scale[0]) / (scale[1] - scale[0]))
            dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 0.5
            text = style.cell_text(float(value))
            ink = "white" if dark else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=style.SMALL_FONT_SIZE - 0.5, color=ink)


def _ramp() -> LinearSegmentedColormap:
    stops = [(at, (*(part / 255 for part in color), alpha)) for at, color, alpha in style.OVERLAY_STOPS]
    return LinearSegmentedColormap.from_list("overlay", stops)


def _panel(axes: Axes, panel: cells.Panel, ramp: LinearSegmentedColormap, norm: Normalize, suffix: str) -> None:
    height, width = panel.image.shape[:2]
    axes.imshow(panel.image, extent=(0, width, height, 0), interpolation="nearest")
    left, top, right, bottom = panel.boxes.T
    corners = np.stack([left, top, right, top, right, bottom, left, bottom], axis=1).reshape(-1, 4, 2)
    patches = PolyCollection(list(corners), cmap=ramp, norm=norm, edgecolors="none", antialiaseds=False)
    patches.set_array(np.ma.masked_invalid(panel.scores))
    axes.add_collection(patches, autolim=False)
    for left, top, right, bottom in panel.boxes[panel.missing]:
        axes.add_patch(_missing_patch((left, top), right - left, bottom - top))
    axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    axes.spines[:].set_visible(False)
    axes.set_title(panel.label + suffix, fontsize=style.FONT_SIZE)


def _missing_patch(corner: tuple[float, float] = (0.0, 0.0), width: float = 1.0, height: float = 1.0) -> Rectangle:
    """A cell without a token, also as a legend's entry."""
    filling = to_rgba(style.MISSING_COLOR, style.MISSING_OPACITY)
    return Rectangle(
        corner, width, height, fc=filling, ec=style.MISSING_INK, hatch="////", lw=0, label=style.MISSING_LABEL
    )


def _frames(axes: Axes, index: int, target: int | None, focus: int | None) -> None:
    for chosen, color, pad in (
        (target, style.TARGET_COLOR, 0.0),
        (focus, style.FOCUS_COLOR, -0.03 * (target == focus)),
    ):
        if index == chosen:
            box = Rectangle((-pad, -pad), 1 + 2 * pad, 1 + 2 * pad, transform=axes.transAxes, fill=False, clip_on=False)
            box.set(edgecolor=color, linewidth=2.5)
            axes.add_patch(box)


def _gold(axes: Axes, regions: shapes.FloatArray) -> None:
    for left, top, right, bottom in regions:
        for color, width in (("black", 2.6), (style.GOLD_COLOR, 1.4)):
            axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, ec=color, lw=width))
