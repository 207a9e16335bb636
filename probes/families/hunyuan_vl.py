"""HunYuan-VL: one grid over the whole stretched image, each row closed by a newline, between a first and a last token.

The newlines and the two tokens around the grid are image tokens that show no pixels: no cell has them.
"""

from probes.families import qwen2_vl
from probes.families.geometry import Tile
from probes.families.qwen2_vl import pixel_tiles as pixel_tiles
from probes.families.view import ImageView
from probes.families.view import image_token_ids as image_token_ids


def tiles(image: ImageView) -> list[Tile]:
    """One tile of the whole image.

    Raises:
        InputError: If the inputs hold no grid, or the given size cannot have led to it.
    """
    return [tile._replace(before=1, row_end=1, after=1) for tile in qwen2_vl.tiles(image)]
