"""Our own JSONL: one row per question, images named relative to the file. No torch."""

from typing import cast

from probes.inputs import InputError
from probes.reading.images import find_images
from probes.reading.rows import Row, boxes, integer, items, mapping, text, texts
from probes.reading.sources import RawRow
from studies.questions import MultiImageQuestion, Scoring

WHY = "rows with id, question, images and answer"


def matches(row: Row) -> bool:
    """Return whether a row has the keys of this format."""
    return {"id", "question", "images", "answer"} <= row.keys()


def read(raw: RawRow) -> MultiImageQuestion:
    """Read one row. Without ``scoring``, questions with choices are scored by choice and all others as exact.

    Raises:
        InputError: a value is missing or of the wrong type, an image does not exist, or there are videos.
    """
    row = raw.values
    if row.get("videos"):
        raise InputError(
            "it has videos, and questions are read over images alone: give frames as images, or trace videos from "
            "Python (HookedModel.trace with videos=, scored by probes.frame_scores)"
        )
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
        boxes=boxes(row, "boxes"),
        base=text(row, "base", "") or None,
        scoring=cast(Scoring, text(row, "scoring", "choice" if choices else "exact")),
        meta=mapping(row, "meta"),
    )
