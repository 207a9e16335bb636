"""BLINK: one Parquet file per subtask, up to four images in columns of their own. No torch."""

from probes.inputs import InputError
from probes.reading.images import find_images
from probes.reading.rows import Row, lettered, text, texts
from probes.reading.sources import RawRow
from studies.questions import MultiImageQuestion

WHY = "rows with image_1, choices, question and an answer such as (A)"
SPLITS = ("val", "validation", "test")
"""The answers of the test split are hidden."""

_COLUMNS = ("image_1", "image_2", "image_3", "image_4")


def matches(row: Row) -> bool:
    """Return whether a row has the columns of this format."""
    return {"image_1", "question", "choices", "answer"} <= row.keys()


def read(raw: RawRow) -> MultiImageQuestion:
    """Read one row. The question is the row's own prompt, which shows the options; images come first.

    Raises:
        InputError: a value is missing or of the wrong type, an image is missing, or the answer is hidden.
    """
    row = raw.values
    choices, answer = texts(row, "choices"), text(row, "answer")
    if answer.strip().lower() == "hidden":
        raise InputError("the answer is hidden: read the split val")
    given = [row.get(column) is not None for column in _COLUMNS]
    if given != sorted(given, reverse=True):
        raise InputError("one of image_1 to image_4 is missing before another one")
    task = text(row, "sub_task", raw.source)
    return MultiImageQuestion(
        id=text(row, "idx", f"{task}-{raw.number}"),
        question=text(row, "prompt", "") or lettered(text(row, "question"), choices),
        images=find_images([row[column] for column in _COLUMNS if row.get(column) is not None], raw.root),
        answer=answer,
        task=task,
        split=raw.split or "val",
        choices=choices,
        scoring="choice",
    )
