"""Kimi K2.5, GLM-5 Next and Inkling 2: one grid over the whole image, padded on the right and below to whole cells.

The inputs say how many cells there are; how far the image reaches into the last of them is the processor's rounding.
This file knows nothing of videos.
"""

import math
from collections.abc import Callable

from probes.families.geometry import Box, Canvas, Tile
from probes.families.qwen2_vl import pixel_tiles as pixel_tiles
from probes.families.view import ImageView
from probes.families.view import image_token_ids as image_token_ids
from probes.inputs import InputError

Content = Callable[[ImageView, int, int], tuple[int, int]]
"""(image, pixels across and down of the padded picture) to the (width, height) of the image within it."""


def tiles(image: ImageView) -> list[Tile]:
    """One tile, which reaches outside the image where the processor padded.

    Raises:
        InputError: If the inputs hold no grid, or the given size does not lead to it.
    """
    grids = image.inputs.get("image_grid_thw")
    if grids is None:
        raise InputError("the inputs hold no image_grid_thw: pass everything that the processor returned")
    merge = _merge(image)
    rows, columns = (int(length) // merge for length in grids[image.first_tile][1:])
    if image.size is None or image.processor is None:
        return [Tile(rows, columns, Box.unknown())]
    cell = _cell(image)
    across, down = columns * cell, rows * cell
    follow = _CONTENT[image.config.model_type] if image.settings.get("do_resize") else _whole
    width, height = follow(image, across, down)
    if not (across - 2 * cell < width <= across and down - 2 * cell < height <= down):
        raise InputError(
            f"{image.name}: a size of {image.size[0]} x {image.size[1]} does not fit a grid of {rows} rows and "
            f"{columns} columns: give sizes as (width, height), in the order of the images, and the processor and "
            "processor_kwargs that made the inputs"
        )
    return [Tile(rows, columns, Canvas(*image.size).resize(width, height).region(across, down))]


def _merge(image: ImageView) -> int:
    """Entries of the inputs' grid along a token's side; Inkling 2's grid counts tokens."""
    tower = image.config.vision_config
    match image.config.model_type:
        case "inkling2":
            return 1
        case "kimi_k25":
            return int(tower.merge_kernel_size[0])
    return int(tower.spatial_merge_size)


def _cell(image: ImageView) -> int:
    """Pixels along a token's side."""
    if image.config.model_type == "inkling2":
        return image.settings.sides("size")["height"]
    return int(image.settings.get("patch_size")) * int(image.settings.get("merge_size"))


def _whole(image: ImageView, across: int, down: int) -> tuple[int, int]:  # noqa: ARG001 - the seam's signature
    """Never resized."""
    return image.known_size()


def _shrunk(image: ImageView, across: int, down: int) -> tuple[int, int]:  # noqa: ARG001 - the seam's signature
    """Shrunk to a number of patches in all and along each side, each of which counts whole patches; never enlarged."""
    width, height = image.known_size()
    patch = int(image.settings.get("patch_size"))
    longest = image.settings.sides("size")["max_height"] * patch
    patches = max(1, width // patch) * max(1, height // patch)
    scale = min(1.0, math.sqrt(int(image.settings.get("max_patches")) / patches), longest / width, longest / height)
    return min(max(1, int(width * scale)), longest), min(max(1, int(height * scale)), longest)


def _fitted(image: ImageView, across: int, down: int) -> tuple[int, int]:
    """Fitted into the padded picture; enlarged only where the image has fewer pixels than the fewest tokens take."""
    width, height = image.known_size()
    get = image.settings.get
    scale = min(across / width, down / height)
    factor = int(get("patch_size")) * int(get("merge_size")) * int(get("patch_expand_factor"))
    if width * height >= factor**2 * int(get("min_image_tokens")):
        scale = min(1.0, scale)
    return max(1, min(across, math.floor(width * scale))), max(1, min(down, math.floor(height * scale)))


_CONTENT: dict[str, Content] = {"glm5_next": _fitted, "inkling2": _whole, "kimi_k25": _shrunk}
