"""Molmo 2: a coarse grid over the squeezed image, then a fine one over the image stretched to a canvas of crops.

The crops overlap, and patches near their inner edges are left out, so that the fine grid is one over the whole image.
Patches are pooled into tokens; where they do not divide, the grid reaches outside the image. Column marks are text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from probes.families.geometry import Box, Tile
from probes.families.view import ImageView, shape_of
from probes.families.view import image_token_ids as image_token_ids
from probes.inputs import InputError

_RULE = ("max_crops", "overlap_margins", "patch_size", "pooling_size")
"""Settings on which the grids depend, besides the crops' size."""


def tiles(image: ImageView) -> list[Tile]:
    """The coarse grid, called a thumbnail, and the fine one.

    Raises:
        InputError: If the inputs hold no `image_grids`, or image, processor and model do not fit them.
    """
    grids = image.inputs.get("image_grids")
    if grids is None:
        raise InputError("the inputs hold no image_grids: pass everything that the processor returned")
    grid = [int(length) for length in grids[image.first_tile // 2]]
    boxes = _boxes(image, grid)
    return [Tile(grid[0], grid[1], boxes[0], thumbnail=True), Tile(grid[2], grid[3], boxes[1])]


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Two grids for each image."""
    shape = shape_of(inputs.get("image_grids"))
    return None if shape is None else 2 * shape[0]


def _boxes(image: ImageView, grid: Sequence[int]) -> tuple[Box, Box]:
    """Regions of the coarse and of the fine grid; unknown without the image's size or the processor."""
    if image.size is None or image.processor is None:
        return Box.unknown(), Box.unknown()
    get, side = image.settings.get, image.settings.sides("size")["height"]
    patch, (down, across) = int(get("patch_size")), (int(pooled) for pooled in get("pooling_size"))
    _check(image, grid, side)
    patches, margin = side // patch, sum(int(length) for length in get("overlap_margins"))
    rows, columns = (
        (cells * pooled - margin) // (patches - margin) * (patches - margin) + margin
        for cells, pooled in ((grid[2], down), (grid[3], across))
    )
    return (
        _box(image.size, (grid[1] * across, grid[0] * down), (patches, patches)),
        _box(image.size, (grid[3] * across, grid[2] * down), (columns, rows)),
    )


def _box(size: tuple[int, int], pooled: tuple[int, int], patches: tuple[int, int]) -> Box:
    """What the pooled grid covers, where the patches alone cover the image: an odd patch is added right or below."""
    edges = []
    for length, whole, own in zip(size, pooled, patches, strict=True):
        before, patch = (whole - own) // 2, length / own
        edges.append((-before * patch, (whole - before) * patch))
    (left, right), (top, bottom) = edges
    return Box(left, top, right, bottom)


def _check(image: ImageView, grid: Sequence[int], side: int) -> None:
    """Refuse a size or settings that lead to other grids, and patches that are not the model's."""
    width, height = image.known_size()
    rule = {name: image.settings.get(name) for name in _RULE} | {"size": {"height": side, "width": side}}
    expected, _ = image.settings.image_processor.get_image_grid_and_crops(height, width, rule)
    if list(expected) != list(grid):
        raise InputError(
            f"{image.name}: an image of {width} x {height} would get grids of {_grids(expected)} rows and columns, and "
            f"the inputs hold {_grids(grid)}: give sizes as (width, height), in the order of the images, and the "
            "processor and processor_kwargs that made the inputs"
        )
    own = int(image.config.vision_config.patch_size)
    if own != int(rule["patch_size"]):
        raise InputError(
            f"the processor makes patches of {rule['patch_size']} pixels and the model's have {own}: load both from "
            "one checkpoint"
        )


def _grids(grid: Sequence[int]) -> str:
    return f"{grid[0]} x {grid[1]} and {grid[2]} x {grid[3]}"
