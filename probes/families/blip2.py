"""BLIP-2 and InstructBLIP: one image before the text, which the Q-Former reads into as many tokens as it has queries.

Each query reads the whole picture: no token has a place in it. Spans and factors are known, cells and maps are refused
by name. The processor writes the tokens itself, and only if it knows how many queries the model has.
"""

from probes.families.geometry import Tile
from probes.families.view import ImageView
from probes.families.view import image_token_ids as image_token_ids
from probes.families.view import pixel_tiles as pixel_tiles
from probes.inputs import InputError


def tiles(image: ImageView) -> list[Tile]:
    """The whole image.

    Raises:
        InputError: If the processor writes another number of tokens than the model has queries.
    """
    queries = int(image.config.num_query_tokens)
    written = getattr(image.processor, "num_query_tokens", queries)
    if written != queries:
        raise InputError(
            f"the processor's num_query_tokens is {written} and the model has {queries} queries: set the processor's "
            "num_query_tokens"
        )
    return [Tile.mixed(queries, image.whole())]
