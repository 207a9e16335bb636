import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probes.inputs import InputError
from probes.reading import hub
from studies.multi_image import Questions, read_questions
from tests.studies import published
from tests.studies.published import png


def colours(questions: Questions, place: int = 0) -> list[str]:
    found = []
    for image in questions.records[place].images:
        name = next(colour for colour in published.COLOURS if png(colour) == image.read())
        found.append(name)
    return found


def test_own_rows_with_images_in_a_zip(tmp_path: Path) -> None:
    read = read_questions(
        published.own(tmp_path, [published.own_row(), published.own_row("c", choices=["image 1", "x"])])
    )
    assert (read.format, read.bad) == ("sightcheck", ())
    assert "file questions.jsonl; format sightcheck: rows with id" in read.why
    first, second = read.records
    assert (first.id, first.answer, first.target, first.task, first.split) == ("a", "image 1", 0, "content", "dev")
    assert (first.boxes, first.base, first.cluster, first.meta) == (((0.0, 0.0, 2.0, 2.5),), "b", "b", {"size": 4})
    assert (first.scoring, second.scoring) == ("exact", "choice")
    assert colours(read) == ["red", "blue"]


def test_stme(tmp_path: Path) -> None:
    rows = [
        published.stme_row(),
        published.stme_row(dataset_name="CM", context="<ImageHere><ImageHere>Which is blue?", response=2),
        published.stme_row(
            dataset_name="ImageNeedleInAHaystack", context="{image#1}{image#2}The word?", response="a b"
        ),
        published.stme_row(
            dataset_name="GPR1200",
            context="<ImageHere><ImageHere>?\nChoice list: \none\ntwo\nYour answer is: ",
            response="two",
        ),
    ]
    read = read_questions(published.stme(tmp_path, rows))
    assert (read.format, read.bad) == ("stme", ())
    first, caption, needle, retrieval = read.records
    assert (first.id, first.task, first.target, first.choices) == ("TQA-1", "TQA", 1, ("red", "blue"))
    assert first.question.count("<image>") == 2
    assert first.question.endswith("Your answer is: ")
    assert colours(read) == ["red", "blue"]
    assert [record.scoring for record in read.records] == ["choice", "caption", "contains", "choice"]
    assert (caption.answer, needle.answer, retrieval.choices) == ("2", "a b", ("one", "two"))


def test_milebench_folders(tmp_path: Path) -> None:
    read = read_questions(published.milebench(tmp_path))
    assert (read.format, read.bad) == ("milebench", ())
    record = read.records[0]
    assert record.question == "Read.\n<image> and <image>: which?\nChoice list:\nA. red\nB. blue"
    assert (record.id, record.target, record.choices) == ("TQA-0", None, ("red", "blue"))
    assert colours(read) == ["red", "blue"]


def test_blink_folder_takes_the_split_with_answers(tmp_path: Path) -> None:
    read = read_questions(published.blink(tmp_path / "BLINK"))
    assert (read.format, read.bad) == ("blink", ())
    assert [record.id for record in read.records] == ["val_Counting_1", "val_Jigsaw_1"]
    assert "split val, 2 rows of other splits left out" in read.why
    assert (read.records[0].choices, read.records[0].answer) == (("1", "12"), "(A)")
    assert read.records[0].question.startswith("How many? Select")
    assert colours(read) == ["red", "green"]
    hidden = read_questions(tmp_path / "BLINK", split="test")
    assert len(hidden.records) == 0
    assert "hidden: read the split val" in hidden.bad[0].error


def test_muirbench(tmp_path: Path) -> None:
    read = read_questions(published.muirbench(tmp_path))
    assert (read.format, read.bad) == ("muirbench", ())
    record = read.records[0]
    assert (
        record.question == "Which of these shows <image>?\n(A) <image>\n(B) <image>\n(C) None of the choices provided"
    )
    assert (record.base, record.answer, record.meta["image_type"]) == ("0+7", "B", "Slides")
    assert colours(read) == ["red", "blue", "red"]


def test_mirb(tmp_path: Path) -> None:
    read = read_questions(published.mirb(tmp_path))
    assert (read.format, read.bad) == ("mirb", ())
    count, food = read.records
    assert (count.id, count.task, count.answer, count.scoring) == ("count-1", "count", "3", "exact")
    assert count.question == "Answer with a single number. How many?"
    assert food.scoring == "choice"


def test_mirb_annotations_with_images_in_a_zip(tmp_path: Path) -> None:
    read = read_questions(published.mirb_annotations(tmp_path))
    assert (read.format, read.bad) == ("mirb-annotations", ())
    assert (read.records[0].task, read.records[0].answer) == ("count", "3")
    assert colours(read) == ["red", "blue"]


