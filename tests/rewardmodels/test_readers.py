"""Every published format: what becomes of a row as its authors lay it out, and of one that is broken."""

import json
from pathlib import Path
from typing import Any

import pytest

from probes.inputs import ImageRef, Turn
from rewardmodels import Preference, Preferences, Response, read_preferences
from rewardmodels.readers.multimodal_rewardbench import MISPAIRED
from tests.rewardmodels import published
from tests.rewardmodels.published import png, save_images, write_json, write_lines, write_parquet, write_tsv

RED = ImageRef(data=png("red"))
ASKED = "What is it?"
TWO = (Response("Red."), Response("Blue."))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_images(tmp_path, "red", "blue")
    save_images(tmp_path / "images", "red", "blue")
    return tmp_path


def lines(folder: Path, *rows: Any, format: str | None = None, **options: Any) -> Preferences:
    return read_preferences(write_lines(folder / "rows.jsonl", list(rows)), format, **options)


def only(read: Preferences) -> Preference:
    assert read.bad == ()
    (record,) = read.records
    return record


def reason(read: Preferences) -> str:
    assert not read.records
    (bad,) = read.bad
    return bad.error


def at(folder: Path, name: str) -> ImageRef:
    return ImageRef(path=str(folder / name))


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
            ({"responses": ["a", "b <image>", "c"]}, "1 <image> marks and 0 images"),
            ({"prompt": "<image>"}, "1 <image> marks and 0 images"),
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
        assert "2 pairs, 1 ties, 1 ratings skipped" in repr(read)

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
        assert "1 rows repeat an id, such as 000000033471" in read.why

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


IMAGE = {"type": "image"}


class TestTRL:
    def test_explicit_prompt_in_blocks(self, folder: Path) -> None:
        record = only(read_preferences(write_parquet(folder / "trl.parquet", [published.trl_row()])))
        assert record.prompt == (Turn("user", ASKED, (RED,)),)
        assert record.responses == TWO
        assert record.source == "trl"

    @pytest.mark.parametrize("content", [ASKED, [IMAGE, {"type": "text", "text": ASKED}], f"<image>{ASKED}"])
    def test_implicit_prompt(self, folder: Path, content: Any) -> None:
        row = published.implicit_row(content, image="red.png", margin=0.25)
        record = only(lines(folder, row))
        words = content if isinstance(content, str) else ASKED
        assert record.prompt == (Turn("system", "Be brief."), Turn("user", words, (at(folder, "red.png"),)))
        assert record.responses == TWO
        assert record.margin == 0.25

    def test_a_text_as_prompt_beside_conversations_is_no_prompt(self, folder: Path) -> None:
        row = published.implicit_row(image="red.png", prompt=ASKED)
        assert len(only(lines(folder, row)).prompt) == 2

    def test_images_stand_where_their_blocks_are(self, folder: Path) -> None:
        content = [{"type": "text", "text": "1 "}, IMAGE, {"type": "text", "text": " 2 "}, IMAGE]
        row = published.trl_row(images=["red.png", "blue.png"], prompt=[published.said("user", content)])
        (turn,) = only(lines(folder, row)).prompt
        assert turn == Turn("user", "1 <image> 2 <image>", (at(folder, "red.png"), at(folder, "blue.png")))

    def test_a_block_may_hold_its_image(self, folder: Path) -> None:
        content = [{"type": "image", "image": "blue.png"}, {"type": "text", "text": "a"}]
        chosen = [published.said("assistant", [{"type": "image", "image": "red.png"}])]
        row = published.trl_row(images=None, prompt=[published.said("user", content)], chosen=chosen)
        record = only(lines(folder, row))
        assert record.images == (at(folder, "blue.png"),)
        assert record.responses[0] == Response("", (at(folder, "red.png"),))

    def test_plain_texts_have_all_images_before_the_first_turn(self, folder: Path) -> None:
        prompt = [published.said(role, text) for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))]
        row = published.trl_row(images=["red.png", "blue.png"], prompt=prompt)
        first, _, last = only(lines(folder, row)).prompt
        assert (len(first.images), len(last.images)) == (2, 0)

    def test_texts_without_conversation(self, folder: Path) -> None:
        read = lines(folder, {"prompt": ASKED, "chosen": "Red.", "rejected": "Blue.", "images": ["red.png"]})
        assert (read.format, only(read).responses) == ("trl", TWO)

    @pytest.mark.parametrize(
        ("changes", "wanted"),
        [
            ({"images": []}, "0 images and 1 placeholders"),
            ({"images": ["red.png", "blue.png"]}, "2 images and 1 placeholders"),
            ({"prompt": [published.said("user", published.words("a"))]}, "1 images and 0 placeholders"),
            ({"prompt": [published.said("user", "<image> <image>")]}, "2 <image> marks and 1 images"),
            ({"prompt": [published.said("assistant", "a")]}, "no user's turn"),
            ({"prompt": [published.said("tool", "a")]}, "message by 'tool'"),
            ({"prompt": [published.said("user", [{"type": "video"}])]}, "1 images and 0 placeholders"),
            ({"images": None, "prompt": [published.said("user", [{"type": "video"}])]}, "kind 'video'"),
            ({"chosen": [published.said("assistant", [IMAGE])]}, "placeholder (<image>) without an image"),
            ({"chosen": [published.said("user", "a")]}, "one answer by the assistant, and goes on with user"),
            ({"chosen": [published.said("assistant", "Blue. ")]}, "say the same"),
            ({"chosen": [published.said("assistant", "")]}, "a response is empty"),
            ({"margin": "wide"}, "margin must be a finite number"),
        ],
    )
    def test_bad_rows(self, folder: Path, changes: dict[str, Any], wanted: str) -> None:
        assert wanted in reason(lines(folder, published.trl_row(**{"images": ["red.png"], **changes})))

    def test_both_the_same_throughout(self, folder: Path) -> None:
        row = published.implicit_row(image="red.png")
        row["rejected"] = row["chosen"]
        assert "chosen and rejected say the same" in reason(lines(folder, row))

    def test_one_goes_on_where_the_other_ends(self, folder: Path) -> None:
        row = published.implicit_row(image="red.png")
        row["chosen"] = row["chosen"][:-1]
        assert "goes on with nobody" in reason(lines(folder, row))


