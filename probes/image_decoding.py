"""Encoded images into RGB pixels, hostile ones too, and back; knows nothing of where they came from."""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageFile, ImageOps

from probes.errors import InputError, one_line

_FORMATS = ("PNG", "JPEG", "MPO", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
_open_lock = threading.Lock()


def open_header(data: bytes, name: str, max_pixels: int) -> ImageFile.ImageFile:
    """An image whose header is read and whose pixels are not.

    Raises:
        InputError: If the bytes are no image of a kind that is read, or claim more than `max_pixels`.
    """
    Image.init()
    formats = [known for known in _FORMATS if known in Image.OPEN]
    too_large = f"image {name}: more than {max_pixels:,} pixels; make it smaller or raise max_pixels"
    try:
        # Pillow warns above its own limit; ours is stricter and says so in one line. Filters are process-wide.
        with _open_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError:
        raise InputError(too_large) from None
    except Exception:
        raise InputError(
            f"image {name}: no image, or one broken at its start (kinds read: {', '.join(formats)}); "
            "save it again or leave it out"
        ) from None
    if image.width * image.height > max_pixels:
        raise InputError(f"{too_large} (it claims {image.width} x {image.height})")
    return image


@contextmanager
def whole_files_only() -> Iterator[None]:
    """Have Pillow refuse truncated images, also where another package told it to fill them with grey."""
    with _open_lock:
        tolerant, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = tolerant


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB: transparency is laid on white, 16-bit greys are scaled.

    Raises:
        InputError: If the pixels have no agreed range.
    """
    if image.mode == "F":
        raise InputError("floating-point pixels have no agreed range; convert it to 8 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise InputError("pixels outside 0 to 65535; convert it to 8 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        straight = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        white = Image.new("RGBA", straight.size, "white")
        return Image.alpha_composite(white, straight).convert("RGB")
    return image.convert("RGB")


def decoded_rgb(image: Image.Image) -> Image.Image:
    """A PIL image as RGB, upright.

    Raises:
        InputError: If its pixels cannot be decoded.
    """
    try:
        with whole_files_only():
            image.load()
        return to_rgb(ImageOps.exif_transpose(image))
    except InputError as error:
        raise InputError(f"PIL image {image.size}: {error}") from None
    except Exception as error:
        raise InputError(f"PIL image {image.size}: cannot be decoded ({one_line(error)}); save it again") from None


def encode_lossless(image: Image.Image) -> bytes:
    """A PIL image as the bytes of an RGB PNG, upright.

    Raises:
        InputError: As `decoded_rgb`, and if it has no pixels.
    """
    buffer, rgb = io.BytesIO(), decoded_rgb(image)
    if not all(rgb.size):
        raise InputError(f"PIL image {rgb.size}: it has no pixels; give one that has")
    rgb.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def same_picture(first: Image.Image, second: Image.Image) -> bool:
    """Whether two RGB images have the same pixels, whatever their files say beside them."""
    return first.size == second.size and first.tobytes() == second.tobytes()
