"""Blanked, swapped and hidden images, against scores and masks made by hand."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from probes.encoding import row_sets
from probes.inputs import InputError
from probes.interventions import blank_effects, knockout_effects, layer_windows, swap_effects
from probes.model import HookedModel, Question
from tests.probes.hooked import FAMILIES, INTERVENED, hooked, picture, questions, reference, sharp_model

ANSWER = [120, 121, 122]
TOLERANCE = 2e-4
"""Of log-probabilities near -20, summed in fp32 on differently shaped batches."""


def score_by_hand(family: str, question: Question) -> float:
    """The answer's log-probability through the eager reference path."""
    seen = reference(family, question, ANSWER)
    rows = seen.logits[seen.prompt - 1 : seen.prompt - 1 + len(ANSWER)].log_softmax(-1)
    return sum(float(rows[step, token]) for step, token in enumerate(ANSWER))


@pytest.mark.parametrize("family", (*FAMILIES, *INTERVENED))
def test_blanking_replaces_one_image_at_a_time(family: str) -> None:
    question = questions()[0]
    effects = blank_effects(hooked(family), question, ANSWER)
    assert effects.shape == (3,)
    for place, image in enumerate(question.images):
        images = list(question.images)
        images[place] = Image.new("RGB", image.size, (128, 128, 128))
        expected = score_by_hand(family, question) - score_by_hand(family, Question(images, question.text))
        assert effects[place] == pytest.approx(expected, abs=TOLERANCE)
    assert np.abs(effects).max() > 100 * TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_swapping_brings_in_another_samples_image_at_the_same_size(family: str) -> None:
    question, others = questions()[0], [picture(50, 20, 7), picture(20, 50, 8)]
    effects = swap_effects(hooked(family), question, ANSWER, others)
    for place, image in enumerate(question.images):
        images = list(question.images)
        images[place] = others[place % 2].resize(image.size)
        expected = score_by_hand(family, question) - score_by_hand(family, Question(images, question.text))
        assert effects[place] == pytest.approx(expected, abs=TOLERANCE)


def test_an_image_that_is_blank_already_has_no_effect_to_tell_and_swapping_one_for_itself_is_refused() -> None:
    question = questions()[0]
    flat = Question([Image.new("RGB", (32, 32), (128, 128, 128)), picture()], "Which?")
    assert np.isnan(blank_effects(hooked("llava"), flat, ANSWER)).tolist() == [True, False]
    assert np.isfinite(blank_effects(hooked("llava"), flat, ANSWER, "white")).all()
    again = io.BytesIO()
    question.images[0].save(again, format="PNG", dpi=(300, 300))
    for others in (question.images, [again.getvalue()]):
        with pytest.raises(InputError, match="image 1 would be swapped for one that shows the same"):
            swap_effects(hooked("llava"), question, ANSWER, others)


def test_neutrals_differ_and_the_mean_is_the_images_own() -> None:
    question = questions()[0]
    gray, white, mean = (
        blank_effects(hooked("llava"), question, ANSWER, neutral) for neutral in ("gray", "white", "mean")
    )
    assert np.abs(gray - white).max() > 1e-2
    assert np.abs(gray - mean).max() > 1e-3
    plain = Question([Image.new("RGB", (32, 32), (200, 30, 90)), picture()], "Which?")
    assert np.isnan(blank_effects(hooked("llava"), plain, ANSWER, "mean")).tolist() == [True, False]


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "idefics3", "smolvlm"])
def test_knocking_out_equals_a_four_dimensional_mask_made_by_hand(family: str) -> None:
    """A causal mask for all, with one image's columns closed to the rows behind the last image."""
    model, question = hooked(family), questions()[0]
    encoded = model.encode([question], [ANSWER])
    baseline = float(model.score(encoded).log_probability[0])
    effects = knockout_effects(model, question, ANSWER)
    assert effects.shape == (1, 3)
    tokens = encoded.columns
    for image, span in enumerate(encoded.spans[0]):
        allowed = torch.ones(tokens, tokens, dtype=torch.bool).tril()
        for row in range(encoded.spans[0][-1].stop, tokens):
            for column in span.tokens:
                allowed[row, column] = False
        hidden = baseline - masked_score(model, encoded.inputs, allowed[None, None], encoded.prompt_stop)
        assert effects[0, image] == pytest.approx(hidden, abs=TOLERANCE)
    assert np.abs(effects).max() > 100 * TOLERANCE


def test_a_hidden_images_own_rows_keep_seeing_it() -> None:
    """Rows of the last image are blinded to the others by hand; to itself only the rows behind it are."""
    model, question = hooked("llava"), questions()[0]
    encoded = model.encode([question], [ANSWER])
    baseline = float(model.score(encoded).log_probability[0])
    effects = knockout_effects(model, question, ANSWER, rows=["after", "anchor"], batch_size=2)[0]
    last, tokens = encoded.spans[0][-1], encoded.columns
    for image, span in enumerate(encoded.spans[0]):
        allowed = torch.ones(tokens, tokens, dtype=torch.bool).tril()
        own = image == len(encoded.spans[0]) - 1
        allowed[last.stop if own else last.start :, span.tokens] = False
        hidden = baseline - masked_score(model, encoded.inputs, allowed[None, None], encoded.prompt_stop)
        assert effects[image] == pytest.approx(hidden, abs=TOLERANCE)
    after = knockout_effects(model, question, ANSWER)[0]
    assert effects[-1] == pytest.approx(after[-1], abs=TOLERANCE)
    assert np.abs(effects - after)[:-1].max() > 10 * TOLERANCE