SWIFT = published.ms_swift_row()["messages"]


class TestMsSwift:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"rejected_response": [published.said("assistant", "Blue.")]},
            {"rejected_images": ["red.png"]},
            {
                "rejected_response": None,
                "rejected_messages": [SWIFT[0], published.said("assistant", "Blue.")],
                "rejected_images": ["red.png"],
            },
        ],
    )
    def test_each_way_to_say_what_is_rejected(self, folder: Path, changes: dict[str, Any]) -> None:
        record = only(lines(folder, published.ms_swift_row(margin=1.5, **changes)))
        assert record.prompt == (Turn("user", "<image>What is it?", (at(folder, "red.png"),)),)
        assert (record.responses, record.margin) == (TWO, 1.5)

    def test_images_of_the_answer_itself(self, folder: Path) -> None:
        messages = [published.said("user", "<image>Make it blue."), published.said("assistant", "<image>")]
        row = {"messages": messages, "images": ["red.png", "blue.png"], "rejected_images": ["red.png", "red.png"]}
        record = only(lines(folder, row))
        assert record.images == (at(folder, "red.png"),)
        assert record.responses == (
            Response("<image>", (at(folder, "blue.png"),)),
            Response("<image>", (at(folder, "red.png"),)),
        )

    @pytest.mark.parametrize(
        ("changes", "wanted"),
        [
            ({"rejected_response": None, "rejected_images": ["blue.png"]}, "other images in its prompt"),
            ({"rejected_response": None, "rejected_images": ["red.png"]}, "say the same"),
            ({"rejected_response": "Red. "}, "say the same"),
            ({"rejected_response": ""}, "a response is empty"),
            ({"images": []}, "1 <image> marks and 0 images"),
            ({"images": ["red.png", "blue.png"]}, "1 <image> marks and 2 images"),
            ({"rejected_messages": SWIFT}, "rejected_images is missing"),
            ({"messages": SWIFT[:1]}, "goes on with user"),
            ({"messages": []}, "messages is missing or empty"),
        ],
    )
    def test_bad_rows(self, folder: Path, changes: dict[str, Any], wanted: str) -> None:
        assert wanted in reason(lines(folder, published.ms_swift_row(**changes)))


