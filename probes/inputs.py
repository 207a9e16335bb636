"""Images and turns as every record holds them: named early, decoded late, with caps.

This file knows nothing of models, processors or tensors, and imports neither torch nor transformers.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image, ImageOps

from probes.errors import InputError as InputError
from probes.errors import counted, one_line, short
from probes.image_decoding import encode_lossless, open_header, to_rgb, whole_files_only
from probes.image_decoding import same_picture as same_picture
from probes.image_files import decode_base64, decode_data_address, read_path

Item = TypeVar("Item")

IMAGE_MARK = "<image>"
"""Where an image stands in a turn's text."""

MAX_PIXELS = 64_000_000
"""Largest image, in pixels, that `ImageRef.open` decodes unless told otherwise."""

_BASE64_HEADS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "Qk", "SUkq", "TU0AK", "UDY", "UDU")
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)
_LONGEST_PATH = 4096
_SHORTEST_BASE64 = 48


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
            return cls(data=encode_lossless(value))
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
            return cls(data=decode_data_address(text))
        if text[:8].lower().startswith(("http://", "https://")):
            raise InputError(f"image {short(text)}: nothing is downloaded here; save it to a file and give the path")
        if not text.strip() or "\0" in text:
            raise InputError(f"image {short(text)}: an empty or impossible path; give a file, bytes or base64")
        path = _under(text, root)
        looks_encoded = len(text) >= _SHORTEST_BASE64 and text.startswith(_BASE64_HEADS)
        if (looks_encoded or len(text) > _LONGEST_PATH) and not _exists(path):
            return cls(data=decode_base64(text, short(text)))
        return cls(path=path)

    @property
    def name(self) -> str:
        """How messages call this image: its path, or the size and digest of its bytes."""
        if self.data is None:
            return short(str(self.path), 200)
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
        data = self.data if self.data is not None else read_path(str(self.path), self.name)
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
        image = open_header(self.read() if data is None else data, self.name, max_pixels)
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
        image = open_header(data, self.name, max_pixels)
        try:
            with whole_files_only():
                image.load()
            return to_rgb(ImageOps.exif_transpose(image))
        except InputError as error:
            raise InputError(f"image {self.name}: {error}") from None
        # A decoder fed hostile bytes raises nearly anything; the reader needs the name of the image in each case.
        except Exception as error:
            raise InputError(
                f"image {self.name}: broken or truncated {image.format} ({one_line(error)}); "
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
        return tuple(placed(self.text, IMAGE_MARK, self.images))


def placed(text: str, mark: str, items: Sequence[Item]) -> list[str | Item]:
    """Texts and items in the order in which a model reads them; empty texts are left out.

    Args:
        text: With one mark for each item, or with none to put the items first.
        mark: `<image>`, or another kind's.
        items: What the marks stand for.

    Raises:
        InputError: If the text has marks and their number differs from that of the items.

    >>> placed("1 <video>?", "<video>", [7])
    ['1 ', 7, '?']
    """
    check_marks(text, mark, len(items))
    texts = text.split(mark)
    if len(texts) == 1:
        texts = [""] * len(items) + texts
    mixed: list[str | Item] = [texts[0]]
    for item, words in zip(items, texts[1:], strict=True):
        mixed += [item, words]
    return [part for part in mixed if not isinstance(part, str) or part]


def check_marks(text: str, mark: str, count: int) -> None:
    """Check that a text has one mark for each of some items, or none.

    Raises:
        InputError: If it has another number.
    """
    marks, kind = text.count(mark), mark.strip("<>")
    if marks not in (0, count):
        raise InputError(
            f"the text has {counted(marks, f'{mark} mark')} for {counted(count, kind)}: "
            f"give one mark per {kind}, or no marks to put the {kind}s first"
        )


def _under(path: str, root: Path | str | None) -> str:
    return path if root is None else str(Path(root) / path)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # too long to be a path
        return False
