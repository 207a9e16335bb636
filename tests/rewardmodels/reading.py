"""What the tests of the readers share: rows in a file, the one record or the one reason that comes of them."""

from pathlib import Path
from typing import Any

from probes.inputs import ImageRef
from rewardmodels import Preference, Preferences, Response, read_preferences
from tests.rewardmodels.published import png, save_images, write_lines

RED = ImageRef(data=png("red"))
ASKED = "What is it?"
TWO = (Response("Red."), Response("Blue."))


def with_images(folder: Path) -> Path:
    """A folder with a red and a blue image, both there and below `images`."""
    save_images(folder, "red", "blue")
    save_images(folder / "images", "red", "blue")
    return folder


def lines(folder: Path, *rows: Any, format: str | None = None, **options: Any) -> Preferences:
    return read_preferences(write_lines(folder / "rows.jsonl", list(rows)), format, **options)


def only(read: Preferences) -> Preference:
    assert read.bad == ()
    (record,) = read.records
    return record


def reason(read: Preferences) -> str:
    assert not read.records
    (bad,) = read.bad
    return bad.error


def at(folder: Path, name: str) -> ImageRef:
    return ImageRef(path=str(folder / name))
