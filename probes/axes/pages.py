"""How image processors of one picture a row fit it into the pixels that the encoder sees. Knows no encoder."""

from probes.axes.view import AxisView, needed_shape
from probes.families.geometry import Box, Canvas, resized
from probes.inputs import InputError


def covered(image: AxisView, width: int, height: int) -> Box:
    """Original box of the upper left width x height processed pixels; unknown without the size or the processor.

    Raises:
        InputError: If the picture was cut by what it shows, or turned, or the given size does not lead to the pixels.
    """
    if image.size is None or image.processor is None:
        return Box.unknown()
    canvas = _page(image) if image.settings.get("do_thumbnail") is not None else _picture(image)
    high, wide = needed_shape(image.inputs, "pixel_values")[-2:]
    if (canvas.height, canvas.width) != (high, wide):
        raise InputError(
            f"{image.name}: an image of {image.size[0]} x {image.size[1]} would become {canvas.width} x "
            f"{canvas.height} pixels, and the inputs hold {wide} x {high}: give sizes as (width, height) and "
            "the processor and processor_kwargs that made the inputs"
        )
    return canvas.region(width, height)


def _picture(image: AxisView) -> Canvas:
    """Stretched, or shrunk by its shorter side, and cropped."""
    canvas, settings = Canvas(*image.known_size()), image.settings
    if settings.get("do_resize"):
        canvas = canvas.resize(*resized(int(canvas.width), int(canvas.height), settings.sides("size")))
    if settings.get("do_center_crop"):
        crop = settings.sides("crop_size")
        canvas = canvas.crop(crop["width"], crop["height"])
    return canvas


def _page(image: AxisView) -> Canvas:
    """Resized by its shorter side, shrunk until it fits, and padded evenly (Donut, Nougat and their heirs)."""
    width, height = image.known_size()
    settings = image.settings
    if settings.get("do_crop_margin"):
        raise InputError(
            f"{image.name}: the processor cuts off margins by what the picture shows, so that its columns' pixels are "
            "not known: leave out image_sizes, for columns without pixels, or give do_crop_margin=False to both"
        )
    sides = settings.sides("size")
    if settings.get("do_align_long_axis") and (sides["width"] - sides["height"]) * (width - height) < 0:
        raise InputError(
            f"{image.name}: the processor turns it by 90 degrees: turn it yourself, or give do_align_long_axis=False"
        )
    canvas = Canvas(width, height)
    if settings.get("do_resize"):
        edge = {"shortest_edge": min(sides.values())}
        canvas = canvas.resize(*resized(width, height, edge))
    if settings.get("do_thumbnail"):
        canvas = _thumbnail(canvas, sides["width"], sides["height"])
    if settings.get("do_pad"):
        canvas = canvas.crop(sides["width"], sides["height"])
    return canvas


def _thumbnail(canvas: Canvas, most_wide: int, most_high: int) -> Canvas:
    """Shrink what is too large by its longer side."""
    width, height = min(canvas.width, most_wide), min(canvas.height, most_high)
    if (width, height) == (canvas.width, canvas.height):
        return canvas
    if canvas.height > canvas.width:
        width = int(canvas.width * height / canvas.height)
    elif canvas.width > canvas.height:
        height = int(canvas.height * width / canvas.width)
    return canvas.resize(width, height)
