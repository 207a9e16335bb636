import csv
import json
import math
import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probes.inputs import ImageRef, InputError
from probes.reading.images import image_is_there, members_of
from studies.multi_image import (
    FORMATS,
    MultiImageQuestion,
    Questions,
    read_answers,
    read_questions,
    write_questions,
)
from studies.questions import Scoring
from tests.studies import published
from tests.studies.published import png

A, B = ImageRef(data=png("red")), ImageRef(data=png("blue"))


def question(**changes: Any) -> MultiImageQuestion:
    values: dict[str, Any] = {"id": "a", "question": "Which?", "images": (A, B), "answer": "x"}
    return MultiImageQuestion(**{**values, **changes})


class TestRecord:
    def test_it_is_its_own_cluster_without_a_base(self) -> None:
        assert question().cluster == "a"
        assert question(base="b").cluster == "b"
        assert len({question(), question(meta={"a": 1})}) == 2

    @pytest.mark.parametrize(
        "changes",
        [
            {"id": " "},
            {"question": ""},
            {"answer": ""},
            {"images": ()},
            {"question": "<image>"},
            {"target": 2},
            {"target": -1},
            {"scoring": "x"},
            {"boxes": ((0.0, 0.0, 1.0, 1.0),)},
            {"target": 0, "boxes": ((0.0, 0.0, math.nan, 1.0),)},
            {"target": 0, "boxes": ((1.0, 0.0, 1.0, 1.0),)},
        ],
    )
    def test_nothing_unusable_is_one(self, changes: dict[str, Any]) -> None:
        with pytest.raises(InputError):
            question(**changes)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: text.strip() != ""
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def records(draw: st.DrawFn) -> MultiImageQuestion:
    images = draw(
        st.lists(
            st.sampled_from([A, B]) | st.binary(min_size=1).map(lambda data: ImageRef(data=data)),
            min_size=1,
            max_size=3,
        )
    )
    words = draw(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>"), max_size=9))
    marks = draw(st.booleans())
    target = draw(st.none() | st.integers(0, len(images) - 1))
    left, top = draw(st.floats(-1e6, 1e6)), draw(st.floats(-1e6, 1e6))
    choices = tuple(draw(st.lists(st.sampled_from(["cat", "dog", "sun"]), max_size=3, unique=True)))
    scoring: Scoring = draw(st.sampled_from(get_args(Scoring)))
    return MultiImageQuestion(
        id=draw(TEXT),
        question=f"{'<image>' * len(images) if marks else ''}Q{words}",
        images=tuple(images),
        answer=draw(TEXT) if scoring != "choice" else draw(st.sampled_from(choices or ("A", "(B)"))),
        target=target,
        task=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=4)),
        split=draw(st.sampled_from(["dev", "test"])),
        choices=choices,
        boxes=() if target is None else ((left, top, left + 1.5, top + 2),),
        base=draw(st.none() | TEXT),
        scoring=scoring,
        meta=draw(st.dictionaries(TEXT, PLAIN, max_size=2)),
    )


@given(st.lists(records(), min_size=1, max_size=4, unique_by=lambda record: record.id))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_records_come_back_from_our_own_lines(written: list[MultiImageQuestion]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "questions.jsonl"
        write_questions(path, written)
        read = read_questions(path)
    assert read.bad == ()
    assert list(read) == written


def test_paths_are_written_relative_to_the_file(tmp_path: Path) -> None:
    published.own(tmp_path, [published.own_row()])
    first = read_questions(tmp_path / "questions.jsonl")
    write_questions(tmp_path / "again.jsonl", first.records)
    assert json.loads((tmp_path / "again.jsonl").read_text())["images"][0] == "images.zip/red.png"
    assert read_questions(tmp_path / "again.jsonl").records == first.records
    (tmp_path / "sub").mkdir()
    write_questions(tmp_path / "sub" / "far.jsonl", first.records)
    assert read_questions(tmp_path / "sub" / "far.jsonl").records == first.records


def test_what_json_cannot_say_is_not_half_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="record a cannot"):
        write_questions(tmp_path / "a.jsonl", [question(meta={"a": object()})])
    assert not list(tmp_path.iterdir())


