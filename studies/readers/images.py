"""Where the images of a data set are: beside its file, in a folder, in a zip archive, or in the row itself.

Knows no format. No torch.
"""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from probes.inputs import ImageRef, InputError
from studies.questions import image_is_there, members_of
from studies.readers.rows import valid

_LONGEST_PATH = 4096


def find_images(values: Iterable[Any], root: Path) -> tuple[ImageRef, ...]:
    """Find each image of a row; see ``find_image``.

    Raises:
        InputError: one is missing; the message counts from 1.
    """
    found = []
    for place, value in enumerate(values, start=1):
        try:
            found.append(find_image(value, root))
        except InputError as error:
            raise InputError(f"image {place}: {error}") from error
    return tuple(found)


def find_image(value: Any, root: Path) -> ImageRef:
    """Find one image, given as path, bytes, base64, PIL image or mapping with "bytes" or "path".

    A path is looked for below ``root``, in its folder ``images``, and in its zip archives. An absolute path of another
    machine is looked for by its last parts, the longest run first.

    Raises:
        InputError: there is no such image.
    """
    if isinstance(value, dict) and value.get("bytes") is None and isinstance(value.get("path"), str):
        value = value["path"]
    if not isinstance(value, str):
        return _there(ImageRef.of(value, root), root)
    valid(value, "an image")
    if value[:5].lower() == "data:" or len(value) > _LONGEST_PATH or not value.strip() or "\0" in value:
        return ImageRef.of(value)
    for path in _candidates(value, root):
        reference = ImageRef(path=str(path))
        if image_is_there(reference):
            return reference
    return _there(ImageRef.of(value, root), root)


def _there(image: ImageRef, root: Path) -> ImageRef:
    if image_is_there(image):
        return image
    raise InputError(f"{image.path} does not exist, nor is it anywhere below {root} under that name")


def _candidates(value: str, root: Path) -> Iterable[Path]:
    """An absolute path is taken as it is first; its tails come last, so that they never hide the real file."""
    yield root / value
    path = Path(value)
    parts = path.parts[1:] if path.is_absolute() else path.parts
    if ".." in parts:
        return
    tails = [Path(*parts[start:]) for start in range(len(parts) if path.is_absolute() else min(2, len(parts)))]
    archives = _archives(root)
    for tail in tails:
        yield root / tail
        yield root / "images" / tail
        for archive in archives:
            if tail.as_posix() in members_of(archive):
                yield archive / tail


def _archives(root: Path) -> tuple[Path, ...]:
    return _zip_files(root, root.stat().st_mtime_ns) if root.is_dir() else ()


@lru_cache(maxsize=64)
def _zip_files(root: Path, _changed: int) -> tuple[Path, ...]:
    return tuple(sorted(root.glob("*.zip")))
