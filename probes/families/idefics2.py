"""Idefics2: each picture is resampled into a fixed number of tokens, the image alone or its four quarters before it.

A token of the resampler is made from the whole picture: no token has a place in it. Spans and factors are known, cells
and maps are refused by name.
"""

from probes.families.geometry import Box, Tile
from probes.families.idefics3 import pixel_tiles as pixel_tiles
from probes.families.view import ImageView
from probes.families.view import image_token_ids as image_token_ids
from probes.inputs import InputError


def tiles(image: ImageView) -> list[Tile]:
    """Four quarters and the whole, or the whole image alone.

    Raises:
        InputError: If the processor is missing, or writes other numbers of tokens than the model makes.
    """
    image.need_processor("split")
    tokens = int(image.config.perceiver_config.resampler_n_latents)
    written = int(image.processor.image_seq_len)
    if written != tokens:
        raise InputError(
            f"the processor writes {written} tokens per picture and the model makes {tokens}: set the processor's "
            "image_seq_len"
        )
    whole = image.whole()
    if not image.settings.get("do_image_splitting"):
        return [Tile.mixed(tokens, whole)]
    return [*(Tile.mixed(tokens, quarter) for quarter in _quarters(image)), Tile.mixed(tokens, whole, thumbnail=True)]


def _quarters(image: ImageView) -> list[Box]:
    """Parts in rows; the middle is rounded down."""
    if image.size is None:
        return [Box.unknown()] * 4
    width, height = image.size
    across, down = (0, width // 2, width), (0, height // 2, height)
    return [
        Box(across[column], down[row], across[column + 1], down[row + 1]) for row in range(2) for column in range(2)
    ]
