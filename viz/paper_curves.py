"""Paper figures of series: by layer, by position, by causal effect, by size. Imported through ``viz.papers``."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from viz import shapes, style
from viz.paper_parts import (
    add_legend,
    add_title,
    draw_across,
    draw_dot,
    draw_dots,
    draw_lines,
    dress,
    label_axes,
    new_figure,
)


def layer_accuracy(
    layers: Sequence[int],
    value: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    chance: npt.ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    *,
    title: str = "",
    quantity: str = "attention accuracy",
) -> Figure:
    """Draw an accuracy by layer, with interval bands and the chance line.

    Args:
        layers: (layers,) true layer indices.
        value: (layers,), or (series, layers).
        low: lower interval ends, of the shape of ``value``.
        high: upper interval ends.
        chance: one level, or one for each series.
        labels: one name for each series; may be left out for a single one.
        title: above the figure.
        quantity: name of the vertical axis.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    drawn = shapes.curves(layers, value, low, high, chance, labels)
    figure, axes = new_figure(style.COLUMN_WIDTH, 2.5, title)
    draw_lines(axes, drawn)
    label_axes(axes, "layer", quantity)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    add_legend(figure, axes)
    return figure


def positions(
    answer: npt.ArrayLike,
    attention: npt.ArrayLike,
    answer_interval: npt.ArrayLike | None = None,
    attention_interval: npt.ArrayLike | None = None,
    *,
    answer_spread: Sequence[float] | None = None,
    attention_spread: Sequence[float] | None = None,
    chance: float | None = None,
    title: str = "",
) -> Figure:
    """Draw answer and attention accuracy by target position, and beside them how far each spreads.

    Args:
        answer: (positions,) P(answer correct), positions in order from the first image.
        attention: (positions,) P(focus = target | answer correct).
        answer_interval: (positions, 2) low and high.
        attention_interval: (positions, 2) low and high.
        answer_spread: value, low and high of the largest minus the smallest answer accuracy.
        attention_spread: the same of attention accuracy.
        chance: chance level of attention accuracy.
        title: above the figure.

    Raises:
        FigureError: if shapes do not match, or only one of two intervals or spreads is given.
    """
    drawn, spreads = shapes.position_curves(
        answer, attention, answer_interval, attention_interval, answer_spread, attention_spread, chance
    )
    figure = Figure(figsize=(5.2 if len(spreads) else style.COLUMN_WIDTH, 2.5), layout="constrained")
    parts = figure.subplots(1, 2, width_ratios=(3, 1.2), squeeze=False)[0] if len(spreads) else [figure.subplots()]
    draw_lines(parts[0], drawn)
    dress(parts[0])
    label_axes(parts[0], "target is image", "accuracy")
    parts[0].set_xticks(drawn.x)
    if len(spreads):
        dress(parts[1])
        top = shapes.spread_top(spreads)
        for index, (value, low, high) in enumerate(np.clip(spreads, None, 2 * top)):
            draw_dot(parts[1], index, value, low, high, index)
        parts[1].set(xlim=(-0.6, 1.6), ylim=(0, top))
        parts[1].set_xticks([0, 1], ["answer", "attention"])
        label_axes(parts[1], "", "largest − smallest")
    add_legend(figure, parts[0])
    add_title(figure, title)
    return figure


