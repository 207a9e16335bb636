"""Nemotron-H Omni: one grid over the whole image, stretched to whole cells; blocks of patches are shuffled into tokens.

This file knows nothing of videos, whose frames take image tokens too.
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
        InputError: If the inputs hold no `image_grid_hw`, or the given size cannot have led to it.
    """
    grids = image.inputs.get("image_grid_hw")
    if grids is None:
        raise InputError("the inputs hold no image_grid_hw: pass everything that the processor returned")
    merge = round(1 / float(image.config.downsample_ratio))
    rows, columns = (int(length) // merge for length in grids[image.first_tile])
    check_grid(image, rows, columns)
    return [Tile(rows, columns, image.whole())]


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Number of images whose grids the inputs hold."""
    grids = inputs.get("image_grid_hw")
    return None if grids is None else len(grids)
