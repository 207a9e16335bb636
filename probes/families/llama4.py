"""Llama 4: an image fitted into a canvas of square tiles and padded right and below, then the whole image stretched.

Tiles come row by row; the tokens between them are text. An image that fits into one tile has that tile alone.
"""

import numpy as np

from probes.families.geometry import Box, Canvas, Tile
from probes.families.view import ImageView, square_side
from probes.families.view import image_token_ids as image_token_ids
from probes.families.view import pixel_tiles as pixel_tiles
from probes.inputs import InputError


def tiles(image: ImageView) -> list[Tile]:
    """Tiles row by row and the whole image last; one padded tile where it is not cut.

    Raises:
        InputError: If the processor or the image's size is missing, or they do not fit the pixels or the model.
    """
    image.need_processor("cut")
    side = square_side(image)
    cells = _cells_per_side(image, side)
    rows, columns = _canvas(image, side)
    grid = [Tile(cells, cells, box) for box in _padded(image, side, rows, columns).cells(rows, columns)]
    return grid if len(grid) == 1 else [*grid, Tile(cells, cells, image.whole(), thumbnail=True)]


def _cells_per_side(image: ImageView, side: int) -> int:
    """Patches along a tile's side, divided by the tower's pixel shuffle."""
    tower = image.config.vision_config
    cells = int(side // int(tower.patch_size) * tower.pixel_shuffle_ratio)
    written = (side // int(image.processor.patch_size)) ** 2 // int(image.processor.downsample_ratio)
    if written != cells * cells:
        raise InputError(
            f"the processor writes {written} tokens per tile and the model makes {cells * cells}: load both from one "
            "checkpoint"
        )
    return cells


def _canvas(image: ImageView, side: int) -> tuple[int, int]:
    """(rows, columns) of the canvas that the image needs no enlarging for, or fills best.

    The processor compares scales in single precision, in which more of them are equal.
    """
    width, height = image.known_size()
    most = int(image.settings.get("max_patches"))
    canvases = [
        (rows, count // rows) for count in range(most, 0, -1) for rows in range(1, count + 1) if not count % rows
    ]
    scales = [
        min(np.float32(columns * side) / np.float32(width), np.float32(rows * side) / np.float32(height))
        for rows, columns in canvases
    ]
    enough = [scale for scale in scales if scale >= 1]
    largest = not enough or image.settings.get("resize_to_max_canvas")
    chosen = max(enough or scales) if largest else min(enough)
    fitting = [canvas for canvas, scale in zip(canvases, scales, strict=True) if scale == chosen]
    return min(fitting, key=lambda canvas: canvas[0] * canvas[1])


def _padded(image: ImageView, side: int, rows: int, columns: int) -> Box:
    """The region of the original that the whole canvas covers; it reaches outside on the right or below."""
    width, height = image.known_size()
    room = columns * side, rows * side
    if not image.settings.get("resize_to_max_canvas"):
        room = min(max(width, side), room[0]), min(max(height, side), room[1])
    return Canvas(width, height).fit(*room).region(columns * side, rows * side)
