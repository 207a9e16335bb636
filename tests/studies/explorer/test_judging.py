"""The Reward view's numbers against the reward model called directly; and bad input in one line each."""

from dataclasses import replace
from functools import cache
from html import unescape

import numpy as np
import pytest
from PIL import Image

from probes.inputs import ImageRef, InputError, Turn
from rewardmodels.edits import HEDGES, hedged, padded
from rewardmodels.looking import scoring_attention
from rewardmodels.model import RewardModel
from studies.explorer.judging import (
    ALONE,
    AS_IS,
    BLANK,
    LONGEST_ANSWER,
    SHUFFLED,
    SIDES,
    Judged,
    answers_of,
    judge,
    other_pictures,
    pad,
)
from studies.explorer.looking import prompt_of
from studies.explorer.pair_examples import SHOWN, pair_card, read_pair_examples
from studies.explorer.reward_cards import padding_chart, padding_words, verdict_card, views_table
from tests.rewardmodels.small import reward_model, text_model
from tests.studies.explorer.run_factory import make_image

IMAGES = tuple(make_image(index) for index in range(2))
POOL = tuple(ImageRef.of(make_image(index)) for index in range(6))
ANSWERS = ("a cat", "the dog there on the grass")
PROMPT = prompt_of("Which image shows the red ball?", 2)
HOSTILE = "<script>window.hacked=1</script><img src=x onerror=alert(1)>"


@cache
def model() -> RewardModel:
    return reward_model("llava")


@cache
def judged() -> Judged:
    return judge(model(), IMAGES, PROMPT, ANSWERS, POOL)


def compared(images: list[Image.Image], prompt: str) -> tuple[float, float]:
    """Both scores, one call each."""
    first, second = (model().get_score(prompt, answer, images) for answer in ANSWERS)
    return first, second


def test_scores_of_each_view_are_the_models_own() -> None:
    white = [Image.new("RGB", image.size, "white") for image in IMAGES]
    drawn = list(judged().views[2].pictures)
    alone = "1 2 Which image shows the red ball?"
    expected = {
        AS_IS: compared(list(IMAGES), PROMPT),
        BLANK: compared(white, PROMPT),
        SHUFFLED: compared(drawn, PROMPT),
        ALONE: compared([], alone),
    }
    assert [each.view for each in judged().views] == list(expected)
    for each in judged().views:
        assert each.comparison is not None
        assert each.comparison[:2] == pytest.approx(expected[each.view], abs=1e-5)
        assert each.comparison.margin == pytest.approx(each.comparison.first - each.comparison.second)
    scores = np.array(list(expected.values()))
    assert all(np.abs(scores[0] - other).max() > 1e-3 for other in scores[1:]), "no view is another one's"


def test_the_page_shows_these_numbers() -> None:
    table, card = views_table(judged()), verdict_card(judged())
    for each in judged().views:
        assert each.comparison is not None
        for number in (f"{each.comparison.first:.3f}", f"{each.comparison.margin:+.3f}"):
            assert f">{number}<" in table
        assert f">{each.comparison.probability:.1%}<" in table
    assert f">{judged().plain.second:.3f}<" in card
    assert f"{'A' if judged().plain.margin > 0 else 'B'} is preferred" in card


def test_where_the_scoring_token_looks_is_what_the_model_gives() -> None:
    shown = judged().shown
    assert shown is not None and shown.steps[-1] == "Mean over layers" and len(shown.pictures) == 2
    turns = (Turn("user", PROMPT, tuple(map(ImageRef.of, IMAGES))),)
    for side, answer in zip(SIDES, ANSWERS, strict=True):
        (found,) = scoring_attention(model(), [turns], [answer], maps=True)
        assert np.allclose(shown.factors[side][:-1], found.factors, atol=1e-6)
        assert np.allclose(shown.factors[side][-1], found.factors.mean(axis=0), atol=1e-6)
        for scores, own in zip(shown.maps[side], found.maps, strict=True):
            assert scores is not None and np.allclose(scores, [*own, own.mean(axis=0)], atol=1e-6)
    assert not np.allclose(shown.factors[SIDES[0]], shown.factors[SIDES[1]])


