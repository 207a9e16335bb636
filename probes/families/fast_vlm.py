"""FastVLM: one grid over the resized and cropped image, as fine as its convolutional tower leaves it."""

from probes.families.geometry import Convolution, Tile, under_windows
from probes.families.llava import covered
from probes.families.view import ImageView, check_side
from probes.families.view import image_token_ids as image_token_ids
from probes.families.view import pixel_tiles as pixel_tiles
from probes.inputs import InputError

_HALVING = Convolution(window=3, stride=2, padding=1)
"""Where its windows lie; FastViT's own are of 3 or 7 pixels, padded evenly."""


def tiles(image: ImageView) -> list[Tile]:
    """One tile.

    Raises:
        InputError: If the processor or the pixels are not given (the configuration does not say how fine the tower is),
            or the pixels are no square that the tower halves to whole cells.
    """
    image.need_processor("divided")
    shape = image.pixel_shape()
    if shape is None:
        raise InputError("the inputs hold no pixel_values: pass everything that the processor returned")
    cell, side = int(image.processor.patch_size), shape[-1]
    check_side(image, side)
    if cell & (cell - 1) or side % cell:
        raise InputError(
            f"{image.name}: a side of {side} pixels is not halved to cells of {cell}: load the processor of this model"
        )
    cells, box = under_windows(covered(image, side, side, side, side), side, [_HALVING] * (cell.bit_length() - 1))
    return [Tile(cells, cells, box)]
