"""LLaVA-NeXT and -OneVision, Granite 4 Vision: a thumbnail of the whole image, then one fine grid over all its tiles.

The image is fitted into one of the resolutions that the configuration lists and padded; features that show padding only
are cut off again, in whole rows or columns, which may cost up to a cell of the image at each edge. Each row of the fine
grid ends in a newline token, which shows no pixels. OneVision thins grids that pass its limit, and gives images that
share a prompt a single picture, padded to a square, and one newline.

Where patches do not divide a tile's side (14 and 384, in OneVision), the tower leaves out the last pixels of each
tile. Boxes of the thumbnail and of a single picture say so; the fine grid's are drawn evenly over all tiles, and are
off by no more pixels than a tile leaves out. A video's frames (OneVision) are stretched, and pooled to half the grid.
Granite makes few tokens of a window of patches, which start from their own part of it and see the whole window.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from probes.families.geometry import Box, Canvas, Tile
from probes.families.view import ImageView, check_frames, shape_of
from probes.families.view import image_token_ids as image_token_ids
from probes.families.view import video_token_ids as video_token_ids
from probes.inputs import InputError

_STRATEGIES = {"clip_vision_model": "default", "siglip_vision_model": "full"}
"""Which selection leaves a tower's patches alone, without a class token: no other fits the model's own grid."""
_THINNED_FROM = 1.1
"""How far a grid's side may pass OneVision's limit before the grid is thinned."""


def tiles(image: ImageView) -> list[Tile]:
    """The thumbnail and the fine grid, or the one padded picture of an image that shares its prompt.

    Raises:
        InputError: If the inputs hold no `image_sizes`, the given size differs from theirs, or the processor and the
            model do not divide images alike.
    """
    per_image = _tiles_per_image(image.inputs)
    index = _index(image, per_image)
    width, height = _size(image, index)
    side, patches = _tower(image)
    _check_processor(image, side)
    canvas = Canvas(width, height)
    alone = per_image[index] == 2
    if not alone:
        canvas = canvas.pad_to_square()
    seen = patches * int(image.config.vision_config.patch_size) / side
    box = canvas.region(canvas.width * seen, canvas.height * seen)
    cells = _cells(image, patches)
    if not alone:
        return [Tile(cells, cells, box, after=1)]
    return [Tile(cells, cells, box, thumbnail=True), _fine(image.config, width, height, side, cells)]


def video_tiles(video: ImageView) -> list[Tile]:
    """One pooled grid for each frame, and one newline after the last.

    Raises:
        InputError: If the inputs hold no frames, or another number of them than is given.
    """
    shape = _frames_shape(video.inputs)
    if shape is None:
        raise InputError("the inputs hold no pixel_values_videos: pass everything that the processor returned")
    check_frames(video, shape[1])
    side, patches = _tower(video)
    if shape[-2:] != (side, side):
        raise InputError(
            f"{video.name}: the model takes frames of {side} x {side} pixels and the inputs hold {shape[-1]} x "
            f"{shape[-2]}: set the video processor's size"
        )
    cells = math.ceil(patches / 2)
    seen = patches * int(video.config.vision_config.patch_size) / side
    box = Box.unknown() if video.size is None else Box(0.0, 0.0, video.size[0] * seen, video.size[1] * seen)
    last = shape[1] - 1
    return [Tile(cells, cells, box, frame=frame, after=int(frame == last)) for frame in range(last + 1)]


def video_pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Frames of all videos."""
    shape = _frames_shape(inputs)
    return None if shape is None else shape[0] * shape[1]


def _frames_shape(inputs: Mapping[str, Any]) -> tuple[int, ...] | None:
    return shape_of(inputs.get("pixel_values_videos"))


def pixel_tiles(inputs: Mapping[str, Any]) -> int | None:
    """Two for each image, the thumbnail and the fine grid; one for an image that shares its prompt."""
    return None if inputs.get("image_sizes") is None else sum(_tiles_per_image(inputs))


def _tiles_per_image(inputs: Mapping[str, Any]) -> list[int]:
    sizes = inputs.get("image_sizes")
    if sizes is None:
        raise InputError("the inputs hold no image_sizes: pass everything that the processor returned")
    counts = inputs.get("batch_num_images")
    if counts is None:
        return [2] * len(sizes)
    return [2 if int(count) == 1 else 1 for count in counts for _ in range(int(count))]


def _index(image: ImageView, per_image: list[int]) -> int:
    seen = 0
    for index, count in enumerate(per_image):
        if seen == image.first_tile:
            return index
        seen += count
    raise InputError(
        f"{image.name}: the inputs hold {len(per_image)} images, and the prompts place more: give one image per "
        "placeholder"
    )


