"""VLMEvalKit's TSV: encoded images or paths, options in columns A, B, C, …; MUIRBENCH's TSV too. No torch."""

from collections.abc import Mapping
from typing import Any

from probes.inputs import ImageRef, InputError
from probes.reading.images import find_images
from probes.reading.rows import Row, items, letter_columns, lettered, text
from probes.reading.sources import RawRow
from studies.questions import MultiImageQuestion

WHY = "rows with index, question, answer, and image or image_path"
_LONGEST_REFERENCE = 64
"""An ``image`` that is no longer than this is the index of the row that holds it."""


def matches(row: Row) -> bool:
    """Return whether a row has the columns of this format."""
    return {"index", "question"} <= row.keys() and bool({"image", "image_path"} & row.keys())


def read(raw: RawRow, by_index: Mapping[str, Row]) -> MultiImageQuestion:
    """Read one row. A ``hint`` goes before the question, and lettered options after it.

    Args:
        raw: the row.
        by_index: all rows by their index, for rows that name another row instead of holding an image.

    Raises:
        InputError: a value is missing or of the wrong type, or an image does not exist.
    """
    row = raw.values
    choices = letter_columns(row)
    hint = text(row, "hint", "")
    question = lettered(text(row, "question"), choices)
    return MultiImageQuestion(
        id=text(row, "index"),
        question=f"{hint}\n{question}" if hint.strip() else question,
        images=_images(raw, by_index),
        answer=text(row, "answer", ""),
        task=text(row, "category", "") or text(row, "task", ""),
        split=text(row, "split", "") or raw.split or "test",
        choices=choices,
        scoring="choice" if choices else "exact",
        meta={"l2-category": text(row, "l2-category", "")} if row.get("l2-category") else {},
    )


def _images(raw: RawRow, by_index: Mapping[str, Row]) -> tuple[ImageRef, ...]:
    encoded = raw.values.get("image")
    if encoded in (None, ""):
        return find_images(_listed(raw.values, "image_path"), raw.root)
    if isinstance(encoded, str) and len(encoded) <= _LONGEST_REFERENCE and not encoded.startswith("["):
        other = by_index.get(encoded.strip())
        if other is None or len(str(other.get("image"))) <= _LONGEST_REFERENCE:
            raise InputError(f"the image is that of row {encoded!r}, which holds none")
        return find_images(_listed(other, "image"), raw.root)
    return find_images(_listed(raw.values, "image"), raw.root)


def _listed(row: Row, key: str) -> list[Any]:
    value = row.get(key)
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [value] if value else []
    return items(row, key)
