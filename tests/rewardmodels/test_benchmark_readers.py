"""Benchmarks of reward models: what becomes of a row as published, and of one that is broken."""

from pathlib import Path
from typing import Any

import pytest

from probes.inputs import Turn
from rewardmodels import Response, read_preferences
from rewardmodels.readers.multimodal_rewardbench import MISPAIRED
from tests.rewardmodels import published
from tests.rewardmodels.published import save_images, write_json, write_parquet, write_tsv
from tests.rewardmodels.reading import RED, at, lines, only, reason, with_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_images(tmp_path)


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
        assert f"1 record: {MISPAIRED}" in read.why

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
