"""Greedy answers whatever a checkpoint's own settings are, and what their scores are scores of."""

from typing import Any

import numpy as np
import pytest
import torch

from probes.inputs import InputError
from probes.model import HookedModel
from tests.probes.hooked import NEVER, hooked, questions, sharp_model


def fresh() -> HookedModel:
    model = HookedModel(sharp_model("llava"), hooked("llava").processor)
    model.model.generation_config.eos_token_id = NEVER
    return model


@pytest.mark.parametrize(
    "settings",
    [
        {"return_dict_in_generate": True},
        {"num_return_sequences": 2, "num_beams": 2},
        {"stop_strings": ["a", "e"]},
        {"do_sample": True, "temperature": 9.0},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_checkpoints_own_settings_do_not_change_the_answer(settings: dict[str, object]) -> None:
    question = questions()[1]
    model = fresh()
    for name, value in settings.items():
        setattr(model.model.generation_config, name, value)
    found = model.trace_batch([question], max_new_tokens=5)
    assert [trace.answer_ids for trace in found] == [
        trace.answer_ids for trace in hooked("llava").trace_batch([question], max_new_tokens=5)
    ]


def test_a_repetition_penalty_changes_the_choice_and_not_the_score() -> None:
    """A penalty below 1 draws the answer towards words of the prompt."""
    question = questions()[1]
    model = fresh()
    model.model.generation_config.repetition_penalty = 0.05
    penalised = model.trace(question.images, question.text, max_new_tokens=8)
    plain = hooked("llava").trace(question.images, question.text, max_new_tokens=8)
    assert penalised.answer_ids != plain.answer_ids
    scored = hooked("llava").log_probability([question], [penalised.answer_ids]).log_probability[0]
    assert penalised.log_probability == pytest.approx(scored, abs=1e-5)


def test_barred_tokens_keep_their_share_of_the_probability() -> None:
    """An image's placeholder is made by far the likeliest token: it is not written, and the answer scores near 0."""
    question = questions()[1]
    model = fresh()
    placeholder = model.model.config.image_token_index
    first = hooked("llava").trace(question.images, question.text, max_new_tokens=1).answer_ids[0]
    with torch.no_grad():
        head = model.model.lm_head.weight
        head[placeholder] = 20 * head[first]
    trace = model.trace(question.images, question.text, max_new_tokens=1)
    assert trace.answer_ids == (first,)
    assert np.exp(trace.log_probability) < 0.01


def test_what_is_no_question_or_answer_is_refused_in_words() -> None:
    model, question = hooked("llava"), questions()[1]
    size = model.model.config.text_config.vocab_size
    with pytest.raises(InputError, match="put a single one into a list"):
        model.trace_batch(question)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"question 0 is int: give Question"):
        model.trace_batch([5])  # type: ignore[list-item]
    with pytest.raises(InputError, match="one answer per question"):
        model.trace_batch([question], "A")
    for answer in (["a", "b"], 5, [1.5]):
        with pytest.raises(InputError, match="give text, or a list of token ids"):
            model.trace(question.images, question.text, answer)  # type: ignore[arg-type]
    for token in (-1, size):
        with pytest.raises(InputError, match=rf"token ids \[{token}\].*0 to {size - 1}"):
            model.trace(question.images, question.text, [token])
    array: Any = np.array([120, 121])
    assert model.trace(question.images, question.text, array).answer_ids == (120, 121)
