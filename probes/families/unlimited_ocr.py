"""Unlimited-OCR: one fine grid over all square tiles of a stretched image, if it is large, then the whole, padded.

Each row of both grids ends in a newline token, and a separator follows the last row; these show no pixels.
"""

import math
from collections.abc import Mapping
from typing import Any

from probes.families.geometry import Box, Canvas, Tile
from probes.families.internvl import divisions, nearest_ratio
from probes.families.view import ImageView
from probes.families.view import image_token_ids as image_token_ids
from probes.inputs import InputError

_HALVED = 4
"""Patches along a token's side: two convolutions of the tower halve its grid."""


def tiles(image: ImageView) -> list[Tile]:
    """The fine grid, if there is one, and the whole image, which reaches outside where the processor padded.

    Raises:
        InputError: If the processor or the image's size is missing, or processor and model do not fit each other.
    """
    image.need_processor("cut")
    side, seen = int(image.settings.get("tile_size")), max(image.settings.sides("size").values())
    fine, coarse = _cells(image, side), _cells(image, seen)
    rows, columns = _division(image, side)
    cut = rows * columns > 0
    whole = Tile(coarse, coarse, _view(image, seen), thumbnail=cut, row_end=1, after=1)
    return [Tile(rows * fine, columns * fine, image.whole(), row_end=1), whole] if cut else [whole]


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Two for each image that was cut, one for each other."""
    counts = inputs.get("num_local_patches")
    return None if counts is None else sum(2 if int(count) else 1 for count in counts)


def _cells(image: ImageView, side: int) -> int:
    """Tokens along the side of a square picture, as the processor writes them and the model makes them."""
    processor, patch = image.processor, int(image.config.vision_config.sam_config.patch_size)
    written = math.ceil(side // int(processor.patch_size) / int(processor.downsample_ratio))
    made = math.ceil(side // patch / _HALVED)
    if written != made:
        raise InputError(
            f"the processor writes {written} tokens a side of {side} pixels and the model makes {made}: load both from "
            "one checkpoint"
        )
    return made


def _division(image: ImageView, side: int) -> tuple[int, int]:
    """(rows, columns) of tiles, none for an image that is no larger than a tile."""
    get, (width, height) = image.settings.get, image.known_size()
    if not get("crop_to_patches") or max(width, height) <= side:
        return 0, 0
    return nearest_ratio(width, height, side, divisions(int(get("min_patches")), int(get("max_patches"))))


def _view(image: ImageView, side: int) -> Box:
    """What the square picture of the whole image covers: stretched where it is small and alone, else padded evenly."""
    width, height = image.known_size()
    if not image.settings.get("crop_to_patches") and side <= int(image.settings.get("maximum_pad_value")):
        return image.whole()
    scale = side / max(width, height)
    fitted = Canvas(width, height).resize(round(width * scale), round(height * scale)).pad_to_square()
    return fitted.region(side, side)
