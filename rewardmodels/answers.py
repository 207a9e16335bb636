"""Answers without preferences: a prompt with one answer or several, read and scored line by line.

Preferences are `rewardmodels.records`; what scores is `rewardmodels.scorers`. Knows no model. No torch.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from probes.inputs import ImageRef, InputError, Turn
from probes.reading.images import missing_allowed
from probes.reading.rows import Row, items
from probes.reading.sources import BadRecord, RawRow, read_source
from rewardmodels.readers.own import prompt_of, response_of
from rewardmodels.readers.parts import row_id
from rewardmodels.records import Response
from rewardmodels.scorers import Scorer, verdicts
from rewardmodels.scores import AS_IS, ScoreRow, Scores
from rewardmodels.shards import digest_or_name, run_in_shards


class Answered(NamedTuple):
    """A prompt and its answers."""

    id: str
    prompt: tuple[Turn, ...]
    responses: tuple[Response, ...]

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """All images, the prompt's and then those of the answers."""
        shown = [*(turn.images for turn in self.prompt), *(response.images for response in self.responses)]
        return tuple(image for images in shown for image in images)


@dataclass(frozen=True)
class Answers:
    """What was read: the usable rows, and the others with the reason."""

    records: tuple[Answered, ...]
    bad: tuple[BadRecord, ...]


def matches(row: Row) -> bool:
    """Whether a row holds answers and says nothing of which is better.

    >>> matches({"prompt": "2 + 2?", "response": "4"}), matches({"prompt": "2?", "responses": ["4"], "ranks": [0]})
    (True, False)
    """
    return "prompt" in row and bool({"response", "responses"} & row.keys()) and "ranks" not in row


def holds_answers(path: str | Path) -> bool:
    """Whether a local file's first readable row holds answers without preferences.

    Raises:
        InputError: As `read_source`.
    """
    if not Path(path).exists():
        return False
    return matches(next((raw.values for raw in read_source(Path(path)).rows if raw.error is None), {}))


def read_answers(path: str | Path, image_root: Path | None = None, allow_missing_images: bool = False) -> Answers:
    """Read rows with ``prompt`` (a text with the row's ``images``, or turns) and ``response``, or ``responses``.

    Args:
        path: A file, or a folder of them.
        image_root: Where relative image paths start; by default the file's folder.
        allow_missing_images: Take images whose file is not there by their path.

    Raises:
        InputError: There is nothing to read.
    """
    found: dict[str, Answered] = {}
    bad = []
    rows = read_source(Path(path), image_root).rows
    for raw in rows:
        try:
            record = _allowing(raw) if allow_missing_images else _record(raw)
            if record.id in found:
                raise InputError(f"a second row with the id {record.id!r}: ids must be unique")
            found[record.id] = record
        except InputError as error:
            bad.append(BadRecord(raw.place, str(error)))
    return Answers(tuple(found.values()), tuple(bad))


def _allowing(raw: RawRow) -> Answered:
    with missing_allowed():
        return _record(raw)


def _record(raw: RawRow) -> Answered:
    if raw.error is not None:
        raise InputError(raw.error)
    row = raw.values
    given = items(row, "responses") if row.get("responses") is not None else [row.get("response")]
    if not given:
        raise InputError("there is no response")
    return Answered(row_id(raw, "id"), prompt_of(raw), tuple(response_of(each, raw) for each in given))


def score_answers(
    scorer: Scorer,
    answers: Answers,
    *,
    folder: Path | None = None,
    name: str = "",
    skip: bool = False,
    retry_failed: bool = False,
    shard: int = 64,
    advance: Callable[[int], object] | None = None,
) -> Scores:
    """Score every answer; arguments as of `rewardmodels.questioning.score_preferences`.

    Raises:
        InputError: There is no answer, the folder holds other work, or an answer cannot be scored and is not skipped.
    """
    asked = [(record, place) for record in answers.records for place in range(len(record.responses))]
    if not asked:
        raise InputError("there is no answer to score")
    plan = {"version": 1, "scorer": name, "compared": False, "data": digest_of_answers(answers)}
    score = partial(_score, scorer, skip)
    rows = run_in_shards(asked, score, folder, plan, size=shard, retry_failed=retry_failed, advance=advance)
    return Scores(tuple(rows), name)


def _score(scorer: Scorer, skip: bool, asked: Sequence[tuple[Answered, int]]) -> list[ScoreRow]:
    responses = [record.responses[place] for record, place in asked]
    try:
        given = verdicts(scorer, [record.prompt for record, _ in asked], responses, skip)
    except InputError as error:
        raise InputError(f"rows {asked[0][0].id} to {asked[-1][0].id}: {error}") from error
    return [
        ScoreRow(
            record=record.id,
            place=place,
            view=AS_IS,
            score=None if verdict.error else verdict.score,
            error=verdict.error or None,
            characters=len(response.text),
        )
        for (record, place), response, verdict in zip(asked, responses, given, strict=True)
    ]


def digest_of_answers(answers: Answers) -> str:
    """SHA-256 of everything that is asked, with the bytes of images; unreadable images count by name."""
    total = hashlib.sha256()
    for record in answers.records:
        said = [[turn.role, turn.text] for turn in record.prompt], [response.text for response in record.responses]
        total.update(json.dumps([record.id, *said, [digest_or_name(image) for image in record.images]]).encode())
    return total.hexdigest()