class TestLlamaFactory:
    def test_turns_and_images(self, folder: Path) -> None:
        turns = [
            {"from": "human", "value": "<image>a"},
            {"from": "gpt", "value": "b"},
            {"from": "human", "value": "<image>c"},
        ]
        row = published.llama_factory_row(conversations=turns, images=["red.png", "blue.png"], system="Be brief.")
        record = only(lines(folder, row))
        assert [turn.role for turn in record.prompt] == ["system", "user", "assistant", "user"]
        assert [turn.images for turn in record.prompt] == [(), (at(folder, "red.png"),), (), (at(folder, "blue.png"),)]
        assert record.responses == TWO

    def test_names_as_in_openai_messages(self, folder: Path) -> None:
        row = published.llama_factory_row(
            conversations=[published.said("user", ASKED)],
            chosen=published.said("assistant", "Red."),
            rejected=published.said("assistant", "Blue."),
        )
        assert only(lines(folder, row)).responses == TWO

    @pytest.mark.parametrize(
        ("changes", "wanted"),
        [
            ({"images": []}, "1 <image> marks and 0 images"),
            ({"conversations": []}, "conversations is missing or empty"),
            ({"chosen": {"from": "human", "value": "a"}}, "goes on with user"),
            ({"rejected": {"from": "gpt", "value": "Red."}}, "say the same"),
        ],
    )
    def test_bad_rows(self, folder: Path, changes: dict[str, Any], wanted: str) -> None:
        assert wanted in reason(lines(folder, published.llama_factory_row(**changes)))


class TestVLRewardBench:
    def test_rank_0_is_the_better_and_groups_come_from_ids(self, folder: Path) -> None:
        names = {"mathverse_1": "reasoning", "MMMU_2": "reasoning", "rlhf-v_3": "hallucination"}
        names |= {"RLAIF-V-4": "hallucination", "hallucination_pair-5": "hallucination", "wildvision_6": "general"}
        rows = [published.vl_rewardbench_row(name) for name in names]
        read = read_preferences(write_parquet(folder / "test.parquet", rows))
        assert {record.id: record.group for record in read} == names
        assert {(pair.chosen.text, pair.rejected.model) for pair in read.pairs()} == {("Red.", "small")}

    def test_tsv_and_rows_that_name_another_row_s_image(self, folder: Path) -> None:
        rows = [published.vl_rewardbench_tsv_row(3), published.vl_rewardbench_tsv_row(4, image="3", category="")]
        read = read_preferences(write_tsv(folder / "vl_rewardbench.tsv", rows))
        assert read.format == "vl-rewardbench-tsv"
        assert [record.group for record in read] == ["hallucination", "general"]
        assert [record.images for record in read] == [(RED,), (RED,)]
        assert {pair.chosen.text for pair in read.pairs()} == {"Red."}

    @pytest.mark.parametrize(
        ("changes", "wanted"),
        [
            ({"human_ranking": [1, 2]}, "no best response"),
            ({"human_ranking": [0]}, "1 ranks for 2 responses"),
            ({"human_ranking": [0, None]}, "an empty rank"),
            ({"human_ranking": ["first", 0]}, "human_ranking[0] must be a whole number"),
            ({"response": ["Red.", "Red."]}, "say the same"),
            ({"image": None}, "image is missing"),
        ],
    )
    def test_bad_rows(self, folder: Path, changes: dict[str, Any], wanted: str) -> None:
        assert wanted in reason(lines(folder, published.vl_rewardbench_row(**{"image": "red.png", **changes})))

    def test_equal_ranks_tie(self, folder: Path) -> None:
        read = lines(folder, published.vl_rewardbench_row(image="red.png", human_ranking=[0, 0]))
        assert (read.ties, read.pairs()) == (1, ())


