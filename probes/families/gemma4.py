"""Gemma 4: one grid over the whole image, stretched to whole cells at nearly its own shape; blocks of patches pooled.

The inputs say where each patch lies. This file knows nothing of videos' tokens.
"""

from collections.abc import Mapping
from typing import Any

from probes.families.geometry import Tile
from probes.families.view import ImageView, check_grid, shape_of
from probes.families.view import image_token_ids as image_token_ids
from probes.inputs import InputError


def tiles(image: ImageView) -> list[Tile]:
    """One tile of the whole image.

    Raises:
        InputError: If the inputs hold no `image_position_ids`, or the given size cannot have led to the image's grid.
    """
    positions = image.inputs.get("image_position_ids")
    if positions is None:
        raise InputError("the inputs hold no image_position_ids: pass everything that the processor returned")
    pooled = int(image.config.vision_config.pooling_kernel_size)
    own = positions[image.first_tile]
    columns, rows = ((int(own[:, axis].max()) + 1) // pooled for axis in (0, 1))
    check_grid(image, rows, columns)
    return [Tile(rows, columns, image.whole())]


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Number of images whose patches the inputs place."""
    shape = shape_of(inputs.get("image_position_ids"))
    return None if shape is None else shape[0]
