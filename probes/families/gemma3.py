"""Gemma 3: a square average-pooled grid over the whole image, and over each pan-and-scan crop after it."""

import math

from probes.families.geometry import Box, Tile
from probes.families.view import ImageView
from probes.families.view import image_token_ids as image_token_ids
from probes.families.view import pixel_tiles as pixel_tiles
from probes.inputs import InputError


def tiles(image: ImageView) -> list[Tile]:
    """The whole image, then its crops; the whole is called a thumbnail where crops follow.

    Raises:
        InputError: If neither the processor nor the image's size is given, or crops are made and its size is not.
    """
    if image.processor is None and image.size is None:
        raise InputError(f"{image.name}: its crops look like images of their own: pass processor= or image_sizes=")
    side, share = _grid(image)
    crops = _crops(image) if image.settings.get("do_pan_and_scan") else []
    return [
        Tile(side, side, _shrink(image.whole(), share), thumbnail=bool(crops)),
        *(Tile(side, side, _shrink(crop, share)) for crop in crops),
    ]


def _grid(image: ImageView) -> tuple[int, float]:
    """Cells per side, and the share of the side that they cover: pooling leaves out patches that do not divide."""
    tower = image.config.vision_config
    side = math.isqrt(int(image.config.mm_tokens_per_image))
    patches = int(tower.image_size) // int(tower.patch_size)
    if side > patches:
        raise InputError(f"mm_tokens_per_image asks for {side} cells a side of {patches} patches: set it lower")
    pooled = patches // side
    return side, side * pooled * int(tower.patch_size) / int(tower.image_size)


def _shrink(box: Box, share: float) -> Box:
    if share == 1:
        return box
    return box._replace(
        right=box.left + (box.right - box.left) * share, bottom=box.top + (box.bottom - box.top) * share
    )


def _crops(image: ImageView) -> list[Box]:
    """Pan-and-scan boxes along the longer side; none where the image is too square or too small."""
    width, height = image.known_size()
    longer, shorter = max(width, height), min(width, height)
    smallest = int(image.settings.get("pan_and_scan_min_crop_size"))
    if longer / shorter < float(image.settings.get("pan_and_scan_min_ratio_to_activate")):
        return []
    count = min(longer // smallest, math.floor(longer / shorter + 0.5))
    count = min(int(image.settings.get("pan_and_scan_max_num_crops")), max(2, count))
    step = math.ceil(longer / count)
    if min(step, shorter) < smallest:
        return []
    cuts = [(float(step * index), float(min(step * (index + 1), longer))) for index in range(count)]
    if width >= height:
        return [Box(low, 0.0, high, float(height)) for low, high in cuts]
    return [Box(0.0, low, float(width), high) for low, high in cuts]