class TestMultimodalRewardBench:
    def test_groups_and_the_better_output(self, folder: Path) -> None:
        cases = [
            ("PAIRS_1", "safety", "safety/bias"),
            ("hateful_2", "safety", "safety/toxicity"),
            ("mathvista_3", "reasoning", "reasoning/math"),
            ("EMMA-Coding_4", "reasoning", "reasoning/coding"),
            ("nocaps_5", "general", "general"),
        ]
        rows = [published.multimodal_rewardbench_row(name, Category=category) for name, category, _ in cases]
        rows.append(published.multimodal_rewardbench_row("SEED_6", Better="Output1", Category="vqa"))
        read = read_preferences(write_json(folder / "all_data.json", rows))
        assert [record.group for record in read] == [*(group for _, _, group in cases), "vqa"]
        assert [pair.chosen.text for pair in read.pairs()] == ["Red."] * 5 + ["Blue."]

    def test_what_is_reported_is_told_and_kept(self, folder: Path) -> None:
        rows = [published.multimodal_rewardbench_row(name) for name in ("visitbench_459", "nocaps_1")]
        read = lines(folder, *rows)
        assert [(record.id, record.error) for record in read.reported] == [("visitbench_459", MISPAIRED)]
        assert f"1 records: {MISPAIRED}" in read.why

    def test_ids_that_the_release_repeats(self, folder: Path) -> None:
        rows = [published.multimodal_rewardbench_row(Output1=answer) for answer in ("Blue.", "Green.", "Blue.")]
        read = lines(folder, *rows)
        assert [(record.id, record.cluster) for record in read] == [
            ("mathvista_117", "mathvista_117"),
            ("mathvista_117~2", "mathvista_117"),
        ]
        assert [bad.error for bad in read.bad] == [
            "rows.jsonl line 3: it is the same as an earlier row with the id 'mathvista_117'"
        ]

    @pytest.mark.parametrize("better", ["output1", "Output3", "", None])
    def test_neither_is_better(self, folder: Path, better: Any) -> None:
        assert "Better " in reason(lines(folder, published.multimodal_rewardbench_row(Better=better)))

    def test_the_release_file_before_it_is_built(self, folder: Path) -> None:
        row = published.multimodal_rewardbench_row()
        del row["Text"]
        assert "run its authors' script" in reason(lines(folder, row))


class TestMMRB2:
    def test_images_in_prompt_and_answers(self, tmp_path: Path) -> None:
        path = published.examples(tmp_path)["mmrb2"]
        record = only(read_preferences(path))
        red, blue = at(tmp_path, "images/red.png"), at(tmp_path, "images/blue.png")
        assert record.prompt == (Turn("user", "Which <image> is it?", (at(tmp_path, "input_images/red.png"),)),)
        assert record.responses == (Response("", (blue,), "a"), Response("See <image>.", (red,), "b"))
        assert (record.id, record.ranks, record.group) == ("blink_1", (1, 0), "interleaved")

    @pytest.mark.parametrize(
        ("changes", "wanted"),
        [
            ({"prompt_content": None}, "build the benchmark first"),
            ({"chosen": "tie"}, "must be A or B"),
            ({"response_a": {"response_content": []}}, "a response is empty"),
            ({"response_a": {"response_content": [["image", "gone.png"]]}}, "gone.png does not exist"),
            ({"response_a": {"response_content": [["text", "<image>"]]}}, "beside images that stand on their own"),
            ({"response_a": {"response_content": [["sound", "a"]]}}, "kind 'sound'"),
            ({"response_a": {"response_content": ["text"]}}, "a list of kind and content"),
        ],
    )
    def test_bad_rows(self, folder: Path, changes: dict[str, Any], wanted: str) -> None:
        prompt = {"prompt_content": [["text", "a"]]}
        path = write_json(folder / "t2i.json", {"pairs": [published.mmrb2_row(**{**prompt, **changes})]})
        assert wanted in reason(read_preferences(path))