def test_vlmevalkit(tmp_path: Path) -> None:
    read = read_questions(published.vlmevalkit(tmp_path))
    assert (read.format, read.bad) == ("vlmevalkit", ())
    single, pair, pointing = read.records
    assert single.question == "Which?\n(A) red\n(B) blue"
    assert (single.task, single.split, single.meta) == ("colour", "dev", {"l2-category": "perception"})
    assert (pair.scoring, pair.choices, colours(read, 1)) == ("exact", (), ["red", "blue"])
    assert pointing.question.startswith("Look.\nAgain?")
    assert colours(read, 2) == ["red"]


def test_vlmevalkit_with_paths(tmp_path: Path) -> None:
    published.save_images(tmp_path / "pictures", "red", "blue")
    rows = [
        {"index": 1, "image_path": "pictures/red.png", "question": "?", "answer": "x"},
        {"index": 2, "image_path": "['pictures/red.png', 'pictures/blue.png']", "question": "?", "answer": "x"},
    ]
    read = read_questions(published.write_tsv(tmp_path / "a.tsv", rows))
    assert read.bad == ()
    assert colours(read, 1) == ["red", "blue"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (published.own_row(images=["images.zip/red.png", "images.zip/none.png"]), "image 2: .*none.png does not exist"),
        (published.own_row(images=["images.zip/red.png"]), "2 <image> marks for 1 image"),
        (published.own_row(images=[], question="What?"), "no image"),
        (published.own_row(images="x"), "images must be a list"),
        (published.own_row(images=[3, None]), "image 1: cannot take a int"),
        (published.own_row(question=" "), "question is empty"),
        (published.own_row(question=["x"]), "question must be text"),
        (published.own_row(answer=""), "answer is empty"),
        (published.own_row(answer=None), "answer is missing"),
        (published.own_row(answer=True), "answer must be text"),
        (published.own_row(target=2), "target, counted from 0, is 2, and there are 2"),
        (published.own_row(target=-1), "target, counted from 0, is -1"),
        (published.own_row(target=True), "target must be a whole number"),
        (published.own_row(target=0.5), "target must be a whole number"),
        (published.own_row(boxes=[[0, 0, 0, 1]]), "is empty"),
        (published.own_row(boxes=[[0, 0, 1]]), "not four numbers"),
        (published.own_row(target=None), "no target image"),
        (published.own_row(scoring="magic"), "'magic' is none of"),
        (published.own_row(choices=["x", "y"]), "'image 1' is none of the choices 'x', 'y'"),
        (published.own_row(meta=[1]), "meta must be a mapping"),
        (published.own_row(id=""), "id is empty"),
        (published.own_row("first"), "already taken"),
        (published.own_row(question="\ud800"), "not valid Unicode"),
        ("{", "not JSON"),
        ("[1]", "not a mapping"),
        ("[" * 100_000, "not JSON"),
        ({}, "id is missing"),
    ],
)
def test_a_bad_row_is_named_and_the_rest_go_on(tmp_path: Path, row: Any, reason: str) -> None:
    path = published.own(tmp_path, [published.own_row("first"), row, published.own_row("last")])
    read = read_questions(path)
    assert [record.id for record in read.records] == ["first", "last"]
    assert len(read.bad) == 1
    assert read.bad[0].error.startswith("questions.jsonl line 2: ")
    assert len(read.bad[0].error) < 600
    assert re.search(reason, read.bad[0].error), read.bad[0].error


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"target_id": 0}, "counts from 1 and is 0"),
        ({"target_id": 3}, "counted from 0, is 2"),
        ({"raw_img_list": ["red.png", "gone.png"]}, "gone.png does not exist"),
        ({"context": "<ImageHere> only"}, "1 <image> mark for 2 images"),
    ],
)
def test_bad_stme_rows(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    read = read_questions(published.stme(tmp_path, [published.stme_row(), published.stme_row(sample_id=2, **changes)]))
    assert len(read.records) == 1
    assert reason in read.bad[0].error


def test_bad_blink_and_vlmevalkit_rows(tmp_path: Path) -> None:
    gap = published.blink_row(image_1=None)
    gap["image_2"] = "x"
    (tmp_path / "blink.json").write_text(json.dumps([{**gap, "image_3": None, "image_4": None}]))
    assert "missing before another" in read_questions(tmp_path / "blink.json").bad[0].error
    rows = [
        {"index": 1, "image": "2", "question": "?", "A": "a", "C": "c", "answer": "A"},
        {"index": 2, "image": "9", "question": "?", "A": "a", "C": "", "answer": "A"},
        {"index": 3, "image": "", "question": "?", "A": "", "C": "", "answer": "A"},
        {"index": 4, "image": published.encoded("red"), "question": "?", "A": "", "C": "", "answer": ""},
    ]
    errors = [bad.error for bad in read_questions(published.write_tsv(tmp_path / "a.tsv", rows)).bad]
    for error, reason in zip(
        errors, ("one between them is missing", "which holds none", "no image", "empty"), strict=True
    ):
        assert reason in error


def test_a_quotation_mark_left_open_is_told_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    good = f"1\t{published.encoded('red')}\tWhich?\tx\n"
    path.write_text(f'index\timage\tquestion\tanswer\n{good}2\tred.png\t"What?\tx\n3\tred.png\tHow?\tx\n')
    read = read_questions(path)
    assert [record.id for record in read.records] == ["1"]
    assert [bad.error.split(": ")[0] for bad in read.bad] == ["a.tsv lines 3 to 4"]


def test_a_folder_says_what_it_left_out_and_which_file_is_broken(tmp_path: Path) -> None:
    published.own(tmp_path, [published.own_row()])
    (tmp_path / "notes.csv").write_text("a,b\n")
    assert "1 .jsonl files; left out 1 of other kinds (.csv)" in read_questions(tmp_path).why
    folder = published.blink(tmp_path / "BLINK")
    (folder / "Jigsaw" / "val-00000-of-00001.parquet").write_bytes(b"PAR1 no")
    read = read_questions(folder)
    assert len(read.records) == 1
    assert "Jigsaw/val-00000-of-00001.parquet" in read.bad[0].error


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", "x", "ends in .txt"),
        ("a.json", "{", "not JSON"),
        ("a.json", "{}", "under 'data'"),
        ("a.json", "3", "list of rows"),
        ("a.json", "[]", "holds no row"),
        ("a.jsonl", "", "holds no row"),
        ("a.jsonl", "{\n{\n", "no row can be read; the first, a.jsonl line 1"),
        ("a.jsonl", '{"colour": 1}\n', "no known format: its columns are colour; known formats: sightcheck"),
        ("a.tsv", "", "is empty"),
        ("a.parquet", "PAR1", "not a readable Parquet"),
    ],
)
def test_a_file_that_cannot_be_used_at_all(tmp_path: Path, name: str, content: str, reason: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=reason):
        read_questions(tmp_path / name)


