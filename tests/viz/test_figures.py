"""Paper and screen figures: the same arguments, wrong arrays refused, saving, and what importing loads."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from tests.viz.drawn import (
    CAUSAL,
    DIFFERENCES,
    EVERY,
    FACTORS,
    HIGH,
    LAYERS,
    LOW,
    NAMES,
    POSITIONS,
    VALUE,
    grid,
    overlay_input,
)
from viz import papers, screens, style
from viz.shapes import FigureError


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
    ("overlay", {**overlay_input(1), "kept": [np.ones(15, dtype=bool)]}, "16 booleans for its kept cells"),
    ("overlay", {**overlay_input(2), "kept": [np.ones(16, dtype=bool)]}, "kept must hold one entry for each of the 2"),
    ("overlay", {**overlay_input(1), "kept": [np.zeros(16, dtype=bool)]}, "without a token: lay them beside"),
    ("pruning", {"rates": [0.5, 1.5], "value": [0.1, 0.2]}, "a share from 0 to 1"),
    ("pruning", {"rates": [0.5], "value": [0.1], "first_frame_only": 2}, "a share from 0 to 1"),
    ("pruning", {"rates": [0.5], "value": [0.1, 0.2]}, "1 rates"),
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
    ("co_activation", {"ratio": np.ones((3, 4, 5)), "layers": [1, 2, 4]}, r"\(layers, experts, experts\)"),
    ("co_activation", {"ratio": np.ones((3, 4, 4)), "layers": [1, 2]}, "3 layers, but 2"),
    ("co_activation", {"ratio": np.zeros((3, 4, 4)), "layers": [1, 2, 4]}, "nothing to draw"),
    ("co_activation", {"ratio": np.ones((3, 4, 4)), "layers": [1, 2, 4], "most": 0}, "at least one layer"),
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


def test_a_course_of_bits_fills_its_axis_and_one_of_shares_shows_all_of_it() -> None:
    value = np.array([[[0.05, 0.05, 0.05]], [[0.2, 0.2, 0.2]]])
    tops = {
        share: papers.training_course(["1", "2"], value, [0], is_share=share).axes[0].get_ylim()[1]
        for share in (True, False)
    }
    assert tops[True] == pytest.approx(1.03) and 0.2 < tops[False] < 0.25
    axes = {
        share: screens.training_course(["1", "2"], value, [0], is_share=share).layout.yaxis for share in (True, False)
    }
    assert axes[True].range == (0, 1.03) and axes[False].range is None and axes[False].rangemode == "tozero"


def test_pairs_are_drawn_in_doublings_layer_by_layer_and_end_where_the_scale_does() -> None:
    ratio = EVERY["co_activation"]["ratio"]
    paper, screen = papers.co_activation(ratio, [1, 2, 4]), screens.co_activation(ratio, [1, 2, 4])
    panels = [axes for axes in paper.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["layer 1", "layer 2", "layer 4"]
    with np.errstate(divide="ignore"):
        doublings = np.clip(np.log2(ratio), -3, 3)
    for panel, trace, layer in zip(panels, screen.data, doublings, strict=True):
        (mesh,) = panel.collections
        drawn = mesh.get_array()
        assert isinstance(drawn, np.ma.MaskedArray)
        np.testing.assert_allclose(drawn.filled(np.nan).reshape(4, 4), layer)
        np.testing.assert_allclose(np.array(trace.z, dtype=float), layer)
        assert np.all(np.asarray(mesh.get_linewidth()) > 0) and trace.xgap == trace.ygap == 1
        assert mesh.get_clim() == (trace.zmin, trace.zmax) == (-3, 3), "zero is the middle, a pair never seen the end"
    assert doublings[0, 0, 1] == -3


def test_of_many_layers_the_pairs_of_some_are_drawn_from_the_first_to_the_last() -> None:
    ratio = np.full((9, 40, 40), 1.5)
    figure, shown = papers.co_activation(ratio, range(10, 19), most=4), screens.co_activation(ratio, range(10, 19))
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == [f"layer {n}" for n in (10, 13, 15, 18)]
    assert [trace.name for trace in shown.data] == [f"layer {n}" for n in (10, 12, 13, 15, 16, 18)]
    five = screens.co_activation(ratio[:5], range(5))
    assert len(list(five.select_xaxes())) == len(list(five.select_yaxes())) == 5, "no empty panel beside the last"
    assert {trace.xgap for trace in shown.data} == {0}, "cells of many experts are not narrower than their gaps"
