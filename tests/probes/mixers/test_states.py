"""The recurrent state behind a prompt: chunked against step by step, against each kind's recurrence, and its view."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from probes.inputs import InputError
from probes.interventions import blanked, decoded
from probes.mixers.readers import READERS, reader_of
from probes.mixers.states import effective_rank, recurrent_states, relative_change, state_view
from probes.prompts import Question
from tests.probes.hooked import questions
from tests.probes.mixers.hooked import hybrid
from tests.probes.mixers.models import BUILDERS, build, tokens

LENGTH = 21


@torch.no_grad()
def stepped(model: Any, ids: Tensor) -> dict[int, Tensor]:
    """The states after a prompt that was fed token by token."""
    name = "cache_params" if "cache_params" in model.forward.__code__.co_varnames else "past_key_values"
    cache: Any = None
    for place in range(ids.shape[1]):
        output = model(ids[:, place : place + 1], use_cache=True, **{name: cache})
        cache = getattr(output, name)
    found = {}
    for module in model.modules():
        if type(module).__name__ in READERS:
            state = cache.layers[module.layer_idx].recurrent_states[0]
            found[module.layer_idx] = state if state.dim() == 4 else state[:, None]
    return found


@pytest.mark.parametrize("family", BUILDERS)
def test_step_by_step_leaves_the_same_state(family: str) -> None:
    model, ids = build(family), tokens(2, LENGTH)
    found, right = recurrent_states(model, {"input_ids": ids}), stepped(model, ids)
    assert list(found) == sorted(right)
    for layer, state in found.items():
        assert float((state - right[layer]).norm() / right[layer].norm()) < 1e-5
        assert float(state.norm()) > 0.1


def test_a_limit_of_the_time_step_is_not_kept_step_by_step() -> None:
    """In transformers' own step, with kernels and without; so a prompt's state is that of its prefill."""
    model, ids = build("nemotron_h", time_step_min=0.5), tokens(1, LENGTH)
    found, right = recurrent_states(model, {"input_ids": ids}), stepped(model, ids)
    assert float((found[0] - right[0]).norm() / right[0].norm()) > 0.1


@pytest.mark.parametrize("family", ["nemotron_h", "mamba", "qwen3_5"])
def test_the_state_is_the_sum_of_what_tokens_wrote(family: str) -> None:
    """By the recurrences of the layer's own scan, written out here."""
    model, ids = build(family), tokens(2, LENGTH)
    mixer = next(each for each in model.modules() if type(each).__name__ in READERS)
    entered: dict[str, Tensor] = {}
    handle = mixer.register_forward_pre_hook(
        lambda _, args, named: entered.update(h=args[0] if args else named["hidden_states"]), with_kwargs=True
    )
    found = recurrent_states(model, {"input_ids": ids})[mixer.layer_idx]
    handle.remove()
    reader = reader_of(mixer)
    with torch.no_grad():
        scan: Any = reader.scan(mixer, reader.project(mixer, entered["h"], None), None)
    state = torch.zeros_like(found)
    for t in range(LENGTH):
        x = scan.values[:, t].float()
        if family == "nemotron_h":
            key = scan.keys[:, t].repeat_interleave(4, dim=1) * scan.step[:, t, :, None]
            state = state * scan.log_decay[:, t].exp()[..., None, None] + x[..., None] * key[:, :, None]
        elif family == "mamba":
            step = scan.step[:, t, :, None]
            state = state * (step * scan.rates).exp()[:, None] + (x * step * scan.keys[:, t, None])[:, None]
        else:
            key = scan.keys[:, t]
            state = state * scan.log_decay[:, t].exp()[..., None, None]
            error = (x - torch.einsum("bhk,bhkv->bhv", key, state)) * scan.strength[:, t, :, None]
            state = state + key[..., None] * error[:, :, None]
    torch.testing.assert_close(found, state, rtol=1e-4, atol=1e-5)


def test_left_padding_leaves_no_trace_and_right_padding_is_refused() -> None:
    model, ids = build("nemotron_h"), tokens(1, LENGTH)
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), ids], dim=1)
    mask = (torch.arange(LENGTH + 5) >= 5).long()[None]
    alone = recurrent_states(model, {"input_ids": ids})
    for layer, state in recurrent_states(model, {"input_ids": padded, "attention_mask": mask}).items():
        torch.testing.assert_close(state, alone[layer], rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="padded on the right"):
        recurrent_states(model, {"input_ids": padded.flip(1), "attention_mask": mask.flip(1)})
    with pytest.raises(InputError, match=r"no mixer in layers \[1\]"):
        recurrent_states(model, {"input_ids": ids}, layers=[1])


@pytest.mark.parametrize("family", ["nemotron_h_omni", "qwen3_5", "jamba"])
def test_a_view_says_what_blanking_changes(family: str) -> None:
    model, question = hybrid(family), questions()[0]
    view = state_view(model, question)
    own = recurrent_states(model.model, model.encode([question]).inputs)
    assert view.layers == tuple(own)
    assert view.changes.shape == (len(own), 3)
    for place, state in enumerate(own.values()):
        heads = state.shape[1]
        for head in range(heads):
            matrix = state[0, head].double().numpy()
            assert view.norms[place][head] == pytest.approx(np.sqrt((matrix**2).sum()))
            values = np.sqrt(np.maximum(np.linalg.eigvalsh(matrix @ matrix.T), 0))
            shares = values[values > 1e-12] / values.sum()
            assert view.ranks[place][head] == pytest.approx(float(np.exp(-(shares * np.log(shares)).sum())), rel=1e-3)
            assert 1 <= view.ranks[place][head] <= min(matrix.shape)
    images = decoded(question)
    for image in range(3):
        swapped = [blanked(each) if place == image else each for place, each in enumerate(images)]
        other = recurrent_states(model.model, model.encode([Question(swapped, question.text)]).inputs)
        for place, (state, changed) in enumerate(zip(own.values(), other.values(), strict=True)):
            assert view.changes[place, image] == pytest.approx(float((state - changed).norm() / state.norm()), rel=1e-4)
    assert (view.changes > 1e-3).all()
    assert repr(view).startswith("StateView(")


def test_an_image_that_is_blank_already_has_no_change() -> None:
    question = questions()[0]
    images = decoded(question)
    view = state_view(hybrid("nemotron_h"), Question([images[0], blanked(images[1]), images[2]], question.text))
    assert np.isnan(view.changes[:, 1]).all()
    assert not np.isnan(view.changes[:, [0, 2]]).any()
    with pytest.raises(InputError, match="unknown neutral 'black'"):
        state_view(hybrid("nemotron_h"), question, "black")
    with pytest.raises(InputError, match="no image to replace"):
        state_view(hybrid("nemotron_h"), Question([], "How many?"))


def test_ranks_and_changes_of_plain_states() -> None:
    assert effective_rank(torch.outer(torch.arange(1.0, 4), torch.arange(1.0, 6))).item() == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.zeros(2, 3, 3)).tolist() == [0, 0]
    assert effective_rank(torch.diag(torch.tensor([1.0, 1.0, 0.0]))).item() == pytest.approx(2)
    assert relative_change(torch.zeros(2), torch.ones(2)) == float("inf")
    assert relative_change(torch.zeros(2), torch.zeros(2)) == 0
