"""Scores made elsewhere fit the records, or what does not is refused or counted, each by name."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probes.inputs import InputError
from rewardmodels.model import as_turns
from rewardmodels.preferences import Preferences
from rewardmodels.questioning import score_preferences
from rewardmodels.records import Preference, Response
from rewardmodels.score_files import read_scores
from rewardmodels.scores import AS_IS
from tests.rewardmodels.asked import by_length, drawn_preferences

Row = dict[str, Any]
PAIRS = {("a", 0): 1.5, ("a", 1): 2.0, ("b", 0): -1.0, ("b", 1): 0.0}


def two_records() -> Preferences:
    """In "a" the first response is the better one, in "b" the second."""
    prompt = as_turns("Q")
    words = Response("yes"), Response("no")
    records = Preference("a", prompt, words, (0, 1)), Preference("b", prompt, words, (1, 0))
    return Preferences(records, (), "sightcheck", "made here")


def write(path: Path, rows: list[Row]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def by_place() -> list[Row]:
    return [{"id": record, "place": place, "score": score} for (record, place), score in PAIRS.items()]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize(
    "rows",
    [
        by_place(),
        [{"record_id": "a", "chosen_score": 1.5, "rejected_score": 2.0},
         {"record_id": "b", "chosen_score": 0.0, "rejected_score": -1.0}],
    ],
)  # fmt: skip
def test_scores_find_their_responses(tmp_path: Path, kind: str, rows: list[Row]) -> None:
    found = read_scores(write(tmp_path / f"scores.{kind}", rows), two_records())
    assert found.under(AS_IS) == PAIRS and not found.problems
    assert found.scorer == f"scores.{kind}" and found.rows[0].characters == 3


def test_lists_hold_the_best_responses_and_the_others_in_the_records_order(tmp_path: Path) -> None:
    words = tuple(Response(word) for word in "abcd")
    record = Preference("r", as_turns("Q"), words, (1, 0, 1, 0))
    data = Preferences((record,), (), "sightcheck", "made here")
    sides = [{"id": "r", "score_chosen": [1, 2], "score_rejected": [3, 4]}]
    assert read_scores(write(tmp_path / "s.jsonl", sides), data).under(AS_IS) == {
        ("r", 1): 1.0, ("r", 3): 2.0, ("r", 0): 3.0, ("r", 2): 4.0,
    }  # fmt: skip
    whole = [{"id": "r", "scores": [5, 6, 7, 8]}]
    found = read_scores(write(tmp_path / "w.jsonl", whole), data).under(AS_IS)
    assert [found["r", place] for place in range(4)] == [5.0, 6.0, 7.0, 8.0]


def test_what_our_own_questions_save_is_read_again(tmp_path: Path) -> None:
    data = drawn_preferences(5)
    made = score_preferences(by_length, data, folder=tmp_path / "run", shard=4)
    for place in (tmp_path / "run" / "scores", tmp_path / "s.jsonl"):
        if place.suffix:
            made.write(place)
        found = read_scores(place, data)
        assert {view: found.under(view) for view in found.views} == {view: made.under(view) for view in made.views}


PROBLEMS: dict[str, tuple[list[Row], str]] = {
    "missing": (by_place()[:3], "1 x missing (first: b: missing: response 1 has no score)"),
    "duplicate": ([*by_place(), {"id": "a", "place": 1, "score": 2.0}], "1 x duplicate (first: a: duplicate: response "
                  "1 is scored twice, 2 both times)"),
    "unknown id": ([*by_place(), {"id": "c", "place": 0, "score": 1}], "1 x unknown id (first: s.jsonl line 5: unknown "
                   "id: 'c')"),
    "unknown response": ([*by_place(), {"id": "a", "place": 2, "score": 1}], "1 x unknown response"),
    "no finite score": ([*by_place()[1:], {"id": "a", "place": 0, "score": float("nan")}], "1 x no finite score"),
    "no id": ([*by_place(), {"place": 0, "score": 1}], "1 x no id (first: s.jsonl line 5"),
    "no score": ([*by_place(), {"id": "a", "text": "yes"}], "1 x no score"),
    "wrong number of scores": ([*by_place(), {"id": "a", "scores": [1]}], "1 x wrong number of scores"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PROBLEMS)
def test_what_does_not_fit_is_refused_by_name_or_counted(tmp_path: Path, kind: str) -> None:
    rows, told = PROBLEMS[kind]
    path = write(tmp_path / "s.jsonl", rows)
    with pytest.raises(InputError) as refused:
        read_scores(path, two_records())
    assert told in str(refused.value) and "s.jsonl does not fit these 2 records" in str(refused.value)
    found = read_scores(path, two_records(), skip=True)
    assert any(problem.error.startswith(kind) for problem in found.problems)
    lost = {"missing": ("b", 1), "no finite score": ("a", 0)}.get(kind)
    assert found.under(AS_IS) == {key: score for key, score in PAIRS.items() if key != lost}


def test_of_scores_that_contradict_each_other_none_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", [*by_place(), {"id": "a", "place": 1, "score": 9.0}])
    found = read_scores(path, two_records(), skip=True)
    assert found.under(AS_IS) == {key: score for key, score in PAIRS.items() if key != ("a", 1)}
    assert [problem.error for problem in found.problems] == [
        "duplicate: response 1 is scored twice, 2 and 9",
        "missing: response 1 has no score",
    ]


def test_files_without_any_usable_score_are_refused_even_where_problems_are_counted(tmp_path: Path) -> None:
    for rows in ([{"id": "x", "place": 0, "score": 1}], [{"text": "yes"}]):
        with pytest.raises(InputError, match="holds no usable score of these 2 records"):
            read_scores(write(tmp_path / "s.jsonl", rows), two_records(), skip=True)
    with pytest.raises(InputError, match="does not exist: give the file"):
        read_scores(tmp_path / "none.jsonl", two_records())
    (tmp_path / "broken.jsonl").write_text("{")
    with pytest.raises(InputError, match="unreadable row"):
        read_scores(tmp_path / "broken.jsonl", two_records())


def test_a_view_that_a_record_has_must_be_whole(tmp_path: Path) -> None:
    rows = [*by_place(), {"id": "a", "place": 0, "score": 1, "view": "blank"}]
    with pytest.raises(InputError, match=r"1 x missing .*response 1 has no score \(blank\)"):
        read_scores(write(tmp_path / "s.jsonl", rows), two_records())