def test_an_image_that_no_row_can_be_blinded_to_has_no_effect_whatever_the_batch() -> None:
    model, question = hooked("llava"), questions()[0]
    for size in (1, 8):
        effects = knockout_effects(model, question, ANSWER, rows="anchor", batch_size=size)[0]
        assert np.isnan(effects).tolist() == [False, False, True]
    with pytest.raises(InputError, match="at least one row set"):
        knockout_effects(model, question, ANSWER, rows=[])


def masked_score(model: HookedModel, inputs: dict[str, torch.Tensor], allowed: torch.Tensor, stop: int) -> float:
    """The answer's log-probability under a whole mask, with the positions that the unmasked prompt has."""
    plain = dict(inputs)
    if model.model.config.model_type == "qwen2_5_vl":
        positions, _ = model.model.model.get_rope_index(**{k: v for k, v in plain.items() if k != "pixel_values"})
    else:
        positions = torch.arange(allowed.shape[-1])[None]
    plain |= {"attention_mask": allowed, "position_ids": positions}
    with torch.no_grad():
        logits = model.model(**plain, use_cache=False).logits[0]
    rows = logits[stop - 1 : stop - 1 + len(ANSWER)].log_softmax(-1)
    return sum(float(rows[step, token]) for step, token in enumerate(ANSWER))


@pytest.mark.parametrize("family", (*FAMILIES, *INTERVENED))
def test_windows_and_batches_do_not_change_each_other(family: str) -> None:
    model, question = hooked(family), questions()[0]
    windows = [model.layers, *layer_windows(model.layers, 1)]
    together = knockout_effects(model, question, ANSWER, windows)
    assert together.shape == (1 + len(model.layers), 3)
    alone = [knockout_effects(model, question, ANSWER, [window], batch_size=1)[0] for window in windows]
    np.testing.assert_allclose(together, np.stack(alone), atol=TOLERANCE)
    assert np.abs(together[0] - together[1:].sum(axis=0)).max() > 10 * TOLERANCE
    one_by_one = blank_effects(model, question, ANSWER, batch_size=1)
    np.testing.assert_allclose(blank_effects(model, question, ANSWER), one_by_one, atol=TOLERANCE)


def test_rows_without_a_way_to_the_answer_have_no_effect() -> None:
    """In the last layer only the predicting rows matter: hiding an image from the others changes nothing."""
    model, question = hooked("llava"), questions()[0]
    last = [model.layers[-1:]]
    np.testing.assert_allclose(
        knockout_effects(model, question, ANSWER, last, rows="predicting"),
        knockout_effects(model, question, ANSWER, last, rows="after"),
        atol=TOLERANCE,
    )
    assert np.abs(knockout_effects(model, question, ANSWER, last, rows="predicting")).max() > 100 * TOLERANCE
    ends = [ANSWER[0]]
    paper = knockout_effects(model, question, ends, last, rows="paper")
    np.testing.assert_allclose(paper, 0, atol=1e-5)


def test_a_model_that_cannot_see_shows_no_effect() -> None:
    """The vision tower's pixels are cut off: whatever stands in an image's place, nothing changes."""
    model = HookedModel(sharp_model("llava"), hooked("llava").processor)
    with torch.no_grad():
        model.model.model.vision_tower.embeddings.patch_embedding.weight.zero_()
    question = questions()[0]
    np.testing.assert_allclose(blank_effects(model, question, ANSWER), 0, atol=1e-5)
    assert np.abs(blank_effects(hooked("llava"), question, ANSWER)).max() > 1e-2


def test_a_generated_answer_is_scored_by_its_own_tokens() -> None:
    model, question = hooked("llava"), questions()[0]
    trace = model.trace(question.images, question.text, max_new_tokens=4)
    scores = model.log_probability([question], [trace.answer_ids])
    assert scores.log_probability[0] == pytest.approx(trace.log_probability, abs=1e-5)
    assert np.isfinite(blank_effects(model, question, trace.answer_ids)).all()


def test_what_cannot_be_done_is_refused() -> None:
    model, question = hooked("llava"), questions()[0]
    with pytest.raises(InputError, match="unknown neutral 'black'"):
        blank_effects(model, question, ANSWER, "black")
    with pytest.raises(InputError, match="at least one image of another sample"):
        swap_effects(model, question, ANSWER, [])
    with pytest.raises(InputError, match="the answer is empty"):
        blank_effects(model, question, [])
    with pytest.raises(InputError, match="at least one layer"):
        knockout_effects(model, question, ANSWER, [[]])
    with pytest.raises(InputError, match=r"layers \[7\] have no attention"):
        knockout_effects(model, question, ANSWER, [[7]])
    with pytest.raises(InputError, match="unknown rows"):
        knockout_effects(model, question, ANSWER, rows="all")
    with pytest.raises(InputError, match="batch_size"):
        blank_effects(model, question, ANSWER, batch_size=0)


def test_the_model_is_left_as_it_was_found() -> None:
    model, question = hooked("llava"), questions()[0]
    encoded = model.encode([question], [ANSWER])
    before = model.score(encoded).log_probability
    knockout_effects(model, question, ANSWER)
    np.testing.assert_array_equal(model.score(encoded).log_probability, before)
    assert row_sets(encoded, ["after"])["after"].any()
