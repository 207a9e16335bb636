"""UDOP: one page a row; its patches come behind the text, but for those on which a word lies.

Such a patch is added to its words' tokens, which are text, and has no column of its own. So the patches that are left
form no grid: each run of neighbours in a row is a tile. Padding behind them stands in for those that are missing.
"""

import math
from collections.abc import Sequence

from probes.axes.view import AxisView, Placed, check_pixels, needed, needed_shape
from probes.axes.view import one_image_each as counts
from probes.families.geometry import Box, Tile
from probes.inputs import InputError

__all__ = ["counts", "place"]


def place(image: AxisView) -> Placed:
    """The patches without a word, in their order.

    Raises:
        InputError: If words lie on all of them.
    """
    side, patch = int(image.config.image_size), int(image.config.patch_size)
    check_pixels(image, side, side)
    cells = side // patch
    (boxes,) = needed(image.inputs, "bbox")
    taken = {_patch(box, cells) for box in boxes[image.row].tolist()}
    tiles = [
        _tile(image.whole(), row, first, stop, cells)
        for row in range(cells)
        for first, stop in _free(row, taken, cells)
    ]
    if not tiles:
        raise InputError(f"{image.name}: a word lies on every patch, so that none has a column: give fewer words")
    return Placed(needed_shape(image.inputs, "input_ids")[1], tiles)


def _patch(box: Sequence[float], cells: int) -> int:
    """The patch under the middle of a word's box, with the model's own clipping; padding's boxes lie at the origin."""
    left, top, right, bottom = box
    column, row = (
        min(max(math.floor((low + high) / 2.0 * cells), 0), cells - 1) for low, high in ((left, right), (top, bottom))
    )
    return row * cells + column


def _free(row: int, taken: set[int], cells: int) -> list[tuple[int, int]]:
    """Half-open runs of a row's columns without a word."""
    runs: list[tuple[int, int]] = []
    for column in range(cells):
        if row * cells + column in taken:
            continue
        if runs and runs[-1][1] == column:
            runs[-1] = (runs[-1][0], column + 1)
        else:
            runs.append((column, column + 1))
    return runs


def _tile(whole: Box, row: int, first: int, stop: int, cells: int) -> Tile:
    left, right = (whole.cell(row, column, cells, cells) for column in (first, stop - 1))
    return Tile(1, stop - first, left._replace(right=right.right))
