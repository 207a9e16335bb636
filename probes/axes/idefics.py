"""IDEFICS: images side by side, each a class token and its patches, or a resampler's tokens.

Rows with fewer images than the batch's most are padded with empty ones, which no token sees. A token sees the nearest
image before it, and no earlier one.
"""

from collections.abc import Mapping
from typing import Any

from probes.axes.view import AxisView, Placed, check_pixels, needed
from probes.families.geometry import Tile
from probes.inputs import InputError


def counts(inputs: Mapping[str, Any], config: Any) -> list[int]:  # noqa: ARG001 - the seam's signature
    """As many as any token of the row sees."""
    _, mask = needed(inputs, "pixel_values", "image_attention_mask")
    found = []
    for row in range(len(mask)):
        seen = [bool(image) for image in mask[row].bool().any(0).tolist()]
        if seen != sorted(seen, reverse=True):
            raise InputError(f"row {row}: image_attention_mask hides an image before others from all tokens: drop it")
        found.append(sum(seen))
    return found


def place(image: AxisView) -> Placed:
    """One tile of the stretched image."""
    tower = image.config.vision_config
    side = int(tower.image_size)
    check_pixels(image, side, side)
    if image.config.use_resampler:
        tile = Tile.mixed(int(image.config.perceiver_config.resampler_n_latents), image.whole())
    else:
        cells = side // int(tower.patch_size)
        tile = Tile(cells, cells, image.whole(), before=1)
    return Placed(image.image * tile.tokens, [tile])