def test_other_pictures_are_other_ones_and_drawn_by_the_seed() -> None:
    own = {image.tobytes() for image in IMAGES}
    for seed in range(8):
        drawn = other_pictures(IMAGES, POOL, seed)
        assert len({image.tobytes() for image in drawn} - own) == 2
        assert [image.tobytes() for image in drawn] == [image.tobytes() for image in other_pictures(IMAGES, POOL, seed)]
    assert len({other_pictures(IMAGES, POOL, seed)[0].tobytes() for seed in range(8)}) > 1
    assert len(other_pictures(IMAGES, POOL[:3], 0)) == 1


def test_a_view_that_cannot_be_asked_says_why() -> None:
    found = judge(model(), IMAGES, PROMPT, ANSWERS)
    assert found.views[2].comparison is None and "not enough other pictures" in views_table(found)
    assert "other pictures" not in verdict_card(found)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("kind", ["sentences", "hedges"])
def test_padding_scores_every_step_as_the_model_does(side: int, kind: str) -> None:
    found = pad(model(), judged(), side, "hedges" if kind == "hedges" else "sentences", 3)
    grow = hedged if kind == "hedges" else padded
    assert found.texts == (ANSWERS[side], *(grow(ANSWERS[side], size) for size in (1, 2, 3)))
    assert found.scores == pytest.approx([model().get_score(PROMPT, text, IMAGES) for text in found.texts], abs=1e-5)
    white = [Image.new("RGB", image.size, "white") for image in IMAGES]
    assert found.blank == pytest.approx([model().get_score(PROMPT, text, white) for text in found.texts], abs=1e-5)
    assert found.other == pytest.approx(model().get_score(PROMPT, ANSWERS[1 - side], IMAGES), abs=1e-5)
    assert list(found.tokens) == model().count_tokens(found.texts) == sorted(found.tokens)
    ahead = [score > found.other for score in found.scores]
    assert found.flips == tuple(place for place, each in enumerate(ahead) if each != ahead[0])
    figure = padding_chart(found)
    assert [list(line.y) for line in figure.data] == [
        pytest.approx(found.scores),
        [found.other] * 4,
        pytest.approx(found.blank),
    ]
    assert list(figure.data[0].x) == list(found.tokens)


def test_padding_out_of_range_is_refused() -> None:
    for most, kind in ((0, "sentences"), (13, "sentences"), (len(HEDGES) + 1, "hedges")):
        with pytest.raises(InputError, match=rf"not {most}\."):
            pad(model(), judged(), 0, "hedges" if kind == "hedges" else "sentences", most)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("", "b", "Answer A is empty"),
        ("a", " \n", "Answer B is empty"),
        (None, "b", "Answer A is empty"),
        ("a  cat", " a cat ", "say the same"),
        ("x" * (LONGEST_ANSWER + 1), "b", "Answer A has 4,001 characters"),
    ],
)
def test_bad_answers(first: str | None, second: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        answers_of(first, second)


def test_an_image_mark_in_an_answer_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="image"):
        judge(model(), IMAGES, PROMPT, answers_of("<image> a cat", "a dog"), POOL)


def test_hostile_answers_are_escaped() -> None:
    found = judge(model(), IMAGES[:1], prompt_of(HOSTILE, 1), answers_of(HOSTILE, "a cat"), POOL)
    words = padding_words(pad(model(), found, 0, "sentences", 1))
    for html in (words, verdict_card(found), views_table(found)):
        assert "<script" not in html and "onerror=" not in html.replace("onerror=alert(1)&gt;", "")
    assert HOSTILE in unescape(words)


def test_a_model_that_reads_text_only_is_asked_once() -> None:
    blind = text_model()
    found = judge(blind, (), "Which one?", ANSWERS)
    assert [each.view for each in found.views] == [AS_IS] and found.shown is None
    assert pad(blind, found, 0, "sentences", 2).blank is None


def test_examples_are_the_bundled_pairs() -> None:
    examples = read_pair_examples()
    assert len(examples.pairs) == SHOWN and len(examples.pictures) > 50
    for example in examples.pairs:
        better, worse = example.answers
        assert better == example.asked.gold != worse and f"{better} over {worse}" in pair_card(example)
        assert not example.asked.question.startswith("1 <image>")


def test_the_words_count_the_steps_that_turn_the_preference() -> None:
    found = replace(pad(model(), judged(), 1, "sentences", 3), tokens=(4, 9, 20, 30))
    assert "by 2 of 3 steps, first with 5 tokens more" in padding_words(replace(found, flips=(1, 3)))
    assert "by none of 3 steps" in padding_words(replace(found, flips=()))
