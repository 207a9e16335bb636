"""Perception LM: the whole image, and tiles of one stretched to a canvas of them, each pooled to a square grid."""

import math
from collections.abc import Mapping
from typing import Any

from probes.families.geometry import Tile
from probes.families.view import ImageView, check_side, shape_of
from probes.families.view import image_token_ids as image_token_ids
from probes.inputs import InputError

Canvas = tuple[int, int]
"""Tiles across and down."""


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Number of tiles of all images, where `pixel_values` is (images, tiles, channels, height, width)."""
    shape = shape_of(inputs.get("pixel_values"))
    return None if shape is None else shape[0] * shape[1]


def tiles(image: ImageView) -> list[Tile]:
    """The whole image as a thumbnail and then its tiles, row by row; the whole image alone where it is not cut.

    Raises:
        InputError: If the processor, or where it cuts the size, is not given, or the model pools otherwise.
    """
    image.need_processor("cut")
    side, pooling = int(image.settings.get("tile_size")), int(image.processor.pooling_ratio)
    if pooling != int(image.config.projector_pooling_ratio):
        raise InputError(
            f"the processor pools by {pooling} and the model by {image.config.projector_pooling_ratio}: load both from "
            "one checkpoint"
        )
    check_side(image, side)
    cells = side // int(image.processor.patch_size) // pooling
    if image.settings.get("vision_input_type") != "thumb+tile":
        return [Tile(cells, cells, image.whole())]
    width, height = image.known_size()
    columns, rows = _canvas(width, height, side, int(image.settings.get("max_num_tiles")))
    cut = [Tile(cells, cells, part) for part in image.whole().cells(rows, columns)]
    return [Tile(cells, cells, image.whole(), thumbnail=True), *cut]


def _canvas(width: int, height: int, side: int, most: int) -> Canvas:
    """The canvas that shows an image largest without shrinking it, or the one nearest to its shape."""
    by_shape = _canvases(most)
    fitting = [
        canvas
        for canvases in by_shape.values()
        for canvas in canvases
        if canvas[0] * side >= width and canvas[1] * side >= height
    ]
    if fitting:
        sizes = [_shorter_side(width, height, canvas, side) for canvas in fitting]
        largest = max(range(len(fitting)), key=lambda index: (sizes[index], index))
        return fitting[largest]
    shape = width / height
    if shape >= 1:
        nearest = min((each for each in by_shape if each <= shape), key=lambda each: abs(each - shape))
        return max(by_shape[nearest], key=lambda canvas: canvas[0])
    nearest = min((each for each in by_shape if each > shape), key=lambda each: abs(1 / each - 1 / shape))
    return max(by_shape[nearest], key=lambda canvas: canvas[1])


def _canvases(most: int) -> dict[float, list[Canvas]]:
    """Canvases of at most so many tiles by their shape, width over height, larger ones first."""
    found: dict[float, list[Canvas]] = {}
    for count in range(most, 0, -1):
        for across in (each for each in range(1, count + 1) if count % each == 0):
            found.setdefault(across / (count // across), []).append((across, count // across))
    return found


def _shorter_side(width: int, height: int, canvas: Canvas, side: int) -> float:
    """Of the image enlarged to the canvas, with the processor's rounding."""
    scale = min(canvas[0] * side / width, canvas[1] * side / height)
    shape = width / height
    return math.floor(scale * width / shape) if shape > 1 else math.floor(scale * height * shape)
