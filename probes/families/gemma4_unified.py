"""Gemma 4 unified: one grid over the whole image, stretched to whole cells at nearly its own shape; no vision tower.

Its processor merges patches itself, so that the inputs say where each token lies. This file knows nothing of videos.
"""

from probes.families.gemma4 import pixel_tiles as pixel_tiles
from probes.families.geometry import Tile
from probes.families.view import ImageView, check_grid
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
    own = positions[image.first_tile]
    columns, rows = (int(own[:, axis].max()) + 1 for axis in (0, 1))
    check_grid(image, rows, columns)
    return [Tile(rows, columns, image.whole())]
