"""Gemma 3n: one square grid over the stretched image, to which its convolutional tower pools."""

import math

from probes.families.geometry import Tile
from probes.families.view import ImageView, square_side
from probes.families.view import image_token_ids as image_token_ids
from probes.families.view import pixel_tiles as pixel_tiles
from probes.inputs import InputError


def tiles(image: ImageView) -> list[Tile]:
    """One tile.

    Raises:
        InputError: If the configuration's number of tokens is no square, or the processor makes other pixels.
    """
    tokens = int(image.config.vision_soft_tokens_per_image)
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise InputError(f"vision_soft_tokens_per_image is {tokens}, and images become square grids: set a square")
    if image.processor is not None:
        square_side(image)
    return [Tile(side, side, image.whole())]
