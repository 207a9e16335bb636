"""InternVL, Qianfan-OCR, GOT-OCR 2, Aya and Command A Vision: a stretched image cut into tiles, then a thumbnail.

Tiles are square and come row by row. Each tile's patches are folded together by the projector, one token per block.
The families differ in how they choose the number of tiles: by the nearest aspect ratio, or (Command A Vision) by the
least enlargement. Text between the tiles is no image token. This file knows nothing of videos.
"""

import math
from typing import Any

from probes.families.geometry import Tile
from probes.families.view import ImageView, square_side
from probes.families.view import image_token_ids as image_token_ids
from probes.families.view import pixel_tiles as pixel_tiles
from probes.inputs import InputError

_BY_ENLARGEMENT = frozenset({"cohere2_vision"})
_HALVED_TWICE = frozenset({"got_ocr2"})
"""Projectors that halve the tower's grid by two convolutions, so that tokens see a little of their neighbours too."""


def tiles(image: ImageView) -> list[Tile]:
    """Tiles row by row and a thumbnail last; one tile of the whole image where it is not cut.

    Raises:
        InputError: If the processor or the image's size is missing, or they do not fit the pixels or the model.
    """
    image.need_processor("cut")
    side = square_side(image)
    cells = _cells_per_side(image, side)
    rows, columns = _division(image, side)
    return Tile.cut(cells, image.whole(), rows, columns)


def _cells_per_side(image: ImageView, side: int) -> int:
    """Patches along a tile's side, divided by the projector's folding."""
    config = image.config
    patch = _first(config.vision_config.patch_size)
    folding = 4 if config.model_type in _HALVED_TWICE else getattr(config, "downsample_factor", None)
    cells = side // patch // folding if folding else int(side // patch * config.downsample_ratio)
    written = _written(image.processor, config.model_type)
    if written != cells * cells:
        raise InputError(
            f"the processor writes {written} tokens per tile and the model makes {cells * cells} of {side} x {side}"
            " pixels: load both from one checkpoint, or set the processor's size and token count to the model's"
        )
    return cells


def _written(processor: Any, model_type: str) -> int:
    """Image tokens that the processor writes per tile."""
    if model_type in ("internvl", "qianfan_ocr"):
        return int(processor.image_seq_length)
    if model_type == "got_ocr2":
        return int(processor.num_image_tokens)
    if model_type == "cohere2_vision":
        return int(processor.patch_size) ** 2
    return int(processor.img_size // processor.patch_size) ** 2


def _first(length: Any) -> int:
    return int(length if isinstance(length, int) else length[0])


def _division(image: ImageView, side: int) -> tuple[int, int]:
    """(rows, columns) of tiles."""
    if not image.settings.get("crop_to_patches"):
        return 1, 1
    width, height = image.known_size()
    fewest, most = int(image.settings.get("min_patches")), int(image.settings.get("max_patches"))
    if image.config.model_type in _BY_ENLARGEMENT:
        return _least_enlarged(width, height, side, divisions(1, most))
    return nearest_ratio(width, height, side, divisions(fewest, most))


def divisions(fewest: int, most: int) -> list[tuple[int, int]]:
    """(rows, columns) by their number of tiles, narrow ones first."""
    counts = range(1, most + 1)
    found = [(rows, columns) for columns in counts for rows in counts if fewest <= rows * columns <= most]
    return sorted(found, key=lambda division: division[0] * division[1])


def nearest_ratio(width: int, height: int, side: int, divisions: list[tuple[int, int]]) -> tuple[int, int]:
    """The nearest aspect ratio; of equals, the later one while its tiles hold less than twice the image's pixels."""
    best, nearest = (1, 1), math.inf
    for rows, columns in divisions:
        distance = abs(width / height - columns / rows)
        roomy = width * height > 0.5 * side * side * columns * rows
        if distance < nearest or (distance == nearest and roomy):
            best, nearest = (rows, columns), distance
    return best


def _least_enlarged(width: int, height: int, side: int, divisions: list[tuple[int, int]]) -> tuple[int, int]:
    """The least enlargement into the tiles; where all of them shrink the image, the least shrinking."""
    scales = [min(columns * side / width, rows * side / height) for rows, columns in divisions]
    if max(scales) < 1:
        return divisions[scales.index(max(scales))]
    return divisions[scales.index(min(scale for scale in scales if scale >= 1))]
