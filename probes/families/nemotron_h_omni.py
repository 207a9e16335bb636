"""Nemotron-H Omni: one grid over the whole image, stretched to whole cells; blocks of patches are shuffled into tokens.

An image that `probes.reduction.tiles` cut has one such grid for each tile, and one for its thumbnail. Frames of a video
are merged in time, and take image tokens too. What the model drops of a video is told by `probes.reduction.videos`.
"""

from collections.abc import Mapping
from typing import Any

from probes.families.geometry import Tile
from probes.families.view import ImageView, check_frames, check_grid, shape_of
from probes.families.view import image_token_ids as image_token_ids
from probes.inputs import InputError


def tiles(image: ImageView) -> list[Tile]:
    """One tile of the whole image; those of a cut image row by row, and its thumbnail last.

    Raises:
        InputError: If the inputs hold no `image_grid_hw`, or the given size cannot have led to it.
    """
    grids = image.inputs.get("image_grid_hw")
    if grids is None:
        raise InputError("the inputs hold no image_grid_hw: pass everything that the processor returned")
    merge = _merge(image.config)
    rows, columns = (int(length) // merge for length in grids[image.first_tile])
    tiling = getattr(image.processor, "tiling", None)
    if tiling is not None:
        division = tiling.division(*image.known_size())
        return Tile.cut(rows, image.whole(), *division)
    check_grid(image, rows, columns, patch=int(image.config.vision_config.patch_size))
    return [Tile(rows, columns, image.whole())]


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Number of grids that the inputs hold: one for each image, or for each tile of those that were cut."""
    grids = inputs.get("image_grid_hw")
    return None if grids is None else len(grids)


def video_token_ids(config: Any, processor: Any) -> list[int]:
    """The image token: a video's frames take the place of images."""
    return image_token_ids(config, processor)


def video_tiles(video: ImageView) -> list[Tile]:
    """One grid for each group of frames that are merged; the last frame may stand alone.

    Raises:
        InputError: If the inputs hold no frames, another number of them than is given, or the given size cannot have
            led to theirs.
    """
    shape = shape_of(video.inputs.get("pixel_values_videos"))
    if shape is None:
        raise InputError("the inputs hold no pixel_values_videos: pass everything that the processor returned")
    frames, _, height, width = shape
    check_frames(video, frames)
    cell = int(video.config.vision_config.patch_size) * _merge(video.config)
    rows, columns = height // cell, width // cell
    if getattr(getattr(video.processor, "video_processor", None), "video_maintain_aspect_ratio", False):
        check_grid(video, rows, columns)
    together = int(video.config.video_temporal_patch_size)
    return [
        Tile(rows, columns, video.whole(), frame=first, frames=min(together, frames - first))
        for first in range(0, frames, together)
    ]


def video_pixel_tiles(inputs: Mapping[str, Any]) -> int | None:  # noqa: ARG001 - the seam's signature
    """Unknown: the inputs hold frames, and how many are merged is the model's."""
    return None


def _merge(config: Any) -> int:
    """Patches along a cell's side."""
    return round(1 / float(config.downsample_ratio))
