"""PaliGemma, PP-Chart2Table, DeepSeek-VL, Janus: one square grid over the whole image, stretched or fitted and padded.

The first two stretch. DeepSeek-VL's hybrid sees two sizes, and adds the finer picture's features to the same tokens.
PP-Chart2Table's strided convolutions fold patches into tokens. Each is centred on the first of its patches, not between
them, so that its grid begins outside the image, and it sees patches of its neighbours.
"""

from probes.families.geometry import Box, Canvas, Tile
from probes.families.view import ImageView
from probes.families.view import image_token_ids as image_token_ids
from probes.families.view import pixel_tiles as pixel_tiles
from probes.inputs import InputError

_STRETCHED = frozenset({"paligemma", "pp_chart2table"})
_FOLDED = {"pp_chart2table": 4}
"""Patches along a token's side, where they are not one."""
_AHEAD = {"pp_chart2table": 1.5}
"""Patches by which the grid begins to the left of the picture, and above it."""
_COUNTS = ("image_seq_length", "num_image_tokens")
"""What processors call the number of tokens that they write for an image."""


def tiles(image: ImageView) -> list[Tile]:
    """One tile, which reaches outside the image where the processor padded.

    Raises:
        InputError: If the processor, the model and the pixels are not of one size.
    """
    tower = image.config.vision_config
    side = int(tower.image_size)
    kind = image.config.model_type
    patch = int(tower.patch_size) * _FOLDED.get(kind, 1)
    cells = side // patch
    _check(image, side, cells)
    if image.size is None or image.processor is None:
        return [Tile(cells, cells, Box.unknown())]
    ahead = int(tower.patch_size) * _AHEAD.get(kind, 0.0)
    return [Tile(cells, cells, _canvas(image, side).moved(-ahead, -ahead).region(cells * patch, cells * patch))]


def _check(image: ImageView, side: int, cells: int) -> None:
    shape = image.pixel_shape()
    sizes = set() if image.processor is None else set(image.settings.sides("size").values())
    if shape is not None:
        sizes |= set(shape[-2:])
    if sizes - {side}:
        raise InputError(
            f"{image.name}: the model sees {side} x {side} pixels, and processor and inputs have sides of "
            f"{', '.join(map(str, sorted(sizes)))}: load both from one checkpoint"
        )
    written = next((getattr(image.processor, name) for name in _COUNTS if hasattr(image.processor, name)), None)
    if written not in (None, cells * cells):
        raise InputError(
            f"the processor writes {written} tokens per image and the model makes {cells * cells}: load both from one "
            "checkpoint"
        )


def _canvas(image: ImageView, side: int) -> Canvas:
    """Follow the image processor's steps, in its order."""
    canvas = Canvas(*image.known_size())
    if image.config.model_type in _STRETCHED:
        return canvas.resize(side, side)
    if image.settings.get("high_res_size") is not None:
        canvas = _fit(canvas, image.settings.sides("high_res_size")["width"], image)
    return _fit(canvas, side, image)


def _fit(canvas: Canvas, side: int, image: ImageView) -> Canvas:
    """Resize the longer side to `side`, the other to no less than a minimum, and pad evenly to a square."""
    scale = side / max(canvas.width, canvas.height)
    least = int(image.settings.get("min_size"))
    width, height = (max(round(length * scale), least) for length in (canvas.width, canvas.height))
    return canvas.resize(width, height).crop(side, side)
