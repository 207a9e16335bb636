"""Layer kinds, softmax and hidden attention, edges and states of every model, against its own forward."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from probes.attention import UnsupportedAttention
from probes.inputs import InputError
from probes.layer_kinds import layers_with
from probes.mixers.boundary import ALL
from probes.mixers.readers import activation_of, reader_of
from probes.mixers.states import recurrent_states, state_view
from probes.mixers.sums import FORMS
from probes.state_space import hidden_attention_factors, mixer_layers, trace_mixers
from tests.probes.inside.cases import (
    ANSWER,
    ATTENTION,
    EVERY,
    KINDS,
    MIXED,
    STATE_SPACE,
    VIDEO,
    WITHOUT_MIXERS,
    alpha,
    encoded_of,
    image_columns,
    layers_of,
    model_of,
    module_of,
    own,
    question_of,
    rows_after,
    scan_of,
)
from tests.probes.mixers.recurrences import by_recurrence

TOLERANCE = 1e-5


@EVERY
def test_layer_kinds(name: str) -> None:
    model = model_of(name)
    assert [each.all for each in model.layer_kinds.values()] == list(KINDS[name])
    assert model.layers == layers_with(model.layer_kinds, "attention") == layers_of(name, ATTENTION)
    assert model.residual_layers == list(range(len(KINDS[name])))


@EVERY
def test_softmax_attention_factors(name: str) -> None:
    trace = model_of(name).trace_batch([question_of(name)], [ANSWER], rows=("after",))[0]
    assert trace.layers == list(own(name).attentions)
    for place, attention in enumerate(own(name).attentions.values()):
        shares = attention[:, rows_after(name)].mean((0, 1))
        right = [float(shares[columns].mean()) for columns in image_columns(name)]
        np.testing.assert_allclose(trace.factors[place], right, atol=TOLERANCE)
        before = [float(shares[[column - 1 for column in columns]].mean()) for columns in image_columns(name)]
        assert np.abs(trace.factors[place] - before).max() > 2 * TOLERANCE, "columns one token off would show"


@MIXED
@torch.no_grad()
def test_the_scan_is_the_hidden_attention_times_values(name: str) -> None:
    """To 1e-5; and neither without the time steps nor by the skip connection alone."""
    for layer in layers_of(name, STATE_SPACE):
        scan: Any = scan_of(name, layer)
        values, right = scan.values[0].double(), own(name).scanned[layer].double()
        skipped = (scan.skip.double()[:, None] * values).flatten(1)

        def made(weights: Tensor, values: Tensor = values, skipped: Tensor = skipped) -> Tensor:
            return torch.einsum("hij,jhp->ihp", weights, values).flatten(1) + skipped

        def error(found: Tensor, right: Tensor = right) -> float:
            return float((found - right).norm() / right.norm())

        assert error(made(alpha(name, layer))) < TOLERANCE
        assert error(made(by_recurrence(replace(scan, step=torch.ones_like(scan.step)))[0])) > 0.1
        assert error(skipped) > 0.1


@MIXED
@pytest.mark.parametrize("form", FORMS)
def test_hidden_attention_factors_of_every_form(name: str, form: str) -> None:
    found = trace_mixers(model_of(name), [question_of(name)], [ANSWER], rows=("after",), forms=(form,), maps=True)[0]
    assert list(found.layers) == layers_of(name, STATE_SPACE) and set(found.kinds) == {"mamba2"}
    for place, layer in enumerate(found.layers):
        whole = _in_form(name, layer, form)[:, rows_after(name)].mean((0, 1))
        right = [float(whole[columns].mean()) for columns in image_columns(name)]
        scale = np.abs(right).max()
        assert scale > 1e-5
        np.testing.assert_allclose(found.factors(form)[place], right, rtol=1e-3, atol=1e-4 * scale)
        for cells, columns in zip(found.maps_by_rows["after", form], image_columns(name), strict=True):
            kept = cells[place][~np.isnan(cells[place])]
            np.testing.assert_allclose(kept, whole[columns], rtol=1e-3, atol=1e-4 * float(whole[columns].abs().max()))


def _in_form(name: str, layer: int, form: str) -> Tensor:
    """(heads, rows, columns): the recurrence's weights in one of the three forms."""
    weights, scan = alpha(name, layer), scan_of(name, layer)
    if form == "signed":
        return weights
    if form == "absolute":
        return weights.abs() / weights.abs().sum(-1, keepdim=True)
    gates, values = functional.silu(scan.gate[0].double()), scan.values[0].double()
    return weights.abs() * torch.einsum("ihp,jhp->hij", gates.square(), values.square()).sqrt()


