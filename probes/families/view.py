"""What a family module is shown of one image, and the functions it must have. Knows no family and no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from probes.families.geometry import Box, Tile
from probes.inputs import InputError


@dataclass(frozen=True)
class ImageView:
    """One image of a batch, as a family module sees it.

    Args:
        name: How messages call it, as "row 0, image 1".
        first_tile: Number of tiles that the images before it in the batch have.
        size: (width, height) of the original image in pixels; None if not given.
        inputs: What the processor returned.
        config: The model's configuration.
        processor: The processor, or None.
        settings: The processor's settings.
        frames: Number of frames of a video; None if not given, or not a video.
    """

    name: str
    first_tile: int
    size: tuple[int, int] | None
    inputs: Mapping[str, Any]
    config: Any
    processor: Any
    settings: "Settings"
    frames: int | None = None

    def known_size(self) -> tuple[int, int]:
        """Return (width, height).

        Raises:
            InputError: If it was not given, though this family needs it to tell the tokens apart.
        """
        if self.size is None:
            raise InputError(f"{self.name}: its tokens depend on its size: pass image_sizes=[[(width, height), …], …]")
        return self.size

    def need_processor(self, done: str) -> None:
        """Refuse a view without a processor, where what was `done` to the image is the processor's choice.

        Raises:
            InputError: If there is none.
        """
        if self.processor is None:
            raise InputError(f"{self.name}: how it was {done} is the processor's choice: pass processor=")

    def whole(self) -> Box:
        """The box of the whole image; unknown if its size was not given."""
        return Box.unknown() if self.size is None else Box(0.0, 0.0, float(self.size[0]), float(self.size[1]))

    def pixel_shape(self) -> tuple[int, ...] | None:
        """Shape of the processed pixels; None if the inputs hold none."""
        return shape_of(pixels_of(self.inputs))


@dataclass(frozen=True)
class Settings:
    """Image settings that were in force: those of the call, else the processor's defaults, else its image processor's.

    A processor's own defaults come before the settings of its image processor: transformers passes them at each
    call, so that Gemma 3's image processor can say `do_pan_and_scan=True` without any effect.
    """

    processor: Any
    call: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def _merged(self) -> Mapping[str, Any]:
        merge = getattr(self.processor, "_merge_kwargs", None)
        if merge is None:
            return {**self.call.get("images_kwargs", {}), **self.call}
        merged: Mapping[str, Any] = merge(**self.call)["images_kwargs"]
        return merged

    @property
    def image_processor(self) -> Any:
        """The image processor, or None."""
        return getattr(self.processor, "image_processor", self.processor)

    def get(self, name: str, default: Any = None) -> Any:
        """The setting's value, or the default if nothing names it."""
        return self._merged[name] if name in self._merged else getattr(self.image_processor, name, default)

    def sides(self, name: str) -> dict[str, int]:
        """A size setting as a mapping of those of its keys that are set; a bare number is a square's side.

        Raises:
            InputError: If the setting is missing.
        """
        value = self.get(name)
        if isinstance(value, int):
            return {"height": value, "width": value}
        items = value if isinstance(value, Mapping) else dict(value or {})
        found = {str(key): int(side) for key, side in items.items() if side is not None}
        if not found:
            raise InputError(f"the processor has no setting {name!r}: pass spans by hand (image_spans=...)")
        return found


class Family(Protocol):
    """The functions of a family module."""

    def image_token_ids(self, config: Any, processor: Any) -> Sequence[int]:
        """Ids of the prompt tokens that image features replace."""
        ...

    def tiles(self, image: ImageView) -> list[Tile]:
        """The image's tiles, in the order of their tokens in the prompt.

        Raises:
            InputError: If they cannot be told from what the view holds.
        """
        ...

    def pixel_tiles(self, inputs: Mapping[str, Any]) -> int | None:
        """Number of tiles whose pixels the inputs hold; None if the inputs do not say."""
        ...


class MarkingFamily(Family, Protocol):
    """The functions of a family module whose image tokens have no ids of their own."""

    def image_marks(self, inputs: Mapping[str, Any]) -> Any:
        """(batch, tokens), 1 where a token stands for image features.

        Raises:
            InputError: If the inputs do not say.
        """
        ...


