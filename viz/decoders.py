"""Figures of several decoders side by side: arrays in, matplotlib figures out, in the sizes of ``viz.papers``.

Write them with ``viz.papers.save``. Knows nothing of models, records or files.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from viz import shapes, style
from viz.kinds import kind_color
from viz.paper_kinds import draw_strip
from viz.paper_parts import add_title, draw_chance, dress, label_axes

__all__ = ["DecoderLook", "accuracy_side_by_side", "carrying", "settling"]

_FAINT = 0.45


class DecoderLook(NamedTuple):
    """One panel of `accuracy_side_by_side`."""

    name: str
    parts: Sequence[Sequence[str]]
    """(layers,): what each layer is made of, the kind that mixes tokens first: that one has the value."""
    value: npt.ArrayLike
    """(layers,): of the model that is shown; NaN where the layer mixes no tokens."""
    low: npt.ArrayLike
    """(layers,): lower interval ends."""
    high: npt.ArrayLike
    """(layers,): upper interval ends."""
    others: npt.ArrayLike
    """(other seeds, layers), drawn faintly."""
    chance: float


def accuracy_side_by_side(
    looks: Sequence[DecoderLook], *, title: str = "", quantity: str = "attention accuracy"
) -> Figure:
    """Draw an accuracy by layer for several decoders, each layer in the colour of its kind, above what it is made of.

    Args:
        looks: a panel for each.
        title: above the figure.
        quantity: name of the vertical axis.

    Raises:
        FigureError: if there is no panel, shapes do not match, or a panel has no finite value.
    """
    if not looks:
        raise shapes.FigureError("there is no decoder to draw")
    widths = [len(look.parts) + 1 for look in looks]
    shown = list(dict.fromkeys(part for look in looks for parts in look.parts for part in parts))
    strip = 0.16 * len(shown) + 0.1
    figure = Figure(figsize=(style.PAGE_WIDTH, 2.5 + strip), layout="constrained")
    above, below = figure.subplots(
        2, len(looks), sharex="col", sharey="row", squeeze=False, width_ratios=widths, height_ratios=(2.1, strip)
    )
    for axes, beside, look in zip(above, below, looks, strict=True):
        _draw_look(axes, look)
        draw_strip(beside, shown, [[at for at, parts in enumerate(look.parts) if part in parts] for part in shown])
        beside.set_xlim(-0.6, len(look.parts) - 0.4)
        beside.set_xticks(range(len(look.parts)))
        beside.tick_params(axis="y", labelleft=beside is below[0])
        label_axes(beside, "layer", "")
    label_axes(above[0], "", quantity)
    faint = any(np.size(look.others) for look in looks)
    mixing = list(dict.fromkeys(parts[0] for look in looks for parts in _with_value(look)))
    handles = [Line2D([], [], color=kind_color(kind), marker="o", ls="", ms=4.5, label=kind) for kind in mixing]
    handles += [Line2D([], [], color=style.CHANCE_COLOR, ls=(0, (4, 3)), lw=0.9, label="chance")]
    handles += [Line2D([], [], color="#000000", alpha=_FAINT, marker="_", ls="", ms=6, label="other seeds")] * faint
    _finish(figure, handles, title)
    return figure


def _draw_look(axes: Axes, look: DecoderLook) -> None:
    value, low, high = (shapes.numbers(each, "value") for each in (look.value, look.low, look.high))
    layers = len(look.parts)
    others = shapes.numbers(look.others, "others").reshape(-1, layers)
    if not value.shape == low.shape == high.shape == (layers,):
        raise shapes.FigureError(f"{look.name} has {layers} layers, and values of {value.shape}")
    if not np.isfinite(value).any():
        raise shapes.FigureError(f"{look.name} has no finite value")
    dress(axes)
    there = np.flatnonzero(np.isfinite(value)).tolist()
    kinds = {layer: look.parts[layer][0] for layer in there}
    for mixing in dict.fromkeys(kinds.values()):
        own = [layer for layer in there if kinds[layer] == mixing]
        axes.plot(own, value[own], color=kind_color(mixing), lw=0.8, alpha=_FAINT, zorder=1)
    for layer, kind in kinds.items():
        color = kind_color(kind)
        reach = [[value[layer] - low[layer]], [high[layer] - value[layer]]]
        axes.errorbar([layer], [value[layer]], yerr=reach, fmt="o", color=color, ms=4.5, lw=1.2, capsize=2)
        faint = others[:, layer][np.isfinite(others[:, layer])]
        axes.plot([layer] * len(faint), faint, "_", color=color, alpha=_FAINT, ms=8, mew=1.4)
    draw_chance(axes, [look.chance])
    axes.set_title(look.name, fontsize=style.FONT_SIZE)
    axes.set_ylim(-0.03, 1.03)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=0)


def _with_value(look: DecoderLook) -> list[Sequence[str]]:
    seen = np.isfinite(np.asarray(look.value, dtype=float))
    return [parts for parts, there in zip(look.parts, seen, strict=True) if there]


def carrying(
    names: Sequence[str],
    paths: Sequence[str],
    value: npt.ArrayLike,
    *,
    title: str = "",
    quantity: str = "nats lost without the right image",
) -> Figure:
    """Draw what answers lose along each path, for several decoders: a dot for every seed, a bar for their mean.

    Args:
        names: (decoders,).
        paths: (paths,): what an image is hidden from; kinds of layers have their colours.
        value: (decoders, paths, seeds), NaN where a decoder has no such path or no such seed.
        title: above the figure.
        quantity: name of the vertical axis.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    table = shapes.numbers(value, "value")
    if table.ndim != 3 or table.shape[:2] != (len(names), len(paths)):
        raise shapes.FigureError(
            f"value has shape {table.shape}; give {len(names)} decoders by {len(paths)} paths by seeds"
        )
    if not np.isfinite(table).any():
        raise shapes.FigureError("value has no finite number")
    figure = Figure(figsize=(1.5 * style.COLUMN_WIDTH, 2.6), layout="constrained")
    axes = figure.subplots()
    dress(axes)
    place = 0.0
    middles = []
    for decoder in table:
        own = [index for index, seeds in enumerate(decoder) if np.isfinite(seeds).any()]
        for at, index in enumerate(own, start=1):
            seeds = decoder[index][np.isfinite(decoder[index])]
            color = _path_color(paths[index])
            axes.bar(place + at, seeds.mean(), width=0.8, color=color, alpha=0.5)
            spread = np.linspace(-0.18, 0.18, len(seeds)) if len(seeds) > 1 else np.zeros(1)
            axes.plot(place + at + spread, seeds, "o", ms=3.5, color=color, mec="#000000", mew=0.4)
        middles.append(place + (1 + len(own)) / 2)
        place += len(own) + 1.0
    axes.set_xticks(middles, list(names))
    axes.tick_params(axis="x", length=0)
    axes.axhline(0, color=style.CHANCE_COLOR, lw=0.8)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)
    label_axes(axes, "", quantity)
    handles = [Line2D([], [], color=_path_color(path), marker="s", ls="", ms=5, label=path) for path in paths]
    _finish(figure, handles, title)
    return figure


