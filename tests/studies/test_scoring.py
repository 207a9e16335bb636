from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.inputs import InputError
from studies.scoring import answer_choice, answer_correct


@dataclass(frozen=True)
class Asked:
    answer: str
    scoring: str
    choices: tuple[str, ...] = ()


COLOURS = ("red", "dark red", "light blue", "green")
WORDS = ("cat", "dog", "sun", "moon", "tree", "one", "2", "22")
NUMBERS = ("1", "12", "2", "21")


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        ("1", "1", True),
        ("1", "12", False),
        ("12", "1", False),
        ("1", "1.", True),
        ("1", "1.0", True),
        ("1", "1.5", False),
        ("1", "-1", False),
        ("1000", "1,000", True),
        ("3", "three", True),
        ("3", "There are 3 dogs.", True),
        ("3", "There are 3 dogs in image 2.", False),
        ("3", "Answer: 3. Image 2 has 1.", True),
        ("3", "Image 2 shows 5, so the answer is 3", True),
        ("cat", "A cat.", True),
        ("the cat", "Cat", True),
        ("cat", "cats", False),
        ("cat", "a cat and a dog", False),
        ("cat", "cat\nbecause it purrs", True),
        ("cat", "Cat. It purrs.", True),
        ("cat", "The answer is: cat", True),
        ("cat", "<think>a dog?</think> cat", True),
        ("cat", "<think>cat</think> dog", False),
        ("yes", "Yes, they do", False),
        ("ﬁsh", "fish", True),
        ("+", "+", True),
        ("+", "-", False),
        ("cat", "", False),
    ],
)
def test_exact(answer: str, reply: str, right: bool) -> None:
    assert answer_correct(Asked(answer, "exact"), reply) is right


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        ("1", "It reads 1", True),
        ("1", "It reads 12", False),
        ("1", "It reads 1.5", False),
        ("12", "12.5kg", False),
        ("12", "(12)", True),
        ("blue moon", "I see a BLUE  moon.", True),
        ("blue moon", "blue big moon", False),
        ("moon", "moonlight", False),
        ("don't", "they don't", True),
    ],
)
def test_contains(answer: str, reply: str, right: bool) -> None:
    assert answer_correct(Asked(answer, "contains"), reply) is right


def test_contains_takes_no_list_of_all_choices() -> None:
    asked = Asked("red", "contains", COLOURS)
    assert answer_correct(asked, "it is red")
    assert not answer_correct(asked, "red or green")
    assert not answer_correct(asked, "dark red")
    assert answer_correct(Asked("dark red", "contains", COLOURS), "dark red")


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        ("3", "image 3", True),
        ("image 3", "Image 3 matches.", True),
        ("1", "image 12", False),
        ("3", "It is image #3, not image 1.", True),
        ("3", "image 1 and image 3", False),
        ("3", "3", True),
        ("3", "The third image", True),
        ("3", "Image 1 shows a dog. Answer: image 3", True),
        ("3", "No match", False),
        ("3", "no match, perhaps image 3", False),
        ("no match", "There is no match.", True),
        ("no match", "image 1", False),
        ("3", "2 or 3", False),
        ("3", "none", False),
    ],
)
def test_caption(answer: str, reply: str, right: bool) -> None:
    assert answer_correct(Asked(answer, "caption"), reply) is right


