"""What a module of this package is shown of one image on a vision axis, and the functions it must have."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from probes.families.geometry import Tile
from probes.families.view import ImageView, shape_of
from probes.inputs import InputError


@dataclass(frozen=True, kw_only=True)
class AxisView(ImageView):
    """One image of a batch.

    Args:
        row: Its batch row.
        image: Its place among the row's images, from 0.
    """

    row: int
    image: int


class Placed(NamedTuple):
    """Where one image lies: its tiles one after the other, from a first column on."""

    start: int
    tiles: list[Tile]


class Axis(Protocol):
    """The functions of a module."""

    def counts(self, inputs: Mapping[str, Any], config: Any) -> list[int]:
        """Number of images of each batch row.

        Raises:
            InputError: If the inputs do not say, or do not fit the model.
        """
        ...

    def place(self, image: AxisView) -> Placed:
        """The image's first column, and its tiles.

        Raises:
            InputError: If they cannot be told from what the view holds.
        """
        ...


def needed(inputs: Mapping[str, Any], *names: str) -> list[Any]:
    """Inputs by name.

    Raises:
        InputError: If one is missing.
    """
    missing = [name for name in names if inputs.get(name) is None]
    if missing:
        raise InputError(f"the inputs hold no {' and no '.join(missing)}: pass everything the processor returned")
    return [inputs[name] for name in names]


def needed_shape(inputs: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """Shape of an input.

    Raises:
        InputError: If it is missing.
    """
    shape = shape_of(needed(inputs, name)[0])
    if shape is None:
        raise InputError(f"{name} is no tensor: let the processor return tensors (return_tensors='pt')")
    return shape


def one_image_each(inputs: Mapping[str, Any], config: Any) -> list[int]:  # noqa: ARG001 - the seam's signature
    """One image in each batch row of `pixel_values`."""
    return [1] * needed_shape(inputs, "pixel_values")[0]


def check_pixels(image: ImageView, height: int, width: int) -> None:
    """Check that the processed pixels have the one size that the model takes.

    Raises:
        InputError: If they do not.
    """
    shape = needed_shape(image.inputs, "pixel_values")
    if shape[-2:] != (height, width):
        raise InputError(
            f"{image.name}: the processor makes {shape[-1]} x {shape[-2]} pixels, and the model takes {width} x "
            f"{height}: load both from one checkpoint"
        )
