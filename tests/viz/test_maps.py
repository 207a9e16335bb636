"""Maps and tables of colours on paper and screen: what is drawn equals the arrays given."""

import numpy as np
import pytest
from matplotlib.collections import PolyCollection, QuadMesh

from tests.viz.drawn import (
    EVERY,
    FACTORS,
    PAIRS,
    VALUE,
    bounds,
    grid,
    named,
    overlay_input,
    pictures,
    points,
    traces,
)
from viz import papers, screens, style


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


def test_cells_without_a_token_are_hatched_and_never_coloured() -> None:
    given = overlay_input(2)
    kept = [np.arange(16) != 5, np.ones(16, dtype=bool)]
    figure, shown = papers.overlay(**given, kept=kept), screens.overlay(**given, kept=kept)
    for index, axes in enumerate(figure.axes[:2]):
        patches = next(part for part in axes.collections if isinstance(part, PolyCollection))
        assert np.ma.getmaskarray(np.ma.asarray(patches.get_array())).tolist() == (~kept[index]).tolist()
        hatched = [patch for patch in axes.patches if patch.get_hatch()]
        assert [bounds(patch) for patch in hatched] == ([(15.0, 10.0, 15.0, 10.0)] if index == 0 else [])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["no token"]
    assert np.isnan(traces(shown, "heatmap")[0].z).sum() == 1 and not np.isnan(traces(shown, "heatmap")[1].z).any()
    (hatching,) = traces(shown, "scatter")
    assert (np.nanmin(hatching.x), np.nanmax(hatching.x), np.nanmin(hatching.y), np.nanmax(hatching.y)) == (
        15,
        30,
        10,
        20,
    )
    assert hatching.name == "no token" and hatching.showlegend and hatching.fillpattern.shape == "/"


def test_a_score_that_is_not_known_is_left_bare_and_not_hatched() -> None:
    given = overlay_input(1)
    given["scores"][0][3] = np.nan
    figure = papers.overlay(**given)
    assert not figure.legends and not [patch for patch in figure.axes[0].patches if patch.get_hatch()]
    assert not traces(screens.overlay(**given), "scatter")


def test_pictures_may_be_grey_floats_or_transparent() -> None:
    grey = np.linspace(0, 1, 2400).reshape(40, 60)
    alpha = np.zeros((40, 60, 4), dtype=np.uint8)
    figure = papers.overlay([grey, alpha], [grid(2, 60, 40)] * 2, [np.ones(4)] * 2)
    assert np.asarray(figure.axes[0].get_images()[0].get_array()).max() == 255


def test_a_head_map_frames_the_chosen_heads() -> None:
    figure = papers.head_map(**EVERY["head_map"])
    mesh = next(part for part in figure.axes[0].collections if isinstance(part, QuadMesh))
    assert np.asarray(mesh.get_array()).reshape(2, 4).tolist() == VALUE.tolist()
    assert [bounds(patch)[:2] for patch in figure.axes[0].patches] == [(-0.5, 0.5), (1.5, -0.5)]
    shown = screens.head_map(**EVERY["head_map"])
    assert traces(shown, "heatmap")[0].z.tolist() == VALUE.tolist()
    assert [(shape.x0, shape.y0) for shape in shown.layout.shapes] == [(-0.5, 0.5), (1.5, -0.5)]
