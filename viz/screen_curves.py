"""Screen figures of series: by layer, by position, by causal effect, by size. Imported through ``viz.screens``."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from viz import shapes, style
from viz.screen_parts import add_across, add_dot, add_dots, add_lines, house_style, new_figure, unit_axis


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
) -> go.Figure:
    """Draw an accuracy by layer, with interval bands and the chance line; see ``viz.papers.layer_accuracy``.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    figure = new_figure(title)
    add_lines(figure, shapes.curves(layers, value, low, high, chance, labels))
    return figure.update_layout(xaxis={"title": {"text": "layer"}, "dtick": _tick(layers)}, yaxis=unit_axis(quantity))


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
) -> go.Figure:
    """Draw answer and attention accuracy by target position, and their spreads; see ``viz.papers.positions``.

    Raises:
        FigureError: if shapes do not match, or only one of two intervals or spreads is given.
    """
    drawn, spreads = shapes.position_curves(
        answer, attention, answer_interval, attention_interval, answer_spread, attention_spread, chance
    )
    split = len(spreads) > 0
    figure = make_subplots(1, 2 if split else 1, column_widths=[0.7, 0.3] if split else None, horizontal_spacing=0.14)
    house_style(figure, title, 420)
    add_lines(figure, drawn, row=1, col=1)
    figure.update_layout(xaxis={"title": {"text": "target is image"}, "dtick": 1}, yaxis=unit_axis("accuracy"))
    if split:
        for index, (value, low, high) in enumerate(spreads):
            add_dot(figure, index, value, low, high, index, drawn.labels[index], row=1, col=2)
        top = shapes.spread_top(spreads)
        figure.update_layout(
            xaxis2={"tickvals": [0, 1], "ticktext": ["answer", "attention"], "range": [-0.6, 1.6], "zeroline": False},
            yaxis2={"title": {"text": "largest − smallest"}, "range": [0, top]},
        )
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
) -> go.Figure:
    """Draw how often the focus is the image of largest causal effect; see ``viz.papers.causal_agreement``.

    Raises:
        FigureError: if shapes do not match, or rules come without values.
    """
    drawn = shapes.curves(layers, value, low, high, chance, labels)
    by_rule = shapes.rule_curves(rules, rule_value, rule_low, rule_high, drawn)
    widths = [0.65, 0.35] if by_rule else None
    figure = make_subplots(1, 2 if by_rule else 1, column_widths=widths, shared_yaxes=True, horizontal_spacing=0.05)
    house_style(figure, title, 420)
    add_lines(figure, drawn, row=1, col=1)
    figure.update_layout(
        xaxis={"title": {"text": "layer"}, "dtick": _tick(layers)}, yaxis=unit_axis("focus = largest effect")
    )
    if by_rule:
        add_dots(figure, by_rule, rules, row=1, col=2)
        names = [rule.replace(": ", "<br>") for rule in rules]
        ticks = {"tickvals": list(range(len(rules))), "ticktext": names, "range": [-0.5, len(rules) - 0.5]}
        figure.update_layout(xaxis2={**ticks, "zeroline": False}, yaxis2={"range": [0, 1.03], "zeroline": False})
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
) -> go.Figure:
    """Draw a share in each of several groups that have no order; see ``viz.papers.shares``.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    figure = new_figure(title)
    drawn = shapes.curves(np.arange(len(groups)), value, low, high, None, labels, axis="groups")
    add_dots(figure, drawn, groups, legend=True)
    ticks = {"tickvals": list(range(len(groups))), "ticktext": list(groups), "zeroline": False}
    return figure.update_layout(
        xaxis={**ticks, "range": [-0.5, len(groups) - 0.5]}, yaxis={**unit_axis(quantity), "range": [-0.03, 1.03]}
    )


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
) -> go.Figure:
    """Draw accuracies against the number of parameters, on a logarithmic axis; see ``viz.papers.scaling``.

    Raises:
        FigureError: if shapes do not match, or a number of parameters is not positive.
    """
    drawn = shapes.ordered(shapes.curves(parameters, value, low, high, chance, labels, axis="parameters"))
    figure = new_figure(title)
    add_lines(figure, drawn)
    ticks = {"tickvals": drawn.x, "ticktext": [style.short_count(count) for count in drawn.x]}
    return figure.update_layout(
        xaxis={"title": {"text": "parameters"}, "type": "log", **ticks}, yaxis=unit_axis(quantity)
    )


def differences(
    metrics: Sequence[str],
    value: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    *,
    title: str = "",
    quantity: str = "difference",
) -> go.Figure:
    """Draw differences, one below the other, around a line at zero; see ``viz.papers.differences``.

    Raises:
        FigureError: if shapes do not match, or nothing is finite.
    """
    figure = new_figure(title, height=160 + 40 * len(metrics))
    add_across(figure, shapes.differences(metrics, value, low, high), metrics)
    ticks = {"tickvals": list(range(len(metrics))), "ticktext": list(metrics), "zeroline": False, "automargin": True}
    zero = {"zeroline": True, "zerolinecolor": style.CHANCE_COLOR, "zerolinewidth": 2}
    return figure.update_layout(
        xaxis={"title": {"text": quantity}, **zero}, yaxis={**ticks, "range": [len(metrics) - 0.5, -0.5]}
    )


def _tick(layers: Sequence[int]) -> int:
    return max(1, -(-len(layers) // 16))
