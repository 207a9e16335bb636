"""Scores that were made elsewhere: JSONL, JSON, CSV, TSV or Parquet rows that name a record, held against the records.

A file that does not fit is refused, or its rows are counted by reason: nothing is matched by guessing. No torch.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from probes.inputs import InputError
from probes.reading.rows import Row, integer, items, number, text
from probes.reading.sources import BadRecord, RawRow, read_source
from rewardmodels.preferences import Preferences
from rewardmodels.records import Preference
from rewardmodels.scores import AS_IS, ScoreRow, Scores, count_reasons, reason_of

ID_NAMES = ("record", "id", "record_id", "pair_id", "question_id", "sample_id", "idx", "index")
PLACE_NAMES = ("place", "response", "response_index")
SIDE_NAMES = (
    ("chosen_score", "rejected_score"),
    ("score_chosen", "score_rejected"),
    ("chosen_rewards", "rejected_rewards"),
)
_SHOWN = 5


class _Found(NamedTuple):
    """One score as a row gives it."""

    record: str
    place: int
    view: str
    score: float
    where: str


@dataclass
class _Kept:
    """Scores by what they are of, and what was wrong with the others."""

    scores: dict[tuple[str, int, str], float] = field(default_factory=dict)
    conflicting: set[tuple[str, int, str]] = field(default_factory=set)
    problems: list[BadRecord] = field(default_factory=list)

    def add(self, found: _Found) -> None:
        key = found.record, found.place, found.view
        if key not in self.scores:
            self.scores[key] = found.score
            return
        known = self.scores[key]
        if known != found.score:
            self.conflicting.add(key)
        how = f"{known:g} and {found.score:g}" if known != found.score else f"{known:g} both times"
        self.problems.append(BadRecord(found.record, f"duplicate: response {found.place} is scored twice, {how}"))


def read_scores(path: str | Path, preferences: Preferences, *, skip: bool = False, scorer: str = "") -> Scores:
    """Read scores, and hold them against the records that they are of.

    Rows have one of three forms, each with the record's id under one of ``ID_NAMES``, and under ``view`` what was
    shown where it was not the record as it is:

    - a response's place from 0 under one of ``PLACE_NAMES``, and its ``score`` (the form that ``Scores.write`` gives);
    - the scores of both sides under one of ``SIDE_NAMES``, numbers or lists; lists hold the best responses, and the
      others, in the record's order;
    - all of the record's scores as a list under ``scores``.

    Args:
        path: A file, or a folder of them.
        preferences: The records.
        skip: Count what does not fit, in ``Scores.problems``, instead of refusing the file. Of scores that contradict
            each other none is kept.
        scorer: How reports call who scored; by default the file's name.

    Raises:
        InputError: The file cannot be read, has another form, or holds no score of these records; if nothing is
            skipped, also where a response has no score, two, or one that is no finite number, or a row names a record
            or a response that is not there. The message counts each, and names the first.
    """
    source = Path(path)
    records = {record.id: record for record in preferences}
    kept = _Kept()
    for raw in read_source(source).rows if source.exists() else _absent(source):
        try:
            for found in _row(raw, records):
                kept.add(found)
        except InputError as error:
            kept.problems.append(BadRecord(raw.place, str(error)))
    scores = {key: value for key, value in kept.scores.items() if key not in kept.conflicting}
    problems = (*kept.problems, *_missing(records.values(), scores))
    if not scores:
        raise InputError(f"{source.name} holds no usable score of these {len(records)} records: {_listed(problems)}")
    if problems and not skip:
        raise InputError(f"{source.name} does not fit these {len(records)} records: {_listed(problems)}")
    rows = (
        _score_row(records[record], place, view, score)
        for (record, place, view), score in sorted(scores.items(), key=lambda item: (item[0][2], item[0][:2]))
    )
    return Scores(tuple(rows), scorer or source.name, problems=problems)


def _absent(path: Path) -> Iterator[RawRow]:
    raise InputError(f"{path} does not exist: give the file that holds the scores")


def _row(raw: RawRow, records: Mapping[str, Preference]) -> list[_Found]:
    if raw.error is not None:
        raise InputError(f"unreadable row: {raw.error}")
    row = raw.values
    name = next((name for name in ID_NAMES if row.get(name) not in (None, "")), None)
    if name is None:
        raise InputError(f"no id: a row needs one of {', '.join(ID_NAMES)}")
    called, view = text(row, name), text(row, "view", "") or AS_IS
    if called not in records:
        raise InputError(f"unknown id: {called!r}")
    record = records[called]
    return [_Found(called, place, view, score, raw.place) for place, score in _scores(row, record)]


def _scores(row: Row, record: Preference) -> list[tuple[int, float]]:
    sides = next((names for names in SIDE_NAMES if names[0] in row and names[1] in row), None)
    if sides is not None:
        best = [place for place, rank in enumerate(record.ranks) if rank == 0]
        rest = [place for place, rank in enumerate(record.ranks) if rank > 0]
        return [*_side(row, sides[0], best), *_side(row, sides[1], rest)]
    if row.get("scores") is not None:
        return _side(row, "scores", list(range(len(record.responses))))
    key = next((name for name in PLACE_NAMES if row.get(name) not in (None, "")), None)
    if key is None or "score" not in row:
        forms = " or ".join(" and ".join(names) for names in SIDE_NAMES[:2])
        raise InputError(f"no score: a row needs place and score, or {forms}, or scores")
    place = integer(row, key)
    if place is None or not 0 <= place < len(record.responses):
        raise InputError(f"unknown response: {record.id} has {len(record.responses)}, and number {place} is scored")
    return [(place, _number(row, "score"))]


def _side(row: Row, key: str, places: list[int]) -> list[tuple[int, float]]:
    value = row[key]
    try:
        given = items(row, key)
    except InputError:
        given = [value]
    if len(given) != len(places):
        raise InputError(f"wrong number of scores: {key} holds {len(given)}, and there are {len(places)} responses")
    named = {f"{key}[{at}]": each for at, each in enumerate(given)}
    return [(place, _number(named, name)) for place, name in zip(places, named, strict=True)]


def _number(row: Row, key: str) -> float:
    try:
        value = number(row, key)
    except InputError as error:
        raise InputError(f"no finite score: {error}") from error
    if value is None:
        raise InputError(f"no finite score: {key} is empty")
    return value


def _missing(records: Iterable[Preference], scores: Mapping[tuple[str, int, str], float]) -> list[BadRecord]:
    """Responses without a score, in every view in which their record has one, and in the plain one in any case."""
    views: dict[str, set[str]] = {}
    for record, _, view in scores:
        views.setdefault(record, {AS_IS}).add(view)
    return [
        BadRecord(record.id, f"missing: response {place} has no score" + ("" if view == AS_IS else f" ({view})"))
        for record in records
        for view in sorted(views.get(record.id, {AS_IS}))
        for place in range(len(record.responses))
        if (record.id, place, view) not in scores
    ]


def _listed(problems: Iterable[BadRecord]) -> str:
    found = list(problems)
    counts = count_reasons(problem.error for problem in found)
    first = {reason: next(problem for problem in found if reason_of(problem.error) == reason) for reason in counts}
    told = [
        f"{count} x {reason} (first: {first[reason].id}: {first[reason].error})"
        for reason, count in list(counts.items())[:_SHOWN]
    ]
    return "; ".join(told) or "it has no row"


def _score_row(record: Preference, place: int, view: str, score: float) -> ScoreRow:
    return ScoreRow(
        record=record.id,
        place=place,
        view=view,
        score=score,
        characters=len(record.responses[place].text),
        group=record.group,
        source=record.source,
        cluster=record.cluster,
    )
