"""Where the images of a data set are: beside its file, in a folder, in a zip archive, or in the row itself.

Knows no format. No torch.
"""

import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

from probes.inputs import ImageRef, InputError
from probes.reading.rows import valid

_LONGEST_PATH = 4096
_shortened: ContextVar[dict[str, str] | None] = ContextVar("_shortened", default=None)
_missing: ContextVar[list[str] | None] = ContextVar("_missing", default=None)


@contextmanager
def noting_shortened() -> Iterator[dict[str, str]]:
    """Note which images are found by the last parts of their path only: the path given, and the one taken for it."""
    # A folder may have gained files since it was last looked at.
    _names_below.cache_clear()
    noted: dict[str, str] = {}
    token = _shortened.set(noted)
    try:
        yield noted
    finally:
        _shortened.reset(token)


@contextmanager
def missing_allowed() -> Iterator[list[str]]:
    """Take images whose file is not there by their path, for work that opens none of them, and note the paths."""
    noted: list[str] = []
    token = _missing.set(noted)
    try:
        yield noted
    finally:
        _missing.reset(token)


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
    machine is looked for by its last parts, the longest run first; by its bare name only where a single file below
    ``root`` has that name, as another image might be taken for it otherwise.

    Raises:
        InputError: there is no such image, unless within ``missing_allowed``.
    """
    if isinstance(value, dict) and value.get("bytes") is None and isinstance(value.get("path"), str):
        value = value["path"]
    if not isinstance(value, str):
        return _there(ImageRef.of(value, root), root)
    valid(value, "an image")
    if value[:5].lower() == "data:" or len(value) > _LONGEST_PATH or not value.strip() or "\0" in value:
        return ImageRef.of(value)
    for path, whole in _candidates(value, root):
        reference = ImageRef(path=str(path))
        if image_is_there(reference):
            noted = _shortened.get()
            if not whole and noted is not None:
                noted[value] = str(path)
            return reference
    return _there(ImageRef.of(value, root), root)


def _there(image: ImageRef, root: Path) -> ImageRef:
    if image_is_there(image):
        return image
    noted = _missing.get()
    if noted is not None:
        noted.append(str(image.path))
        return image
    raise InputError(f"{image.path} does not exist, nor is it anywhere below {root} under that name")


def _candidates(value: str, root: Path) -> Iterator[tuple[Path, bool]]:
    """Places to look, and whether each has the whole path; tails come last, so that they never hide the real file."""
    yield root / value, True
    path = Path(value)
    parts = path.parts[1:] if path.is_absolute() else path.parts
    if ".." in parts:
        return
    archives = _archives(root)
    for start in range(len(parts) if path.is_absolute() else min(2, len(parts))):
        tail = Path(*parts[start:])
        if start and len(tail.parts) == 1 and not _is_only_one(tail.name, root, archives):
            return
        yield root / tail, not start
        yield root / "images" / tail, not start
        for archive in archives:
            if tail.as_posix() in members_of(archive):
                yield archive / tail, not start


def _is_only_one(name: str, root: Path, archives: Iterable[Path]) -> bool:
    # The working folder stands in for the root of data that have none: all of it is not theirs.
    if root == Path():
        return False
    inside = sum(Path(member).name == name for archive in archives for member in members_of(archive))
    return _names_below(root)[name] + inside == 1


@lru_cache(maxsize=8)
def _names_below(root: Path) -> Counter[str]:
    return Counter(path.name for path in root.rglob("*") if path.is_file())


def _archives(root: Path) -> tuple[Path, ...]:
    return _zip_files(root, root.stat().st_mtime_ns) if root.is_dir() else ()


@lru_cache(maxsize=64)
def _zip_files(root: Path, _changed: int) -> tuple[Path, ...]:
    return tuple(sorted(root.glob("*.zip")))


def image_is_there(image: ImageRef) -> bool:
    """Return whether an image's file, or its member of a zip file, exists; nothing is decoded."""
    if image.path is None:
        return True
    path = Path(image.path)
    try:
        if path.is_file():
            return True
        for archive in path.parents:
            if archive.suffix.lower() == ".zip" and archive.is_file():
                return path.relative_to(archive).as_posix() in members_of(archive)
    except (OSError, ValueError):
        return False
    return False


def members_of(archive: Path) -> frozenset[str]:
    """Return the names of the files in a zip archive.

    Raises:
        InputError: the archive is broken.
    """
    status = archive.stat()
    return _members(os.fspath(archive), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _members(archive: str, _changed: int, _size: int) -> frozenset[str]:
    try:
        with zipfile.ZipFile(archive) as file:
            return frozenset(name for name in file.namelist() if not name.endswith("/"))
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"the archive {archive} cannot be read ({error}): make it anew") from error
