"""What several readers make records of: single questions, better and worse responses, names of rows.

Knows no format. No torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes.inputs import IMAGE_MARK, ImageRef, InputError, Turn
from probes.reading.images import find_image, find_images
from probes.reading.rows import Row, items, shown, text
from probes.reading.sources import RawRow
from rewardmodels.records import Response

BETTER_AND_WORSE = (0, 1)


def row_id(raw: RawRow, *keys: str) -> str:
    """Return the first of some columns that names the row, or else the row's place."""
    for key in keys:
        name = text(raw.values, key, "")
        if name.strip():
            return name
    return raw.place


def question(words: str, images: Sequence[ImageRef]) -> tuple[Turn, ...]:
    """Return a prompt of one turn by the user.

    Raises:
        InputError: the question is empty, or has marks whose number differs from that of the images.
    """
    if not words.strip():
        raise InputError("the prompt is empty")
    return (Turn("user", words, tuple(images)),)


def is_texts(value: Any) -> bool:
    """Return whether a value is a list of texts."""
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(part, str) for part in value)


def two(chosen: str, rejected: str) -> tuple[Response, Response]:
    """Return a better and a worse response of text only."""
    return Response(chosen), Response(rejected)


def listed_images(row: Row, root: Path, *keys: str) -> tuple[ImageRef, ...]:
    """Return the images of the first of some columns that has any: one image, or a list of them.

    Raises:
        InputError: an image is missing, or the column holds something else.
    """
    for key in keys:
        value = row.get(key)
        if value is None or value == "":
            continue
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = items(row, key)
        if isinstance(value, list | tuple):
            return find_images(value, root)
        return (find_image(value, root),)
    return ()


def needed_images(row: Row, root: Path, *keys: str) -> tuple[ImageRef, ...]:
    """Return images as ``listed_images`` does, of data that are about images throughout.

    Raises:
        InputError: there is no image at all, or as for ``listed_images``.
    """
    images = listed_images(row, root, *keys)
    if not images:
        raise InputError(f"{keys[0]} is missing")
    return images


def interleaved(blocks: Sequence[tuple[str, Any]], root: Path) -> tuple[str, tuple[ImageRef, ...]]:
    """Return blocks of text and images as one text with a mark for each image, and the images.

    Where all images come first no mark is needed, and none is set: lengths then count what is said.

    Args:
        blocks: kind ("text" or "image") and content.
        root: the folder that image paths start from.

    Raises:
        InputError: another kind, a text that is none, a missing image, or a mark in a text beside images of its own.
    """
    words: list[str] = []
    images: list[ImageRef] = []
    seen_text = need_marks = False
    for kind, content in blocks:
        if kind == "text":
            part = text({"text": content}, "text", "")
            seen_text = seen_text or bool(part)
            words.append(part)
        elif kind == "image":
            need_marks = need_marks or seen_text
            words.append(IMAGE_MARK)
            images.append(find_image(content, root))
        else:
            raise InputError(f"a part of a message is of kind {shown(kind)}: text and image are read")
    if sum(word.count(IMAGE_MARK) for word in words) != len(images):
        raise InputError(f"a text holds {IMAGE_MARK} beside images that stand on their own")
    if not need_marks:
        words = [word for word in words if word != IMAGE_MARK]
    return "".join(words), tuple(images)
