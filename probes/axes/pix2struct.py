"""Pix2Struct: one image a row, stretched to as many whole patches as fit; padding behind them."""

from collections.abc import Mapping
from typing import Any

from probes.axes.view import AxisView, Placed, needed_shape
from probes.families.geometry import Tile
from probes.families.view import check_grid
from probes.inputs import InputError


def counts(inputs: Mapping[str, Any], config: Any) -> list[int]:  # noqa: ARG001 - the seam's signature
    """One in each row."""
    return [1] * needed_shape(inputs, "flattened_patches")[0]


def place(image: AxisView) -> Placed:
    """One tile; each patch holds its row and column, counted from 1.

    Raises:
        InputError: If a picture's place under the question that the processor drew above it is asked for.
    """
    patches = image.inputs["flattened_patches"][image.row]
    rows, columns = (int(patches[:, axis].max()) for axis in (0, 1))
    if image.size is not None:
        if image.settings.get("is_vqa"):
            raise InputError(
                f"{image.name}: the question is drawn above the picture, at a height that the inputs do not say: "
                "leave out image_sizes, for columns without pixels, or draw no header (is_vqa=False)"
            )
        check_grid(image, rows, columns)
    return Placed(0, [Tile(rows, columns, image.whole())])
