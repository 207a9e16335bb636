"""Paper figures of mixtures of experts: load, pairs, specialisation, training, effects. See ``viz.papers``."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from viz import expert_shapes, style
from viz.paper_maps import draw_mesh
from viz.paper_parts import add_colorbar, add_legend, add_title, dress, label_axes, new_figure
from viz.shapes import FloatArray, color_limits

_MOST_ROWS, _MOST_COLUMNS = 24, 12


def expert_load(
    load: npt.ArrayLike,
    layers: Sequence[int],
    difference: npt.ArrayLike | None = None,
    *,
    even: float | None = None,
    title: str = "",
    beside: str = "image − text",
) -> Figure:
    """Draw the load of every expert, layers upwards and experts across, and beside it a difference of two loads.

    Args:
        load: (layers, experts) share of tokens that go to each.
        layers: (layers,) true layer indices.
        difference: (layers, experts) load of one kind of token minus that of another.
        even: load of every expert were all called alike, named under the axis.
        title: above the figure.
        beside: name of the difference.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    drawn = expert_shapes.loads(load, layers, difference)
    rows, columns = drawn.load.shape
    panels = 1 if drawn.difference is None else 2
    width = min(style.PAGE_WIDTH, panels * max(2.9, 0.12 * columns + 1.4))
    figure = Figure(figsize=(width, min(max(2.1, 1.4 + 0.2 * rows), 7.0)), layout="constrained")
    parts = figure.subplots(1, panels, squeeze=False)[0]
    mesh = draw_mesh(parts[0], drawn.load, color_limits([drawn.load], None))
    add_colorbar(figure, mesh, parts[0], "load")
    _grid_axes(parts[0], drawn.layers, columns)
    label_axes(parts[0], "expert" if even is None else f"expert (even load: {even:.3f})", "layer")
    if drawn.difference is not None:
        _draw_around_zero(figure, parts[1], drawn.difference, f"load, {beside}")
        _grid_axes(parts[1], drawn.layers, columns)
        label_axes(parts[1], "expert", "")
    add_title(figure, title)
    return figure