KEYS = (
    *("id", "question", "images", "answer", "target", "choices", "boxes", "meta", "scoring", "split", "base", "task"),
    *("dataset_name", "sample_id", "context", "raw_img_list", "target_id", "response", "task_instance"),
    *(
        "image_1",
        "image_2",
        "prompt",
        "options",
        "image_list",
        "questions",
        "answers",
        "subset",
        "idx",
        "counterpart_idx",
    ),
    *("index", "image", "image_path", "A", "B", "D", "hint", "category", "images_path", "choice_list", "context"),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["red.png", "images.zip/red.png", "data:image/png;base64,AA", "data:x", "[[[", "['a'", "/", ".", "../x"]
    )
    | st.sampled_from(["\ud800", "a\0b", "<image>", "x" * 5000, "~", "images.zip", "images.zip/", "[" * 3000, "1e400"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYS, "bytes", "path"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hostile")
    published.own(made, [])
    published.save_images(made, "red")
    return made


@given(
    rows=st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=9) | VALUES, min_size=1, max_size=4),
    format=st.sampled_from(FORMATS),
    kind=st.sampled_from([".json", ".jsonl"]),
)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_hostile_rows_become_bad_records_and_nothing_is_lost(
    folder: Path, rows: list[Any], format: str, kind: str
) -> None:
    path = folder / f"rows{kind}"
    path.write_text(json.dumps(rows) if kind == ".json" else "".join(f"{json.dumps(row)}\n" for row in rows))
    read = read_questions(path, format=format)
    assert len(read.records) + len(read.bad) == len(rows)
    assert all("\n" not in bad.error.split(": ")[0] and bad.id for bad in read.bad)


@given(
    st.binary(max_size=200), st.sampled_from([".json", ".jsonl", ".tsv", ".csv", ".parquet"]), st.sampled_from(FORMATS)
)
@settings(max_examples=200, deadline=None)
def test_hostile_bytes_raise_one_kind_of_error(folder: Path, content: bytes, kind: str, format: str) -> None:
    path = folder / f"bytes{kind}"
    path.write_bytes(content)
    try:
        read = read_questions(path, format=format)
    except InputError:
        return
    assert isinstance(read, Questions)


def test_images_in_memory_can_be_kept_on_disk(tmp_path: Path) -> None:
    path = published.muirbench(tmp_path)
    read = read_questions(path, keep_images_in=tmp_path / "kept")
    assert [image.data for image in read.records[0].images] == [None] * 3
    assert [image.digest for image in read.records[0].images] == [
        image.digest for image in read_questions(path).records[0].images
    ]
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_image_root(tmp_path: Path) -> None:
    published.save_images(tmp_path / "elsewhere", "red", "blue")
    path = published.write_lines(tmp_path / "a.jsonl", [published.own_row(images=["red.png", "blue.png"])])
    assert len(read_questions(path).bad) == 1
    assert len(read_questions(path, image_root=tmp_path / "elsewhere").records) == 1


def test_an_image_root_or_subset_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    path = published.own(tmp_path, [published.own_row()])
    with pytest.raises(InputError, match="nowhere is no folder"):
        read_questions(path, image_root=tmp_path / "nowhere")
    with pytest.raises(InputError, match="no subset 'Counting'"):
        read_questions(path, subset="Counting")


@pytest.mark.parametrize("given", ["/elsewhere/cats/red.png", "cats/red.png"])
def test_another_image_of_the_same_name_is_not_taken(given: str, tmp_path: Path) -> None:
    published.save_images(tmp_path, "red", "blue")
    path = published.write_lines(tmp_path / "a.jsonl", [published.own_row(images=[given, "blue.png"])])
    read = read_questions(path)
    assert [image.path for image in read.records[0].images] == [str(tmp_path / "red.png"), str(tmp_path / "blue.png")]
    assert f"1 image is not where the rows say and taken by the last parts of the path, such as {tmp_path}" in read.why

    published.save_images(tmp_path / "dogs", "red")
    read = read_questions(path)
    assert not read.records and given in read.bad[0].error
    assert "last parts" not in read.why


