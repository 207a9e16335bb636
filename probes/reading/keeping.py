"""Images of records that are written: kept on disk instead of in memory, or named in a row. No torch."""

import hashlib
from base64 import b64encode
from pathlib import Path

from probes.files import write_bytes
from probes.inputs import ImageRef


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
