"""Images of a run, kept by the digest of their original bytes, in a form that a browser shows.

Knows nothing of samples or of the rest of the run folder. No torch.
"""

import re
from pathlib import Path

from PIL import Image

from probes.files import write_atomically
from probes.inputs import ImageRef, InputError

LONGEST_SIDE = 2048
_LOSSLESS_PIXELS = 256 * 256
_DIGEST = re.compile(r"[0-9a-f]{64}")


def image_path(folder: Path, digest: str) -> Path:
    """Return the path of an image's file.

    Raises:
        InputError: the digest is not 64 hexadecimal characters, and so cannot be trusted as a file name.
    """
    if not _DIGEST.fullmatch(digest):
        raise InputError(f"{digest!r} is no image digest: it must be 64 hexadecimal characters")
    return folder / f"{digest}.webp"


def save_image(folder: Path, image: ImageRef) -> str:
    """Keep an image once, and return its digest. Small images are kept without loss.

    Raises:
        InputError: the image cannot be read.
    """
    digest = image.digest
    path = image_path(folder, digest)
    if not path.is_file():
        picture = image.open()
        lossless = picture.width * picture.height <= _LOSSLESS_PIXELS
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        write_atomically(path, lambda temporary: picture.save(temporary, "WEBP", lossless=lossless, quality=90))
    return digest
