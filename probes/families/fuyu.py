"""Fuyu: one grid of patches over the one image of a prompt, shrunk to fit and padded on the right and below.

Patches are projected without a vision tower. A newline behind each row is text: each row is a run. The inputs do not
say how many patches an image has, so that its size is needed.
"""

import math
from collections.abc import Mapping
from typing import Any

from probes.families.geometry import Canvas, Tile
from probes.families.view import ImageView
from probes.families.view import image_token_ids as image_token_ids
from probes.inputs import InputError


def tiles(image: ImageView) -> list[Tile]:
    """One tile, which reaches outside the image where the last patches do.

    Raises:
        InputError: If the processor or the image's size is missing, or processor and model cut other patches.
    """
    image.need_processor("cut")
    patch = image.settings.sides("patch_size")
    if {*patch.values()} != {int(image.config.patch_size)}:
        raise InputError(
            f"the processor cuts patches of {patch['height']} x {patch['width']} pixels and the model reads "
            f"{image.config.patch_size}: load both from one checkpoint"
        )
    size, canvas = image.settings.sides("size"), _fitted(image)
    side = patch["height"]
    across, down = (
        min(size[name], math.ceil(length / side) * side)
        for name, length in (("width", canvas.width), ("height", canvas.height))
    )
    return [Tile(down // side, across // side, canvas.region(across, down))]


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:  # noqa: ARG001 - the seam's signature
    """None: the inputs hold patches, and not how many images they are of."""
    return None


def _fitted(image: ImageView) -> Canvas:
    """The image, shrunk where it is larger than the processor's size; never enlarged."""
    width, height = image.known_size()
    size = image.settings.sides("size")
    if not image.settings.get("do_resize") or (width <= size["width"] and height <= size["height"]):
        return Canvas(width, height)
    scale = min(size["height"] / height, size["width"] / width)
    return Canvas(width, height).resize(int(width * scale), int(height * scale))
