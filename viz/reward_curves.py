"""Figures of reward models along an axis: over training, by confidence, by N. Imported through ``viz.rewards``."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from viz import shapes, style
from viz.paper_parts import add_legend, add_title, draw_lines, dress, label_axes, new_figure


def coefficients(
    steps: npt.ArrayLike,
    value: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    *,
    title: str = "",
    quantity: str = "shortcut-failure coefficient",
) -> Figure:
    """Draw the mean weight of pairs over training, with a band; the dashed line is where both branches do equally well.

    Args:
        steps: (steps,) optimiser steps.
        value: (steps,), or (series, steps).
        low: lower ends of the bands, such as the 10th percentile of a batch.
        high: upper ends.
        labels: one name for each series.
        title: above the figure.
        quantity: name of the vertical axis.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    drawn = shapes.curves(steps, value, low, high, 0.5, labels, axis="steps")
    figure, axes = new_figure(style.COLUMN_WIDTH, 2.5, title)
    draw_lines(axes, drawn)
    for line in axes.get_lines():
        # Hundreds of steps stand side by side.
        line.set_markevery(max(1, drawn.x.size // 8))
        if line.get_label() == "chance":
            line.set_label("both branches equal")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    label_axes(axes, "step", quantity)
    add_legend(figure, axes)
    return figure


def reliability(
    confidence: npt.ArrayLike,
    accuracy: npt.ArrayLike,
    low: npt.ArrayLike,
    high: npt.ArrayLike,
    counts: npt.ArrayLike,
    edges: npt.ArrayLike,
    error: Sequence[float] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Draw how often the preferred answer is the better one, by the confidence in it; below, the pairs of each bin.

    Args:
        confidence: (bins,) mean confidence; NaN in bins without pairs.
        accuracy: (bins,) share of pairs ranked correctly.
        low: (bins,) lower interval ends of it.
        high: (bins,) upper interval ends.
        counts: (bins,) pairs.
        edges: (bins + 1,) where bins end.
        error: value, low and high of the expected calibration error, written into the figure.
        title: above the figure.

    Raises:
        FigureError: if shapes do not match, or no bin has a pair.
    """
    drawn = shapes.curves(np.arange(np.size(accuracy)), accuracy, low, high, axis="bins")
    centre, pairs, ends = (shapes.numbers(part, "bins") for part in (confidence, counts, edges))
    bins = drawn.x.size
    if centre.shape != (bins,) or pairs.shape != (bins,) or ends.shape != (bins + 1,):
        raise shapes.FigureError(
            f"{bins} bins need as many confidences and counts and one more edge: {centre.shape}, {pairs.shape}, "
            f"{ends.shape}"
        )
    assert drawn.low is not None and drawn.high is not None
    figure = Figure(figsize=(style.COLUMN_WIDTH, 3.6), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=(2.6, 1), sharex=True)
    for part in (axes, below):
        dress(part)
    axes.plot([0.5, 1], [0.5, 1], color=style.CHANCE_COLOR, linestyle=(0, (4, 3)), lw=0.9, label="calibrated", zorder=1)
    there = (pairs > 0) & np.isfinite(drawn.value[0]) & np.isfinite(centre)
    value = drawn.value[0][there]
    reach = np.stack([value - drawn.low[0][there], drawn.high[0][there] - value])
    axes.errorbar(
        centre[there], value, yerr=reach, fmt="o-", ms=4, lw=1.2, capsize=2.5, color=style.series_color(0),
        label="pairs of a bin",
    )  # fmt: skip
    axes.set(ylim=(-0.03, 1.03), xlim=(0.49, 1.01))
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
    # The legend goes where a title leaves room.
    add_title(figure, title)
    add_legend(figure, axes)
    label_axes(axes, "", "right")
    if error is not None:
        told = f"expected calibration error {error[0]:.3f} [{error[1]:.3f}, {error[2]:.3f}]"
        axes.set_title(told, fontsize=style.SMALL_FONT_SIZE, loc="left")
    below.bar(ends[:-1], pairs, np.diff(ends), align="edge", color=style.series_color(5), edgecolor="white", lw=0.6)
    for left, width, count in zip(ends[:-1], np.diff(ends), pairs, strict=True):
        told = style.short_count(count) if count >= 1e4 else f"{count:.0f}"
        below.text(left + width / 2, count, told, ha="center", va="bottom", fontsize=style.SMALL_FONT_SIZE - 1)
    below.set_ylim(0, 1.25 * max(float(pairs.max()), 1.0))
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    label_axes(below, "confidence in the preferred answer", "n")
    return figure


def best_of_n(
    sizes: npt.ArrayLike,
    value: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    ceiling: npt.ArrayLike | None = None,
    kl_bound: npt.ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    *,
    title: str = "",
    quantity: str = "quality of the pick",
) -> Figure:
    """Draw the quality of the answer picked out of N against N; the upper axis bounds its distance from the policy.

    Args:
        sizes: (sizes,) the N, increasing.
        value: (sizes,), or (series, sizes).
        low: lower interval ends.
        high: upper interval ends.
        ceiling: (sizes,) the quality of picking by quality itself.
        kl_bound: (sizes,) upper bound of the KL divergence in nats; no upper axis when None.
        labels: one name for each series.
        title: above the figure.
        quantity: name of the vertical axis.

    Raises:
        FigureError: if shapes do not match, nothing is finite, or sizes are below 1 or do not increase.
    """
    drawn = shapes.curves(sizes, value, low, high, None, labels, axis="sizes")
    if drawn.x.min() < 1 or (np.diff(drawn.x) <= 0).any():
        raise shapes.FigureError(f"sizes must be 1 or more and increase, got {drawn.x.tolist()}")
    extra = {"ceiling": ceiling, "kl_bound": kl_bound}
    checked = {name: shapes.numbers(part, name) for name, part in extra.items() if part is not None}
    for name, part in checked.items():
        if part.shape != drawn.x.shape:
            raise shapes.FigureError(f"{name} must be one number for each of the {drawn.x.size} sizes")
    figure, axes = new_figure(style.COLUMN_WIDTH, 2.9, title)
    axes.set_xscale("log", base=2)
    draw_lines(axes, drawn)
    if "ceiling" in checked:
        axes.plot(drawn.x, checked["ceiling"], color="black", linestyle=(0, (1, 1)), lw=1.0, label="best there is")
    tallest = max(float(np.nanmax(part)) for part in (drawn.value, *(checked.get("ceiling", drawn.value),)))
    top = 1.03 if tallest <= 1 else 1.06 * tallest
    axes.set_ylim(min(0.0, float(np.nanmin(drawn.value))), top)
    axes.set_xticks(drawn.x, [f"{size:g}" for size in drawn.x])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    label_axes(axes, "N", quantity)
    if "kl_bound" in checked:
        upper = axes.secondary_xaxis("top")
        upper.set_xticks(drawn.x, [f"{bound:.2f}" for bound in checked["kl_bound"]])
        upper.xaxis.set_minor_formatter(NullFormatter())
        upper.tick_params(which="both", labelsize=style.SMALL_FONT_SIZE, length=2)
        upper.tick_params(which="minor", length=0)
        upper.set_xlabel("KL from the policy, at most (nats)", fontsize=style.SMALL_FONT_SIZE)
    add_legend(figure, axes)
    return figure


def score_against_length(
    lengths: npt.ArrayLike,
    value: npt.ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    title: str = "",
    unit: str = "tokens",
    quantity: str = "score",
) -> Figure:
    """Draw scores of an answer that grows by words that claim nothing, and beside it what does not grow.

    Args:
        lengths: (steps,) of the answer.
        value: (steps,), or (series, steps).
        labels: one name for each series.
        title: above the figure.
        unit: of the lengths.
        quantity: name of the vertical axis.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    drawn = shapes.curves(lengths, value, labels=labels, axis="lengths")
    figure, axes = new_figure(style.COLUMN_WIDTH, 2.5, title)
    draw_lines(axes, drawn)
    # Scores are unbounded.
    axes.autoscale(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    label_axes(axes, f"{unit} of the answer", quantity)
    add_legend(figure, axes)
    return figure
