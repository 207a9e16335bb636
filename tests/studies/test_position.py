import dataclasses
import re
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
    why_fixed,
)
from studies.references import renumber


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


JOINS = [" and ", " or ", " & ", ", ", ", and "]


@st.composite
def listed(draw: st.DrawFn, count: int) -> str:
    """A reference to one image, or to several in one of the ways that English lists them."""
    noun = draw(st.sampled_from(["image", "picture", "Photo", "figure"]))
    numbers = draw(st.lists(st.integers(1, count), min_size=1, max_size=4, unique=True))
    if len(numbers) == 1:
        return f"{noun} {draw(st.sampled_from(['', '#', 'no. ', 'number ']))}{numbers[0]}"
    *first, last = numbers
    return f"{noun}s {', '.join(map(str, first))}{draw(st.sampled_from(JOINS))}{last}"


@given(st.integers(2, 12), st.data())
def test_every_number_of_a_list_follows_its_image(count: int, data: st.DataObject) -> None:
    target, place = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, count - 1))
    text = f"Is the cat in {data.draw(listed(count))} like the one in {data.draw(listed(count))}?"
    record = question(text, count=count, target=target, answer="yes", task="content")
    assert why_fixed(record) is None, text
    moved = at_position(record, place)
    before, after = (re.findall(r"\d+", each.question.rpartition("<image>")[2]) for each in (record, moved))
    assert [record.images[int(n) - 1] for n in before] == [moved.images[int(n) - 1] for n in after]


WORDS = ["one", "two", "three", "four"]
ORDINALS = ["first", "second", "third", "fourth"]
REFERENCES = [
    "image {word}", "images {word} and one", "picture number {word}", "Image {letter}", "photo ({letter})",
    "images A and {letter}", "image ({number})", "image-{number}", "the {ordinal}", "the {ordinal} one", "the {nth},",
    "the {nth} picture", "image {number} or 1", "images 2-{number}", "images 2 to {number}", "images 1/{number}",
    "images {number} vs. 1", "#{number}", "number {number}", "images 1 and {number}, 2 and 3", "the last",
]  # fmt: skip


@pytest.mark.parametrize("form", REFERENCES)
@given(number=st.integers(1, 4))
def test_what_cannot_be_renumbered_is_refused(form: str, number: int) -> None:
    nth = ["1st", "2nd", "3rd", "4th"][number - 1]
    names = {"word": WORDS[number - 1], "ordinal": ORDINALS[number - 1], "letter": "ABCD"[number - 1]}
    named = form.format(number=number, nth=nth, **names)
    for record in (
        question(f"What is in {named}?", answer="cat", task="content"),
        question("Where is the cat?", answer=f"In {named}", task="content"),
        question("Where is the cat?", answer="C", choices=("here", f"in {named}", "there"), scoring="choice"),
    ):
        assert why_fixed(record) is not None, record


UNCLEAR = [
    "Which one shows a cat?", "Which shows a cat?", "Where is the cat?", "Is it 1 or 2?",
    "Is the cat in image 1 or in image 2?", "Which image is most like image 2?", "How many cats are there?",
]  # fmt: skip


@pytest.mark.parametrize("form", UNCLEAR)
@pytest.mark.parametrize("answer", ["2", "2.", "(2)", "Two", "two.", "B", "2 and 3"])
def test_a_bare_answer_that_may_name_the_target_is_refused(form: str, answer: str) -> None:
    assert why_fixed(question(form, answer=answer)) is not None


@given(st.integers(2, 8), st.data())
def test_a_bare_answer_names_the_target_after_a_move_or_the_record_is_refused(count: int, data: st.DataObject) -> None:
    target, place = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, count - 1))
    text = data.draw(
        st.sampled_from(["Which image shows a cat?", "Which of the images is it?", "Which one?", "Where?"])
    )
    answer = data.draw(st.sampled_from(["{}", "{}.", "({})", "image {}", "Image {}."])).format(target + 1)
    record = question(text, count=count, target=target, answer=answer)
    if why_fixed(record) is None:
        assert re.findall(r"\d+", at_position(record, place).answer) == [str(place + 1)]
    else:
        assert "image" not in f"{text} {answer}"


@pytest.mark.parametrize("choices", [("1", "2", "3"), ("one", "two", "three")])
@pytest.mark.parametrize("answer", ["B", "(B)"])
def test_choices_that_are_bare_numbers_are_refused(choices: tuple[str, ...], answer: str) -> None:
    assert "may or may not" in str(why_fixed(question(answer=answer, choices=choices, scoring="choice")))


@pytest.mark.parametrize(
    "text",
    [
        "What is in image 2 of these four images?",
        "Are images 1 to 4 alike?",
        "In the picture a cat sits on the left. What is in image 2?",
        "What was painted in the 19th century?",
        "How many cats are in image 2?",
        "Which image's colours are warm?",
    ],
)
def test_what_is_clear_still_moves(text: str) -> None:
    record = question(text, answer="2" if "image 2" in text or "Which" in text else "cat")
    assert why_fixed(record) is None
    assert "images 1 to 4" in at_position(record, 3).question or "to 4" not in text


def test_letters_and_numbers_before_marks_are_labels() -> None:
    record = question(question="Image A: <image>\nImage B: <image>\nWhat is it?", count=2, answer="cat")
    assert why_fixed(record) is None
    assert why_fixed(dataclasses.replace(record, question=record.question + " See image B.")) is not None
