"""Qwen2-VL to Qwen3.5, GLM-4V and kin: one grid over the whole stretched image, one token per merged block of patches.

The tokens run row by row over the merged grid; Qwen2.5-VL's windows reorder patches inside its tower only, and what
Qwen3-VL adds to its decoder's first layers are features of the same tokens. A video's grids follow
each other, one for each `temporal_patch_size` frames, which share their tokens.
"""

import math
from collections.abc import Mapping
from typing import Any

from probes.families.geometry import Tile
from probes.families.view import ImageView, check_frames, check_grid
from probes.families.view import image_token_ids as image_token_ids
from probes.families.view import video_token_ids as named_video_token_ids
from probes.inputs import InputError


def tiles(image: ImageView) -> list[Tile]:
    """One tile per pair of frames; a still image has one.

    Raises:
        InputError: If the inputs hold no grid, or the given size cannot have led to it.
    """
    grids = image.inputs.get("image_grid_thw")
    if grids is None:
        raise InputError("the inputs hold no image_grid_thw: pass everything that the processor returned")
    index = _grid_index(grids, image.first_tile)
    merge = _merge(image, index)
    frames, height, width = (int(length) for length in grids[index])
    rows, columns = height // merge, width // merge
    check_grid(image, rows, columns)
    return [Tile(rows, columns, image.whole(), frame=frame) for frame in range(frames)]


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """The sum of frames over the grids."""
    grids = inputs.get("image_grid_thw")
    return None if grids is None else sum(int(grid[0]) for grid in grids)


def video_token_ids(config: Any, processor: Any) -> list[int]:
    """The video token; GLM's processors write image tokens for the frames of a video.

    Raises:
        InputError: If the configuration names none.
    """
    find = image_token_ids if str(config.model_type).startswith("glm") else named_video_token_ids
    return find(config, processor)


def video_tiles(video: ImageView) -> list[Tile]:
    """One tile for each group of `temporal_patch_size` frames; the last frame is repeated where they do not divide.

    Raises:
        InputError: If the inputs hold no grid, or the given size or number of frames cannot have led to it.
    """
    grids = video.inputs.get("video_grid_thw")
    if grids is None:
        raise InputError("the inputs hold no video_grid_thw: pass everything that the processor returned")
    tower = video.config.vision_config
    merge, together = int(tower.spatial_merge_size), int(tower.temporal_patch_size)
    groups, height, width = (int(length) for length in grids[_grid_index(grids, video.first_tile)])
    rows, columns = height // merge, width // merge
    check_grid(video, rows, columns)
    shown = groups * together if video.frames is None else video.frames
    if math.ceil(shown / together) != groups:
        check_frames(video, groups * together)
    return [
        Tile(rows, columns, video.whole(), frame=first, frames=min(together, shown - first))
        for first in range(0, groups * together, together)
    ]


def video_pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """The sum over the grids of their groups of frames."""
    grids = inputs.get("video_grid_thw")
    return None if grids is None else sum(int(grid[0]) for grid in grids)


def _merge(image: ImageView, index: int) -> int:
    """Patches along a token's side; VideoLLaMA 3's processor says so for each image."""
    sizes = image.inputs.get("image_merge_sizes")
    return int(image.config.vision_config.spatial_merge_size if sizes is None else sizes[index])


def _grid_index(grids: Any, first_tile: int) -> int:
    seen = 0
    for index, grid in enumerate(grids):
        if seen == first_tile:
            return index
        seen += int(grid[0])
    raise InputError(f"the inputs hold {len(grids)} images, and the prompts place more: give one image per placeholder")
