"""MM-RLHF-RewardBench: several pairs an id, about an image or the frames of a video. No torch."""

from pathlib import Path, PurePosixPath
from typing import Any

from probes.inputs import ImageRef, InputError
from probes.reading.images import find_image
from probes.reading.rows import Row, shown, text
from probes.reading.sources import RawRow
from rewardmodels.readers.parts import BETTER_AND_WORSE, needed_images, question, row_id, two
from rewardmodels.records import Preference

WHY = "rows with id, image or video, prompt, chosen and rejected"
_FRAMES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def matches(row: Row) -> bool:
    """Return whether a row has the columns of this format."""
    texts = isinstance(row.get("chosen"), str) and isinstance(row.get("rejected"), str)
    return texts and {"id", "prompt"} <= row.keys() and bool({"image", "video"} & row.keys())


def read(raw: RawRow) -> Preference:
    """Read one pair. Pairs of one id share their base: ACC+ counts an id whose pairs are all right.

    The category is the first part of the path. A video is a folder of frames, which are read in the order of their
    names.

    Raises:
        InputError: a value is missing or of the wrong type, or an image or the frames do not exist.
    """
    row = raw.values
    name = row_id(raw, "id")
    video = row.get("video") or None
    images = _frames(video, raw.root) if video else needed_images(row, raw.root, "image")
    return Preference(
        id=name,
        prompt=question(text(row, "prompt"), images),
        responses=two(text(row, "chosen"), text(row, "rejected")),
        ranks=BETTER_AND_WORSE,
        group=_category(video or row.get("image")),
        source="MM-RLHF-RewardBench",
        base=name,
        meta={key: text(row, key, "") for key in ("chosen_reason", "rejected_reason") if row.get(key)},
    )


def _category(path: Any) -> str:
    if isinstance(path, dict):
        path = path.get("path")
    parts = PurePosixPath(path).parts if isinstance(path, str) else ()
    return parts[0] if len(parts) > 1 else ""


def _frames(video: Any, root: Path) -> tuple[ImageRef, ...]:
    if not isinstance(video, str):
        raise InputError(f"video must be a path, not a {type(video).__name__}")
    folder = root / video
    try:
        if folder.is_file():
            raise InputError(f"{shown(video)} is a video file: give a folder of its frames")
        if not folder.is_dir():
            return (find_image(video, root),)
        frames = sorted(path for path in folder.iterdir() if path.suffix.lower() in _FRAMES)
    except OSError as error:
        raise InputError(f"the frames {shown(video)} cannot be read: {error.strerror}") from error
    if not frames:
        raise InputError(f"the folder {shown(video)} holds no frame ({', '.join(_FRAMES)})")
    return tuple(ImageRef(path=str(path)) for path in frames)
