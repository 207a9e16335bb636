"""Spans against the processor: an image whose colours are its coordinates shows where each token looks."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from probes.spans import Box, Cell, ImageSpan
from tests.probes.colours import token_colours
from tests.probes.patch_colours import LAYOUTS
from tests.probes.published_cases import PUBLISHED, Case
from tests.probes.recipes_codes import CODES
from tests.probes.span_cases import (
    ALONE,
    CASES,
    PADDED,
    PADS,
    Floats,
    Size,
    coordinates,
    encode,
)
from tests.probes.span_checks import assert_tiles_exactly, assert_tokens


def misplaced(cells: list[Cell], colours: Floats, size: Size) -> list[Cell]:
    """Cells whose colours do not name their centres, to a third of a cell and the rounding of the colours."""
    wrong = []
    for cell in cells:
        box = cell.box
        seen = colours[cell.token][:2] * size
        centre = np.array([box.left + box.right, box.top + box.bottom]) / 2
        slack = np.array([box.right - box.left, box.bottom - box.top]) / 3 + np.array(size) / 128
        if (np.abs(seen - centre) > slack).any():
            wrong.append(cell)
    return wrong


def unpadded(cells: list[Cell], span: ImageSpan) -> list[Cell]:
    """Cells whose tile's share of them lies wholly inside the image: padding has colours of its own."""
    inside = []
    for cell in cells:
        tile = span.tiles[cell.tile]
        if tile.box.cell(cell.row, cell.column, tile.rows, tile.columns) == cell.box:
            inside.append(cell)
    return inside


def split_by_image(spans: list[list[ImageSpan]], colours: Floats) -> list[tuple[ImageSpan, Floats]]:
    found, first = [], 0
    for span in (span for row in spans for span in row):
        found.append((span, colours[first : first + len(span.tokens)]))
        first += len(span.tokens)
    assert first == len(colours)
    return found


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=20, deadline=None, derandomize=True)
@example(sizes=[(150, 60), (12, 35), (43, 15)])  # half-way aspect ratios and sides that are made even
@example(sizes=[(12, 12), (12, 145)])  # so narrow that no cell of a fine grid is left
@given(sizes=st.lists(st.tuples(st.integers(12, 180), st.integers(12, 180)), min_size=2, max_size=3))
def test_boxes_tile_the_image_and_name_what_each_token_saw(name: str, sizes: list[Size]) -> None:
    case = CASES[name]
    images = [coordinates(size) for size in sizes]
    batches = [[[image]] for image in images] if name in ALONE else [[images[:1], images[1:]]]
    for encoded in (encode(case, batch) for batch in batches):
        assert_tokens(encoded)
        for span, colours in split_by_image(encoded.spans, token_colours(case, encoded)):
            assert span.size is not None
            assert_tiles_exactly(span)
            cells = unpadded(span.cells(), span)
            assert cells or name in PADS
            assert misplaced(cells, colours, span.size) == []


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case.name)
def test_the_published_settings(case: Case) -> None:
    size = (640, 480) if case.family != "gemma3" else (900, 600)
    encoded = encode(case, [[coordinates(size)]])
    assert_tokens(encoded)
    span = encoded.spans[0][0]
    assert_tiles_exactly(span)
    tokens = {
        "llava 1.5": 576,
        "qwen2.5-vl 7b": 17 * 23,
        "qwen3-vl 8b": 15 * 20,
        "llava-next 7b": 24 * 24 + 36 * (48 + 1),
        "llava-onevision 7b": 27 * 27 + 40 * (54 + 1),
        "internvl3 8b": 256 * (4 * 3 + 1),
        "mistral small 3.1": 18 * 23,
        "idefics3 8b": 169 * 13,
        "gemma3 4b": 256 * 3,
        "gemma4 e4b": 14 * 19,
        "llama4 scout": 12 * 12 * (2 * 2 + 1),
        "lfm2-vl 1.6b": 13 * 18,
        "paligemma 3b 224": 256,
        "molmo2 8b": 14 * 14 + 23 * 23,
    }
    assert len(span.tokens) == tokens[case.name]
    assert misplaced(unpadded(span.cells(), span), token_colours(case, encoded), size) == []


