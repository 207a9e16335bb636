"""What holds of every span: its cells tile its tiles, and its tokens are the prompt's image tokens."""

import pytest
import torch

from probes.spans import Box, ImageSpan, Tile
from tests.probes.span_cases import Encoded


def assert_tiles_exactly(span: ImageSpan) -> None:
    """Cells share their tile without gap or overlap; tiles beside the thumbnail share their union likewise."""
    cells = span.cells()
    for index, tile in enumerate(span.tiles):
        grid = {(cell.row, cell.column): cell.box for cell in cells if cell.tile == index}
        assert len(grid) == tile.rows * tile.columns
        for (row, column), box in grid.items():
            right, below = grid.get((row, column + 1)), grid.get((row + 1, column))
            assert right is None or (box.right == right.left and box.top == right.top and box.bottom == right.bottom)
            assert below is None or (box.bottom == below.top and box.left == below.left and box.right == below.right)
        assert span.size is not None
        assert sum(box.area for box in grid.values()) == pytest.approx(tile.box.clip(*span.size).area)
    boxes = [tile.box for tile in span.tiles if not tile.thumbnail]
    union = Box(*(f(box[at] for box in boxes) for at, f in enumerate((min, min, max, max))))
    assert sum(box.area for box in boxes) == pytest.approx(union.area)
    assert span.size is not None
    for tile in span.tiles:
        if tile.thumbnail:
            fine = next(each for each in span.tiles if not each.thumbnail)
            assert_covers(
                fine, union.clip(*span.size), Box(0, 0, *span.size) if fine.row_end else tile.box.clip(*span.size)
            )


def assert_covers(fine: Tile, union: Box, whole: Box) -> None:
    """Fine cells lie over the whole image; where a padded grid was cut back, all but a cell at each edge of it."""
    if not fine.rows * fine.columns:
        return
    cell = fine.box.cell(0, 0, fine.rows, fine.columns)
    lost = [abs(edge - other) for edge, other in zip(union, whole, strict=True)]
    limits = [cell.right - cell.left, cell.bottom - cell.top] * 2 if fine.row_end else [0.0] * 4
    assert all(edge <= limit + 1e-6 for edge, limit in zip(lost, limits, strict=True))


def assert_tokens(encoded: Encoded) -> None:
    """Spans hold the image tokens of their row, all of them, once, and nothing else."""
    token = encoded.config.image_token_id
    for ids, spans in zip(encoded.inputs["input_ids"], encoded.spans, strict=True):
        places = torch.nonzero(ids == token).flatten().tolist()
        assert [place for span in spans for place in span.tokens.tolist()] == places
        for span in spans:
            assert len(span.tokens) == sum(tile.tokens for tile in span.tiles)
            assert tuple(span) == (span.start, span.stop) == (span.tokens[0], span.tokens[-1] + 1)
            assert [run for run in span.runs if run[0] >= run[1]] == []
            tokens = [cell.token for cell in span.cells()]
            assert len(set(tokens)) == len(tokens) and tokens == sorted(tokens)
