"""DeepSeek-OCR 2: square tiles of a stretched image row by row, if it is large, then the whole, then a separator.

Learned queries read each picture, so that no token has a place in it. Spans and factors are known, cells and maps are
refused by name.
"""

import math
from collections.abc import Mapping
from typing import Any

from probes.families.geometry import Box, Tile
from probes.families.internvl import divisions, nearest_ratio
from probes.families.view import ImageView, shape_of
from probes.families.view import image_token_ids as image_token_ids
from probes.inputs import InputError

_QUERIES = (144, 256)
"""Sizes of the model's two sets of queries: the first for pictures of no more patches than it has, else the second."""


def tiles(image: ImageView) -> list[Tile]:
    """Tiles row by row and the whole image, which has the separator behind it.

    Raises:
        InputError: If the processor or the inputs' num_local_patches are missing, or the size does not lead to them.
    """
    image.need_processor("cut")
    counts = image.inputs.get("num_local_patches")
    if counts is None:
        raise InputError("the inputs hold no num_local_patches: pass everything that the processor returned")
    side, count = int(image.settings.get("tile_size")), _own(image, [int(each) for each in counts])
    whole = Tile.mixed(_tokens(image, image.settings.sides("size")["height"]), image.whole(), thumbnail=count > 0)
    return [*(Tile.mixed(_tokens(image, side), box) for box in _parts(image, side, count)), whole._replace(after=1)]


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Tiles of all images, and the images."""
    counts, shape = inputs.get("num_local_patches"), shape_of(inputs.get("pixel_values"))
    return None if counts is None or shape is None else shape[0] + sum(int(count) for count in counts)


def _own(image: ImageView, counts: list[int]) -> int:
    """How many tiles the image was cut into."""
    seen = 0
    for count in counts:
        if seen == image.first_tile:
            return count
        seen += count + 1
    raise InputError(
        f"{image.name}: the inputs hold {len(counts)} images, and the prompts place more: give one image per "
        "placeholder"
    )


def _tokens(image: ImageView, side: int) -> int:
    """Tokens of a square picture, as the processor writes them and the model makes them."""
    processor = image.processor
    written = math.ceil(side / int(processor.patch_size) / int(processor.downsample_ratio)) ** 2
    made = _QUERIES[written > _QUERIES[0]]
    if written != made:
        raise InputError(
            f"the processor writes {written} tokens for {side} x {side} pixels and the model makes {made}: set the "
            "processor's size and tile_size to the model's"
        )
    return made


def _parts(image: ImageView, side: int, count: int) -> list[Box]:
    """Parts of the image in rows; unknown if its size is."""
    if image.size is None or count == 0:
        return [Box.unknown()] * count
    get = image.settings.get
    rows, columns = nearest_ratio(*image.size, side, divisions(int(get("min_patches")), int(get("max_patches"))))
    if rows * columns != count:
        raise InputError(
            f"{image.name}: {image.size[0]} x {image.size[1]} pixels would be cut into {rows * columns} tiles, and "
            f"the inputs hold {count}: give sizes as (width, height), in the order of the images"
        )
    return image.whole().cells(rows, columns)
