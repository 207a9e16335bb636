"""MiniCPM-V 4.6 and 4.7, MiniCPM-OCR: the whole image at nearly its own shape, then, of a large one, slices by row.

The slices are cut from the image stretched anew, and marks between them are text. Blocks of patches are merged into
tokens, in the tower and behind it. This file knows nothing of videos.
"""

import math
from collections.abc import Mapping
from typing import Any

from probes.families.geometry import Tile
from probes.families.view import ImageView
from probes.families.view import image_token_ids as image_token_ids
from probes.inputs import InputError

_MERGED = {"4x": 2, "16x": 4}
"""Patches along a token's side, by `downsample_mode`."""


def tiles(image: ImageView) -> list[Tile]:
    """The whole image, and its slices row by row; the whole is called a thumbnail where slices follow.

    Raises:
        InputError: If the processor, the image's size or the inputs' target_sizes are missing, or processor and model
            merge differently.
    """
    image.need_processor("sliced")
    shapes = image.inputs.get("target_sizes")
    if shapes is None:
        raise InputError("the inputs hold no target_sizes: pass everything that the processor returned")
    merged = _merged(image)
    whole, (rows, columns) = image.whole(), _slices(image)
    slices = whole.cells(rows, columns) if rows * columns > 1 else []
    boxes = [whole, *slices]
    if image.first_tile + len(boxes) > len(shapes):
        raise InputError(
            f"{image.name}: the inputs hold {len(shapes)} pictures, and the prompts place more: give one image per "
            "placeholder, and the sizes, processor and processor_kwargs that made the inputs"
        )
    found = []
    for place, box in enumerate(boxes):
        down, across = (int(side) // merged for side in shapes[image.first_tile + place])
        found.append(Tile(down, across, box, thumbnail=bool(slices) and place == 0))
    return found


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Number of pictures whose shapes the inputs hold."""
    shapes = inputs.get("target_sizes")
    return None if shapes is None else len(shapes)


def _merged(image: ImageView) -> int:
    mode = str(image.settings.get("downsample_mode"))
    if mode != image.config.downsample_mode or mode not in _MERGED:
        raise InputError(
            f"the processor's downsample_mode is {mode!r} and the model's {image.config.downsample_mode!r}: set both "
            "to the same of '4x' and '16x'"
        )
    return _MERGED[mode]


def _slices(image: ImageView) -> tuple[int, int]:
    """(rows, columns): about as many slices as the image has areas of `scale_resolution` squared, by aspect ratio."""
    width, height = image.known_size()
    get = image.settings.get
    side, most = int(get("scale_resolution")), int(get("max_slice_nums"))
    wanted = min(math.ceil(width * height / side**2), most)
    if not get("slice_mode") or wanted <= 1:
        return 1, 1
    best, least = (1, 1), math.inf
    for count in (wanted - 1, wanted, wanted + 1):
        if count == 1 or count > most:
            continue
        for rows in (rows for rows in range(1, count + 1) if not count % rows):
            error = abs(math.log(width / height) - math.log(count // rows / rows))
            if error < least or (error == least and rows > best[0]):
                best, least = (rows, count // rows), error
    return best
