"""Where a prompt marks images by one token each, which no feature replaces: the marks, not what images hold.

Has a family's functions (`probes.families.view.Family`).
"""

from collections.abc import Mapping
from typing import Any

from probes.families.geometry import Tile
from probes.families.view import ImageView
from probes.families.view import image_token_ids as image_token_ids


def tiles(image: ImageView) -> list[Tile]:
    """One token that shows no pixels."""
    return [Tile(0, 0, image.whole(), before=1)]


def pixel_tiles(inputs: Mapping[str, Any]) -> None:  # noqa: ARG001 - the seam's signature
    """Not told: the vision axis counts them."""
    return
