"""Our own JSONL: one row per question, images named relative to the file. No torch."""

from typing import cast

from probes.inputs import InputError
from probes.reading.images import find_images
from probes.reading.rows import Row, integer, items, mapping, text, texts
from probes.reading.sources import RawRow
from studies.questions import MultiImageQuestion, Scoring

WHY = "rows with id, question, images and answer"


def matches(row: Row) -> bool:
    """Return whether a row has the keys of this format."""
    return {"id", "question", "images", "answer"} <= row.keys()


def read(raw: RawRow) -> MultiImageQuestion:
    """Read one row. Without ``scoring``, questions with choices are scored by choice and all others as exact.

    Raises:
        InputError: a value is missing or of the wrong type, or an image does not exist.
    """
    row = raw.values
    choices = texts(row, "choices")
    return MultiImageQuestion(
        id=text(row, "id"),
        question=text(row, "question"),
        images=find_images(items(row, "images"), raw.root),
        answer=text(row, "answer"),
        target=integer(row, "target"),
        task=text(row, "task", ""),
        split=text(row, "split", raw.split or "test"),
        choices=choices,
        boxes=tuple(_box(box) for box in items(row, "boxes")),
        base=text(row, "base", "") or None,
        scoring=cast(Scoring, text(row, "scoring", "choice" if choices else "exact")),
        meta=mapping(row, "meta"),
    )


def _box(value: object) -> tuple[float, float, float, float]:
    edges = items({"boxes": value}, "boxes")
    if len(edges) != 4 or not all(isinstance(edge, int | float) and not isinstance(edge, bool) for edge in edges):
        raise InputError(f"the box {edges!r:.60} is not four numbers: left, top, right, bottom")
    try:
        left, top, right, bottom = (float(edge) for edge in edges)
    except OverflowError as error:
        raise InputError("a box has an edge that is too large for a number of pixels") from error
    return left, top, right, bottom
