"""A reading and the instruments on it, against the model's own eager attentions, autograd, loops and differences."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from probes.attention import UnsupportedAttention
from probes.inputs import InputError
from probes.instruments import attention_scores as scores
from probes.instruments.arrays import Reading
from probes.instruments.lens import LogitLens
from probes.instruments.names import IMAGE_ROWS, LENS, RAW, RELATIVE
from probes.instruments.reading import read, read_streams
from probes.instruments.sample import generic_text, instrument_scores
from probes.model import Question
from tests.probes.hooked import FURTHER, hooked, questions, reference

FAMILIES = ("llava", "qwen2_5_vl", "idefics3", "gemma3")
ANSWER = [120, 121]
TOLERANCE = 1e-5


@cache
def reading(family: str) -> Reading:
    return read(hooked(family), questions()[0], ANSWER)


@cache
def eager(family: str) -> Any:
    """One eager forward with its graph: attentions that gradients can be asked of, hidden states, log-probability."""
    model = hooked(family, "eager")
    encoded = model.encode([questions()[0]], [ANSWER])
    output = model.model(**encoded.inputs, output_attentions=True, output_hidden_states=True, use_cache=False)
    rows = output.logits[0, -len(ANSWER) - 1 : -1].log_softmax(-1)
    return output, rows.gather(1, torch.tensor(ANSWER)[:, None]).sum()


@cache
def eager_gradients(family: str) -> list[np.ndarray]:
    output, log_probability = eager(family)
    return [each[0].numpy() for each in torch.autograd.grad(log_probability, output.attentions)]


def eager_attention(family: str) -> list[np.ndarray]:
    return [each[0].detach().numpy() for each in eager(family)[0].attentions]


def means(table: np.ndarray, family: str, rows: str) -> list[float]:
    """Mean over the row set and each image's columns of (rows, columns), one entry at a time."""
    found = reading(family)
    return [float(np.mean([[table[t, j] for j in image] for t in found.rows[rows]])) for image in found.images]


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_values_and_answer_are_the_models_own(family: str) -> None:
    found, seen = reading(family), reference(family, questions()[0], ANSWER)
    for layer, own in zip(found.heads, seen.attentions, strict=True):
        np.testing.assert_allclose(layer.attention, own, atol=TOLERANCE)
    assert [image.tolist() for image in found.images] == seen.images
    assert found.predicting.tolist() == [seen.prompt - 1, seen.prompt]
    assert found.log_probability == pytest.approx(float(eager(family)[1].detach()), abs=1e-3)
    traced = hooked(family).trace_batch([questions()[0]], [ANSWER])[0]
    for rows in ("paper", "predicting"):
        np.testing.assert_allclose(scores.raw_factor(found, rows), traced.factors_by_rows[rows], atol=TOLERANCE)


UNREAD = {
    "chameleon": "it does more than norm and head",
    "glm5_next": r"residual stream of shape \(1, \d+, 4, 32\)",
    "inkling_mm_model": "it does more than norm and head",
    "inkling2": "its output projection is given something else",
    "gemma3n": r"residual stream of shape \(4, 1",
    "dots3_note": "which rows are padding cannot be told",
    "lfm2_vl": "needs one final norm",
    "lfm3_vl": "its output projection is given something else",
    "llama4": "keeps its layers under another name",
    "mistral_large4": "which rows are padding cannot be told",
    "minicpm_ocr": "its output projection is given something else",
    "muse_glimmer": "its output projection is given something else",
    "muse_spark": "its output projection is given something else",
    "nemotron_h_omni": "keeps its layers under another name",
    "minicpmv4_6": "its output projection is given something else",
    "minicpmv4_7": "its output projection is given something else",
    "granite_docling": "it does more than norm and head",
    "qwen3_5": "its output projection is given something else",
    "qwen3_5_moe": "its output projection is given something else",
    "step3p7": "its output projection is given something else",
}
"""Families that are refused, with the reason."""


@pytest.mark.parametrize("family", [name for name in FURTHER if name in UNREAD])
def test_families_that_the_instruments_cannot_read_are_refused_by_name(family: str) -> None:
    with pytest.raises(InputError, match=UNREAD[family]):
        instrument_scores(hooked(family), questions()[0], ANSWER)