OWN_CUTS = ["got_ocr2, cut", "granite4_vision", "molmo2", "step3p7", "unlimited_ocr"]
OTHER_PIXELS = ["cosmos3_edge", "dots3_note", "minicpm_ocr", "video_llava"]
EARLIER = ["llava", "qwen2_5_vl", "idefics3", "gemma3, pan and scan"]


@pytest.mark.parametrize("name", [*EARLIER, *LAYOUTS, *CODES, *PADDED, *OWN_CUTS, *OTHER_PIXELS])
def test_the_coordinate_check_fails_for_wrong_boxes(name: str) -> None:
    case, size = CASES[name], (150, 61)
    encoded = encode(case, [[coordinates(size)]])
    span = encoded.spans[0][0]
    colours, cells = token_colours(case, encoded), unpadded(span.cells(), span)
    assert misplaced(cells, colours, size) == []
    assert misplaced(cells, np.roll(colours, 1, axis=0), size)
    whole = Box(0, 0, *size)
    if name == "llava":  # forgetting the centre crop
        stretched = [_with_box(cell, whole.cell(cell.row, cell.column, 4, 4)) for cell in cells]
        assert misplaced(stretched, colours, size)
    mirrored = [
        _with_box(cell, cell.box._replace(left=size[0] - cell.box.right, right=size[0] - cell.box.left))
        for cell in cells
    ]
    assert misplaced(mirrored, colours, size)


def _with_box(cell: Cell, box: Box) -> Cell:
    return Cell(cell.token, box, cell.tile, cell.row, cell.column, cell.thumbnail, cell.frame)


@pytest.mark.parametrize(
    "name, size",
    [("idefics3", (64, 40)), ("internvl", (64, 64)), ("aya_vision", (64, 64)), ("cohere2_vision", (64, 64))],
)
def test_thumbnail_is_counted_once_and_grid_lays_tiles_side_by_side(name: str, size: Size) -> None:
    case = CASES[name]
    encoded = encode(case, [[coordinates(size)]])
    span = encoded.spans[0][0]
    assert [tile.thumbnail for tile in span.tiles] == [False] * 4 + [True]
    colours = token_colours(case, encoded)
    fine = span.grid(colours[:, 0])
    assert fine.shape == (8, 8) and (np.diff(fine, axis=1) > 0).all()
    assert (np.diff(span.grid(colours[:, 1]), axis=0) > 0).all()
    coarse = span.grid(colours.T, thumbnail=True)
    assert coarse.shape == (3, 4, 4)
    assert coarse[0] == pytest.approx(fine.reshape(4, 2, 4, 2).mean((1, 3)), abs=0.03)


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision"])
def test_newlines_have_no_cell_and_the_thumbnail_comes_first(name: str) -> None:
    case = CASES[name]
    encoded = encode(case, [[coordinates((64, 64))]])
    span = encoded.spans[0][0]
    assert [tile.thumbnail for tile in span.tiles] == [True, False]
    assert len(span.tokens) == 4 * 4 + 8 * (8 + 1) and len(span.cells()) == 4 * 4 + 8 * 8
    colours = token_colours(case, encoded)
    newlines = np.flatnonzero(np.isnan(colours[:, 0]))
    assert newlines.tolist() == [16 + 9 * row + 8 for row in range(8)]
    assert not {cell.token for cell in span.cells()} & set(newlines.tolist())
    fine = span.grid(colours[:, 0])
    assert fine.shape == (8, 8) and (np.diff(fine, axis=1) > 0).all()
    assert span.grid(colours[:, 0], thumbnail=True) == pytest.approx(fine.reshape(4, 2, 4, 2).mean((1, 3)), abs=0.03)
