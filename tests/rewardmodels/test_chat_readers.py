"""Chat formats of training tools: what becomes of a row as documented, and of one that is broken."""

from pathlib import Path
from typing import Any

import pytest

from probes.inputs import Turn
from rewardmodels import Response, read_preferences
from tests.rewardmodels import published
from tests.rewardmodels.published import write_parquet
from tests.rewardmodels.reading import ASKED, RED, TWO, at, lines, only, reason, with_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_images(tmp_path)


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
            ({"images": []}, "0 images and 1 placeholder"),
            ({"images": ["red.png", "blue.png"]}, "2 images and 1 placeholder"),
            ({"prompt": [published.said("user", published.words("a"))]}, "1 image and 0 placeholders"),
            ({"prompt": [published.said("user", "<image> <image>")]}, "2 <image> marks for 1 image"),
            ({"prompt": [published.said("assistant", "a")]}, "no user's turn"),
            ({"prompt": [published.said("tool", "a")]}, "message by 'tool'"),
            ({"prompt": [published.said("user", [{"type": "video"}])]}, "1 image and 0 placeholders"),
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
            ({"images": []}, "1 <image> mark for 0 images"),
            ({"images": ["red.png", "blue.png"]}, "1 <image> mark for 2 images"),
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
            ({"images": []}, "1 <image> mark for 0 images"),
            ({"conversations": []}, "conversations is missing or empty"),
            ({"chosen": {"from": "human", "value": "a"}}, "goes on with user"),
            ({"rejected": {"from": "gpt", "value": "Red."}}, "say the same"),
        ],
    )
    def test_bad_rows(self, folder: Path, changes: dict[str, Any], wanted: str) -> None:
        assert wanted in reason(lines(folder, published.llama_factory_row(**changes)))
