"""LLaVA, ViP-LLaVA and Video-LLaVA: one grid over a resized and centre-cropped image, with or without a class token.

With Pixtral's tower, images keep their shapes, and `probes.families.pixtral` takes over. This file knows nothing of
videos.
"""

from typing import Any

from probes.families import pixtral
from probes.families.geometry import Box, Canvas, Tile, resized
from probes.families.view import ImageView
from probes.families.view import image_token_ids as image_token_ids
from probes.families.view import pixel_tiles as pixel_tiles
from probes.inputs import InputError

_ON_ARRAYS = ("Pil", "VideoLlavaImageProcessor")
"""How image processors are called that work on arrays, where an odd pixel of padding goes left or above."""
_CLASS_TOKENS = {"clip_vision_model": 1, "pixtral": 0, "siglip_vision_model": 0, "siglip2_vision_model": 0}


def tiles(image: ImageView) -> list[Tile]:
    """One tile: the patches of the crop, after a class token if the model keeps it.

    Raises:
        InputError: If the tower is not one whose grid is known, or the given size does not lead to the given pixels.
    """
    tower = image.config.vision_config
    if tower.model_type == "pixtral":
        _class_tokens(image.config)
        return pixtral.tiles(image)
    patch = int(tower.patch_size)
    shape = image.pixel_shape()
    height, width = shape[-2:] if shape else (int(tower.image_size), int(tower.image_size))
    rows, columns = height // patch, width // patch
    box = covered(image, width, height, columns * patch, rows * patch)
    return [Tile(rows, columns, box, before=_class_tokens(image.config))]


def _class_tokens(config: Any) -> int:
    kind = config.vision_config.model_type
    if kind not in _CLASS_TOKENS:
        raise InputError(
            f"LLaVA with a vision tower of type {kind!r} is not known (known: {', '.join(sorted(_CLASS_TOKENS))}): "
            "pass spans by hand to attention_factors(image_spans=...)"
        )
    always_drops = config.model_type == "vipllava"
    kept = _CLASS_TOKENS[kind] - (always_drops or config.vision_feature_select_strategy == "default")
    if kept < 0 and always_drops:
        raise InputError(f"ViP-LLaVA drops the first patch of a {kind}, which has no class token: use a CLIP tower")
    if kept < 0:
        raise InputError(
            f"vision_feature_select_strategy='default' drops the first patch of a {kind}, which has no class token: "
            "set it to 'full'"
        )
    return int(kept)


def covered(image: ImageView, width: int, height: int, used_width: int, used_height: int) -> Box:
    """Original box of the used part of the processed pixels; unknown without the size or the processor.

    Raises:
        InputError: If the given size does not lead to the given pixels.
    """
    if image.size is None or image.processor is None:
        return Box.unknown()
    canvas = _canvas(image, Canvas(*image.size))
    if (canvas.width, canvas.height) != (width, height):
        raise InputError(
            f"{image.name}: an image of {image.size[0]} x {image.size[1]} would become {canvas.width} x {canvas.height}"
            f" pixels, and the inputs hold {width} x {height}: give sizes as (width, height) and the processor"
            " and processor_kwargs that made the inputs"
        )
    return canvas.region(used_width, used_height)


def _canvas(image: ImageView, canvas: Canvas) -> Canvas:
    """Follow the image processor's steps, in its order."""
    settings = image.settings
    if settings.get("do_pad") and settings.get("pad_size") is None:
        canvas = canvas.pad_to_square()
    if settings.get("do_resize"):
        canvas = canvas.resize(*resized(int(canvas.width), int(canvas.height), settings.sides("size")))
    if settings.get("do_center_crop"):
        crop = settings.sides("crop_size")
        numpy_backend = type(settings.image_processor).__name__.endswith(_ON_ARRAYS)
        canvas = canvas.crop(crop["width"], crop["height"], pad_first=numpy_backend)
    return canvas
