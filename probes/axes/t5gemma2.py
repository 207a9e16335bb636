"""T5Gemma 2: image tokens in the text that the encoder reads, as Gemma 3's; the decoder sees all of it."""

from dataclasses import replace
from typing import Any

from probes.families import gemma3
from probes.families.geometry import Tile
from probes.families.view import ImageView
from probes.families.view import image_token_ids as token_ids
from probes.families.view import pixel_tiles as pixel_tiles


def image_token_ids(config: Any, processor: Any) -> list[int]:
    """The encoder's."""
    return token_ids(config.encoder, processor)


def tiles(image: ImageView) -> list[Tile]:
    """As Gemma 3's.

    Raises:
        InputError: As for Gemma 3.
    """
    return gemma3.tiles(replace(image, config=image.config.encoder))
