"""Idefics3 and SmolVLM: a stretched image cut into square tiles, row by row, then a thumbnail of the whole."""

import math
from collections.abc import Mapping
from typing import Any

from probes.families.geometry import Tile
from probes.families.view import ImageView, check_side, shape_of
from probes.families.view import image_token_ids as image_token_ids
from probes.inputs import InputError

_LONGEST_SIDE = 4096
"""The image processors' fixed upper bound on a side, in pixels."""


def tiles(image: ImageView) -> list[Tile]:
    """Tiles row by row and a thumbnail last; one tile of the whole image where it is not split.

    Raises:
        InputError: If the processor or the image's size is missing, or they do not fit the pixels or the model.
    """
    image.need_processor("split")
    side = image.settings.sides("max_image_size")["longest_edge"]
    check_side(image, side)
    cells = _cells_per_side(image, side)
    rows, columns = _split(image, side)
    return Tile.cut(cells, image.whole(), rows, columns)


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Tiles that are not padding, by the mask; None without a mask."""
    mask = inputs.get("pixel_attention_mask")
    return None if shape_of(mask) is None or mask is None else int(mask.any(-1).any(-1).sum())


def _cells_per_side(image: ImageView, side: int) -> int:
    """Patches along a tile's side, divided by the connector's pixel shuffle."""
    cells = side // int(image.config.vision_config.patch_size) // int(image.config.scale_factor)
    expected = getattr(image.processor, "image_seq_len", None)
    if expected is not None and expected != cells * cells:
        raise InputError(
            f"the processor writes {expected} tokens per tile and the model makes {cells * cells} of {side} x {side}"
            " pixels: set the processor's image_seq_len or max_image_size"
        )
    return cells


def _split(image: ImageView, side: int) -> tuple[int, int]:
    """(rows, columns) of tiles.

    This follows what the image processors do, not their `get_number_of_image_patches`, which rounds otherwise where
    the longest edge is no multiple of the tile.
    """
    if not image.settings.get("do_image_splitting"):
        return 1, 1
    width, height = image.known_size()
    if image.settings.get("do_resize"):
        width, height = _first_resize(width, height, image.settings.sides("size"))
    ratio = width / height
    if width >= height:
        columns = math.ceil(width / side)
        rows = math.ceil(int(columns * side / ratio) / side)
    else:
        rows = math.ceil(height / side)
        columns = math.ceil(int(rows * side * ratio) / side)
    return rows, columns


def _first_resize(width: int, height: int, size: Mapping[str, int]) -> tuple[int, int]:
    """The resize before splitting: the longest edge to its target, the other made even, then at most 4096."""
    if "longest_edge" not in size:
        return size["width"], size["height"]
    ratio = width / height
    longest = size["longest_edge"]
    if width >= height:
        width, height = longest, _even(int(longest / ratio))
        if width > _LONGEST_SIDE:
            width, height = _LONGEST_SIDE, int(_LONGEST_SIDE / (width / height))
    else:
        width, height = _even(int(longest * ratio)), longest
        if height > _LONGEST_SIDE:
            width, height = int(_LONGEST_SIDE * (width / height)), _LONGEST_SIDE
    return max(width, 1), max(height, 1)


def _even(length: int) -> int:
    return length + length % 2
