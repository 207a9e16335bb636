"""Vision encoder-decoders (TrOCR, Donut, Nougat): one picture a row, patches behind the encoder's own tokens."""

from probes.axes.pages import covered
from probes.axes.view import AxisView, Placed, needed_shape
from probes.axes.view import one_image_each as counts
from probes.families.geometry import Tile
from probes.inputs import InputError

__all__ = ["counts", "place"]

_FLAT = {"beit": 1, "deit": 2, "vit": 1}
"""Encoders with one grid of patches, and how many tokens stand before it."""
_MERGING = ("donut-swin", "swin")
"""Encoders each of whose stages but the last merges patches by two, padding odd sides."""


def place(image: AxisView) -> Placed:
    """One tile.

    Raises:
        InputError: If the encoder is not one whose grid is known.
    """
    encoder = image.config.encoder
    kind = encoder.model_type
    if kind not in _FLAT and kind not in _MERGING:
        raise InputError(
            f"an encoder of type {kind!r} is not known (known: {', '.join(sorted((*_FLAT, *_MERGING)))}): give columns "
            "by hand to attention_factors(cross_spans=...)"
        )
    pixels, patch = needed_shape(image.inputs, "pixel_values")[-2:], int(encoder.patch_size)
    if kind in _FLAT:
        rows, columns = (side // patch for side in pixels)
        return Placed(0, [Tile(rows, columns, covered(image, columns * patch, rows * patch), before=_FLAT[kind])])
    rows, columns = (-(-side // patch) for side in pixels)
    for _ in encoder.depths[1:]:
        rows, columns, patch = -(-rows // 2), -(-columns // 2), patch * 2
    return Placed(0, [Tile(rows, columns, covered(image, columns * patch, rows * patch))])
