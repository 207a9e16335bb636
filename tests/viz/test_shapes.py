"""Cells and colors behind the figures: tilings, rasters, colour-vision safety, names."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viz import papers, screens, style
from viz.cells import non_overlapping, panels, raster
from viz.shapes import color_limits, curves, rule_curves


def tiling(x: list[int], y: list[int]) -> np.ndarray:
    return np.array([[a, c, b, d] for c, d in pairwise(y) for a, b in pairwise(x)], float)


EDGES = st.lists(st.integers(0, 50), min_size=2, max_size=6, unique=True).map(sorted)


@settings(max_examples=60)
@given(EDGES, EDGES)
def test_raster_holds_every_cell_and_nothing_else(x: list[int], y: list[int]) -> None:
    boxes = tiling(x, y)
    order = np.random.default_rng(len(x)).permutation(len(boxes))
    scores = np.arange(1.0, len(boxes) + 1)
    across, down, table = raster(boxes[order], scores[order])
    assert across.tolist() == x
    assert down.tolist() == y
    assert table.ravel().tolist() == scores.tolist()


def test_raster_leaves_holes_empty() -> None:
    _, _, table = raster(np.array([[0.0, 0, 1, 1], [2, 0, 3, 1]]), np.array([0.1, 0.2]))
    assert table[0, 0] == 0.1
    assert np.isnan(table[0, 1])


@settings(max_examples=60)
@given(EDGES, EDGES)
def test_a_tiling_is_kept_whole_and_a_thumbnail_is_left_out(x: list[int], y: list[int]) -> None:
    boxes = tiling(x, y)
    assert non_overlapping(boxes).all()
    if len(boxes) > 1:
        whole = np.array([[x[0], y[0], x[-1], y[-1]]], float)
        assert non_overlapping(np.concatenate([whole, boxes])).tolist() == [False, *[True] * len(boxes)]


def test_uneven_edges_of_real_grids_do_not_overlap() -> None:
    steps = np.linspace(0, 427, 28)
    boxes = np.array([[a, c, a + 427 / 27, c + 427 / 27] for c in steps[:-1] for a in steps[:-1]])
    assert non_overlapping(boxes).all()
    assert raster(boxes, np.ones(len(boxes)))[2].shape == (27, 27)


def test_chosen_cells_never_overlap() -> None:
    rng = np.random.default_rng(0)
    corner = rng.random((60, 2)) * 40
    boxes = np.concatenate([corner, corner + 1 + rng.random((60, 2)) * 15], axis=1)
    chosen = boxes[non_overlapping(boxes)]
    for index, box in enumerate(chosen):
        shared = np.minimum(chosen[:, 2:], box[2:]) - np.maximum(chosen[:, :2], box[:2])
        overlapping = (shared > 0.01).all(axis=1)
        assert overlapping.sum() == 1
        assert overlapping[index]


def test_panels_split_nothing_when_nothing_overlaps() -> None:
    first, rest = panels(np.zeros((8, 8, 3), np.uint8), tiling([0, 4, 8], [0, 4, 8]), np.ones(4), ["image 1"])
    assert len(first) == 1
    assert rest == []


def test_color_limits() -> None:
    assert color_limits([np.array([0.2, 0.4])], None) == (0.0, 0.4)
    assert color_limits([np.array([-0.2, 0.4])], None) == (-0.2, 0.4)
    assert color_limits([np.zeros(3)], None) == (0.0, 1.0)


# Machado, Oliveira and Fernandes (2009), full severity, on linear light.
SIMULATED = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("kind", SIMULATED)
def test_first_colors_stay_apart_under_color_vision_deficiency(kind: str) -> None:
    colors = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in style.SERIES_COLORS[:4]])
    seen = np.clip((colors**2.2) @ np.array(SIMULATED[kind]).T, 0, 1) ** (1 / 2.2)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=2)[np.triu_indices(4, 1)]
    assert apart.min() > 0.15
    red_green = np.array([[1.0, 0, 0], [0, 0.55, 0]])
    confused = np.clip((red_green**2.2) @ np.array(SIMULATED[kind]).T, 0, 1) ** (1 / 2.2)
    assert np.linalg.norm(confused[0] - confused[1]) < np.linalg.norm(red_green[0] - red_green[1]) / 2


def test_series_keep_apart_without_color() -> None:
    assert len(set(zip(style.PAPER_MARKERS, style.PAPER_DASHES, strict=True))) == len(style.SERIES_COLORS)
    assert len(set(zip(style.SCREEN_MARKERS, style.SCREEN_DASHES, strict=True))) == len(style.SERIES_COLORS)


def test_image_names_count_from_one() -> None:
    assert style.image_labels(2) == ["image 1", "image 2"]
    assert style.image_labels(2, target=1, focus=1) == ["image 1", "image 2 · target + focus"]
    assert style.image_labels(0) == []


def test_near_equal_chance_levels_are_one_line() -> None:
    drawn = curves([0, 1], np.ones((3, 2)), chance=[0.25, 0.2501, 0.33], labels=["a", "b", "c"])
    assert drawn.chance == (0.25, 0.33)


def test_rules_stand_beside_every_chance_level() -> None:
    beside = curves([0, 1], np.ones((2, 2)), chance=[0.25, 0.5], labels=["a", "b"])
    drawn = rule_curves(["LND"], np.ones((2, 1)), None, None, beside)
    assert drawn is not None and drawn.chance == (0.25, 0.5)


def test_unbounded_spreads_are_drawn_in_both_worlds() -> None:
    spread: dict[str, Any] = {"answer_spread": [0.2, 0.0, np.inf], "attention_spread": [0.1, 0.0, 0.3]}
    accuracies = ([0.9, 0.7], [0.9, 0.8])
    drawn = papers.positions(*accuracies, **spread)
    top = drawn.axes[1].get_ylim()[1]
    assert top == pytest.approx(0.33)
    drawn.canvas.draw()
    assert screens.positions(*accuracies, **spread).layout.yaxis2.range[1] == pytest.approx(top)