def test_a_longer_part_of_the_path_is_taken_and_said(tmp_path: Path) -> None:
    for folder in ("cats", "dogs"):
        published.save_images(tmp_path / folder, "red", "blue")
    images = ["/elsewhere/cats/red.png", "/elsewhere/dogs/red.png"]
    read = read_questions(published.write_lines(tmp_path / "a.jsonl", [published.own_row(images=images)]))
    found = [str(tmp_path / "cats" / "red.png"), str(tmp_path / "dogs" / "red.png")]
    assert [image.path for image in read.records[0].images] == found
    assert (
        f"2 images are not where the rows say and taken by the last parts of the path, such as {found[0]}" in read.why
    )


def test_repr_shows_counts_and_no_bytes(tmp_path: Path) -> None:
    read = read_questions(published.own(tmp_path, [published.own_row(), {}]))
    assert repr(read) == "Questions(1 records, 1 bad, format 'sightcheck', tasks: content)"
    assert len(read) == 1


def test_members_of_a_broken_archive(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no")
    with pytest.raises(InputError, match="cannot be read"):
        members_of(tmp_path / "a.zip")
    path = published.write_lines(tmp_path / "a.jsonl", [published.own_row(images=["a.zip/x.png", "a.zip/y.png"])])
    assert "archive" in read_questions(path).bad[0].error
    assert image_is_there(A)


class TestAnswers:
    def test_every_container(self, tmp_path: Path) -> None:
        rows = [{"id": "a", "answer": "x, y"}, {"id": "2", "answer": "z"}]
        wanted = {"a": "x, y", "2": "z"}
        published.write_lines(tmp_path / "a.jsonl", rows)
        (tmp_path / "a.json").write_text(json.dumps(rows))
        (tmp_path / "b.json").write_text(json.dumps(wanted))
        for kind, separator in (("csv", ","), ("tsv", "\t")):
            with (tmp_path / f"a.{kind}").open("w", newline="") as file:
                writer = csv.DictWriter(file, ["id", "answer"], delimiter=separator)
                writer.writeheader()
                writer.writerows(rows)
        for name in ("a.jsonl", "a.json", "b.json", "a.csv", "a.tsv"):
            assert read_answers(tmp_path / name) == wanted

    def test_other_peoples_names(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        published.write_lines(path, [{"index": 3, "answer": "the right one", "prediction": 4}])
        assert read_answers(path) == {"3": "4"}
        published.write_lines(path, [published.stme_row(answer="red")])
        assert read_answers(path) == {"TQA-1": "red"}

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("a.jsonl", '{"id": "a", "answer": "x"}\n{"id": "a", "answer": "y"}\n', "line 2: the id 'a' comes twice"),
            ("a.jsonl", '{"id": "a"}\n', "none of prediction, answer"),
            ("a.jsonl", '{"answer": "a"}\n', "none of id"),
            ("a.jsonl", '{"id": "a", "answer": null}\n', "answer is missing"),
            ("a.jsonl", '{"id": "", "answer": "x"}\n', "id is empty"),
            ("a.jsonl", "{\n", "line 1: not JSON"),
            ("a.jsonl", "", "no prediction"),
            ("a.json", "{", "not JSON"),
            ("a.json", "{}", "no prediction"),
            ("a.json", '{"a": [1]}', "a must be text"),
            ("a.tsv", "id\tanswer\na\n", "1 fields under 2 columns"),
            ("a.txt", "x", "ends in .txt"),
        ],
    )
    def test_a_wrong_file(self, tmp_path: Path, name: str, content: str, reason: str) -> None:
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=reason):
            read_answers(tmp_path / name)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="does not exist"):
            read_answers(tmp_path)
