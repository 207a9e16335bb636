"""Pixtral's tower, in Mistral 3 and in LLaVA: one grid over the whole image at nearly its own resolution.

The rows are parted by tokens of their own (`[IMG_BREAK]`, and `[IMG_END]` after the last), which the model reads as
text and no image feature replaces: they belong to no span, and each row is a run. This file knows nothing of padding
between the images of a batch, which reaches no token.
"""

from collections.abc import Mapping
from typing import Any

from probes.families.geometry import Tile
from probes.families.view import ImageView, check_grid
from probes.families.view import image_token_ids as image_token_ids
from probes.inputs import InputError


def tiles(image: ImageView) -> list[Tile]:
    """One tile of the whole image.

    Raises:
        InputError: If the inputs hold no `image_sizes`, or the given size cannot have led to the image's grid.
    """
    sizes = image.inputs.get("image_sizes")
    if sizes is None:
        raise InputError("the inputs hold no image_sizes: pass everything that the processor returned")
    cell = int(image.config.vision_config.patch_size) * int(getattr(image.config, "spatial_merge_size", 1))
    rows, columns = (int(length) // cell for length in sizes[image.first_tile])
    check_grid(image, rows, columns)
    return [Tile(rows, columns, image.whole())]


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Number of images whose sizes the inputs hold."""
    sizes = inputs.get("image_sizes")
    return None if sizes is None else len(sizes)
