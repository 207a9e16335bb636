"""Muse Glimmer and Muse Spark: one grid over the whole image, stretched to whole cells at nearly its own shape.

The processor gives patches in rows, and the model folds blocks of them into tokens, row by row. Marks before and behind
an image are text. This file knows nothing of videos' tokens.
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
        InputError: If the inputs hold no `image_grid_thw`, or the given size cannot have led to the image's grid.
    """
    grids = image.inputs.get("image_grid_thw")
    if grids is None:
        raise InputError("the inputs hold no image_grid_thw: pass everything that the processor returned")
    merge = int(image.config.vision_config.merge_size)
    _, down, across = grids[image.first_tile]
    rows, columns = int(down) // merge, int(across) // merge
    check_grid(image, rows, columns)
    return [Tile(rows, columns, image.whole())]


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Number of images whose grids the inputs hold."""
    shape = shape_of(inputs.get("image_grid_thw"))
    return None if shape is None else shape[0]
