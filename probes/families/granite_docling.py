"""Granite Docling: a stretched page cut into square tiles row by row, then a thumbnail of the whole.

How many tiles a page is cut into is the image processor's own rule, and is asked of it. On its fine route the model
folds a quarter as many patches into a token.
"""

from collections.abc import Mapping
from typing import Any

from probes.families.geometry import Tile
from probes.families.view import ImageView, square_side
from probes.families.view import image_token_ids as image_token_ids
from probes.inputs import InputError

_RULE = (
    "crop_to_patches",
    "min_patches",
    "max_patches",
    "dense_max_patches",
    "dense_max_scale",
    "dense_min_aspect",
    "dense_max_aspect",
)
"""Settings on which the division of a page depends, besides the tiles' size."""


def tiles(image: ImageView) -> list[Tile]:
    """Tiles row by row and a thumbnail last; one tile of the whole page where it is not cut.

    Raises:
        InputError: If the processor or the page's size is missing, or they do not fit the pixels or the model.
    """
    image.need_processor("cut")
    side = square_side(image)
    cells = _cells_per_side(image, side)
    width, height = image.known_size()
    rule = {name: image.settings.get(name) for name in _RULE} | {"size": {"height": side, "width": side}}
    rows, columns = image.settings.image_processor.get_tile_grid(height, width, rule)
    return Tile.cut(cells, image.whole(), rows, columns)


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Tiles that are not padding, by the mask; None without a mask."""
    mask = inputs.get("pixel_attention_mask")
    return None if mask is None else int(mask.sum())


def _cells_per_side(image: ImageView, side: int) -> int:
    """Patches along a tile's side, divided by the connector's pixel shuffle."""
    tower, fine = image.config.vision_config, image.inputs.get("tile_fine_mask") is not None
    cells = side // int(tower.patch_size) // (int(tower.scale_factor) // (2 if fine else 1))
    written = int(image.processor.image_seq_len) * (4 if fine else 1)
    if written != cells * cells:
        raise InputError(
            f"the processor writes {written} tokens per tile and the model makes {cells * cells}: load both from one "
            "checkpoint"
        )
    return cells