def _path_color(path: str) -> str:
    return kind_color(path) if path in ("attention", "state space", "linear attention") else "#7F7F7F"


def settling(
    names: Sequence[str],
    steps: Sequence[npt.ArrayLike],
    value: Sequence[npt.ArrayLike],
    quantities: Sequence[str],
    floors: Sequence[npt.ArrayLike] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Draw how quantities move along training, a panel for each, a line for every run and a colour for every decoder.

    Args:
        names: (runs,): the decoder of each run.
        steps: (runs,) of (points,): training steps.
        value: (runs,) of (quantities, points).
        quantities: names of the vertical axes.
        floors: of the shape of ``value``: what chance gives; dotted.
        title: above the figure.

    Raises:
        FigureError: if shapes do not match, or there is no run.
    """
    if not names or not len(names) == len(steps) == len(value):
        raise shapes.FigureError(f"{len(names)} runs are named; steps are of {len(steps)}, values of {len(value)}")
    figure = Figure(figsize=(style.PAGE_WIDTH, 2.6), layout="constrained")
    panels = figure.subplots(1, len(quantities), squeeze=False)[0]
    known = list(dict.fromkeys(names))
    for run, name in enumerate(names):
        across, tables = shapes.numbers(steps[run], "steps"), shapes.numbers(value[run], "value")
        if tables.shape != (len(quantities), across.size):
            raise shapes.FigureError(f"run {run} has {across.size} points, and values of shape {tables.shape}")
        series = known.index(name)
        for at, axes in enumerate(panels):
            axes.plot(across, tables[at], color=style.series_color(series), lw=1.1, ms=3, alpha=0.85,
                      marker=style.PAPER_MARKERS[series % len(style.PAPER_MARKERS)])  # fmt: skip
            if floors is not None:
                floor = shapes.numbers(floors[run], "floors")[at]
                axes.plot(across, floor, color=style.series_color(series), lw=0.9, linestyle=(0, (1, 1.5)), alpha=0.85)
    for axes, quantity in zip(panels, quantities, strict=True):
        dress(axes)
        axes.set_ylim(0, None)
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
        label_axes(axes, "training step", quantity)
    handles = [
        Line2D([], [], color=style.series_color(at), marker=style.PAPER_MARKERS[at % len(style.PAPER_MARKERS)], ms=4,
               lw=1.1, label=name)
        for at, name in enumerate(known)
    ]  # fmt: skip
    if floors is not None:
        handles.append(Line2D([], [], color="#000000", lw=0.9, linestyle=(0, (1, 1.5)), label="by chance"))
    _finish(figure, handles, title)
    return figure


def _finish(figure: Figure, handles: Sequence[Line2D], title: str) -> None:
    """The legend below in one row, and the title above."""
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=style.SMALL_FONT_SIZE
    )
    add_title(figure, title)