@MIXED
def test_hidden_attention_in_the_pass_of_softmax_attention(name: str) -> None:
    """The same to the bit as by itself, and it moves neither answer nor attention."""
    model, question = model_of(name), question_of(name)
    beside = model.trace_batch([question], [ANSWER], rows=("after",), mixer_forms=FORMS)[0]
    alone = model.trace_batch([question], [ANSWER], rows=("after",))[0]
    hidden = trace_mixers(model, [question], [ANSWER], rows=("after",))[0]
    assert beside.mixers is not None and alone.mixers is None
    assert beside.log_probability == alone.log_probability == pytest.approx(own(name).log_probability, abs=1e-3)
    np.testing.assert_array_equal(beside.factors, alone.factors)
    for form in FORMS:
        np.testing.assert_array_equal(beside.mixers.factors(form), hidden.factors(form))


@MIXED
def test_what_the_convolution_carries_over_edges(name: str) -> None:
    found = trace_mixers(model_of(name), [question_of(name)], [ANSWER], rows=("after",), leaks=True)[0].leak
    assert found is not None and found.reach == 3
    for place, layer in enumerate(layers_of(name, STATE_SPACE)):
        mixer = module_of(model_of(name).model, layer, STATE_SPACE)
        whole = _convolved(mixer, own(name).entered[layer], 0)
        for image, columns in enumerate(image_columns(name)):
            for side, edge in ((found.entering, columns[0]), (found.leaving, columns[-1] + 1)):
                silent = _convolved(mixer, own(name).entered[layer], edge)
                tokens = slice(edge, edge + 4)
                right = (whole - silent)[tokens].norm(dim=-1) / whole[tokens].norm(dim=-1)
                np.testing.assert_allclose(side[ALL][place, image], right, rtol=1e-3, atol=1e-5)
                assert (right[:3] > 1e-3).all() and right[3] == 0


@torch.no_grad()
def _convolved(mixer: Any, entered: Tensor, first: int) -> Tensor:
    """(tokens, channels) by the mixer's own convolution, with nothing before a token."""
    reader = reader_of(mixer)
    mixed = reader.mixed(mixer, reader.project(mixer, entered, None)).clone()
    mixed[:, :first] = 0
    found: Tensor = activation_of(mixer)(mixer.conv1d(mixed.transpose(1, 2))[..., : entered.shape[1]])
    return found[0].T


@MIXED
def test_states_are_the_sums_of_what_tokens_wrote(name: str) -> None:
    found = recurrent_states(model_of(name).model, encoded_of(name).inputs)
    assert list(found) == layers_of(name, STATE_SPACE)
    for layer, state in found.items():
        scan: Any = scan_of(name, layer)
        shared = scan.values.shape[2] // scan.keys.shape[2]
        keys = scan.keys[0].double().repeat_interleave(shared, dim=1) * scan.step[0].double()[..., None]
        left = scan.log_decay[0].double().flip(0).cumsum(0).flip(0) - scan.log_decay[0].double()
        right = torch.einsum("thp,thn->hpn", scan.values[0].double() * left.exp()[..., None], keys)
        assert float((state[0] - right).norm() / right.norm()) < TOLERANCE


@MIXED
def test_states_change_when_an_image_is_blanked(name: str) -> None:
    if name == VIDEO:
        with pytest.raises(InputError, match="with a video by recurrent_states"):
            state_view(model_of(name), question_of(name))
        return
    view = state_view(model_of(name), question_of(name))
    assert list(view.layers) == layers_of(name, STATE_SPACE)
    assert view.changes.shape == (len(view.layers), 2) and (view.changes > 1e-4).all()
    for norms, ranks in zip(view.norms, view.ranks, strict=True):
        assert (norms > 0).all() and (ranks >= 1).all()


def test_a_decoder_without_mixers_is_refused_by_name() -> None:
    model, question = model_of(WITHOUT_MIXERS), question_of(WITHOUT_MIXERS)
    encoded = encoded_of(WITHOUT_MIXERS)
    for ask in (
        lambda: mixer_layers(model.model),
        lambda: trace_mixers(model, [question], [ANSWER]),
        lambda: hidden_attention_factors(model.model, encoded.inputs, [-1], [(1, 4)]),
        lambda: recurrent_states(model.model, encoded.inputs),
        lambda: state_view(model, question),
    ):
        with pytest.raises(UnsupportedAttention, match=r"no decoder layer has a .* mixer; read its attention by atten"):
            ask()
