"""MUIRBENCH: Parquet with a list of images, marks in question and options, an answer letter. No torch.

Its TSV form has the columns of VLMEvalKit and is read as such.
"""

from probes.reading.images import find_images
from probes.reading.rows import Row, items, lettered, text, texts
from probes.reading.sources import RawRow
from studies.questions import MultiImageQuestion

WHY = "rows with options, answer, image_list and a question with image marks"


def matches(row: Row) -> bool:
    """Return whether a row has the columns of this format."""
    return {"question", "options", "answer", "image_list"} <= row.keys()


def read(raw: RawRow) -> MultiImageQuestion:
    """Read one row. Options may be images; an answerable question and its unanswerable twin share their base.

    Raises:
        InputError: a value is missing or of the wrong type, or an image does not exist.
    """
    row = raw.values
    options = texts(row, "options")
    name = text(row, "idx", str(raw.number))
    twin = text(row, "counterpart_idx", "")
    return MultiImageQuestion(
        id=name,
        question=lettered(text(row, "question"), options),
        images=find_images(items(row, "image_list"), raw.root),
        answer=text(row, "answer"),
        task=text(row, "task", ""),
        split=raw.split or "test",
        choices=options,
        base="+".join(sorted({name, twin})) if twin not in ("", "-1") else None,
        scoring="choice",
        meta={key: text(row, key, "") for key in ("image_relation", "image_type")},
    )
