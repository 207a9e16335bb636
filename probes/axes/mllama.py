"""Mllama: images side by side, image by image and tile by tile, each tile a class token and its patches.

The prompt holds one token for an image, which no feature replaces. Tiles and images that the processor only padded to
are masked, and belong to no image.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from probes.axes.view import AxisView, Placed, needed, needed_shape
from probes.families.geometry import Box, Canvas, Tile
from probes.inputs import InputError


def counts(inputs: Mapping[str, Any], config: Any) -> list[int]:
    """As many as have an aspect ratio."""
    shape, (ratios,) = needed_shape(inputs, "pixel_values"), needed(inputs, "aspect_ratio_ids")
    room, side = shape[2], shape[-1]
    tower = config.vision_config
    if (room, side) != (int(tower.max_num_tiles), int(tower.image_size)):
        raise InputError(
            f"the processor makes {room} tiles of {side} pixels, and the model takes {tower.max_num_tiles} of "
            f"{tower.image_size}: load both from one checkpoint"
        )
    return [sum(int(index) > 0 for index in row) for row in ratios]


def place(image: AxisView) -> Placed:
    """Every image has room for the most tiles; those of its aspect ratio come first."""
    shape = needed_shape(image.inputs, "pixel_values")
    room, side = shape[2], shape[-1]
    cells = side // int(image.config.vision_config.patch_size)
    rows, columns = _divisions(room)[int(image.inputs["aspect_ratio_ids"][image.row][image.image]) - 1]
    canvas = Box.unknown() if image.size is None else _canvas(image.size, side, rows, columns)
    tiles = [Tile(cells, cells, box, before=1) for box in canvas.cells(rows, columns)]
    return Placed(image.image * room * (cells * cells + 1), tiles)


def _divisions(most: int) -> list[tuple[int, int]]:
    """(rows, columns) in the order of the processor's aspect ratio ids."""
    sides: Sequence[int] = range(1, most + 1)
    return [(rows, columns) for rows in sides for columns in sides if rows * columns <= most]


def _canvas(size: tuple[int, int], side: int, rows: int, columns: int) -> Box:
    """Original box of the whole canvas, in which the image lies at the top left."""
    width, height = size
    room = min(max(width, side), columns * side), min(max(height, side), rows * side)
    return Canvas(width, height).fit(*room).region(columns * side, rows * side)