@pytest.mark.parametrize("family", [name for name in FURTHER if name not in UNREAD])
def test_the_instruments_read_further_families(family: str) -> None:
    """Values have checked themselves against what the projection was given, and the lens against the model."""
    found = instrument_scores(hooked(family), questions()[0], ANSWER)
    traced = hooked(family).trace_batch([questions()[0]], [ANSWER])[0]
    np.testing.assert_allclose(found.scores[RAW, "predicting"], traced.factors_by_rows["predicting"], atol=TOLERANCE)
    assert all(np.isfinite(table).all() for table in found.scores.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_autograd_through_eager_attention(family: str) -> None:
    found = reading(family)
    everything = np.arange(found.residuals.shape[1])
    for layer, own in zip(found.heads, eager_gradients(family), strict=True):
        made = scores.attention_gradient(layer, everything)
        seen = layer.attention > 0
        assert np.abs(own[seen]).max() > 1e-2
        np.testing.assert_allclose(made[seen], own[seen], atol=1e-3 * np.abs(own).max())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", ["paper", "predicting"])
def test_gradient_times_attention_by_hand(family: str, rows: str) -> None:
    found = scores.gradient_attention(reading(family), rows)
    for layer, (own, gradient) in enumerate(zip(eager_attention(family), eager_gradients(family), strict=True)):
        product = (own * gradient).clip(min=0).mean(axis=0)
        expected = means(product, family, rows)
        np.testing.assert_allclose(found[layer], expected, atol=2e-3 * max(expected) + 1e-9)
        # Taking means before the positive part would be another number.
        late = np.maximum(means((own * gradient).mean(axis=0), family, rows), 0)
        assert max(expected) == 0 or np.abs(late - expected).max() > 1e-2 * max(expected)


def nudged(projection: Any, row: int, columns: slice, added: torch.Tensor) -> float:
    """The answer's log-probability with something added to one head's output in one row."""
    model = hooked("llava")
    encoded = model.encode([questions()[0]], [ANSWER])

    def hook(_: Any, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        changed = given[0].clone()
        changed[0, row, columns] += added
        return (changed,)

    handle = projection.register_forward_pre_hook(hook)
    try:
        return float(model.score(encoded).log_probability[0])
    finally:
        handle.remove()


def test_a_gradient_is_the_slope_of_a_finite_difference() -> None:
    """One attention probability up and down by a hundredth, the others as they are."""
    found, step = reading("llava"), 0.01
    row, column = int(found.predicting[0]), int(found.images[1][3])
    for index, layer in enumerate(found.heads):
        heads, _, size = layer.gradient.shape
        projection = hooked("llava").model.get_decoder().layers[found.layers[index]].self_attn.o_proj
        slopes = []
        for head in range(heads):
            moved = step * torch.from_numpy(layer.spread_values()[head, column])
            own = slice(head * size, (head + 1) * size)
            slopes.append((nudged(projection, row, own, moved) - nudged(projection, row, own, -moved)) / (2 * step))
        made = scores.attention_gradient(layer, np.array([row]))[:, 0, column]
        np.testing.assert_allclose(made, slopes, atol=5e-3 * np.abs(slopes).max())
        assert np.abs(slopes).max() > 1e-3 and np.ptp(slopes) > 0.1 * np.abs(slopes).max()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", ["paper", "predicting"])
def test_rollout_is_the_product_of_the_models_own_attentions(family: str, rows: str) -> None:
    found = scores.rollout(reading(family), rows)
    attentions = [layer.mean(axis=0).astype(np.float64) for layer in eager_attention(family)]
    identity = np.eye(len(attentions[0]))
    for depth in range(len(attentions)):
        product = np.linalg.multi_dot([identity, *(0.5 * a + 0.5 * identity for a in attentions[: depth + 1][::-1])])
        np.testing.assert_allclose(found[depth], means(product, family, rows), atol=5e-7, rtol=0)
        assert product.sum(axis=1) == pytest.approx(1, abs=1e-4)
        if depth:
            wrong = np.linalg.multi_dot([identity, *(0.5 * a + 0.5 * identity for a in attentions[: depth + 1])])
            assert np.abs(found[depth] - means(wrong, family, rows)).max() > 5e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", ["paper", "predicting"])
def test_value_norms_by_a_loop_over_vectors(family: str, rows: str) -> None:
    found, made = reading(family), scores.value_norm(reading(family), rows)
    decoder = hooked(family).model.get_decoder()
    apart = []
    for index, own in enumerate(eager_attention(family)):
        layer = found.heads[index]
        weight = decoder.layers[found.layers[index]].self_attn.o_proj.weight.detach().numpy()
        heads, size = own.shape[0], layer.values.shape[-1]
        share = heads // len(layer.values)
        for image, columns in enumerate(found.images):
            norms, separate = [], []
            for t in found.rows[rows]:
                for j in columns:
                    parts = [
                        own[h, t, j] * (weight[:, h * size : (h + 1) * size] @ layer.values[h // share, j])
                        for h in range(heads)
                    ]
                    norms.append(np.linalg.norm(np.sum(parts, axis=0)))
                    separate.append(np.linalg.norm(parts, axis=-1).sum())
            assert made[index, image] == pytest.approx(np.mean(norms), rel=1e-3, abs=1e-6)
            apart.append(1 - made[index, image] / max(np.mean(separate), 1e-9))
    # The norms of single heads, added up, are another measure.
    assert max(apart) > 0.05


def test_values_are_those_of_the_value_map() -> None:
    found, model = reading("llava"), hooked("llava").model.get_decoder()
    given = []
    handles = [
        layer.self_attn.v_proj.register_forward_hook(lambda _, __, output: given.append(output[0].detach().numpy()))
        for layer in model.layers
    ]
    try:
        hooked("llava").score(hooked("llava").encode([questions()[0]], [ANSWER]))
    finally:
        for handle in handles:
            handle.remove()
    for layer, own in zip(found.heads, given, strict=True):
        heads, tokens, size = layer.values.shape
        np.testing.assert_allclose(layer.values, own.reshape(tokens, heads, size).swapaxes(0, 1), atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_residual_stream_and_its_lens_are_the_models_own(family: str) -> None:
    found, lens = reading(family), LogitLens(hooked(family))
    output, log_probability = eager(family)
    states = [state[0].detach() for state in output.hidden_states]
    for depth in found.depths[:-1]:
        np.testing.assert_allclose(found.residuals[depth], states[depth + 1].numpy(), atol=2e-4, rtol=1e-3)
    said = lens.answer(found)
    assert said.log_probability[-1] == pytest.approx(float(log_probability.detach()), abs=1e-3)
    model = hooked(family).model
    for depth, state in enumerate(states[1:-1]):
        logits = model.get_output_embeddings()(model.get_decoder().norm(state)).log_softmax(-1).detach()
        own = [float(logits[row, token]) for row, token in zip(found.predicting, ANSWER, strict=True)]
        assert said.log_probability[depth] == pytest.approx(sum(own), abs=5e-3)
        ranks = [
            1 + int((logits[row] > logits[row, token]).sum())
            for row, token in zip(found.predicting, ANSWER, strict=True)
        ]
        assert said.rank[depth] == max(ranks)
        carried = [float(logits[image.tolist()][:, ANSWER].exp().mean()) for image in found.images]
        np.testing.assert_allclose(lens.images(found)[depth], carried, rtol=2e-2, atol=1e-9)
    assert len(set(said.log_probability.round(2))) > 1


def test_streams_and_lens_read_layers_of_any_kind() -> None:
    """Qwen3.5 mixes linear and full attention; where a reading is refused, its residual stream is not."""
    model, question = hooked("qwen3_5"), questions()[0]
    found = read_streams(model, question, ANSWER)
    kinds = set(model.model.config.text_config.layer_types)
    assert len(kinds) == 2 and len(found.depths) > len(model.layers)
    said = LogitLens(model).answer(found)
    assert said.log_probability[-1] == pytest.approx(
        float(model.log_probability([question], [ANSWER]).log_probability[0]), abs=1e-3
    )
    plain = read_streams(hooked("llava"), question, ANSWER)
    np.testing.assert_allclose(plain.features(), reading("llava").features(), atol=1e-4)
    assert plain.features().shape == (len(plain.depths), plain.residuals.shape[2])


def test_a_lens_that_misses_a_part_of_the_model_is_refused() -> None:
    model = hooked("llava")
    found = reading("llava")
    off = Reading(**{**found.__dict__, "log_probability": found.log_probability + 0.1})
    with pytest.raises(InputError, match="it does more than norm and head"):
        LogitLens(model).answer(off)


def test_a_generic_prompt_is_the_denominator() -> None:
    model, question = hooked("llava"), questions()[0]
    found = instrument_scores(model, question, ANSWER, generic="How many digits?")
    text = "1 <image> 2 <image> 3 <image> How many digits?"
    assert generic_text(question.text, "How many digits?") == text
    seen = reference("llava", Question(question.images, text), [])
    for layer, own in enumerate(seen.attentions):
        plain = own.mean(axis=0)[seen.prompt - 1]
        below = [plain[image].mean() for image in seen.images]
        above = found.scores[RAW, "predicting"][layer]
        np.testing.assert_allclose(found.scores[RELATIVE, "predicting"][layer], above / below, rtol=1e-3)
    same = instrument_scores(model, question, ANSWER, generic="Which image shows the red ball?")
    first = np.abs(same.scores[RELATIVE, "predicting"] - 1)
    assert first.max() > 1e-3
    with pytest.raises(InputError, match="generic question is empty"):
        instrument_scores(model, question, ANSWER, generic=" ")


def test_a_question_that_is_the_generic_one_is_relative_to_itself() -> None:
    model = hooked("llava")
    question = Question(questions()[0].images, "1 <image> 2 <image> 3 <image> How many digits?")
    found = instrument_scores(model, question, ANSWER[:1], generic="How many digits?")
    np.testing.assert_allclose(found.scores[RELATIVE, "predicting"], 1, rtol=1e-3)


def test_every_instrument_has_a_score_for_each_layer_and_image() -> None:
    found = instrument_scores(hooked("llava"), questions()[0], ANSWER)
    assert {rows for _, rows in found.scores} == {"paper", "predicting", IMAGE_ROWS}
    for (name, _), table in found.scores.items():
        assert table.shape == (len(found.depths if name == LENS else found.layers), 3)
        assert np.isfinite(table).all() and table.min() >= 0
    tables = [table for (_, rows), table in found.scores.items() if rows == "predicting"]
    assert len({table.tobytes() for table in tables}) >= 5
    np.testing.assert_allclose(found.heads["paper"].mean(axis=1), found.scores[RAW, "paper"], atol=1e-6)
    assert found.features.shape[0] == len(found.depths) and "rollout" in repr(found)


def test_what_would_not_fit_is_refused_with_its_size() -> None:
    model, question = hooked("llava"), questions()[0]
    tokens = model.encode([question], [ANSWER]).columns
    with pytest.raises(InputError, match=rf"heads, {tokens} x {tokens} tokens each: .* more than the limit of"):
        read(model, question, ANSWER, limit_bytes=1000)
    layers, heads = len(reading("llava").layers), reading("llava").heads[0].attention.shape[0]
    read(model, question, ANSWER, limit_bytes=4 * layers * heads * tokens**2)
    with pytest.raises(InputError, match="more than the limit"):
        read(model, question, ANSWER, limit_bytes=4 * layers * heads * tokens**2 - 1)


def test_gated_attention_and_empty_answers_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedAttention, match=r"decoder layer \d+ .*something else than attention times values"):
        read(hooked("qwen3_5"), questions()[0], ANSWER)
    with pytest.raises(InputError, match="answer is empty"):
        read(hooked("llava"), questions()[0], [])


def test_a_reading_leaves_the_model_as_it_was() -> None:
    model, question = hooked("llava"), questions()[0]
    before = model.log_probability([question], [ANSWER]).log_probability[0]
    read(model, question, ANSWER)
    with pytest.raises(InputError):
        read(model, question, ANSWER, limit_bytes=1)
    assert model.log_probability([question], [ANSWER]).log_probability[0] == before
    assert all(parameter.grad is None for parameter in model.model.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.model.get_decoder().modules())


def test_missing_rows_are_named() -> None:
    found = reading("llava")
    assert "3 images" in repr(found)
    with pytest.raises(InputError, match="no row set 'anchor'"):
        found.query_rows("anchor")
    with pytest.raises(InputError, match="row set 'paper' has no row"):
        Reading(**{**found.__dict__, "rows": {"paper": np.array([], dtype=np.int64)}}).query_rows("paper")
