"""Aria: each picture is resampled into a number of tokens that its side decides, the image alone or its crops.

A token of the projector is made from the whole picture: no token has a place in it. Spans and factors are known, cells
and maps are refused by name.
"""

import math

from probes.families.geometry import Box, Canvas, Tile
from probes.families.llava_next import best_resolution
from probes.families.view import ImageView
from probes.families.view import image_token_ids as image_token_ids
from probes.families.view import pixel_tiles as pixel_tiles
from probes.inputs import InputError


def tiles(image: ImageView) -> list[Tile]:
    """The whole image, or its crops row by row where the processor splits.

    Raises:
        InputError: If the processor is missing, writes other numbers of tokens than the model makes, or splits an image
            whose size was not given.
    """
    image.need_processor("split")
    side = int(image.settings.get("max_image_size"))
    tokens = _tokens(image, side)
    if not image.settings.get("split_image"):
        return [Tile.mixed(tokens, image.whole())]
    return [Tile.mixed(tokens, box) for box in _crops(image, side)]


def _tokens(image: ImageView, side: int) -> int:
    """Tokens of a picture, which the processor looks up by its side and the model by its number of patches."""
    written = image.processor.size_conversion.get(side)
    patches = (side // int(image.config.vision_config.patch_size)) ** 2
    made = image.config.projector_patch_to_query_dict.get(patches)
    if made is None or written != made:
        raise InputError(
            f"the processor writes {written} tokens for a picture of {side} pixels a side and the model makes {made} "
            f"of its {patches} patches: load both from one checkpoint"
        )
    return int(made)


def _crops(image: ImageView, side: int) -> list[Box]:
    """Boxes row by row over the image, fitted into the best of the listed resolutions and padded evenly."""
    width, height = image.known_size()
    across, down = best_resolution(image.settings.get("split_resolutions"), width, height)
    if across / width < down / height:
        fitted = across, min(math.ceil(height * (across / width)), down)
    else:
        fitted = min(math.ceil(width * (down / height)), across), down
    canvas = Canvas(width, height).resize(*fitted).crop(across, down)
    return [
        Box(
            canvas.left + left * canvas.x_scale,
            canvas.top + top * canvas.y_scale,
            canvas.left + min(left + side, across) * canvas.x_scale,
            canvas.top + min(top + side, down) * canvas.y_scale,
        )
        for top in range(0, down, side)
        for left in range(0, across, side)
    ]