class TestMMRLHF:
    def test_pairs_of_one_id_share_their_base(self, folder: Path) -> None:
        save_images(folder / "mcq", "red")
        read = lines(folder, published.mm_rlhf_row(), published.mm_rlhf_row(rejected="Green."))
        assert [(record.id, record.base, record.group) for record in read] == [
            ("0737", "0737", "mcq"),
            ("0737~2", "0737", "mcq"),
        ]
        assert read.records[0].meta == {"chosen_reason": "right"}

    def test_a_video_is_a_folder_of_frames(self, folder: Path) -> None:
        save_images(folder / "video" / "one", "red", "blue")
        (folder / "video" / "one" / "notes.txt").write_text("x")
        (folder / "video" / "two.mp4").write_bytes(b"x")
        (folder / "video" / "three").mkdir()
        rows = [
            published.mm_rlhf_row(id=name, image=None, video=f"video/{name}") for name in ("one", "two.mp4", "three")
        ]
        read = lines(folder, *rows)
        assert [record.images for record in read] == [
            (at(folder, "video/one/blue.png"), at(folder, "video/one/red.png"))
        ]
        assert "a video file: give a folder of its frames" in read.bad[0].error
        assert "holds no frame" in read.bad[1].error

    def test_without_an_image(self, folder: Path) -> None:
        assert "image is missing" in reason(lines(folder, published.mm_rlhf_row(image=None)))


class TestRewardBench:
    def test_first_version(self, folder: Path) -> None:
        record = only(lines(folder, published.rewardbench_row()))
        assert record.responses == (Response("2", model="a"), Response("3", model="b"))
        assert (record.id, record.group, record.images) == ("30", "math-prm", ())

    def test_best_of_four_in_the_order_of_published_scores(self, folder: Path) -> None:
        record = only(read_preferences(write_parquet(folder / "test.parquet", [published.rewardbench_2_row()])))
        assert [response.text for response in record.responses] == ["Red.", "Dog.", "Cat.", "Sun."]
        assert [response.model for response in record.responses] == ["a", "b", "c", "d"]
        assert (record.ranks, record.group, record.base) == ((0, 1, 1, 1), "Factuality", None)

    def test_ties_share_the_base_of_their_reference(self, folder: Path) -> None:
        ties = {"subset": "Ties", "models": []}
        read = lines(
            folder,
            published.rewardbench_2_row(id="ref:5", **ties),
            published.rewardbench_2_row(id="tied:5", chosen=["Red.", "Blue.", "Green."], **ties),
        )
        assert {record.base for record in read} == {"Ties:5"}
        assert [record.ranks for record in read] == [(0, 1, 1, 1), (0, 0, 0, 1, 1, 1)]
        assert read.ties == 3 + 6
        assert len(read.pairs()) == 3 + 9


class TestRMBench:
    def test_three_styles_on_each_side(self, folder: Path) -> None:
        row = published.rm_bench_row(score_chosen=[1, 2, 3], score_rejected=[0.5, 1, 2])
        record = only(lines(folder, row))
        assert record.ranks == (0, 0, 0, 1, 1, 1)
        assert [response.score for response in record.responses] == [1, 2, 3, 0.5, 1, 2]
        assert record.meta["styles"] == ["concise", "detailed", "markdown"] * 2
        assert (record.group, record.pair_count, record.ties) == ("safety/refuse", 9, 6)

    @pytest.mark.parametrize(
        ("changes", "wanted"),
        [
            ({"chosen": ["a", "b"]}, "chosen must be 3 answers (concise, detailed, markdown), and there are 2"),
            ({"chosen": ["Dog.", "b", "c"]}, "responses 1 and 4 say the same"),
            ({"score_chosen": [1, 2]}, "score_chosen must be 3 numbers"),
            ({"score_chosen": [1, 2, "x"]}, "score_chosen[2] must be a finite number"),
        ],
    )
    def test_bad_rows(self, folder: Path, changes: dict[str, Any], wanted: str) -> None:
        assert wanted in reason(lines(folder, published.rm_bench_row(**changes)))