def test_wrong_places_formats_and_splits(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_questions(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="does not exist"):
        read_questions("data/none.jsonl")
    with pytest.raises(InputError, match=r"holds no \.jsonl"):
        read_questions(tmp_path)
    path = published.own(tmp_path, [published.own_row()])
    with pytest.raises(InputError, match="known: sightcheck, stme"):
        read_questions(path, format="magic")
    with pytest.raises(InputError, match="no question in the split 'test'; its splits: dev"):
        read_questions(path, split="test")
    assert len(read_questions(path, format="stme").bad) == 1


class TestHub:
    """The library's own code path, on a local folder laid out as on the hub."""

    @pytest.mark.parametrize("streaming", [True, False])
    def test_every_configuration_is_read(
        self, tmp_path: Path, streaming: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
        folder = published.blink(tmp_path / "BLINK")
        source = hub.read_hub(str(folder), split="val", streaming=streaming)
        assert [row.values["idx"] for row in source.rows] == ["val_Counting_1", "val_Jigsaw_1"]
        assert [row.source for row in source.rows] == ["Counting", "Jigsaw"]
        assert "Counting/val, Jigsaw/val" in source.why
        one = hub.read_hub(str(folder), subset="Jigsaw", streaming=streaming, preferred=("val",))
        assert len(one.rows) == 1
        assert isinstance(one.rows[0].values["image_1"]["bytes"], bytes)

    def test_images_stay_encoded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets

        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
        features = datasets.Features({"image": datasets.Image(), "image_list": datasets.List(datasets.Image())})
        image = {"bytes": png("red"), "path": None}
        data = datasets.Dataset.from_list([{"image": image, "image_list": [image, image]}], features=features)
        (tmp_path / "data").mkdir()
        data.to_parquet(tmp_path / "data" / "test.parquet")
        row = hub.read_hub(str(tmp_path / "data")).rows[0]
        assert row.values["image"]["bytes"] == png("red")
        assert [inner["bytes"] for inner in row.values["image_list"]] == [png("red")] * 2

    def test_an_id_is_handed_to_the_library(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets

        folder = str(published.blink(tmp_path / "BLINK"))
        for name in ("load_dataset", "get_dataset_config_names", "get_dataset_split_names"):
            monkeypatch.setattr(datasets, name, _redirected(getattr(datasets, name), "owner/BLINK", folder))
        read = read_questions("owner/BLINK", subset="Jigsaw")
        assert [record.id for record in read.records] == ["val_Jigsaw_1"]
        assert "data set owner/BLINK through `datasets`: Jigsaw/val" in read.why

    def test_what_the_library_raises_becomes_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot be read: ") as caught:
            hub.read_hub(str(tmp_path / "none"))
        assert "\n" not in str(caught.value)

    def test_several_splits_and_none_preferred(self) -> None:
        with pytest.raises(InputError, match="has the splits a, b: choose one"):
            hub._choose(["a", "b"], ("test",), "x")
        assert hub._choose(["a"], ("test",), "x") == "a"


def _redirected(function: Callable[..., Any], name: str, folder: str) -> Callable[..., Any]:
    def call(given: str, *rest: Any, **named: Any) -> Any:
        assert given == name
        return function(folder, *rest, **named)

    return call
