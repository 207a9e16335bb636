"""Which columns of a cross-attention decoder's vision axis belong to which image, and which pixels each covers.

Mllama's prompt holds one token for an image, which no feature replaces; its cross-attention layers attend to the
features of all images side by side: image by image, tile by tile, each tile a class token and its patches. Tiles and
images that the processor only padded to are masked, and belong to no span. The spans are what `cross_spans` of
`probes.attention_factors` takes; `HookedModel` does not trace such models. This file imports no torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from probes.families.geometry import Box, Canvas, Tile
from probes.families.view import shape_of
from probes.inputs import InputError
from probes.spans import ImageSpan, Sizes


def find_vision_spans(
    inputs: Mapping[str, Any], config: Any, image_sizes: Sizes | None = None
) -> list[list[ImageSpan]]:
    """Find the columns of each image on the vision axis.

    Args:
        inputs: What Mllama's processor returned, pixel values and aspect ratios included.
        config: The model's configuration.
        image_sizes: (width, height) of each original image, as a list per batch row; needed for the cells' boxes.

    Returns:
        Per batch row, per image, its span: `start`, `stop` and `tokens` are columns of the vision axis. Cells lie
        outside the image where the processor padded; their boxes then have no area.

    Raises:
        InputError: If the model is no Mllama, the inputs hold no pixels and aspect ratios, or other numbers of images
            than sizes are given.
    """
    if getattr(config, "model_type", None) != "mllama":
        raise InputError(f"{getattr(config, 'model_type', None)!r} has no vision axis: use find_image_spans")
    shape, ratios = shape_of(inputs.get("pixel_values")), inputs.get("aspect_ratio_ids")
    if shape is None or ratios is None:
        raise InputError("the inputs hold no pixel_values and aspect_ratio_ids: pass everything the processor returned")
    if image_sizes is not None and len(image_sizes) != shape[0]:
        raise InputError(f"image_sizes has {len(image_sizes)} entries for {shape[0]} prompts: give one per prompt")
    room, side = shape[2], shape[-1]
    tower = config.vision_config
    if (room, side) != (int(tower.max_num_tiles), int(tower.image_size)):
        raise InputError(
            f"the processor makes {room} tiles of {side} pixels, and the model takes {tower.max_num_tiles} of "
            f"{tower.image_size}: load both from one checkpoint"
        )
    cells = side // int(tower.patch_size)
    each = cells * cells + 1
    divisions = _divisions(room)
    found = []
    for row in range(shape[0]):
        given = [divisions[int(index) - 1] for index in ratios[row] if int(index) > 0]
        sizes = None if image_sizes is None else image_sizes[row]
        if sizes is not None and len(sizes) != len(given):
            raise InputError(f"row {row}: {len(sizes)} sizes are given, and the inputs hold {len(given)} images")
        found.append(
            [
                _span(image, image * room * each, cells, side, division, None if sizes is None else sizes[image])
                for image, division in enumerate(given)
            ]
        )
    return found


def _span(
    image: int, start: int, cells: int, side: int, division: tuple[int, int], size: tuple[int, int] | None
) -> ImageSpan:
    rows, columns = division
    canvas = Box.unknown() if size is None else _canvas(size, side, rows, columns)
    tiles = tuple(Tile(cells, cells, box, before=1) for box in canvas.cells(rows, columns))
    stop = start + sum(tile.tokens for tile in tiles)
    return ImageSpan(image, start, stop, ((start, stop),), tiles, size)


def _divisions(most: int) -> list[tuple[int, int]]:
    """(rows, columns) in the order of the processor's aspect ratio ids."""
    sides: Sequence[int] = range(1, most + 1)
    return [(rows, columns) for rows in sides for columns in sides if rows * columns <= most]


def _canvas(size: tuple[int, int], side: int, rows: int, columns: int) -> Box:
    """Original box of the whole canvas, in which the image lies at the top left."""
    width, height = size
    room = min(max(width, side), columns * side), min(max(height, side), rows * side)
    return Canvas(width, height).fit(*room).region(columns * side, rows * side)
