"""Answers are drawn from the whole distribution, each question by itself; and what best-of-N makes of the pools."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from probes.inputs import InputError, Turn
from probes.model import HookedModel
from probes.prompts import Question
from rewardmodels.answer_pools import score_pools
from rewardmodels.best_of_n import expected_best
from rewardmodels.model import as_turns
from rewardmodels.records import Response
from rewardmodels.sampling import sample_answers
from rewardmodels.scorers import CallableScorer
from studies.best_of_n import Sampling, bundled_best_of_n, chosen_questions
from studies.bundled import BUNDLED_MODEL
from studies.multi_image import answer_correct

SMALL = Sampling(questions=6, samples=8, most_images=3)


@pytest.fixture(scope="module")
def policy() -> HookedModel:
    return HookedModel.from_pretrained(BUNDLED_MODEL)


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return [Question(record.images, record.question) for record in chosen_questions(SMALL)]


def test_draws_follow_the_models_probabilities(policy: HookedModel, questions: list[Question]) -> None:
    question, count, temperature = questions[0], 300, 4.0
    drawn = sample_answers(policy, [question], count, temperature=temperature, max_new_tokens=1, batch_size=150)[0]
    inputs = policy.encode([question]).inputs
    with torch.no_grad():
        logits = policy.model(**inputs).logits[0, -1]
    image = policy.model.config.image_token_index
    logits[image] = -torch.inf
    chances = (logits / temperature).softmax(-1)
    tokenizer = policy.processor.tokenizer
    by_text: dict[str, float] = {}
    for token, chance in enumerate(chances.tolist()):
        text = "" if token in tokenizer.all_special_ids else tokenizer.decode([token]).strip()
        by_text[text] = by_text.get(text, 0.0) + chance
    likely = sorted(by_text, key=lambda text: -by_text[text])[:3]
    for text in likely:
        expected = by_text[text]
        error = (expected * (1 - expected) / count) ** 0.5
        assert abs(drawn.count(text) / count - expected) < 4 * error, text
    flat = [by_text[text] for text in likely]
    sharp = logits.softmax(-1).max()
    assert float(sharp) - max(flat) > 0.1, "the temperature would not be seen"


def test_at_a_low_temperature_several_images_keep_their_places(policy: HookedModel, questions: list[Question]) -> None:
    greedy = policy.generate_batch(questions, 4)
    assert max(len(question.images) for question in questions) >= 3 and len(set(greedy)) >= 3
    drawn = sample_answers(policy, questions, 3, temperature=1e-3, max_new_tokens=4)
    assert drawn == [[answer] * 3 for answer in greedy]


def test_draws_are_of_the_seed_and_leave_the_random_state_alone(policy: HookedModel, questions: list[Question]) -> None:
    def draw(some: list[Question], seed: int = 0) -> list[list[str]]:
        return sample_answers(policy, some, 4, temperature=3.0, seed=seed, max_new_tokens=2)

    state = torch.random.get_rng_state()
    first = draw(questions[:2])
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(99)
    assert draw(questions[:2]) == first != draw(questions[:2], seed=1)
    assert draw(questions[:1])[0] == first[0], "another question changes the draws"
    twice = draw([questions[0], questions[0]])
    assert twice[0] != twice[1]


def test_the_models_own_cut_offs_are_set_aside(policy: HookedModel, questions: list[Question]) -> None:
    before = sample_answers(policy, questions[:1], 8, temperature=4.0, max_new_tokens=2)
    own = policy.model.generation_config
    kept = {name: getattr(own, name) for name in ("top_k", "min_p", "do_sample")}
    try:
        own.top_k, own.min_p, own.do_sample = 1, 0.99, True
        assert sample_answers(policy, questions[:1], 8, temperature=4.0, max_new_tokens=2) == before
    finally:
        for name, value in kept.items():
            setattr(own, name, value)
    assert len(set(before[0])) > 1


def test_draws_that_cannot_be_made_are_refused(policy: HookedModel, questions: list[Question]) -> None:
    for temperature in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="the temperature is"):
            sample_answers(policy, questions[:1], 1, temperature=temperature)
    with pytest.raises(InputError, match="count is 0"):
        sample_answers(policy, questions[:1], 0)


def test_pools_are_scored_once_an_answer_and_empty_ones_come_last() -> None:
    asked = []

    def score(_: object, response: object) -> float:
        asked.append(response)
        return -5.0

    prompts = [as_turns("Q"), as_turns("R")]
    found = score_pools(CallableScorer(score), prompts, [["a", " ", "a"], ["", ""]], lambda _, text: float(text == "a"))
    assert found.rewards == ((-5.0, -6.0, -5.0), (-1.0, -1.0)) and len(asked) == 1 and found.empty == 3
    assert found.quality == ((1.0, 0.0, 1.0), (0.0, 0.0)) and found.curve.sizes == (1, 2)
    # Of the three pairs of the first pool, each holds an answer; the second pool has none.
    assert [estimate.value for estimate in found.curve.quality] == pytest.approx([(2 / 3 + 0) / 2, 0.5])


def test_the_bundled_curve_is_that_of_its_pools_and_rises_for_who_knows() -> None:
    records = chosen_questions(SMALL)
    by_images = {record.images: record for record in records}

    def knows(prompt: Sequence[Turn], response: Response) -> float:
        return float(answer_correct(by_images[prompt[0].images], response.text))

    found = bundled_best_of_n(CallableScorer(knows), SMALL)
    curve = found.pools.curve
    assert curve.sizes == (1, 2, 4, 8)
    values = [estimate.value for estimate in curve.quality]
    assert values == pytest.approx(list(curve.ceiling)) and values == sorted(values) and values[-1] > values[0] + 0.1
    assert 0.1 < values[0] < 0.9
    pools = zip(found.pools.rewards, found.pools.quality, strict=True)
    expected = np.mean([expected_best(rewards, quality, 4) for rewards, quality in pools])
    assert values[2] == pytest.approx(expected)
    worst = bundled_best_of_n(CallableScorer(lambda prompt, response: -knows(prompt, response)), SMALL)
    assert worst.pools.answers == found.pools.answers
    assert worst.pools.curve.quality[-1].value < worst.pools.curve.quality[0].value
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["ids"] == [record.id for record in records] and plain["sampling"]["temperature"] == 3.0


def test_more_questions_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="2401 questions are asked for, and there are 2400"):
        chosen_questions(Sampling(questions=2401))
