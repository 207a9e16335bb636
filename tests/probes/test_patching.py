"""Patched residual streams of images, against replacements, hooks made by hand, and nothing at all."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from probes.attention_calls import UnsupportedAttention
from probes.bridges.support import NO_PATCH
from probes.changes import Patch
from probes.decoder import decoder_layers
from probes.inputs import InputError
from probes.interventions import blank_effects, blanked, swap_effects
from probes.model import Question
from probes.patching import image_tokens, patch_effects
from probes.residuals import picked, reading_residuals
from tests.probes.hooked import FAMILIES, FURTHER, hooked, picture, questions

ANSWER = [120, 121, 122]
TOLERANCE = 2e-4
BESIDES_EMBEDDINGS = (
    "cohere_compass",
    "cosmos3_omni",
    "gemma4",
    "granite4_vision",
    "granite_docling",
    "qwen3_omni_moe_thinker",
    "qwen3_vl",
    "qwen3_vl_moe",
)
"""Families whose vision tower adds features between layers too; Gemma 4 gives each layer embeddings of its own."""


UNPATCHED = {
    "gemma3n": r"residual stream has the form \(4, 3, \d+, 32\).*knock out attention",
    "glm5_next": r"its residual stream has the form \(3, \d+, 4, 32\)",
    "inkling2": "it looks back at the residual streams of earlier layers",
}
"""Families that are refused, with the reason."""


@pytest.mark.parametrize("family", UNPATCHED)
def test_families_whose_streams_are_not_one_are_refused(family: str) -> None:
    model = hooked(family)
    with pytest.raises(InputError, match=UNPATCHED[family]):
        patch_effects(model, questions()[0], ANSWER, windows=[model.residual_layers])


@pytest.mark.parametrize("family", [family for family in (*FAMILIES, *FURTHER) if family not in NO_PATCH])
def test_patching_every_layer_equals_running_the_blank(family: str) -> None:
    model, question = hooked(family), questions()[0]
    layers = model.residual_layers
    expected = blank_effects(model, question, ANSWER)
    effects = patch_effects(model, question, ANSWER, windows=[layers, [0], layers[-1:]])
    assert np.abs(effects[0] - expected).max() < TOLERANCE
    assert (np.abs(effects[1] - expected).max() < TOLERANCE) == (family not in BESIDES_EMBEDDINGS)
    assert np.abs(effects[2] - expected).max() > 10 * TOLERANCE
    assert np.abs(expected).max() > 50 * TOLERANCE


def test_patching_a_span_by_itself_changes_nothing() -> None:
    model, question = hooked("llava"), questions()[0]
    encoded = model.encode([question] * 3, [ANSWER] * 3)
    tokens = image_tokens(encoded, [0, 1, 2])
    own = model.residuals(encoded, tokens, model.residual_layers)
    baseline = model.score(encoded).log_probability
    np.testing.assert_array_equal(model.score(encoded, [Patch(tokens, own)]).log_probability, baseline)
    other = {layer: values.flip(0) for layer, values in own.items()}
    assert np.abs(model.score(encoded, [Patch(tokens, other)]).log_probability - baseline).min() > 100 * TOLERANCE


def test_one_layer_equals_a_hook_made_by_hand() -> None:
    model, question = hooked("qwen2_5_vl"), questions()[0]
    effects = patch_effects(model, question, ANSWER, windows=[[1]])[0]
    baseline = float(model.log_probability([question], [ANSWER]).log_probability[0])
    for place, image in enumerate(question.images):
        images = [*question.images[:place], blanked(image), *question.images[place + 1 :]]
        encoded = model.encode([question], [ANSWER])
        blank = model.encode([Question(images, question.text)], [ANSWER])
        columns = encoded.spans[0][place].tokens
        with torch.no_grad():
            states = model.model(**blank.inputs, output_hidden_states=True).hidden_states[1]

        def put(
            module: torch.nn.Module,
            args: tuple[torch.Tensor, ...],
            source: torch.Tensor = states,
            columns: object = columns,
        ) -> tuple[torch.Tensor, ...]:
            args[0][:, columns] = source[:, columns]  # type: ignore[index]
            return args

        handle = model.model.model.language_model.layers[1].register_forward_pre_hook(put)
        score = float(model.score(encoded).log_probability[0])
        handle.remove()
        assert effects[place] == pytest.approx(baseline - score, abs=TOLERANCE)


def test_windows_default_to_every_layer_alone_and_batches_do_not_matter() -> None:
    model, question = hooked("llava"), questions()[0]
    effects = patch_effects(model, question, ANSWER)
    assert effects.shape == (len(model.residual_layers), 3)
    singly = patch_effects(model, question, ANSWER, windows=[[layer] for layer in model.residual_layers], batch_size=1)
    np.testing.assert_allclose(effects, singly, atol=TOLERANCE)


def test_another_samples_image_is_patched_in() -> None:
    model, question, others = hooked("llava"), questions()[0], [picture(50, 20, 7)]
    effects = patch_effects(model, question, ANSWER, others, windows=[[0]])[0]
    np.testing.assert_allclose(effects, swap_effects(model, question, ANSWER, others), atol=TOLERANCE)
    assert np.abs(effects - patch_effects(model, question, ANSWER, windows=[[0]])[0]).max() > 100 * TOLERANCE


def test_an_image_that_is_blank_already_has_no_effect_to_tell() -> None:
    model, images = hooked("llava"), [*questions()[0].images]
    images[1] = blanked(images[1])
    effects = patch_effects(model, Question(images, questions()[0].text), ANSWER)
    assert (np.isnan(effects) == [False, True, False]).all()


def test_layers_without_attention_are_patched_too() -> None:
    model = hooked("qwen3_5")
    assert set(model.residual_layers) > set(model.layers)
    effects = patch_effects(model, questions()[0], ANSWER, windows=[[1]])
    assert np.abs(effects).max() > 100 * TOLERANCE


def test_hooks_are_gone_afterwards() -> None:
    model, question = hooked("llava"), questions()[0]
    encoded = model.encode([question], [ANSWER])
    before = model.score(encoded).log_probability
    patch_effects(model, question, ANSWER)
    np.testing.assert_array_equal(model.score(encoded).log_probability, before)


def test_a_layer_that_never_runs_is_named() -> None:
    model = hooked("llava")
    tokens = torch.ones((1, 4), dtype=torch.bool)
    with pytest.raises(InputError, match=r"layers \[0, 2\] never ran"), reading_residuals(model.model, tokens, [0, 2]):
        pass


def test_patches_that_do_not_fit_are_refused() -> None:
    model, question = hooked("llava"), questions()[0]
    encoded = model.encode([question], [ANSWER])
    tokens = image_tokens(encoded, [0])
    own = model.residuals(encoded, tokens, [0])
    for windows, message in (([[]], "at least one layer"), ([[7]], r"no decoder layers \[7\]; .* are 0 to 2")):
        with pytest.raises(InputError, match=message):
            patch_effects(model, question, ANSWER, windows=windows)
    with pytest.raises(InputError, match="unknown neutral"):
        patch_effects(model, question, ANSWER, neutral="black")
    with pytest.raises(InputError, match="shows the same"):
        patch_effects(model, question, ANSWER, question.images)
    with pytest.raises(InputError, match="True somewhere"):
        model.residuals(encoded, torch.zeros_like(tokens), [0])
    with pytest.raises(InputError, match="are named"):
        model.residuals(encoded, tokens, [])
    with pytest.raises(InputError, match="tokens of size 32 are patched, and the values have"):
        model.score(encoded, [Patch(tokens, {0: own[0][1:]})])
    with pytest.raises(InputError, match="only \\(batch, tokens, hidden size\\)"):
        model.score(encoded, [Patch(tokens[:, 1:], own)])


def test_another_thread_may_run_while_hooks_are_being_added() -> None:
    """torch adds a hook first, and says a moment later that it takes keywords."""
    model, question = hooked("llava"), questions()[0]
    encoded = model.encode([question], [ANSWER])
    layer, tokens = decoder_layers(model.model)[1], image_tokens(encoded, [0])
    with torch.no_grad(), reading_residuals(model.model, tokens, [1]) as found:
        marks = dict(layer._forward_pre_hooks_with_kwargs)
        layer._forward_pre_hooks_with_kwargs.clear()
        with ThreadPoolExecutor(1) as other:
            other.submit(model.score, encoded).result()
        assert not found
        layer._forward_pre_hooks_with_kwargs.update(marks)
        model.score(encoded)
    assert set(found) == {1}


def test_an_image_that_takes_other_tokens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, question = hooked("qwen2_5_vl"), questions()[0]
    monkeypatch.setattr("probes.patching.swapped", lambda images, _: [picture(96, 96)] * len(images))
    with pytest.raises(InputError, match="takes other tokens"):
        patch_effects(model, question, ANSWER, [picture()])


def test_a_residual_stream_of_another_form_is_refused() -> None:
    with pytest.raises(InputError, match=r"layer 3: its residual stream has the form \(2, 1, 5, 8\)"):
        picked(3, torch.zeros(2, 1, 5, 8), torch.ones(1, 5, dtype=torch.bool))


def test_a_decoder_without_a_list_of_layers_is_refused() -> None:
    class Attention(torch.nn.Module):
        layer_idx = 0

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.only = Attention()

    with pytest.raises(UnsupportedAttention, match="Decoder: no list of decoder layers is found"):
        decoder_layers(Decoder())
