"""Data sets to train on, and our own lines: what becomes of a row as published, and of one that is broken."""

import json
from pathlib import Path
from typing import Any

import pytest

from probes.inputs import Turn
from rewardmodels import Preference, Response, read_preferences
from tests.rewardmodels import published
from tests.rewardmodels.published import save_images, write_json, write_parquet
from tests.rewardmodels.reading import ASKED, RED, TWO, at, lines, only, reason, with_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_images(tmp_path)


class TestOwn:
    def test_everything_is_read(self, folder: Path) -> None:
        record = only(lines(folder, published.own_row()))
        assert record == Preference(
            id="a",
            prompt=(
                Turn("system", "Be brief."),
                Turn("user", "1 <image> 2 <image> Which is red?", (at(folder, "red.png"), at(folder, "blue.png"))),
            ),
            responses=(
                Response("The second.", model="small"),
                Response("The first.", model="large", score=4.5),
                Response("Neither."),
            ),
            ranks=(1, 0, 1),
            target=0,
            boxes=((0.0, 0.0, 2.0, 2.5),),
            group="colour",
            source="made",
            base="b",
            margin=0.5,
            weight=2.0,
            meta={"size": 4},
        )

    def test_a_prompt_may_be_a_text(self, folder: Path) -> None:
        row = {"id": "a", "prompt": ASKED, "images": ["red.png"], "responses": ["Red.", "Blue."], "ranks": [0, 1]}
        record = only(lines(folder, row))
        assert record.prompt == (Turn("user", ASKED, (at(folder, "red.png"),)),)
        assert record.responses == TWO

    @pytest.mark.parametrize(
        ("changes", "wanted"),
        [
            ({"id": None}, "id is missing"),
            ({"responses": ["", "a", "b"]}, "a response is empty"),
            ({"responses": ["a b", "a  b ", "c"]}, "say the same"),
            ({"responses": ["a", "b <image>", "c"]}, "1 <image> mark for 0 images"),
            ({"prompt": "<image>"}, "1 <image> mark for 0 images"),
            ({"prompt": [{"role": "user", "text": "a", "images": ["none.png"]}]}, "none.png does not exist"),
            ({"images": ["red.png"]}, "images beside a prompt of turns"),
            ({"ranks": [0, None, 1]}, "ranks[1] is missing"),
            ({"ranks": "first"}, "ranks must be a list"),
            ({"weight": "heavy"}, "weight must be a finite number"),
            ({"weight": -1}, "from 0 on"),
        ],
    )
    def test_bad_rows(self, folder: Path, changes: dict[str, Any], wanted: str) -> None:
        assert wanted in reason(lines(folder, published.own_row(**changes)))


class TestVLFeedback:
    @pytest.mark.parametrize("as_lists", [True, False])
    def test_responses_are_ranked_by_the_mean_and_what_is_no_number_is_told(self, folder: Path, as_lists: bool) -> None:
        read = lines(folder, published.vlfeedback_row(as_lists))
        record = only(read)
        assert record.prompt == (Turn("user", ASKED, (at(folder, "red.png"),)),)
        assert [response.model for response in record.responses] == ["model-0", "model-1", "model-2"]
        assert [response.score for response in record.responses] == pytest.approx([13 / 3, 5, 13 / 3])
        assert record.ranks == (1, 0, 1)
        assert [pair.id for pair in read.pairs()] == ["LRV-1#1-0", "LRV-1#1-2"]
        assert read.ties == 1
        (skipped,) = read.skipped
        assert skipped.id == "LRV-1" and "model-3: its rating for Ethical Considerations is 'N/A'" in skipped.error
        assert "1 tied pairs left out; 1 responses not ranked, such as LRV-1" in read.why
        assert "2 pairs, 1 tie, 1 rating skipped" in repr(read)

    @pytest.mark.parametrize("rating", ["N/A", "", None, "nan", "inf", True, [], "5 of 5"])
    def test_ratings_that_are_no_number(self, folder: Path, rating: Any) -> None:
        ratings = (("5", "5", "5"), ("4", "4", "4"), (rating, "5", "5"))
        read = lines(folder, published.vlfeedback_row(False, ratings))
        assert only(read).ranks == (0, 1)
        assert len(read.skipped) == 1

    def test_numbers_as_numbers(self, folder: Path) -> None:
        read = lines(folder, published.vlfeedback_row(True, ((4, 5, 5.5), (3, 3, 3))))
        assert [response.score for response in only(read).responses] == pytest.approx([14.5 / 3, 3])

    def test_the_order_of_ratings_breaks_no_tie(self, folder: Path) -> None:
        assert sum((0.1, 0.2, 0.3)) != sum((0.3, 0.2, 0.1))
        read = lines(folder, published.vlfeedback_row(True, (("0.1", "0.2", "0.3"), ("0.3", "0.2", "0.1"))))
        assert only(read).ties == 1

    def test_a_row_of_ties_alone_is_kept_and_counted(self, folder: Path) -> None:
        read = lines(folder, published.vlfeedback_row(True, (("1", "2", "3"), ("2", "2", "2"))))
        assert only(read).ranks == (0, 0)
        assert (read.ties, read.pairs()) == (1, ())

    def test_the_same_words_rated_differently_are_left_out(self, folder: Path) -> None:
        row = published.vlfeedback_row(True, (("5", "5", "5"), ("4", "4", "4"), ("3", "3", "3"), ("2", "2", "2")))
        row["completions"]["response"][2] = " answer  0"
        read = lines(folder, row)
        assert [response.text for response in only(read).responses] == ["answer 1", "answer 3"]
        assert [record.error.split(":")[0] for record in read.skipped] == ["model-0", "model-2"]

    @pytest.mark.parametrize(
        ("change", "wanted"),
        [
            (lambda row: row["completions"]["response"].pop(), "4 annotations, 3 responses and 4 models"),
            (lambda row: row.update(completions=None), "0 of 0 responses"),
            (lambda row: row.update(completions="none"), "completions must be a list"),
            (lambda row: row.update(completions=[1, 2]), "a completion is a int"),
            (lambda row: row.update(img_path=None), "img_path is missing"),
            (lambda row: row.update(img_path="gone.png"), "gone.png does not exist"),
        ],
    )
    def test_bad_rows(self, folder: Path, change: Any, wanted: str) -> None:
        row = published.vlfeedback_row(True)
        change(row)
        assert wanted in reason(lines(folder, row))

    def test_too_few_that_can_be_ranked(self, folder: Path) -> None:
        read = lines(folder, published.vlfeedback_row(True, (("5", "5", "5"), ("N/A", "1", "1"))))
        assert "1 of 2 responses can be ranked" in reason(read) and "'N/A'" in reason(read)

    def test_an_empty_response_is_told(self, folder: Path) -> None:
        row = published.vlfeedback_row(True)
        row["completions"]["response"][0] = "  "
        read = lines(folder, row)
        assert only(read).ranks == (0, 1)
        assert any("a response is empty" in record.error for record in read.skipped)


