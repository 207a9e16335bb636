"""Florence-2: one image in the text that the encoder reads: a mean over all, then a grid over the stretched image."""

from probes.axes.view import check_pixels
from probes.families.geometry import Convolution, Tile, under_windows
from probes.families.view import ImageView, square_side
from probes.families.view import image_token_ids as image_token_ids
from probes.families.view import pixel_tiles as pixel_tiles


def tiles(image: ImageView) -> list[Tile]:
    """One tile, as fine as the tower's convolutions leave it.

    Raises:
        InputError: If the pixels are no squares.
    """
    shape = image.pixel_shape()
    side = square_side(image) if shape is None else shape[-1]
    if shape is not None:
        check_pixels(image, side, side)
    tower = image.config.vision_config
    steps = map(Convolution, tower.patch_size, tower.patch_stride, tower.patch_padding)
    cells, box = under_windows(image.whole(), side, list(steps))
    return [Tile(cells, cells, box, before=1)]
