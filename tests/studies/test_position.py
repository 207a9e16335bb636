from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.inputs import ImageRef
from studies.multi_image import MultiImageQuestion
from studies.position import (
    at_position,
    by_place,
    is_anchored,
    moved_order,
    places,
    position_study,
    renumber,
    why_fixed,
)


def question(text: str = "Which image shows a cat?", count: int = 4, **changes: Any) -> MultiImageQuestion:
    marks = " ".join(f"{number} <image>" for number in range(1, count + 1))
    images = tuple(ImageRef(path=f"{index}.png") for index in range(count))
    fields = {"id": "a", "question": f"{marks} {text}", "images": images, "answer": "2", "target": 1, "task": "caption"}
    return MultiImageQuestion(**{**fields, **changes})


@given(st.integers(2, 8), st.data())
def test_moving_keeps_the_distractors_in_order(count: int, data: st.DataObject) -> None:
    target, place = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, count - 1))
    record = question(count=count, target=target, answer=str(target + 1))
    moved = at_position(record, place)
    paths = [image.path for image in moved.images]
    assert paths[place] == f"{target}.png" and moved.target == place
    rest = [path for path in paths if path != f"{target}.png"]
    assert rest == sorted(rest, key=lambda path: int(str(path).removesuffix(".png")))
    assert moved.answer == str(place + 1)
    assert moved.cluster == record.cluster and moved.id == f"a@{place + 1}"
    assert moved.question == record.question


def test_numbers_in_the_question_follow_their_images() -> None:
    record = question("Is image 3 in front of image 2?", answer="yes", task="content")
    assert at_position(record, 3).question.endswith("Is image 2 in front of image 4?")
    assert at_position(record, 3).answer == "yes"


@pytest.mark.parametrize("text", ["What digit is in image 2?", "What is in image 2?", "Which digit does image 2 show?"])
def test_a_number_that_is_no_place_stays(text: str) -> None:
    content = question(text, answer="2", task="content")
    moved = at_position(content, 0)
    assert moved.question.endswith(text.replace("image 2", "image 1"))
    assert moved.answer == "2"


def test_labels_before_marks_stay() -> None:
    text = "Image 1: <image>\nImage 2: <image>\nWhat is in image 2?"
    record = question(question=text, count=2, answer="cat", task="content")
    assert at_position(record, 0).question == "Image 1: <image>\nImage 2: <image>\nWhat is in image 1?"


def test_choices_and_answers_with_words_follow() -> None:
    record = question(count=3, answer="image 2", choices=("image 1", "image 2", "image 3"), scoring="choice")
    moved = at_position(record, 0)
    assert moved.answer == "image 1"
    assert set(moved.choices) == {"image 1", "image 2", "image 3"} and moved.choices[1] == "image 1"


def test_templates_take_precedence() -> None:
    meta = {"question_template": "See {position} {0}?", "answer_template": "<{position}>"}
    moved = at_position(question(count=2, meta=meta), 0)
    assert moved.question == "1 <image> 2 <image> See 1 {0}?"
    assert moved.answer == "<1>"


def test_the_anchor_keeps_its_place() -> None:
    record = question("Which image shows the same as the last?", task="retrieval")
    assert is_anchored(record) and places(record) == 3
    moved = position_study([record]).records
    assert [each.target for each in moved] == [0, 1, 2]
    assert {each.images[-1].path for each in moved} == {"3.png"}
    with pytest.raises(ValueError, match="places 0 to 2"):
        at_position(record, 3)


def test_unmovable_samples_are_left_out_with_their_reason() -> None:
    records = [
        question(id="none", target=None),
        question("What is in the second picture?", id="ordinal", answer="cat"),
        question("What is it?", id="one", count=1, target=0, answer="cat"),
        question("Which image shows the same as the last?", id="anchor", task="retrieval", target=3, answer="4"),
    ]
    study = position_study(records)
    assert study.records == []
    assert set(study.left_out) == {"none", "ordinal", "one", "anchor"}
    assert "order in words" in study.left_out["ordinal"]
    with pytest.raises(ValueError, match="no target"):
        at_position(records[0], 0)
    assert why_fixed(question()) is None


def test_study_is_balanced() -> None:
    study = position_study([question(id="a"), question(id="b", target=3, answer="4")])
    assert by_place([record.id for record in study.records]) == [0, 1, 2, 3] * 2
    assert len({record.id for record in study.records}) == 8


def test_small_parts() -> None:
    assert moved_order(3, 2, 0) == [2, 0, 1]
    assert renumber("images 1 and photo no. 2, imagery 2", {1: 2, 2: 1}) == "images 2 and photo no. 1, imagery 2"