def _size(image: ImageView, index: int) -> tuple[int, int]:
    height, width = (int(length) for length in image.inputs["image_sizes"][index])
    if image.size not in (None, (width, height)):
        raise InputError(
            f"{image.name}: the given size is {image.size} and the processor saw {width} x {height}: give sizes as "
            "(width, height), in the order of the images"
        )
    return width, height


def _tower(image: ImageView) -> tuple[int, int]:
    """Pixels and patches along a tile's side."""
    tower = image.config.vision_config
    wanted = _STRATEGIES.get(tower.model_type)
    if wanted is None:
        raise InputError(
            f"{image.config.model_type} with a vision tower of type {tower.model_type!r} is not known (known: "
            f"{', '.join(sorted(_STRATEGIES))}): pass spans by hand to attention_factors(image_spans=...)"
        )
    given = image.config.vision_feature_select_strategy
    if given != wanted:
        raise InputError(
            f"vision_feature_select_strategy={given!r} does not leave a {tower.model_type} with one feature per patch: "
            f"set it to {wanted!r}"
        )
    side = int(tower.image_size)
    return side, side // int(tower.patch_size)


def _cells(image: ImageView, patches: int) -> int:
    """Tokens along a tile's side: Granite 4 Vision's projector makes fewer than there are patches."""
    rate = getattr(image.config, "downsample_rate", None)
    if rate is None:
        return patches
    given = getattr(image.processor, "downsample_rate", rate)
    if given != rate:
        raise InputError(
            f"the processor's downsample_rate is {given!r} and the model's {rate!r}: load both from one checkpoint"
        )
    return int(patches * Fraction(rate))


def _check_processor(image: ImageView, side: int) -> None:
    """Refuse pixels or settings that are not tiles of the model's side, and resolutions that are not the model's."""
    shape = image.pixel_shape()
    if shape is not None and shape[-2:] != (side, side):
        raise InputError(
            f"{image.name}: the model takes tiles of {side} x {side} pixels and the inputs hold {shape[-1]} x "
            f"{shape[-2]}: pass the processor and processor_kwargs that fit the model"
        )
    if image.processor is None:
        return
    settings = image.settings
    names = [name for name in ("size", "crop_size") if settings.get(name)]
    sides = {length for name in names for length in settings.sides(name).values()}
    if sides != {side}:
        raise InputError(
            f"{image.name}: the model takes tiles of {side} x {side} pixels and the processor is set to "
            f"{', '.join(map(str, sorted(sides)))}: set its size and crop_size to {side}"
        )
    given = [list(pair) for pair in settings.get("image_grid_pinpoints")]
    if given != [list(pair) for pair in image.config.image_grid_pinpoints]:
        raise InputError(
            f"{image.name}: processor and model list different image_grid_pinpoints: load both from one checkpoint"
        )


def _fine(config: Any, width: int, height: int, side: int, patches: int) -> Tile:
    across, down = best_resolution(config.image_grid_pinpoints, width, height)
    scale = min(across / width, down / height)
    if across / width < down / height:
        fitted = across, min(math.ceil(height * scale), down)
    else:
        fitted = min(math.ceil(width * scale), across), down
    padded = Canvas(width, height).resize(*fitted).crop(across, down).region(across, down)
    rows, columns = down // side * patches, across // side * patches
    top = left = 0
    if width / height > columns / rows:
        top = (rows - int(round(height * (columns / width), 7))) // 2
    else:
        left = (columns - int(round(width * (rows / height), 7))) // 2
    first = padded.cell(top, left, rows, columns)
    last = padded.cell(rows - top - 1, columns - left - 1, rows, columns)
    rows, columns = _thinned(config, rows - 2 * top, columns - 2 * left, patches)
    return Tile(rows, columns, Box(first.left, first.top, last.right, last.bottom), row_end=1)


def best_resolution(pinpoints: Any, width: int, height: int) -> tuple[int, int]:
    """(width, height) of the listed resolution that keeps most of the image's pixels, and of these wastes least."""
    best, most, least = (0, 0), 0, math.inf
    for down, across in pinpoints:
        scale = min(across / width, down / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        wasted = across * down - kept
        if kept > most or (kept == most and wasted < least):
            best, most, least = (int(across), int(down)), kept, wasted
    return best


def _thinned(config: Any, rows: int, columns: int, patches: int) -> tuple[int, int]:
    """OneVision's limit, as in "anyres_max_9": the grid is resampled to about nine tiles."""
    limit = getattr(config, "vision_aspect_ratio", None)
    if limit is None:
        return rows, columns
    most = limit.removeprefix("anyres_max_")
    if not most.isdecimal():
        raise InputError(f"vision_aspect_ratio={limit!r} is not understood: set it as in 'anyres_max_9'")
    ratio = math.sqrt(rows * columns / (int(most) * patches**2))
    return (int(rows // ratio), int(columns // ratio)) if ratio > _THINNED_FROM else (rows, columns)
