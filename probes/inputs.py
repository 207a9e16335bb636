"""Images and turns as every record holds them: named early, decoded late, with caps.

This file knows nothing of models, processors or tensors, and imports neither torch nor transformers.
"""

import base64
import binascii
import hashlib
import io
import os
import threading
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps

IMAGE_MARK = "<image>"
"""Where an image stands in a turn's text."""

MAX_PIXELS = 64_000_000
"""Largest image, in pixels, that `ImageRef.open` decodes unless told otherwise."""

MAX_BYTES = 512 * 1024 * 1024
"""Largest encoded image, in bytes, that is read from a file or an archive."""

_FORMATS = ("PNG", "JPEG", "MPO", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
_BASE64_HEADS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "Qk", "SUkq", "TU0AK", "UDY", "UDU")
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)
_LONGEST_PATH = 4096
_SHORTEST_BASE64 = 48
_open_lock = threading.Lock()


class InputError(ValueError):
    """Input that cannot be used. The message is one line: what, why, and what to do."""


@dataclass(frozen=True, repr=False)
class ImageRef:
    """An image that has not been decoded yet: a path, or the encoded bytes. Exactly one of the two.

    Args:
        path: File, or `archive.zip/member` where `archive.zip` is a file.
        data: Encoded image, as read from a file.

    Raises:
        InputError: If both or neither are given.

    >>> ImageRef(path="cat.png")
    ImageRef(path='cat.png')
    """

    path: str | None = None
    data: bytes | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.data is None):
            raise InputError("an image needs a path or its bytes, and not both: use ImageRef.of(value)")

    @classmethod
    def of(cls, value: Any, root: Path | str | None = None) -> "ImageRef":
        """Name an image in any form in which people hold one; nothing is decoded.

        Args:
            value: An ImageRef, a path (also `archive.zip/member.png`), encoded bytes, a base64 string or `data:`
                address, a PIL image (kept as lossless RGB), or a mapping with `bytes` or `path`.
            root: Folder against which relative paths are read.

        Raises:
            InputError: If the value is none of these, or holds broken base64.
        """
        if isinstance(value, ImageRef):
            return value
        if isinstance(value, bytes | bytearray | memoryview):
            return cls(data=bytes(value))
        if isinstance(value, Image.Image):
            return cls(data=_encode(value))
        if isinstance(value, os.PathLike):
            return cls(path=_under(os.fsdecode(value), root))
        if isinstance(value, str):
            return cls._of_text(value, root)
        if isinstance(value, Mapping):
            inner = value.get("bytes") if value.get("bytes") is not None else value.get("path")
            if inner is not None:
                return cls.of(inner, root)
            raise InputError(f"an image given as a mapping needs 'bytes' or 'path', and has {sorted(map(str, value))}")
        raise InputError(
            f"cannot take a {type(value).__name__} as an image: give a path, bytes, base64, a PIL image or "
            "a mapping with 'bytes' or 'path'"
        )

    @classmethod
    def _of_text(cls, text: str, root: Path | str | None) -> "ImageRef":
        if text[:5].lower() == "data:":
            return cls(data=_decode_data_address(text))
        if text[:8].lower().startswith(("http://", "https://")):
            raise InputError(f"image {_short(text)}: nothing is downloaded here; save it to a file and give the path")
        if not text.strip() or "\0" in text:
            raise InputError(f"image {_short(text)}: an empty or impossible path; give a file, bytes or base64")
        path = _under(text, root)
        looks_encoded = len(text) >= _SHORTEST_BASE64 and text.startswith(_BASE64_HEADS)
        if (looks_encoded or len(text) > _LONGEST_PATH) and not _exists(path):
            return cls(data=_decode_base64(text, _short(text)))
        return cls(path=path)

    @property
    def name(self) -> str:
        """How messages call this image: its path, or the size and digest of its bytes."""
        if self.data is None:
            return _short(str(self.path), 200)
        return f"of {len(self.data):,} bytes (sha256 {hashlib.sha256(self.data).hexdigest()[:12]})"

    @property
    def digest(self) -> str:
        """SHA-256 of the encoded bytes, as hex.

        Raises:
            InputError: If the bytes cannot be read.
        """
        return hashlib.sha256(self.read()).hexdigest()

    def __repr__(self) -> str:
        return f"ImageRef(path={self.path!r})" if self.data is None else f"ImageRef({self.name})"

    def read(self) -> bytes:
        """Return the encoded bytes.

        Raises:
            InputError: If the file or archive member is missing, no regular file, empty, unreadable or too large.
        """
        data = self.data if self.data is not None else _read_path(str(self.path), self.name)
        if not data:
            raise InputError(f"image {self.name}: no bytes in it; give an encoded image")
        return data

    def size(self, max_pixels: int = MAX_PIXELS, data: bytes | None = None) -> tuple[int, int]:
        """Width and height in pixels as `open` gives them, by the image's header: no pixel is decoded.

        Args:
            max_pixels: Refuse larger images.
            data: What `read` gave, so that it is not read again; None reads it.

        Raises:
            InputError: If the bytes cannot be read, are no image of a kind that is read, or claim too many pixels.
        """
        image = _open_header(self.read() if data is None else data, self.name, max_pixels)
        try:
            # A PNG's own method decodes the image to look for tags behind its pixels; a TIFF's size is turned already.
            turned = image.format != "TIFF" and Image.Image.getexif(image).get(_ORIENTATION) in _ON_ITS_SIDE
        # Broken tags raise nearly anything; that they make the image unusable is found when it is decoded.
        except Exception:
            turned = False
        return (image.height, image.width) if turned else (image.width, image.height)

    def open(self, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """Decode the image to RGB, as it is meant to be seen.

        The camera's rotation (EXIF) is applied, transparency is laid on white, 16-bit greys are scaled to 8 bits,
        and of an animation or a multi-page file the first frame is taken.

        Args:
            max_pixels: Refuse larger images, before any pixel is decoded.

        Raises:
            InputError: If the bytes cannot be read, are no image, are truncated, or claim too many pixels.
        """
        data = self.read()
        image = _open_header(data, self.name, max_pixels)
        try:
            with _whole_files_only():
                image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
        except InputError as error:
            raise InputError(f"image {self.name}: {error}") from None
        # A decoder fed hostile bytes raises nearly anything; the reader needs the name of the image in each case.
        except Exception as error:
            raise InputError(
                f"image {self.name}: broken or truncated {image.format} ({_one_line(error)}); "
                "save it again or leave it out"
            ) from None


@dataclass(frozen=True)
class Turn:
    """One message of a conversation.

    Args:
        role: "user", "assistant" or "system".
        text: What is said. It may hold `<image>` marks, one per image, where the images stand; without marks the
            images come first.
        images: The images, in the order of the marks.
    """

    role: str
    text: str
    images: tuple[ImageRef, ...] = ()

    def parts(self) -> tuple[str | ImageRef, ...]:
        """Return texts and images in the order in which a model reads them; empty texts are left out.

        Raises:
            InputError: If the text has marks and their number differs from the number of images.

        >>> Turn("user", "1 <image> and 2 <image>?", (ImageRef("a.png"), ImageRef("b.png"))).parts()
        ('1 ', ImageRef(path='a.png'), ' and 2 ', ImageRef(path='b.png'), '?')
        """
        texts = self.text.split(IMAGE_MARK)
        marks = len(texts) - 1
        if marks == 0:
            texts = [""] * len(self.images) + texts
        elif marks != len(self.images):
            raise InputError(
                f"the text has {marks} {IMAGE_MARK} marks and {len(self.images)} images are given: "
                "give one mark per image, or no marks to put the images first"
            )
        mixed: list[str | ImageRef] = [texts[0]]
        for image, text in zip(self.images, texts[1:], strict=True):
            mixed += [image, text]
        return tuple(part for part in mixed if part != "")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _short(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def _under(path: str, root: Path | str | None) -> str:
    return path if root is None else str(Path(root) / path)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # too long to be a path
        return False


def _decode_base64(text: str, name: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        reason = _one_line(error)
    raise InputError(
        f"image {name}: no such file, and no valid base64 ({reason}); give a path or the whole base64 text"
    )


def _decode_data_address(text: str) -> bytes:
    head, comma, body = text.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise InputError(f"image {_short(text)}: only base64 data addresses are read; give data:image/png;base64,…")
    return _decode_base64(body, _short(text))


def _split_archive(path: Path) -> tuple[Path, str] | None:
    """Split `some.zip/member` at the first part that is a .zip *file*; None if there is none above the last part."""
    for depth, part in enumerate(path.parts[:-1], start=1):
        archive = Path(*path.parts[:depth])
        if part.lower().endswith(".zip") and archive.is_file():
            return archive, "/".join(path.parts[depth:])
    return None


def _read_path(text: str, name: str) -> bytes:
    path = Path(text)
    try:
        split = _split_archive(path)
        if split is not None:
            return _read_member(*split, name)
        if path.is_dir():
            raise InputError(f"image {name}: this is a folder; give one image file")
        if not path.exists():
            raise InputError(f"image {name}: no such file; check the path and the folder it is read from")
        if not path.is_file():
            raise InputError(f"image {name}: not a regular file; copy the image to a file")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"image {name}: larger than {MAX_BYTES:,} bytes; make it smaller or leave it out")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"image {name}: cannot be read ({error.strerror or _one_line(error)}); check it") from None


@lru_cache(maxsize=8)
def _archive(path: Path, _changed: int, _size: int, _process: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _read_member(path: Path, member: str, name: str) -> bytes:
    if ".." in member.split("/"):
        raise InputError(f"image {name}: a member's name may not climb out of its archive; remove '..'")
    status = path.stat()
    try:
        # One handle per process: a forked reader shares the file offset of its parent.
        archive = _archive(path, status.st_mtime_ns, status.st_size, os.getpid())
        if archive.getinfo(member).file_size > MAX_BYTES:
            raise InputError(f"image {name}: larger than {MAX_BYTES:,} bytes; make it smaller or leave it out")
        with archive.open(member) as stream:
            data = stream.read(MAX_BYTES + 1)
    except KeyError:
        raise InputError(f"image {name}: {path.name} has no member {member!r}; check the name") from None
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise InputError(f"image {name}: archive cannot be read ({_one_line(error)}); make it anew") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"image {name}: larger than {MAX_BYTES:,} bytes; make it smaller or leave it out")
    return data


def _open_header(data: bytes, name: str, max_pixels: int) -> ImageFile.ImageFile:
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
def _whole_files_only() -> Iterator[None]:
    """Have Pillow refuse truncated images, also where another package told it to fill them with grey."""
    with _open_lock:
        tolerant, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = tolerant


def _to_rgb(image: Image.Image) -> Image.Image:
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


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    try:
        with _whole_files_only():
            image.load()
        _to_rgb(ImageOps.exif_transpose(image)).save(buffer, "PNG", compress_level=1)
    except InputError as error:
        raise InputError(f"PIL image {image.size}: {error}") from None
    except Exception as error:
        raise InputError(f"PIL image {image.size}: cannot be decoded ({_one_line(error)}); save it again") from None
    return buffer.getvalue()


def same_picture(first: Image.Image, second: Image.Image) -> bool:
    """Whether two RGB images have the same pixels, whatever their files say beside them."""
    return first.size == second.size and first.tobytes() == second.tobytes()