def causal_agreement(
    layers: Sequence[int],
    value: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    chance: npt.ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    *,
    rules: Sequence[str] = (),
    rule_value: npt.ArrayLike | None = None,
    rule_low: npt.ArrayLike | None = None,
    rule_high: npt.ArrayLike | None = None,
    title: str = "",
) -> Figure:
    """Draw how often the focus is the image of largest causal effect: by single layer, and by focus rule.

    Args:
        layers: (layers,) true layer indices.
        value: (layers,), or (interventions, layers).
        low: lower interval ends, of the shape of ``value``.
        high: upper interval ends.
        chance: one level, or one for each intervention.
        labels: names of the interventions.
        rules: names of the focus rules, broken into lines after a colon; none leaves their panel out.
        rule_value: (rules,), or (interventions, rules).
        rule_low: lower interval ends, of the shape of ``rule_value``.
        rule_high: upper interval ends.
        title: above the figure.

    Raises:
        FigureError: if shapes do not match, or rules come without values.
    """
    drawn = shapes.curves(layers, value, low, high, chance, labels)
    by_rule = shapes.rule_curves(rules, rule_value, rule_low, rule_high, drawn)
    figure = Figure(figsize=(5.6 if by_rule else style.COLUMN_WIDTH, 2.5), layout="constrained")
    parts = (
        figure.subplots(1, 2, sharey=True, width_ratios=(2.2, 1), squeeze=False)[0] if by_rule else [figure.subplots()]
    )
    draw_lines(parts[0], drawn)
    dress(parts[0])
    label_axes(parts[0], "layer", "focus = largest effect")
    parts[0].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if by_rule:
        dress(parts[1])
        draw_dots(parts[1], by_rule)
        parts[1].set_xticks(range(len(rules)), [rule.replace(": ", "\n") for rule in rules])
        label_axes(parts[1], "rule", "")
    add_legend(figure, parts[0])
    add_title(figure, title)
    return figure


def shares(
    groups: Sequence[str],
    value: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    *,
    title: str = "",
    quantity: str = "share",
) -> Figure:
    """Draw a share in each of several groups that have no order, such as tasks.

    Args:
        groups: their names.
        value: (groups,), or (series, groups).
        low: lower interval ends, of the shape of ``value``.
        high: upper interval ends.
        labels: one name for each series.
        title: above the figure.
        quantity: name of the vertical axis.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    drawn = shapes.curves(np.arange(len(groups)), value, low, high, None, labels, axis="groups")
    width = max(style.COLUMN_WIDTH, 1.0 + 0.62 * len(groups))
    figure = Figure(figsize=(width, 2.5), layout="constrained")
    axes = figure.subplots()
    dress(axes)
    draw_dots(axes, drawn, named=True)
    axes.set(ylim=(-0.03, 1.03))
    axes.set_xticks(range(len(groups)), groups)
    label_axes(axes, "", quantity)
    add_legend(figure, axes)
    add_title(figure, title)
    return figure


def scaling(
    parameters: npt.ArrayLike,
    value: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    chance: npt.ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    *,
    title: str = "",
    quantity: str = "accuracy",
) -> Figure:
    """Draw accuracies against the number of parameters, on a logarithmic axis.

    Args:
        parameters: (models,) numbers of parameters.
        value: (models,), or (series, models).
        low: lower interval ends, of the shape of ``value``.
        high: upper interval ends.
        chance: one level, or one for each series.
        labels: one name for each series.
        title: above the figure.
        quantity: name of the vertical axis.

    Raises:
        FigureError: if shapes do not match, or a number of parameters is not positive.
    """
    drawn = shapes.ordered(shapes.curves(parameters, value, low, high, chance, labels, axis="parameters"))
    figure, axes = new_figure(style.COLUMN_WIDTH, 2.5, title)
    axes.set_xscale("log")
    draw_lines(axes, drawn)
    axes.set_xticks(drawn.x, [style.short_count(count) for count in drawn.x])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    label_axes(axes, "parameters", quantity)
    add_legend(figure, axes)
    return figure


def differences(
    metrics: Sequence[str],
    value: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    *,
    title: str = "",
    quantity: str = "difference",
) -> Figure:
    """Draw differences, one below the other, as dots with interval bars around a line at zero.

    Args:
        metrics: what each difference is of, from the top.
        value: (metrics,); NaN leaves its line empty.
        low: lower interval ends, of the shape of ``value``.
        high: upper interval ends.
        title: above the figure.
        quantity: name of the horizontal axis.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    drawn = shapes.differences(metrics, value, low, high)
    figure, axes = new_figure(5.2, 0.8 + 0.27 * len(metrics), title)
    axes.axvline(0.0, color=style.CHANCE_COLOR, linewidth=0.9, zorder=1)
    draw_across(axes, drawn)
    axes.set_yticks(range(len(metrics)), metrics)
    axes.set_ylim(len(metrics) - 0.5, -0.5)
    label_axes(axes, quantity, "")
    return figure
