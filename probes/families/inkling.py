"""Inkling: one grid of square cells over the image, padded on the right and below, with one column that may be empty.

The processor cuts one column more than fit into the width: where the width divides, the last one is padding alone. The
inputs do not say how many cells an image has, so that its size is needed.
"""

import math
from collections.abc import Mapping
from typing import Any

from probes.families.geometry import Canvas, Tile
from probes.families.view import ImageView
from probes.families.view import image_token_ids as image_token_ids


def tiles(image: ImageView) -> list[Tile]:
    """One tile, which reaches outside the image.

    Raises:
        InputError: If the processor or the image's size is missing.
    """
    image.need_processor("cut")
    cell = image.settings.sides("size")["height"]
    canvas = _scaled(image)
    rows, columns = math.ceil(canvas.height / cell), int(canvas.width) // cell + 1
    return [Tile(rows, columns, canvas.region(columns * cell, rows * cell))]


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:  # noqa: ARG001 - the seam's signature
    """None: the inputs hold cells, and not how many images they are of."""
    return None


def _scaled(image: ImageView) -> Canvas:
    """The image, enlarged or shrunk by `rescale_image_frac` where that is set, to the nearest pixel."""
    canvas = Canvas(*image.known_size())
    fraction = image.settings.get("rescale_image_frac")
    if fraction is None:
        return canvas
    longest = max(canvas.width, canvas.height)
    wanted = longest * float(fraction)
    most = image.settings.get("rescale_image_max_upscaled_long_edge")
    if most is not None:
        wanted = min(wanted, max(int(most), longest))
    width, height = (math.floor(side * wanted / longest + 0.5) for side in (canvas.width, canvas.height))
    return canvas.resize(width, height)
