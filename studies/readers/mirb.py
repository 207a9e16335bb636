"""MIRB: Parquet with a list of images, or one JSON annotation file per subset beside ``images.zip``. No torch."""

from probes.reading.images import find_images
from probes.reading.rows import Row, items, text, texts
from probes.reading.sources import RawRow
from studies.questions import MultiImageQuestion, Scoring

WHY = "rows with questions, answers and image_list"
WHY_RAW = "annotation rows with questions, answers and images"

_INSTRUCTIONS = {
    "analogy": "Answer with a single word.",
    "attribute": "Answer with a single word.",
    "plot_code": "Answer with a single word.",
    "plot_text": "Answer with a single word.",
    "visual_chain": "Answer with a single word.",
    "sightseeing": "Answer with a single word.",
    "codeu": "Answer with the option symbol.",
    "codeu_text": "Answer with the option symbol.",
    "food": "Answer with the option symbol.",
    "image_jigsaw": "Answer with the option symbol.",
    "arxiv": "Answer with the paper title.",
    "arxiv_text": "Answer with the paper title.",
    "count": "Answer with a single number.",
    "3d_scene": "The following images are different views of the same 3D scene. Answer with a single number.",
}
_BY_LETTER = frozenset({"codeu", "codeu_text", "food", "image_jigsaw"})


def matches(row: Row) -> bool:
    """Return whether a row has the columns of the Parquet form."""
    return {"questions", "answers", "image_list"} <= row.keys()


def matches_raw(row: Row) -> bool:
    """Return whether a row has the keys of the annotation form."""
    return {"questions", "answers", "images"} <= row.keys()


def read(raw: RawRow) -> MultiImageQuestion:
    """Read one row of either form. The subset's answer instruction goes first, as its released evaluation does it.

    Sightseeing answers are searched for among the words of the reply, option letters are scored by choice, and all
    others exactly.

    Raises:
        InputError: a value is missing or of the wrong type, or an image does not exist.
    """
    row = raw.values
    subset = text(row, "subset", raw.source)
    instruction = _INSTRUCTIONS.get(subset, "")
    key = "image_list" if "image_list" in row else "images"
    value = row.get(key)
    images = [value] if isinstance(value, str) and value and not value.startswith("[") else items(row, key)
    return MultiImageQuestion(
        id=text(row, "id", f"{subset}-{raw.number}"),
        question=f"{instruction} {text(row, 'questions')}".strip(),
        images=find_images(images, raw.root),
        answer=_answer(row),
        task=subset,
        split=raw.split or "test",
        scoring=_scoring(subset),
    )


def _answer(row: Row) -> str:
    if isinstance(row.get("answers"), list) and len(row["answers"]) == 1:
        return texts(row, "answers")[0]
    return text(row, "answers")


def _scoring(subset: str) -> Scoring:
    if subset in _BY_LETTER:
        return "choice"
    return "contains" if subset == "sightseeing" else "exact"