def co_activation(ratio: npt.ArrayLike, layers: Sequence[int], *, most: int = 6, title: str = "") -> Figure:
    """Draw how much oftener than by chance each two experts are called together, a panel for each layer.

    Args:
        ratio: (layers, experts, experts) tokens that go to both over those expected; NaN stays empty, 0 ends the scale.
        layers: (layers,) true layer indices.
        most: layers that are drawn: of more, as many evenly spread from the first to the last.
        title: above the figure.

    Raises:
        FigureError: if shapes do not match, or nothing is finite and above zero.
    """
    drawn = expert_shapes.pairs(ratio, layers, most)
    down, across = drawn.grid
    width = min(style.PAGE_WIDTH, 2.1 * across + 1.1)
    figure = Figure(figsize=(width, 2.15 * down + 0.35), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    names = [str(expert) for expert in range(drawn.lift.shape[1])]
    for axes, lift, layer in zip(panels, drawn.lift, drawn.layers, strict=False):
        mesh = draw_mesh(axes, lift, (-drawn.reach, drawn.reach), ruled=drawn.ruled)
        mesh.set_cmap(style.GAIN_MAP)
        axes.set_aspect("equal")
        _grid_axes(axes, names, len(names), most_rows=_MOST_COLUMNS)
        label_axes(axes, "expert", "expert")
        axes.set_title(f"layer {layer}", fontsize=style.FONT_SIZE)
    for axes in panels[len(drawn.lift) :]:
        axes.set_axis_off()
    add_colorbar(figure, mesh, panels, drawn.label)
    add_title(figure, title)
    return figure


def specialisation(
    layers: Sequence[int],
    value: npt.ArrayLike,
    chance: npt.ArrayLike,
    labels: Sequence[str],
    *,
    title: str = "",
    quantity: str = "mutual information, bits",
) -> Figure:
    """Draw what routing tells of labels by layer, each series with what shuffled labels give.

    Args:
        layers: (layers,) true layer indices.
        value: (series, layers).
        chance: (series, layers): the same of shuffled labels.
        labels: one name for each series.
        title: above the figure.
        quantity: name of the vertical axis.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    drawn = expert_shapes.gaps(layers, value, chance, labels)
    figure, axes = new_figure(1.2 * style.COLUMN_WIDTH, 2.6, title)
    for index, (own, level, label) in enumerate(zip(drawn.value, drawn.chance, drawn.labels, strict=True)):
        color = style.series_color(index)
        marker = style.PAPER_MARKERS[index % len(style.PAPER_MARKERS)]
        axes.plot(drawn.layers, own, color=color, marker=marker, ms=3.5, lw=1.3, label=label)
        axes.plot(
            drawn.layers, level, color=color, linestyle=(0, (4, 3)), lw=0.9,
            label="chance, of the same colour" if index == len(drawn.labels) - 1 else None,
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
    shown = expert_shapes.ticks(len(layers), _MOST_COLUMNS)
    axes.set_xticks(drawn.layers[shown], [str(layers[place]) for place in shown])
    label_axes(axes, "layer", quantity)
    add_legend(figure, axes)
    return figure


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
) -> Figure:
    """Draw something by layer along the checkpoints of a training run, with the floors that it can fall to.

    Args:
        points: (points,) names of the checkpoints, in order.
        value: (points, layers, 3): value, low, high.
        layers: (layers,) true layer indices.
        floors: (points, layers): what chance alone gives each of them, such as what two routings share that have their
            loads in common and nothing else.
        floor: one level of chance for all: what two routings share that have nothing in common.
        floor_name: name of the floors.
        title: above the figure.
        quantity: name of the vertical axis.
        is_share: whether that runs from 0 to 1; else from 0 to the largest value.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    drawn = expert_shapes.course(points, value, layers, floors)
    figure, axes = new_figure(1.4 * style.COLUMN_WIDTH, 2.7, title)
    at = np.arange(len(drawn.points))
    for index, (name, color) in enumerate(zip(drawn.layers, _by_depth(len(drawn.layers)), strict=True)):
        centre, low, high = drawn.value[:, index].T
        marker = style.PAPER_MARKERS[index % len(style.PAPER_MARKERS)]
        axes.plot(at, centre, color=color, marker=marker, ms=3.5, lw=1.3, label=f"layer {name}")
        axes.fill_between(at, low, high, color=color, alpha=0.18, linewidth=0)
        if drawn.floors is not None:
            label = floor_name if index == len(drawn.layers) - 1 else None
            axes.plot(at, drawn.floors[:, index], color=color, linestyle=(0, (1, 1.5)), lw=1.0, label=label)
    if floor is not None:
        axes.axhline(floor, color=style.CHANCE_COLOR, linestyle=(0, (4, 3)), lw=0.9, label="floor at random", zorder=1)
    axes.set_ylim(0, 1.03 if is_share else None)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
    shown = expert_shapes.ticks(len(drawn.points), 12)
    longest = max(len(drawn.points[place]) for place in shown)
    slanted = longest * len(shown) > 60
    axes.set_xticks(shown, [drawn.points[place] for place in shown], rotation=30 if slanted else 0,
                    ha="right" if slanted else "center")  # fmt: skip
    label_axes(axes, "checkpoint", quantity)
    add_legend(figure, axes)
    return figure


def expert_effects(
    value: npt.ArrayLike,
    layers: Sequence[int],
    shared: npt.ArrayLike | None = None,
    *,
    title: str = "",
    quantity: str = "drop in log-probability, nats",
) -> Figure:
    """Draw what an answer loses without each expert, and beside it what it loses without a layer's shared ones.

    Args:
        value: (layers, experts) effects; positive where the expert spoke for the answer.
        layers: (layers,) true layer indices.
        shared: (layers, 3): value, low, high of the shared experts; NaN where a layer has none.
        title: above the figure.
        quantity: name of the effect.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    drawn = expert_shapes.effects(value, layers, shared)
    rows, columns = drawn.value.shape
    ratios = (3.0,) if drawn.shared is None else (3.0, 1.2)
    width = min(style.PAGE_WIDTH, max(style.COLUMN_WIDTH, 0.14 * columns + 1.6) + (1.5 if len(ratios) > 1 else 0))
    figure = Figure(figsize=(width, min(max(2.3, 1.5 + 0.2 * rows), 7.0)), layout="constrained")
    parts = figure.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0]
    _draw_around_zero(figure, parts[0], drawn.value, quantity)
    _grid_axes(parts[0], drawn.layers, columns)
    label_axes(parts[0], "routed expert", "layer")
    if drawn.shared is not None:
        _draw_shared(parts[1], drawn.shared, drawn.layers)
    add_title(figure, title)
    return figure


def _draw_shared(axes: Axes, shared: FloatArray, layers: Sequence[str]) -> None:
    dress(axes)
    there = np.flatnonzero(np.isfinite(shared[:, 0]))
    centre, low, high = shared[there].T
    axes.axvline(0, color=style.CHANCE_COLOR, lw=0.9, zorder=1)
    axes.errorbar(centre, there, xerr=[centre - low, high - centre], fmt="o", ms=4, lw=1.2, capsize=2,
                  color=style.series_color(0))  # fmt: skip
    axes.set_ylim(-0.5, len(layers) - 0.5)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.5)
    label_axes(axes, "shared experts, nats", "")


def _draw_around_zero(figure: Figure, axes: Axes, table: FloatArray, quantity: str) -> None:
    """Draw a heat map whose middle colour is zero, with its colour bar."""
    end = expert_shapes.reach(table)
    mesh = draw_mesh(axes, table, (-end, end))
    mesh.set_cmap(style.GAIN_MAP)
    add_colorbar(figure, mesh, axes, quantity)


def _grid_axes(axes: Axes, layers: Sequence[str], experts: int, most_rows: int = _MOST_ROWS) -> None:
    axes.tick_params(labelsize=style.SMALL_FONT_SIZE)
    rows = expert_shapes.ticks(len(layers), most_rows)
    axes.set_yticks(rows, [layers[row] for row in rows])
    across = expert_shapes.ticks(experts, _MOST_COLUMNS)
    axes.set_xticks(across, [str(expert) for expert in across])


def _by_depth(layers: int) -> list[tuple[float, float, float, float]]:
    """A colour for each layer, dark to light with depth."""
    return [colormaps[style.HEAT_MAP](0.05 + 0.8 * place) for place in np.linspace(0, 1, layers)]
