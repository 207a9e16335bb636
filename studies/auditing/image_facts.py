"""What an image's bytes say before it is decoded: digest, size by its header, and whether it can be an image at all.

Each image is read once. It knows no samples and no models.
"""

import hashlib
import io
from typing import NamedTuple

from PIL import Image

from probes.inputs import ImageRef, InputError


class Facts(NamedTuple):
    """What an image's bytes say before it is decoded."""

    digest: str
    size: tuple[int, int]
    error: str | None


class ImageFacts:
    """Reads each image once and remembers what its bytes say."""

    def __init__(self) -> None:
        self._known: dict[ImageRef, Facts] = {}

    def of(self, image: ImageRef) -> Facts:
        """Digest, size by the header (0, 0 if there is none), and why the image cannot be used."""
        if image not in self._known:
            self._known[image] = _facts(image)
        return self._known[image]


def _facts(image: ImageRef) -> Facts:
    try:
        data = image.read()
    except InputError as error:
        return Facts("unreadable", (0, 0), str(error))
    digest = hashlib.sha256(data).hexdigest()
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return Facts(digest, opened.size, None)
    # Pillow raises many kinds of errors on hostile bytes, its refusal of gigantic images among them.
    except Exception:
        reason = "not an image, of a kind that is not read, or gigantic; convert it or leave it out"
        return Facts(digest, (0, 0), f"image {image.name}: {reason}")
