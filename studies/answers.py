"""Predictions made elsewhere: an id and an answer per row, from JSONL, JSON, CSV or TSV.

Knows nothing of questions or of scoring. No torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probes.inputs import InputError
from probes.reading.rows import Row, text
from probes.reading.sources import RawRow, parse_json, read_source

ID_NAMES = ("id", "question_id", "sample_id", "idx", "index")
ANSWER_NAMES = ("prediction", "answer", "output", "response")
"""The first that is there is taken: files that hold both the prediction and the right answer call that one "answer"."""


def read_answers(path: str | Path) -> dict[str, str]:
    """Read predictions.

    Args:
        path: .jsonl, .json (a list of rows, or one mapping from id to answer), .csv or .tsv. A row has an id
            (``id``, ``question_id``, ``sample_id``, ``idx`` or ``index``) and an answer (``prediction``, ``answer``,
            ``output`` or ``response``). Rows with ``dataset_name`` and ``sample_id`` (STME) are named
            "dataset-sample", as ``read_questions`` names them.

    Returns:
        Answer by id, in the file's order. An answer may be empty.

    Raises:
        InputError: the file cannot be read, a row has no id or no answer, or an id comes twice.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"{source} does not exist, or is no file: give a .jsonl, .json, .csv or .tsv of predictions")
    direct = _direct(source)
    if direct is not None:
        return direct
    answers: dict[str, str] = {}
    for raw in read_source(source).rows:
        try:
            name, answer = _row(raw)
            if name in answers:
                raise InputError(f"the id {name!r} comes twice")
        except InputError as error:
            raise InputError(f"{raw.place}: {error}") from error
        answers[name] = answer
    if not answers:
        raise InputError(f"{source} holds no prediction")
    return answers


def _direct(source: Path) -> dict[str, str] | None:
    """Return the answers of a JSON mapping from id to text, or None if the file is something else."""
    if source.suffix.lower() != ".json":
        return None
    try:
        content = parse_json(source.read_bytes().decode("utf-8-sig"))
    except (InputError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{source} cannot be read: {error}") from error
    if not isinstance(content, Mapping) or isinstance(content.get("data"), list):
        return None
    if not content:
        raise InputError(f"{source} holds no prediction")
    return {name: _answer(content, name, source) for name in content}


def _answer(content: Mapping[str, Any], name: str, source: Path) -> str:
    try:
        return text(content, name)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def _row(raw: RawRow) -> tuple[str, str]:
    if raw.error is not None:
        raise InputError(raw.error)
    row = raw.values
    return _id(row), text(row, _first(row, ANSWER_NAMES))


def _id(row: Row) -> str:
    name = text(row, _first(row, ID_NAMES))
    if not name.strip():
        raise InputError("the id is empty")
    return f"{text(row, 'dataset_name')}-{name}" if "dataset_name" in row and "sample_id" in row else name


def _first(row: Row, names: tuple[str, ...]) -> str:
    for name in names:
        if name in row:
            return name
    raise InputError(f"there is none of {', '.join(names)}; the row has {', '.join(map(str, row)) or 'nothing'}")
