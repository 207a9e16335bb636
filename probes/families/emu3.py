"""Emu3: an image is a grid of discrete codes over the whole of it, stretched to whole cells, each row closed by a mark.

The codes are looked up among the decoder's own token embeddings. A code's cell is where the codes' own decoder draws
it; the encoder chose it from a wider window, centred half a cell further right and below, and its attention saw the
whole picture. The marks at the rows' ends are image tokens that show no pixels.
"""

from probes.families.geometry import Box, Tile
from probes.families.pixtral import pixel_tiles as pixel_tiles
from probes.families.view import ImageView, check_grid
from probes.families.view import image_token_ids as image_token_ids
from probes.inputs import InputError


def tiles(image: ImageView) -> list[Tile]:
    """One tile of the whole image, less a rest of pixels that make no code.

    Raises:
        InputError: If the inputs hold no `image_sizes`, or the given size cannot have led to the image's grid, or
            processor and model cut different cells.
    """
    sizes = image.inputs.get("image_sizes")
    if sizes is None:
        raise InputError("the inputs hold no image_sizes: pass everything that the processor returned")
    cell = 2 ** (len(image.config.vq_config.channel_multiplier) - 1)
    written = getattr(image.processor, "downsample_ratio", cell)
    if written != cell:
        raise InputError(
            f"the processor writes a token for every {written} pixels a side and the model makes one for every {cell}: "
            "load both from one checkpoint"
        )
    height, width = (int(side) for side in sizes[image.first_tile])
    rows, columns = height // cell, width // cell
    check_grid(image, rows, columns)
    whole = image.whole()
    box = Box(0.0, 0.0, whole.right * columns * cell / width, whole.bottom * rows * cell / height)
    return [Tile(rows, columns, box if whole.known else whole, row_end=1)]
