"""Paper and screen figures: what is drawn equals the arrays given, and wrong arrays are refused."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from viz import papers, screens, style
from viz.shapes import FigureError

LAYERS = [0, 2, 4, 6]
VALUE = np.array([[0.3, 0.5, 0.8, 0.9], [0.2, 0.4, 0.6, 0.7]])
LOW, HIGH = VALUE - 0.05, VALUE + 0.04
NAMES = ["right", "wrong"]
FACTORS = np.array([[0.1, 0.3, 0.2, np.nan], [0.4, 0.2, 0.1, np.nan], [0.1, 0.2, 0.9, np.nan]])
PAIRS = np.tril(np.arange(1.0, 17.0).reshape(4, 4)) / 100


def grid(side: int, width: float, height: float) -> np.ndarray:
    steps = [(x / side, y / side) for y in range(side) for x in range(side)]
    return np.array([[x * width, y * height, (x + 1 / side) * width, (y + 1 / side) * height] for x, y in steps])


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (40, 60, 3)).astype(np.uint8) for _ in range(count)]


def overlay_input(count: int = 3) -> dict[str, Any]:
    scores = list(np.random.default_rng(1).random((count, 16)))
    return {"images": pictures(count), "boxes": [grid(4, 60, 40)] * count, "scores": scores}


POSITIONS: dict[str, Any] = {
    "answer": [0.9, 0.8, 0.7],
    "attention": [0.95, 0.9, 0.92],
    "answer_interval": [[0.85, 0.95], [0.75, 0.85], [0.6, 0.8]],
    "attention_interval": [[0.9, 1.0], [0.85, 0.95], [0.9, 0.95]],
    "answer_spread": [0.2, 0.1, 0.3],
    "attention_spread": [0.05, 0.0, 0.1],
    "chance": 0.33,
}
CAUSAL: dict[str, Any] = {
    "layers": LAYERS,
    "value": VALUE,
    "low": LOW,
    "high": HIGH,
    "chance": 0.25,
    "labels": ["blank", "swap"],
    "rules": ["LND, N = 1", "M-LND, N = 4"],
    "rule_value": [[0.8, 0.85], [0.7, 0.75]],
    "rule_low": [[0.75, 0.8], [0.6, 0.7]],
    "rule_high": [[0.85, 0.9], [0.8, 0.8]],
}
DIFFERENCES: dict[str, Any] = {
    "metrics": ["answers right", "attention accuracy, paper", "nothing counted", "attention accuracy, predicting"],
    "value": [1.0, -4.0, np.nan, 2.5],
    "low": [-1.0, -7.0, -100.0, 1.5],
    "high": [2.0, -2.0, 100.0, 4.5],
}
EVERY: dict[str, dict[str, Any]] = {
    "layer_accuracy": {"layers": LAYERS, "value": VALUE, "low": LOW, "high": HIGH, "chance": 0.25, "labels": NAMES},
    "factor_heatmap": {"factors": FACTORS, "layers": [1, 3, 5], "target": 2},
    "image_to_image": {"matrix": PAIRS},
    "overlay": {**overlay_input(), "target": 1, "focus": 2, "gold": [10, 10, 30, 30]},
    "positions": POSITIONS,
    "causal_agreement": CAUSAL,
    "shares": {
        "groups": ["content", "needle", "giveaway"],
        "value": VALUE[:2, :3],
        "low": LOW[:2, :3],
        "high": HIGH[:2, :3],
        "labels": ["blank", "swap"],
    },
    "costs": {
        "lengths": [1024, 4096, 16384],
        "time": [[1.1, 1.05, 1.0], [2.0, 6.0, np.nan]],
        "memory": [[1.0, 1.0, 1.1], [1.3, 5.1, np.nan]],
        "labels": ["ours", "theirs"],
        "foreseen": [[np.nan] * 3, [np.nan, np.nan, 60.0]],
    },
    "differences": DIFFERENCES,
    "scaling": {"parameters": [4e6, 3e5, 1e6], "value": [0.9, 0.7, 0.8], "chance": 0.25},
    "ranking": {
        "names": ["raw factor", "rollout", "probe"],
        "value": [[0.5, 0.2, np.nan], [0.4, 0.3, 0.9]],
        "low": [[0.4, 0.1, np.nan], [0.3, 0.2, 0.8]],
        "high": [[0.6, 0.3, np.nan], [0.5, 0.4, 0.95]],
        "chance": 0.25,
        "labels": ["paper", "predicting"],
    },
    "head_map": {"value": VALUE, "layers": [1, 3], "chosen": [(3, 0), (1, 2)]},
}


def lines(figure: Figure, panel: int = 0) -> dict[str, Any]:
    return {str(line.get_label()): line for line in figure.axes[panel].get_lines()}


def points(axes: Axes) -> list[list[float]]:
    return [[float(x), float(y)] for x, y in np.column_stack(axes.get_lines()[0].get_data())]


def bounds(patch: Patch) -> tuple[float, ...]:
    assert isinstance(patch, Rectangle)
    return tuple(float(edge) for edge in patch.get_bbox().bounds)


def traces(figure: Any, kind: str) -> list[Any]:
    return [trace for trace in figure.data if trace.type == kind]


def named(figure: Any, name: str) -> Any:
    return next(trace for trace in figure.data if trace.name == name)


@pytest.mark.parametrize("name", EVERY)
def test_both_libraries_take_the_same_arguments_and_draw_something(name: str, tmp_path: Path) -> None:
    paper, screen = getattr(papers, name), getattr(screens, name)
    assert list(inspect.signature(paper).parameters.items()) == list(inspect.signature(screen).parameters.items())
    figure = paper(**EVERY[name], title="a title")
    assert figure.get_suptitle() == "a title"
    written = papers.save(figure, tmp_path / "figure.png", dpi=60)
    assert written.stat().st_size > 2000
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
    shown = screen(**EVERY[name], title="a title")
    assert shown.layout.title.text == "a title"
    assert all(len(trace.to_plotly_json()) > 1 for trace in shown.data)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_title_and_a_legend_of_many_rows_do_not_overlap(rows: int) -> None:
    count = 3 * rows
    curves: dict[str, Any] = {
        name: np.resize(EVERY["layer_accuracy"][name], (count, len(LAYERS))) for name in ("value", "low", "high")
    }
    labels = [f"the rather long name of series {number}" for number in range(count)]
    figure = papers.layer_accuracy(LAYERS, **curves, chance=0.25, labels=labels, title="a title")
    figure.set_canvas(FigureCanvasAgg(figure))
    figure.draw_without_rendering()
    (title,) = [text for text in figure.texts if text.get_text() == "a title"]
    (legend,) = figure.legends
    assert not title.get_window_extent().overlaps(legend.get_window_extent())
    panel = figure.axes[0].get_tightbbox()
    assert panel is not None and not panel.overlaps(legend.get_window_extent())


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


def test_factors_are_drawn_without_padding_and_with_one_based_names() -> None:
    figure = papers.factor_heatmap(**EVERY["factor_heatmap"])
    mesh = next(part for part in figure.axes[0].collections if isinstance(part, QuadMesh))
    assert np.asarray(mesh.get_array()).reshape(3, 3).tolist() == FACTORS[:, :3].tolist()
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0.0, 0.9)
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["image 1", "image 2", "image 3\ntarget"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["1", "3", "5"]
    assert points(axes) == [[1, 0], [0, 1], [2, 2]]
    assert bounds(axes.patches[0]) == (1.5, -0.5, 1.0, 3.0)
    shown = screens.factor_heatmap(**EVERY["factor_heatmap"])
    heat = traces(shown, "heatmap")[0]
    assert heat.z.tolist() == FACTORS[:, :3].tolist()
    assert shown.layout.xaxis.ticktext == ("image 1", "image 2", "image 3<br>target")
    assert shown.layout.yaxis.ticktext == ("1", "3", "5")
    assert named(shown, "largest of its layer").x == (2, 1, 3)
    assert (shown.layout.shapes[0].x0, shown.layout.shapes[0].x1) == (2.5, 3.5)


def test_layers_can_be_shown_as_shares() -> None:
    shown = screens.factor_heatmap(FACTORS, [1, 3, 5], per_layer=True)
    table = traces(shown, "heatmap")[0].z
    assert table.sum(axis=1) == pytest.approx([1, 1, 1])
    assert table[2, 2] == pytest.approx(0.9 / 1.2)


def test_pairs_are_drawn_with_their_numbers() -> None:
    figure = papers.image_to_image(PAIRS)
    axes = figure.axes[0]
    mesh = next(part for part in axes.collections if isinstance(part, QuadMesh))
    assert np.asarray(mesh.get_array()).reshape(4, 4).tolist() == PAIRS.tolist()
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["image 1", "image 2", "image 3", "text"]
    assert [text.get_text() for text in axes.texts] == [style.cell_text(value) for value in PAIRS.ravel().tolist()]
    assert axes.yaxis_inverted()
    heat = traces(screens.image_to_image(PAIRS), "heatmap")[0]
    assert heat.z.tolist() == PAIRS.tolist()
    assert list(heat.x) == list(heat.y) == ["image 1", "image 2", "image 3", "text"]
    assert heat.text[3][0] == "0.13"


def test_color_limits_can_be_fixed_across_figures() -> None:
    figure = papers.image_to_image(PAIRS, limits=(0.0, 0.5))
    mesh = next(part for part in figure.axes[0].collections if isinstance(part, QuadMesh))
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0.0, 0.5)
    assert traces(screens.image_to_image(PAIRS, limits=(0.0, 0.5)), "heatmap")[0].zmax == 0.5


def test_overlay_draws_every_cell_on_one_scale() -> None:
    given = EVERY["overlay"]
    figure = papers.overlay(**given)
    shown = screens.overlay(**given)
    heats, top = traces(shown, "heatmap"), max(float(np.max(scores)) for scores in given["scores"])
    assert (shown.layout.coloraxis.cmin, shown.layout.coloraxis.cmax) == (0.0, top)
    for index, scores in enumerate(given["scores"]):
        axes = figure.axes[index]
        patches = next(part for part in axes.collections if isinstance(part, PolyCollection))
        assert np.asarray(patches.get_array()).tolist() == scores.tolist()
        assert (patches.norm.vmin, patches.norm.vmax) == (0.0, top)
        boxes = [np.asarray(path.vertices) for path in patches.get_paths()]
        assert [[*box.min(axis=0), *box.max(axis=0)] for box in boxes] == given["boxes"][index].tolist()
        assert np.asarray(axes.get_images()[0].get_array()).tolist() == given["images"][index].tolist()
        assert heats[index].z.ravel().tolist() == scores.tolist()
        assert heats[index].x.tolist() == [0, 15, 30, 45, 60]
        assert heats[index].y.tolist() == [0, 10, 20, 30, 40]
        assert heats[index].coloraxis == "coloraxis"
    titles = ["image 1", "image 2 · target", "image 3 · focus"]
    assert [axes.get_title() for axes in figure.axes[:3]] == titles
    assert [note.text for note in shown.layout.annotations] == titles
    assert len(traces(shown, "image")) == 3


def test_gold_box_lies_in_the_target_image_only() -> None:
    figure = papers.overlay(**EVERY["overlay"])
    with_gold = [any(bounds(patch) == (10.0, 10.0, 20.0, 20.0) for patch in axes.patches) for axes in figure.axes[:3]]
    assert with_gold == [False, True, False]
    shown = screens.overlay(**EVERY["overlay"])
    gold = [shape for shape in shown.layout.shapes if shape.x1 == 30]
    assert {shape.xref for shape in gold} == {"x2"}


def test_every_one_of_several_gold_boxes_is_outlined() -> None:
    several = {**EVERY["overlay"], "gold": [[10, 10, 30, 30], [1, 2, 8, 9]]}
    outlined = {bounds(patch) for patch in papers.overlay(**several).axes[1].patches}
    assert {(10.0, 10.0, 20.0, 20.0), (1.0, 2.0, 7.0, 7.0)} <= outlined
    assert {(10, 10), (1, 2)} <= {(shape.x0, shape.y0) for shape in screens.overlay(**several).layout.shapes}
    assert not any(shape.x1 == 30 for shape in screens.overlay(**{**several, "gold": []}).layout.shapes)


def test_thumbnail_cells_get_a_panel_of_their_own() -> None:
    boxes = np.concatenate([grid(2, 60, 40), grid(4, 60, 40)])
    scores = np.arange(20.0)
    image = pictures(1)[0]
    figure = papers.overlay(image, boxes, scores)
    parts = [next(p for p in axes.collections if isinstance(p, PolyCollection)) for axes in figure.axes[:2]]
    assert [np.asarray(part.get_array()).tolist() for part in parts] == [scores[4:].tolist(), scores[:4].tolist()]
    assert figure.axes[1].get_title() == "image 1 (thumbnail)"
    primary = np.arange(20) < 4
    chosen = screens.overlay(image, boxes, scores, primary=primary)
    assert [heat.z.size for heat in traces(chosen, "heatmap")] == [4, 16]


def test_pictures_may_be_grey_floats_or_transparent() -> None:
    grey = np.linspace(0, 1, 2400).reshape(40, 60)
    alpha = np.zeros((40, 60, 4), dtype=np.uint8)
    figure = papers.overlay([grey, alpha], [grid(2, 60, 40)] * 2, [np.ones(4)] * 2)
    assert np.asarray(figure.axes[0].get_images()[0].get_array()).max() == 255


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


def test_a_head_map_frames_the_chosen_heads() -> None:
    figure = papers.head_map(**EVERY["head_map"])
    mesh = next(part for part in figure.axes[0].collections if isinstance(part, QuadMesh))
    assert np.asarray(mesh.get_array()).reshape(2, 4).tolist() == VALUE.tolist()
    assert [bounds(patch)[:2] for patch in figure.axes[0].patches] == [(-0.5, 0.5), (1.5, -0.5)]
    shown = screens.head_map(**EVERY["head_map"])
    assert traces(shown, "heatmap")[0].z.tolist() == VALUE.tolist()
    assert [(shape.x0, shape.y0) for shape in shown.layout.shapes] == [(-0.5, 0.5), (1.5, -0.5)]


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("layer_accuracy", {"layers": [0, 1], "value": [0.1]}, "2 layers"),
    ("layer_accuracy", {"layers": [], "value": []}, "non-empty"),
    ("layer_accuracy", {"layers": [0], "value": [np.nan]}, "nothing to draw"),
    ("layer_accuracy", {"layers": LAYERS, "value": VALUE}, "each of the 2 series"),
    ("layer_accuracy", {"layers": LAYERS, "value": VALUE[0], "low": LOW[0]}, "both low and high"),
    ("layer_accuracy", {"layers": LAYERS, "value": VALUE[0], "low": HIGH[0], "high": LOW[0]}, "swapped"),
    ("layer_accuracy", {"layers": LAYERS, "value": VALUE[0], "low": LOW, "high": HIGH}, "shape of value"),
    ("layer_accuracy", {"layers": LAYERS, "value": VALUE, "labels": NAMES, "chance": [1, 2, 3]}, "one number"),
    ("layer_accuracy", {"layers": LAYERS, "value": [[1], [1, 2]]}, "array of numbers"),
    ("factor_heatmap", {"factors": FACTORS, "layers": [1]}, "3 layers, but 1"),
    ("factor_heatmap", {"factors": FACTORS, "layers": [1, 3, 5], "target": 3}, "one of the 3 images"),
    ("factor_heatmap", {"factors": FACTORS * np.nan, "layers": [1, 3, 5]}, "nothing to draw"),
    ("factor_heatmap", {"factors": FACTORS, "layers": [1, 3, 5], "limits": (1, 0)}, "must increase"),
    ("image_to_image", {"matrix": FACTORS}, r"\(images \+ 1, images \+ 1\)"),
    ("image_to_image", {"matrix": [[0.5]]}, r"\(images \+ 1, images \+ 1\)"),
    ("overlay", {"images": [], "boxes": [], "scores": []}, "needs an image"),
    ("overlay", {**overlay_input(2), "scores": [np.ones(16)]}, "scores must hold one entry for each of the 2"),
    ("overlay", {**overlay_input(1), "scores": [np.ones(3)]}, r"scores \(cells,\)"),
    ("overlay", {**overlay_input(1), "scores": [np.full(16, np.nan)]}, "no finite number"),
    ("overlay", {**overlay_input(1), "boxes": [grid(4, 60, 40) + 100]}, "outside its 60 x 40"),
    ("overlay", {**overlay_input(2), "gold": [1, 1, 2, 2]}, "which one is the target"),
    ("overlay", {**overlay_input(2), "gold": [1, 1, 2], "target": 0}, "one box"),
    ("overlay", {**overlay_input(2), "target": 2}, "one of the 2 images"),
    ("overlay", {**overlay_input(2), "labels": ["a"]}, "name each of the 2 images"),
    ("overlay", {**overlay_input(1), "primary": [np.zeros(16, dtype=bool)]}, "at least one"),
    ("overlay", {**overlay_input(1), "images": [np.full((40, 60, 3), 7.0)]}, "floats from 0 to 1"),
    ("positions", {"answer": [0.5, 0.6], "attention": [0.5]}, "as long as the others"),
    ("positions", {**POSITIONS, "attention_interval": None}, "of neither"),
    ("positions", {**POSITIONS, "answer_interval": [[0, 1]]}, r"\(positions, 2\)"),
    ("positions", {**POSITIONS, "answer_spread": None}, "of neither"),
    ("positions", {**POSITIONS, "answer_spread": [0.1, 0.2]}, "as long as|value, low, high"),
    ("causal_agreement", {**CAUSAL, "rule_value": None}, "belong together"),
    ("causal_agreement", {**CAUSAL, "rules": ["LND"]}, "1 rules"),
    ("costs", {**EVERY["costs"], "lengths": [4, 2, 8]}, "increase"),
    ("costs", {**EVERY["costs"], "time": [[1.0, 1.0, 1.0]]}, r"\(series, lengths\)"),
    ("costs", {**EVERY["costs"], "memory": np.zeros((2, 3))}, "logarithmic"),
    ("costs", {**EVERY["costs"], "time": np.full((2, 3), np.nan)}, "nothing to draw"),
    ("differences", {**DIFFERENCES, "metrics": ["one"]}, "1 metrics"),
    ("differences", {**DIFFERENCES, "value": [np.nan] * 4}, "nothing to draw"),
    ("differences", {**DIFFERENCES, "high": None}, "both low and high"),
    ("differences", {"metrics": ["a", "b"], "value": [[1, 2], [3, 4]]}, "each of the 2 series"),
    ("scaling", {"parameters": [0, 1], "value": [0.1, 0.2]}, "must be positive"),
    ("ranking", {"names": ["a"], "value": [0.1, 0.2]}, "1 names"),
    ("head_map", {"value": VALUE, "layers": [1]}, "2 layers, but 1"),
    ("head_map", {"value": VALUE, "layers": [1, 3], "chosen": [(2, 0)]}, "not in the table"),
    ("head_map", {"value": VALUE, "layers": [1, 3], "chosen": [(1, 4)]}, "not in the table"),
]


@pytest.mark.parametrize("module", [papers, screens])
@pytest.mark.parametrize(("name", "given", "message"), BAD)
def test_wrong_arrays_are_refused(module: Any, name: str, given: dict[str, Any], message: str) -> None:
    draw: Callable[..., object] = getattr(module, name)
    with pytest.raises(FigureError, match=message):
        draw(**given)


def test_labels_do_not_collide_at_paper_size() -> None:
    named_axes = ("layer_accuracy", "factor_heatmap", "image_to_image", "causal_agreement")
    for name in (*named_axes, "scaling", "differences", "costs"):
        figure = getattr(papers, name)(**EVERY[name])
        figure.draw_without_rendering()
        for axes in figure.axes:
            boxes = [tick.get_window_extent() for tick in axes.get_xticklabels() if tick.get_text()]
            assert all(left.x1 <= right.x0 + 1 for left, right in pairwise(boxes)), name
            assert all(tick.get_fontsize() >= style.SMALL_FONT_SIZE for tick in axes.get_xticklabels())
        if figure.legends:
            legend = figure.legends[0].get_window_extent()
            assert all(legend.y0 >= axes.get_window_extent().y1 - 1 for axes in figure.axes), name


def test_saving_is_whole_repeatable_and_leaves_nothing_behind(tmp_path: Path) -> None:
    for kind in ("png", "pdf", "svg"):
        once, again = (
            papers.save(papers.layer_accuracy(LAYERS, VALUE[0]), tmp_path / f"{name}.{kind}") for name in ("a", "b")
        )
        if kind != "svg":
            assert once.read_bytes() == again.read_bytes()
    kept = papers.save(papers.layer_accuracy(LAYERS, VALUE[0]), tmp_path / "a.png", source="digest")
    with Image.open(kept) as image:
        assert image.info["Source"] == "digest"
    with pytest.raises(FigureError, match="PNG files only"):
        papers.save(papers.layer_accuracy(LAYERS, VALUE[0]), tmp_path / "a.pdf", source="digest")
    with pytest.raises(ValueError, match="nonsense"):
        papers.save(papers.layer_accuracy(LAYERS, VALUE[0]), tmp_path / "c.nonsense")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".pdf", ".pdf", ".png", ".png", ".svg", ".svg"]


def test_html_opens_offline_in_any_encoding() -> None:
    figure = screens.overlay(**EVERY["overlay"])
    html = screens.html_fragment(figure, "overlay-1")
    assert html.isascii()
    assert "http" not in html.replace("http://www.w3.org", "")
    assert '"overlay-1"' in html
    assert html == screens.html_fragment(screens.overlay(**EVERY["overlay"]), "overlay-1")
    assert screens.plotly_script().startswith("<script>")


@pytest.mark.parametrize("module", ["viz", "viz.style", "viz.papers", "viz.screens"])
def test_loads_no_torch_no_pyplot_and_nothing_of_ours(module: str) -> None:
    code = (
        f"import {module}, sys\n"
        "tops = {name.split('.')[0] for name in sys.modules}\n"
        "assert not tops & {'torch', 'transformers', 'probes', 'rewardmodels', 'studies'}, tops\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_package_loads_its_halves_on_first_use() -> None:
    code = "import viz, sys; assert 'matplotlib' not in sys.modules; assert viz.papers.layer_accuracy; viz.screens"
    subprocess.run([sys.executable, "-c", code], check=True)
    import viz

    with pytest.raises(AttributeError, match="posters"):
        viz.posters  # noqa: B018


def test_figures_leave_global_settings_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    papers.overlay(**EVERY["overlay"]).draw_without_rendering()
    assert dict(matplotlib.rcParams) == before
