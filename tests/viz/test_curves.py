"""Curves, bars and dots on paper and screen: what is drawn equals the arrays given."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection

from tests.viz.drawn import CAUSAL, DIFFERENCES, EVERY, HIGH, LAYERS, LOW, NAMES, POSITIONS, VALUE, lines, named, points
from viz import papers, screens


def test_layer_lines_bands_and_chance_are_the_arrays() -> None:
    figure = papers.layer_accuracy(**EVERY["layer_accuracy"])
    drawn = lines(figure)
    bands = [part for part in figure.axes[0].collections if isinstance(part, PolyCollection)]
    shown = screens.layer_accuracy(**EVERY["layer_accuracy"])
    for index, name in enumerate(NAMES):
        assert drawn[name].get_xdata().tolist() == LAYERS
        assert drawn[name].get_ydata().tolist() == VALUE[index].tolist()
        corners = bands[index].get_paths()[0].vertices
        assert {tuple(corner) for corner in np.asarray(corners)} == {
            *zip(map(float, LAYERS), LOW[index].tolist(), strict=True),
            *zip(map(float, LAYERS), HIGH[index].tolist(), strict=True),
        }
        assert named(shown, name).y.tolist() == VALUE[index].tolist()
        band = named(shown, f"{name} interval")
        assert band.y.tolist() == [*HIGH[index], *LOW[index][::-1]]
        assert band.x.tolist() == [*LAYERS, *LAYERS[::-1]]
    assert set(drawn["chance"].get_ydata()) == set(named(shown, "chance").y) == {0.25}
    assert drawn["right"].get_marker() != drawn["wrong"].get_marker()
    assert drawn["right"].get_color() != drawn["wrong"].get_color()


def test_single_series_needs_no_label_and_several_chances_are_all_drawn() -> None:
    figure = papers.layer_accuracy(LAYERS, VALUE[0])
    assert not figure.legends
    two = papers.layer_accuracy(LAYERS, VALUE, chance=[0.25, 0.5], labels=NAMES)
    assert [line.get_ydata() for line in two.axes[0].get_lines()][-2:] == [[0.25, 0.25], [0.5, 0.5]]
    shown = screens.layer_accuracy(LAYERS, VALUE, chance=[0.25, 0.25], labels=NAMES)
    assert len([trace for trace in shown.data if trace.name == "chance"]) == 1


def test_missing_layers_are_gaps() -> None:
    value = np.array([0.2, np.nan, 0.6, 0.7])
    shown = screens.layer_accuracy(LAYERS, value, value - 0.1, value + 0.1, labels=["x"])
    assert np.isnan(named(shown, "x").y[1])
    assert np.isfinite(np.asarray(named(shown, "x interval").y)).all()
    assert np.isnan(np.asarray(lines(papers.layer_accuracy(LAYERS, value, labels=["x"]))["x"].get_ydata())[1])


def test_positions_and_spreads() -> None:
    figure = papers.positions(**POSITIONS)
    drawn = lines(figure)
    assert drawn["answer accuracy"].get_ydata().tolist() == POSITIONS["answer"]
    assert drawn["attention accuracy"].get_xdata().tolist() == [1, 2, 3]
    dots = [
        float(np.asarray(line.get_ydata())[0]) for line in figure.axes[1].get_lines() if line.get_marker() in ("o", "s")
    ]
    assert dots == [0.2, 0.05]
    shown = screens.positions(**POSITIONS)
    assert named(shown, "attention accuracy").y.tolist() == POSITIONS["attention"]
    ends = [
        (trace.y[0], trace.error_y.array[0], trace.error_y.arrayminus[0]) for trace in shown.data if len(trace.x) == 1
    ]
    assert np.array(ends) == pytest.approx(np.array([[0.2, 0.1, 0.1], [0.05, 0.05, 0.05]]))
    assert len(papers.positions([0.5, 0.6], [0.7, 0.8]).axes) == 1


def test_causal_agreement_by_layer_and_rule() -> None:
    figure = papers.causal_agreement(**CAUSAL)
    assert lines(figure)["blank"].get_ydata().tolist() == VALUE[0].tolist()
    dots = [
        float(np.asarray(line.get_ydata())[0]) for line in figure.axes[1].get_lines() if line.get_marker() in ("o", "s")
    ]
    assert dots == [0.8, 0.85, 0.7, 0.75]
    shown = screens.causal_agreement(**CAUSAL)
    by_rule = [trace for trace in shown.data if trace.mode == "markers"]
    assert [trace.y.tolist() for trace in by_rule] == CAUSAL["rule_value"]
    assert by_rule[1].error_y.array.tolist() == pytest.approx([0.1, 0.05])
    assert len(papers.causal_agreement(LAYERS, VALUE[0]).axes) == 1


def test_scaling_is_sorted_and_logarithmic() -> None:
    figure = papers.scaling(**EVERY["scaling"])
    assert figure.axes[0].get_xscale() == "log"
    assert points(figure.axes[0]) == [[3e5, 0.7], [1e6, 0.8], [4e6, 0.9]]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["0.3M", "1M", "4M"]
    shown = screens.scaling(**EVERY["scaling"])
    assert shown.data[0].x.tolist() == [3e5, 1e6, 4e6]
    assert shown.layout.xaxis.type == "log"


def test_costs_are_logarithmic_and_hollow_where_memory_ran_out() -> None:
    figure = papers.costs(**EVERY["costs"])
    assert [(axes.get_xscale(), axes.get_yscale()) for axes in figure.axes] == [("log", "log")] * 2
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["1k", "4k", "16k"]
    assert lines(figure)["theirs"].get_ydata().tolist()[:2] == [2.0, 6.0]
    hollow = [line for line in figure.axes[1].get_lines() if line.get_markerfacecolor() == "none"]
    assert [np.nanmax(line.get_ydata(), initial=0) for line in hollow] == [0, 60, 0]
    assert not [line for line in figure.axes[0].get_lines() if line.get_markerfacecolor() == "none"]
    shown = screens.costs(**EVERY["costs"])
    assert [trace.y.tolist()[2] for trace in shown.data if trace.marker.symbol.endswith("-open")] == [60.0]
    assert shown.layout.yaxis.type == shown.layout.xaxis2.type == "log"


def test_differences_lie_around_zero_from_the_top_down() -> None:
    figure = papers.differences(**DIFFERENCES)
    axes = figure.axes[0]
    zero, dots = axes.get_lines()[:2]
    assert np.asarray(zero.get_xdata()).tolist() == [0.0, 0.0]
    assert np.asarray(dots.get_xdata())[[0, 1, 3]].tolist() == [1.0, -4.0, 2.5]
    assert np.asarray(dots.get_ydata()).tolist() == [0, 1, 2, 3]
    bars = [part for part in axes.collections if isinstance(part, LineCollection)]
    drawn = [np.asarray(segment).tolist() for segment in bars[0].get_segments() if len(segment)]
    ends = {segment[0][1]: sorted(end[0] for end in segment) for segment in drawn}
    assert {at: ends[at] for at in (0.0, 1.0, 3.0)} == {0.0: [-1.0, 2.0], 1.0: [-7.0, -2.0], 3.0: [1.5, 4.5]}
    assert [tick.get_text() for tick in axes.get_yticklabels()] == DIFFERENCES["metrics"]
    assert axes.yaxis_inverted()
    shown = screens.differences(**DIFFERENCES)
    trace = shown.data[0]
    assert trace.x.tolist()[:2] == [1.0, -4.0] and trace.y.tolist() == [0, 1, 2, 3]
    assert (trace.x - trace.error_x.arrayminus)[[0, 1, 3]].tolist() == [-1.0, -7.0, 1.5]
    assert (trace.x + trace.error_x.array)[[0, 1, 3]].tolist() == [2.0, -2.0, 4.5]
    assert shown.layout.yaxis.ticktext == tuple(DIFFERENCES["metrics"])
    assert shown.layout.yaxis.range == (3.5, -0.5) and shown.layout.xaxis.zeroline


def test_a_ranking_goes_by_the_largest_value() -> None:
    figure = papers.ranking(**EVERY["ranking"])
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["probe", "raw factor", "rollout"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    drawn = [np.asarray(line.get_xdata()).tolist() for line in axes.get_lines() if line.get_marker() in ("o", "s")]
    assert drawn[1] == [0.9, 0.4, 0.3] and np.isnan(drawn[0][0]) and drawn[0][1:] == [0.5, 0.2]
    shown = screens.ranking(**EVERY["ranking"])
    assert shown.layout.yaxis.ticktext == ("probe", "raw factor", "rollout")
    assert named(shown, "predicting").x.tolist() == [0.9, 0.4, 0.3]
    assert named(shown, "predicting").error_x.array.tolist() == pytest.approx([0.05, 0.1, 0.1])
    assert named(shown, "chance").x == (0.25, 0.25)


def test_pruning_lines_follow_their_rates_and_the_first_frame_is_shaded() -> None:
    figure, shown = papers.pruning(**EVERY["pruning"]), screens.pruning(**EVERY["pruning"])
    for index, name in enumerate(NAMES):
        in_order = VALUE[index][[1, 2, 3, 0]].tolist()
        assert lines(figure)[name].get_xdata().tolist() == [0, 0.5, 0.75, 0.9] == named(shown, name).x.tolist()
        assert lines(figure)[name].get_ydata().tolist() == in_order == named(shown, name).y.tolist()
    (shade,) = [patch for patch in figure.axes[0].patches if patch.get_label() == "only the first frame left"]
    assert shade.get_extents().transformed(figure.axes[0].transData.inverted()).x0 == pytest.approx(0.75)
    assert [(shape.x0, shape.x1) for shape in shown.layout.shapes] == [(0.75, 1)]
    assert not screens.pruning([0.5], [0.1]).layout.shapes
