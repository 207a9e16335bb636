"""LFM2-VL: an image at nearly its own shape; a large one cut into square tiles, then a thumbnail of its own shape.

Tiles come row by row, and marks between them are text. A projector folds blocks of patches into tokens.
"""

import math
from collections.abc import Mapping
from typing import Any

from probes.families.geometry import Tile
from probes.families.internvl import divisions, nearest_ratio
from probes.families.view import ImageView
from probes.families.view import image_token_ids as image_token_ids
from probes.inputs import InputError


def tiles(image: ImageView) -> list[Tile]:
    """Tiles row by row and a thumbnail last; one tile of the whole image where it is not cut.

    Raises:
        InputError: If the processor, the image's size or the inputs' spatial_shapes are missing.
    """
    image.need_processor("cut")
    shapes = image.inputs.get("spatial_shapes")
    if shapes is None:
        raise InputError("the inputs hold no spatial_shapes: pass everything that the processor returned")
    whole, (rows, columns) = image.whole(), _division(image)
    boxes = whole.cells(rows, columns)
    if len(boxes) > 1 and image.settings.get("use_thumbnail"):
        boxes.append(whole)
    if image.first_tile + len(boxes) > len(shapes):
        raise InputError(
            f"{image.name}: the inputs hold {len(shapes)} tiles, and the prompts place more: give one image per "
            "placeholder, and the sizes, processor and processor_kwargs that made the inputs"
        )
    factor = int(image.config.downsample_factor)
    found = []
    for place, box in enumerate(boxes):
        down, across = (math.ceil(int(side) / factor) for side in shapes[image.first_tile + place])
        found.append(Tile(down, across, box, thumbnail=place == rows * columns > 1))
    return found


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Number of tiles whose shapes the inputs hold."""
    shapes = inputs.get("spatial_shapes")
    return None if shapes is None else len(shapes)


def _division(image: ImageView) -> tuple[int, int]:
    """(rows, columns) of tiles: the nearest aspect ratio, for an image too large for a single tile."""
    get = image.settings.get
    fewest, most = int(get("min_tiles")), int(get("max_tiles"))
    width, height = image.known_size()
    if not get("do_image_splitting") or fewest == most == 1 or not _too_large(image, width, height):
        return 1, 1
    return nearest_ratio(width, height, int(get("tile_size")), divisions(fewest, most))


def _too_large(image: ImageView, width: int, height: int) -> bool:
    get = image.settings.get
    patch, factor = int(get("encoder_patch_size")), int(get("downsample_factor"))
    unit = patch * factor
    across, down = (max(patch, round(side / unit) * unit) for side in (width, height))
    allowed: float = int(get("max_image_tokens")) * unit**2 * float(get("max_pixels_tolerance"))
    return across * down > allowed
