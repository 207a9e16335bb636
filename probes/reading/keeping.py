"""Records on their way out: written as lines, their images kept on disk or named in a row. No torch."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from probes.files import write_bytes
from probes.inputs import ImageRef, InputError


class Written(Protocol):
    """A record that can be written as one row of JSONL."""

    @property
    def id(self) -> str:
        """How messages call the record."""

    def as_json(self, root: Path | None = None) -> dict[str, Any]:
        """Return the record as a row; paths of images start at ``root``."""


def write_records(path: str | Path, records: Iterable[Written]) -> None:
    """Write records as JSONL, whole or not at all; images below the file's folder are named relative to it.

    Raises:
        InputError: a record holds something that JSON cannot say.
    """
    target = Path(path)
    lines = []
    for record in records:
        try:
            lines.append(json.dumps(record.as_json(target.parent), ensure_ascii=False, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InputError(f"record {record.id} cannot be written as JSON: {error}") from error
    write_bytes(target, "".join(f"{line}\n" for line in lines).encode())


def on_disk(image: ImageRef, folder: Path) -> ImageRef:
    """Return an image by its path; one that is held in memory is written to ``folder``, once for the same bytes."""
    if image.data is None:
        return image
    path = folder / hashlib.sha256(image.data).hexdigest()
    if not path.is_file():
        write_bytes(path, image.data)
    return ImageRef(path=str(path))


def image_as_json(image: ImageRef, root: Path | None) -> str:
    """Return an image as text: base64 where it is held in memory, else its path, relative to ``root`` if below it."""
    if image.path is None:
        return f"data:application/octet-stream;base64,{b64encode(image.data or b'').decode()}"
    path = Path(image.path)
    if root is None:
        return image.path
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.absolute().as_posix()
