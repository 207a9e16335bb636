"""Kosmos-2 and Kosmos-2.5: the one image of a prompt is resampled into a fixed number of tokens before the text.

The tokens' ids are those of words too, so that the inputs mark their places. A token of the resampler is made from the
whole picture: spans and factors are known, cells and maps are refused by name.
"""

from collections.abc import Mapping
from typing import Any

from probes.families.geometry import Tile
from probes.families.view import ImageView, shape_of
from probes.inputs import InputError


def image_token_ids(config: Any, processor: Any) -> list[int]:  # noqa: ARG001 - the seam's signature
    """None: see `image_marks`."""
    return []


def image_marks(inputs: Mapping[str, Any]) -> Any:
    """(batch, tokens), 1 where a token stands for image features.

    Raises:
        InputError: If the inputs hold no `image_embeds_position_mask`.
    """
    marks = inputs.get("image_embeds_position_mask")
    if marks is None:
        raise InputError("the inputs hold no image_embeds_position_mask: pass everything that the processor returned")
    return marks


def tiles(image: ImageView) -> list[Tile]:
    """The whole image, mixed."""
    return [Tile.mixed(int(image.config.latent_query_num), image.whole())]


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Number of images; Kosmos-2.5 takes flattened patches."""
    shape = shape_of(inputs.get("pixel_values", inputs.get("flattened_patches")))
    return None if shape is None else shape[0]