class VideoFamily(Protocol):
    """The functions of a family module that knows the tokens of videos too."""

    def video_token_ids(self, config: Any, processor: Any) -> Sequence[int]:
        """Ids of the prompt tokens that features of videos replace."""
        ...

    def video_tiles(self, video: ImageView) -> list[Tile]:
        """The video's tiles, in the order of their tokens in the prompt.

        Raises:
            InputError: If they cannot be told from what the view holds.
        """
        ...

    def video_pixel_tiles(self, inputs: Mapping[str, Any]) -> int | None:
        """Number of tiles whose pixels the inputs hold; None if the inputs do not say."""
        ...


def image_token_ids(config: Any, processor: Any) -> list[int]:  # noqa: ARG001 - the seam's signature
    """The one image token that most configurations name.

    Raises:
        InputError: If the configuration names none.
    """
    token = getattr(config, "image_token_id", None)
    if token is None:
        raise InputError(f"the configuration of {config.model_type!r} names no image_token_id: set it")
    return [int(token)]


def square_side(image: ImageView) -> int:
    """Pixels along the side of the square tiles that the processor makes.

    Raises:
        InputError: If its size is no square, or not that of the inputs' pixels.
    """
    sides = set(image.settings.sides("size").values())
    if len(sides) != 1:
        raise InputError(f"{image.name}: the processor's size is no square: set its height and width alike")
    side = sides.pop()
    check_side(image, side)
    return side


def check_side(image: ImageView, side: int) -> None:
    """Check that the inputs' pixels are square tiles of a side.

    Raises:
        InputError: If they are not.
    """
    shape = image.pixel_shape()
    if shape is not None and shape[-2:] != (side, side):
        raise InputError(
            f"{image.name}: the processor makes tiles of {side} x {side} pixels and the inputs hold"
            f" {shape[-1]} x {shape[-2]}: pass the processor and processor_kwargs that made the inputs"
        )


def video_token_ids(config: Any, processor: Any) -> list[int]:  # noqa: ARG001 - the seam's signature
    """The one video token that most configurations name.

    Raises:
        InputError: If the configuration names none.
    """
    token = getattr(config, "video_token_id", None)
    if token is None:
        raise InputError(f"the configuration of {config.model_type!r} names no video_token_id: set it")
    return [int(token)]


def check_frames(video: ImageView, frames: int) -> None:
    """Check that the frames given are those that the processor kept, to the ones that it repeats.

    Raises:
        InputError: If they are not.
    """
    if video.frames is not None and video.frames != frames:
        raise InputError(
            f"{video.name}: {video.frames} frames are given, and the inputs hold {frames}: give the number that the "
            "processor kept when it sampled, or tell it do_sample_frames=False"
        )


def check_grid(image: ImageView, rows: int, columns: int, patch: int | None = None) -> None:
    """Check that an image stretched to a grid of square cells can have had the given size.

    Args:
        image: The image.
        rows: Of the grid.
        columns: Of the grid.
        patch: Pixels along the side of a patch, where the processor counts patches, the last one begun too, before it
            stretches; None where it stretches the pixels.

    Raises:
        InputError: If no scale brings the size within one cell of the grid on both sides: it was swapped, or is that
            of another image.
    """
    if image.size is None:
        return
    width, height = image.size
    across, down = (side if patch is None else round(side / patch + 0.5) for side in image.size)
    low = max((rows - 1) / down, (columns - 1) / across)
    high = min((rows + 1) / down, (columns + 1) / across)
    if low > high:
        raise InputError(
            f"{image.name}: a size of {width} x {height} does not fit a grid of {rows} rows and {columns} columns: "
            "give sizes as (width, height), in the order of the images"
        )


def shape_of(value: Any) -> tuple[int, ...] | None:
    """Shape of a tensor or array; None for anything else."""
    shape = getattr(value, "shape", None)
    return None if shape is None else tuple(int(length) for length in shape)


def pixels_of(inputs: Mapping[str, Any]) -> Any:
    """The pictures' pixels, which Video-LLaVA's processor calls otherwise; None if the inputs hold none."""
    return inputs.get("pixel_values", inputs.get("pixel_values_images"))


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Number of tiles where `pixel_values` is (tiles, channels, height, width)."""
    shape = shape_of(pixels_of(inputs))
    return None if shape is None else shape[0]