class TestGeneralizable:
    def test_pairs(self, folder: Path) -> None:
        read = lines(folder, published.generalizable_row())
        assert (read.format, only(read).responses) == ("generalizable-mm-rm", TWO)
        assert only(read).id == "rows.jsonl line 1"
        assert only(read).images == (at(folder, "images/red.png"),)
        assert "taken by the last parts of the path" in read.why

    def test_completions_are_read_under_its_name_too(self, folder: Path) -> None:
        read = lines(folder, published.vlfeedback_row(True), format="generalizable-mm-rm")
        assert only(read).ranks == (1, 0, 1)


class TestRLHFV:
    @pytest.mark.parametrize("text", [None, json.dumps, dict])
    @pytest.mark.parametrize("name", ["RLHF-V", "RLAIF-V"])
    def test_all_forms(self, folder: Path, text: Any, name: str) -> None:
        path = write_parquet(folder / "train.parquet", [published.rlhf_v_row(text, ds_name=name)])
        read = read_preferences(path)
        record = only(read)
        assert read.format == ("rlaif-v" if name == "RLAIF-V" and text is None else "rlhf-v")
        assert record.prompt == (Turn("user", ASKED, (RED,)),)
        assert (record.id, record.responses, record.group) == ("7", TWO, "vqav2")
        assert (record.source, record.cluster) == (name, "coco/red.png")

    def test_without_a_name_columns_are_read_as_they_are(self, folder: Path) -> None:
        row = published.rlhf_v_row()
        del row["ds_name"]
        read = read_preferences(write_parquet(folder / "flat.parquet", [row]))
        assert (read.format, only(read).source) == ("rlaif-v", "flat")

    @pytest.mark.parametrize(
        ("row", "wanted"),
        [
            ({"image": "red.png", "text": "{'question': 'a'}"}, "not JSON"),
            ({"image": "red.png", "text": '{"question": "a", "chosen": "b"}'}, "rejected is missing"),
            ({"image": None, "question": "a", "chosen": "b", "rejected": "c"}, "image is missing"),
            ({"image": "red.png", "question": "a", "chosen": "b", "rejected": "b\n"}, "say the same"),
            ({"image": "red.png", "question": "a", "chosen": "b", "rejected": ""}, "a response is empty"),
        ],
    )
    def test_bad_rows(self, folder: Path, row: dict[str, Any], wanted: str) -> None:
        assert wanted in reason(lines(folder, row))


class TestPOVID:
    def test_conversations_and_their_twins(self, tmp_path: Path) -> None:
        save_images(tmp_path / "coco" / "train2014", "red")
        again = [{"from": "human", "value": "<image>\nAnd now?"}, {"from": "gpt", "value": "Red."}]
        twin = [again[0], {**again[1], "value": "No."}]
        other = published.povid_row(conversations=again, rejected_conversations=twin)
        read = read_preferences(write_json(tmp_path / "povid_version_1.json", [published.povid_row(), other]))
        assert read.bad == ()
        first, second = read.records
        assert first.prompt == (Turn("user", "<image>\nWhat is it?", (at(tmp_path, published.COCO),)),)
        assert first.responses == TWO
        assert (first.id, second.id) == ("000000033471", "000000033471~2")
        assert first.cluster == second.cluster == published.COCO
        assert "1 row under an id that is taken, such as 000000033471" in read.why

    def test_images_that_are_elsewhere(self, tmp_path: Path) -> None:
        path = write_json(tmp_path / "povid.json", [published.povid_row()])
        assert "does not exist" in reason(read_preferences(path))
        read = read_preferences(path, allow_missing_images=True)
        assert only(read).images == (at(tmp_path, published.COCO),)
        assert "1 image is not there and kept by name" in read.why

    def test_answers_that_differ_earlier(self, folder: Path) -> None:
        turns = [
            {"from": "human", "value": "<image>a"},
            {"from": "gpt", "value": "b"},
            {"from": "human", "value": "c"},
            {"from": "gpt", "value": "d"},
        ]
        twin = [turns[0], {"from": "gpt", "value": "x"}, *turns[2:]]
        row = published.povid_row(image="red.png", conversations=turns, rejected_conversations=twin)
        assert "must end the prompt with one answer" in reason(lines(folder, row))
