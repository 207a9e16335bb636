"""Chameleon: an image is a square grid of discrete codes, over a resized and centre-cropped image.

The codes are looked up among the decoder's own token embeddings. The encoder chose each code from a window wider than
its cell, centred half a cell further right and below, and its attention saw the whole picture.
"""

from probes.families.geometry import Tile
from probes.families.llava import covered
from probes.families.view import ImageView
from probes.families.view import image_token_ids as image_token_ids
from probes.families.view import pixel_tiles as pixel_tiles
from probes.inputs import InputError


def tiles(image: ImageView) -> list[Tile]:
    """One tile: the codes of the crop.

    Raises:
        InputError: If the processor writes another number of tokens than the model makes, or the given size does not
            lead to the given pixels.
    """
    codes = image.config.vq_config
    cell = 2 ** (len(codes.channel_multiplier) - 1)
    shape = image.pixel_shape()
    height, width = shape[-2:] if shape else (int(codes.resolution), int(codes.resolution))
    rows, columns = height // cell, width // cell
    written = int(getattr(image.processor, "image_seq_length", rows * columns))
    if written != rows * columns:
        raise InputError(
            f"the processor writes {written} tokens per image and the model makes {rows * columns}: set the "
            "processor's image_seq_length"
        )
    return [Tile(rows, columns, covered(image, width, height, columns * cell, rows * cell))]
