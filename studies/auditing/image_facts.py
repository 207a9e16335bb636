"""What an image's bytes say before it is decoded: digest, size by its header, and whether it can be an image at all.

Each image is read once. It knows no samples and no models.
"""

import hashlib
from typing import NamedTuple

from probes.inputs import ImageRef, InputError


class Facts(NamedTuple):
    """What an image's bytes say before it is decoded."""

    digest: str | None
    """SHA-256 of the bytes; None where there are none to read."""
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
    digest = None
    try:
        data = image.read()
        digest = hashlib.sha256(data).hexdigest()
        return Facts(digest, image.size(data=data), None)
    except InputError as error:
        return Facts(digest, (0, 0), str(error))
