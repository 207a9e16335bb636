"""Paper figures that rank and compare many: a ranking, and a map of heads. Imported through ``viz.papers``."""

from collections.abc import Sequence

import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from viz import shapes, style
from viz.paper_maps import draw_mesh
from viz.paper_parts import add_colorbar, add_legend, draw_across, dress, label_axes, new_figure


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
) -> Figure:
    """Draw a value for each of several names, largest on top, as dots with intervals.

    Args:
        names: what is ranked.
        value: (names,), or (series, names); NaN where a series has none. Names go by their largest value.
        low: lower interval ends, of the shape of ``value``.
        high: upper interval ends.
        chance: one level, or one for each series.
        labels: one name for each series; may be left out for a single one.
        title: above the figure.
        quantity: name of the horizontal axis.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    drawn, order = shapes.ranked(names, value, low, high, chance, labels)
    figure, axes = new_figure(1.5 * style.COLUMN_WIDTH, 0.9 + 0.27 * len(order), title)
    draw_across(axes, drawn)
    axes.set(xlim=(0, 1.03), ylim=(len(order) - 0.5, -0.5))
    axes.set_yticks(range(len(order)), order)
    label_axes(axes, quantity, "")
    add_legend(figure, axes)
    return figure


def head_map(
    value: npt.ArrayLike,
    layers: Sequence[int],
    *,
    chosen: Sequence[tuple[int, int]] = (),
    limits: tuple[float, float] | None = None,
    title: str = "",
    quantity: str = "agreement",
) -> Figure:
    """Draw a value for each head of each layer, layers upwards and heads across; chosen heads are framed.

    Args:
        value: (layers, heads).
        layers: (layers,) true layer indices.
        chosen: (true layer index, head) of heads to frame.
        limits: color scale; from zero to the largest when None.
        title: above the figure.
        quantity: name of the color scale.

    Raises:
        FigureError: if shapes do not match, or a chosen head is not there.
    """
    table, places = shapes.head_table(value, layers, chosen)
    rows, columns = table.shape
    figure, axes = new_figure(max(style.COLUMN_WIDTH, 0.22 * columns + 1.4), min(1.3 + 0.22 * rows, 7.0), title)
    dress(axes)
    mesh = draw_mesh(axes, table, shapes.color_limits([table], limits))
    for row, column in places:
        frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec=style.FOCUS_COLOR, lw=2, zorder=5)
        axes.add_patch(frame)
    every = max(1, -(-rows // 24))
    axes.set_yticks(range(0, rows, every), [str(layer) for layer in layers[::every]])
    across = max(1, -(-columns // 16))
    axes.set_xticks(range(0, columns, across), [str(head) for head in range(0, columns, across)])
    label_axes(axes, "head (framed: chosen)" if places else "head", "layer")
    add_colorbar(figure, mesh, axes, quantity)
    return figure
