"""The one record of a question over several images, and what makes it usable.

Knows no published format and reads no data file. No torch.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from probes.errors import counted
from probes.inputs import ImageRef, InputError
from probes.reading.keeping import image_as_json, write_records
from probes.reading.sources import BadRecord

IMAGE_MARK = "<image>"
Scoring = Literal["exact", "choice", "contains", "caption"]
SCORINGS: tuple[str, ...] = get_args(Scoring)
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class MultiImageQuestion:
    """A question over several images, at most one of which holds the answer.

    Raises:
        InputError: an empty id, question or answer; no image; marks that do not match the images; a target or a box
            that is out of range; an unknown scoring. The files of the images are not looked at.
    """

    id: str
    question: str
    """The whole text put to the model, options included. ``<image>`` marks say where images stand; without, first."""
    images: tuple[ImageRef, ...]
    answer: str
    """The right answer: an option's text or letter where there are choices."""
    target: int | None = None
    """Place of the image that holds the answer, from 0; None where the source does not say."""
    task: str = ""
    split: str = "test"
    choices: tuple[str, ...] = ()
    """Texts of the options, for scoring only: the question already shows them."""
    boxes: tuple[Box, ...] = ()
    """Left, top, right, bottom in pixels of the target image: the regions that hold the answer."""
    base: str | None = None
    """Samples made from the same thing share it: intervals are clustered by it."""
    scoring: Scoring = "exact"
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in ("id", "question", "answer"):
            if not getattr(self, name).strip():
                raise InputError(f"the {name} is empty")
        if self.scoring not in SCORINGS:
            raise InputError(f"the scoring {self.scoring!r} is none of {', '.join(SCORINGS)}")
        self._check_images()
        self._check_boxes()

    def _check_images(self) -> None:
        count, marks = len(self.images), self.question.count(IMAGE_MARK)
        if not count:
            raise InputError("there is no image")
        if marks not in (0, count):
            raise InputError(f"the question has {counted(marks, f'{IMAGE_MARK} mark')} for {counted(count, 'image')}")
        if self.target is not None and not 0 <= self.target < count:
            raise InputError(f"the target, counted from 0, is {self.target}, and there are {count} images")

    def _check_boxes(self) -> None:
        if self.boxes and self.target is None:
            raise InputError("there are boxes and no target image that they lie in")
        for box in self.boxes:
            if len(box) != 4 or not all(math.isfinite(edge) for edge in box):
                raise InputError(f"the box {box} is not four finite numbers: left, top, right, bottom")
            left, top, right, bottom = box
            if left >= right or top >= bottom:
                raise InputError(f"the box {box} is empty: it must be left, top, right, bottom in pixels")

    @property
    def cluster(self) -> str:
        """What this sample is clustered by: its base, or itself."""
        return self.base or self.id

    def as_json(self, root: Path | None = None) -> dict[str, Any]:
        """Return the record as a row of our own JSONL; images in memory become base64, paths start at ``root``."""
        row: dict[str, Any] = {
            "id": self.id,
            "question": self.question,
            "images": [image_as_json(image, root) for image in self.images],
            "answer": self.answer,
            "target": self.target,
            "task": self.task,
            "split": self.split,
            "choices": list(self.choices),
            "boxes": [list(box) for box in self.boxes],
            "scoring": self.scoring,
            "meta": dict(self.meta),
        }
        return row if self.base is None else {**row, "base": self.base}


@dataclass(frozen=True)
class Questions:
    """What was read: the usable records, each unusable row with its reason, and which format was taken and why."""

    records: tuple[MultiImageQuestion, ...]
    bad: tuple[BadRecord, ...]
    format: str
    why: str

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[MultiImageQuestion]:
        return iter(self.records)

    def __repr__(self) -> str:
        tasks = sorted({record.task for record in self.records if record.task})
        shown = ", ".join(tasks[:6]) + (", …" if len(tasks) > 6 else "")
        counts = f"{len(self.records)} records, {len(self.bad)} bad"
        return f"Questions({counts}, format {self.format!r}, tasks: {shown or '-'})"


def write_questions(path: str | Path, records: Iterable[MultiImageQuestion]) -> None:
    """Write records as our own JSONL, whole or not at all; images below the file's folder are named relative to it.

    Raises:
        InputError: a record's ``meta`` holds something that JSON cannot say.
    """
    write_records(path, records)
