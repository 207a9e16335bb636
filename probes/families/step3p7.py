"""Step-3.7: windows over the stretched image row by row, if it is large or long, then the whole squeezed to a square.

Each window is stretched to one square of its own side. A narrow strip is first padded to a square, right or below.
"""

import math
from collections.abc import Mapping
from typing import Any

from probes.families.geometry import Box, Tile
from probes.families.view import ImageView, shape_of, square_side
from probes.families.view import image_token_ids as image_token_ids
from probes.inputs import InputError

_HALVED = 4
"""Patches along a token's side: two convolutions of the tower halve its grid."""
_STRIP = 32
"""A strip is narrower than this, in pixels, and more than `_LONG` times as long as wide."""
_LONG = 4
_ELONGATED = 1.5
"""From which ratio of sides on an image that fits into the whole view is cut nevertheless."""
_WORTH_A_WINDOW = 0.2
"""Share of a window that a remainder must pass to get a window."""


def tiles(image: ImageView) -> list[Tile]:
    """The windows row by row and the whole image last.

    Raises:
        InputError: If the processor or the image's size is missing, or they do not fit the pixels or the model.
    """
    image.need_processor("cut")
    seen, window = square_side(image), int(image.settings.get("patch_size"))
    coarse = _cells(image, seen, int(image.processor.num_image_feature_size))
    fine = _cells(image, window, int(image.processor.num_patch_feature_size))
    width, height = image.known_size()
    if _is_strip(width, height):
        width = height = max(width, height)
    whole = Box(0.0, 0.0, float(width), float(height))
    rows, columns = _windows(image, width, height, seen, window)
    cut = [Tile(fine, fine, box) for box in whole.cells(rows, columns)]
    return [*cut, Tile(coarse, coarse, whole, thumbnail=bool(cut))]


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Windows of all images, and the images."""
    counts, shape = inputs.get("num_local_patches"), shape_of(inputs.get("pixel_values"))
    return None if counts is None or shape is None else shape[0] + sum(int(count) for count in counts)


def _cells(image: ImageView, side: int, written: int) -> int:
    """Tokens along the side of a square picture."""
    cells = math.ceil(side // int(image.config.vision_config.patch_size) / _HALVED)
    if written != cells * cells:
        raise InputError(
            f"the processor writes {written} tokens for {side} x {side} pixels and the model makes {cells * cells}: "
            "load both from one checkpoint"
        )
    return cells


def _is_strip(width: int, height: int) -> bool:
    return min(width, height) < _STRIP and max(width / height, height / width) > _LONG


def _windows(image: ImageView, width: int, height: int, seen: int, window: int) -> tuple[int, int]:
    """(rows, columns) of windows; none for an image that the whole view shows well enough."""
    most = int(image.settings.image_processor.max_image_size)
    if max(width, height) > most:
        scale = most / max(width, height)
        width, height = int(width * scale), int(height * scale)
    shorter, longer = sorted((width, height))
    if longer <= seen:
        if longer / shorter <= _ELONGATED:
            return 0, 0
        window = shorter
    elif longer / shorter > _LONG:
        window = min(shorter, window)
    return _count(height, window), _count(width, window)


def _count(length: int, window: int) -> int:
    return max(1, length // window + (length % window > _WORTH_A_WINDOW * window))