@pytest.mark.parametrize(
    "reply",
    [
        "B",
        "b",
        "(B)",
        "[B]",
        "B.",
        "B)",
        "B:",
        "**B**",
        "Option B",
        "Answer: B",
        "answer is (B).",
        "The correct option is B",
        "The best choice is: **B**",
        "B. dark red",
        "(B) dark red",
        "B: because it is dark",
        "dark red",
        "Dark Red.",
        "It is dark red.",
        "I would say B",
        "I think (B) is right",
        "A is wrong and C is too. Answer: B",
        "\\boxed{B}",
        "Ｂ",
        "<think>A, surely A.</think>\nB",
    ],
)
def test_choice_by_letter_or_text(reply: str) -> None:
    for answer in ("B", "(B)", "b.", "dark red"):
        assert answer_correct(Asked(answer, "choice", COLOURS), reply)
    assert not answer_correct(Asked("A", "choice", COLOURS), reply)
    assert answer_choice(Asked("A", "choice", COLOURS), reply) == 1


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "A car",
        "I do not know",
        "red or green",
        "A. dark red",
        "(A) or (B)",
        "A. red\nB. dark red",
        "A. red, not (B)",
        "E",
        "B or C",
        "AB",
        "image",
    ],
)
def test_choice_that_names_none_or_two(reply: str) -> None:
    assert answer_choice(Asked("A", "choice", COLOURS), reply) is None
    assert not any(answer_correct(Asked(answer, "choice", COLOURS), reply) for answer in "ABCD")


def test_choices_that_are_numbers() -> None:
    for place, (letter, text) in enumerate(zip("ABCD", NUMBERS, strict=True)):
        for reply in (letter, text, f"It is {text}.", f"({letter}) {text}"):
            assert answer_choice(Asked("A", "choice", NUMBERS), reply) == place


def test_choices_that_are_letters_go_before_their_place() -> None:
    swapped = ("B", "A")
    assert answer_correct(Asked("A", "choice", swapped), "A")
    assert answer_choice(Asked("A", "choice", swapped), "A") == 1
    assert answer_choice(Asked("A", "choice", swapped), "(A)") == 1


def test_choices_that_are_all_images_have_letters_only() -> None:
    asked = Asked("B", "choice", ("<image>", "<image>", "none"))
    assert answer_correct(asked, "B")
    assert not answer_correct(asked, "image")
    assert not answer_correct(asked, "none")


def test_choices_that_are_not_known() -> None:
    asked = Asked("C", "choice")
    assert answer_correct(asked, "C.")
    assert answer_correct(asked, "The answer is C")
    assert not answer_correct(asked, "A cat")


def test_what_cannot_be_scored() -> None:
    with pytest.raises(InputError, match="'magic'"):
        answer_correct(Asked("A", "magic"), "A")
    with pytest.raises(InputError, match="none of the choices"):
        answer_correct(Asked("pink", "choice", COLOURS), "A")
    with pytest.raises(InputError, match="must be text"):
        answer_correct(Asked("A", "exact"), None)  # type: ignore[arg-type]


@given(st.sampled_from(["exact", "contains", "caption", "choice"]), st.text(max_size=40))
def test_no_reply_raises(scoring: str, reply: str) -> None:
    assert answer_correct(Asked("2", scoring, NUMBERS if scoring == "choice" else ()), reply) in (True, False)


@given(st.integers(0, 400), st.integers(0, 400), st.sampled_from(["exact", "contains", "caption"]))
def test_a_number_is_right_only_if_it_is_that_number(gold: int, said: int, scoring: str) -> None:
    assert answer_correct(Asked(str(gold), scoring), f"I see image {said}") is (gold == said)


@given(st.text(min_size=1, max_size=20).filter(lambda text: text.strip() != ""), st.sampled_from(["exact", "contains"]))
def test_the_right_answer_itself_is_right(answer: str, scoring: str) -> None:
    assert answer_correct(Asked(answer, scoring), answer)


@given(st.lists(st.sampled_from(WORDS), min_size=2, max_size=6, unique=True), st.data())
def test_every_option_is_named_by_its_letter_and_its_text(options: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(options) - 1))
    asked = Asked(options[place], "choice", tuple(options))
    letter = "ABCDEF"[place]
    form = data.draw(st.sampled_from(["{}", "({})", "Answer: {}", "{}.", "The answer is {}."]))
    assert answer_correct(asked, form.format(letter))
    assert answer_correct(asked, form.format(options[place]))
    wrong = "ABCDEF"[(place + 1) % len(options)]
    assert not answer_correct(asked, form.format(wrong))
