"""VLMEvalKit's TSV: encoded images or paths, options in columns A, B, C, …; MUIRBENCH's TSV too. No torch."""

from collections.abc import Mapping

from probes.reading.references import table_images
from probes.reading.rows import Row, letter_columns, lettered, text
from probes.reading.sources import RawRow
from studies.questions import MultiImageQuestion

WHY = "rows with index, question, answer, and image or image_path"


def matches(row: Row) -> bool:
    """Return whether a row has the columns of this format."""
    return {"index", "question"} <= row.keys() and bool({"image", "image_path"} & row.keys())


def read(raw: RawRow, indexed: Mapping[str, Row]) -> MultiImageQuestion:
    """Read one row. A ``hint`` goes before the question, and lettered options after it.

    Args:
        raw: the row.
        indexed: all rows by their index, for rows that name another row instead of holding an image.

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
        images=table_images(raw, indexed),
        answer=text(row, "answer", ""),
        task=text(row, "category", "") or text(row, "task", ""),
        split=text(row, "split", "") or raw.split or "test",
        choices=choices,
        scoring="choice" if choices else "exact",
        meta={"l2-category": text(row, "l2-category", "")} if row.get("l2-category") else {},
    )
