"""Pictures and overlays: the right pixels get the right colour, and every text is escaped."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from studies.explorer.overlays import OWN, SHARED, cards, overlay
from studies.explorer.shown import Picture, Shown, page_size, painting_order, picture, raster_cells

GRID = [(column * 16.0, row * 16.0, column * 16.0 + 16, row * 16.0 + 16) for row in range(2) for column in range(4)]


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_page_size_keeps_the_shape(width: int, height: int) -> None:
    across, down = page_size(width, height)
    assert max(across, down) == 224 and min(across, down) >= 1
    assert across / 224 == pytest.approx(width / max(width, height), abs=1 / 224)


def test_raster_covers_a_grid_exactly() -> None:
    raster = raster_cells(GRID, (64, 32), (128, 64))
    expected = np.arange(8).reshape(2, 4).repeat(32, axis=0).repeat(32, axis=1)
    assert np.array_equal(raster, expected)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(8, 90), st.integers(8, 90))
def test_no_pixel_of_a_tiled_image_is_left_out(columns: int, rows: int, width: int, height: int) -> None:
    boxes = [
        (width * c / columns, height * r / rows, width * (c + 1) / columns, height * (r + 1) / rows)
        for r in range(rows)
        for c in range(columns)
    ]
    raster = raster_cells(boxes, (width, height), page_size(width, height))
    assert raster.min() == 0 and raster.max() == len(boxes) - 1


def test_thumbnails_are_painted_only_alone() -> None:
    assert painting_order([True, False, False], [True, True, False]) == [1]
    assert painting_order([True, True], [True, False]) == [0]


def test_picture_keeps_cell_numbers_when_some_are_left_out() -> None:
    drawn = picture(Image.new("RGB", (64, 32)), GRID, order=[3, 6])
    assert set(np.unique(drawn.raster)) == {-1, 3, 6}


def test_boxes_of_the_original_fit_a_smaller_copy() -> None:
    whole = picture(Image.new("RGB", (64, 32)), GRID)
    copy = picture(Image.new("RGB", (32, 16)), GRID, original=(64, 32))
    assert np.array_equal(whole.raster, copy.raster)
    assert not np.array_equal(whole.raster, picture(Image.new("RGB", (32, 16)), GRID).raster)


def test_the_strongest_cell_is_densest_where_it_lies() -> None:
    drawn = picture(Image.new("RGB", (64, 32)), GRID)
    scores = np.linspace(0.0, 0.7, 8)
    scores[2] = 1.0
    density = np.asarray(overlay(drawn, scores, 1.0))[..., 3]
    row, column = np.unravel_index(np.argmax(density), density.shape)
    assert drawn.raster[row, column] == 2
    assert (density[drawn.raster == 2] == density.max()).all() and (density[drawn.raster == 0] == 0).all()
    by_cell = [int(density[drawn.raster == cell][0]) for cell in np.argsort(scores)]
    assert by_cell == sorted(by_cell)


def test_uncovered_pixels_and_missing_scores_are_transparent() -> None:
    drawn = picture(Image.new("RGB", (64, 32)), GRID, order=[0, 1])
    alpha = np.asarray(overlay(drawn, np.array([np.nan, 1.0]), 1.0))[..., 3]
    assert (alpha[drawn.raster == -1] == 0).all() and (alpha[drawn.raster == 0] == 0).all()
    assert (alpha[drawn.raster == 1] > 0).all()


def _shown() -> Shown:
    pictures = tuple(picture(Image.new("RGB", (64, 32), colour), GRID) for colour in ("red", "blue"))
    maps = tuple(np.stack([np.full(8, 0.1 * (image + 1)), np.full(8, 0.4 / (image + 1))]) for image in range(2))
    factors = np.array([[0.1, 0.2], [0.4, 0.2]])
    return Shown(pictures, (0, 1), {"paper": factors}, {"paper": maps}, {"paper": 0}, target=1)


def test_cards_number_images_from_one_and_mark_focus_and_target() -> None:
    first, second = cards(_shown(), "paper", 1).split("</figure>")[:2]
    assert "<b>Image 1</b>" in first and ">focus<" in first and ">target<" not in first and "67%" in first
    assert "<b>Image 2</b>" in second and ">target<" in second and ">focus<" not in second and "33%" in second


def test_gold_regions_are_outlined_in_the_target_alone() -> None:
    first, second = cards(replace(_shown(), regions=((0.25, 0.5, 0.75, 1.0),)), "paper", 1).split("</figure>")[:2]
    assert "sc-region" not in first
    assert "left:25.00%;top:50.00%;width:50.00%;height:50.00%" in second


def _first_map(html: str, image: int) -> Image.Image:
    address = html.split('class="sc-map" alt="" src="')[image + 1].split('"')[0]
    return Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))


def test_layers_and_scales_change_the_map() -> None:
    weak = [np.asarray(_first_map(cards(_shown(), "paper", 0, scale), 0))[..., 3].max() for scale in (SHARED, OWN)]
    assert weak[0] < weak[1], "image 1 is the weaker one in layer 0, so its own scale makes it denser"
    assert cards(_shown(), "paper", 0) != cards(_shown(), "paper", 1)


def test_absent_maps_and_images_are_said() -> None:
    bare = Picture("data:,", (4, 4), np.zeros((4, 4), dtype=np.int32), missing=True)
    html = cards(Shown((bare,), (5,), {}), "paper", 0)
    assert "not stored" in html and "Layer 5. No map is stored" in html and "sc-map" not in html


def test_nothing_shown_draws_nothing() -> None:
    assert cards(None, "paper", 0) == ""
