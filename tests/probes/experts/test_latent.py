"""Latent experts made again from their parameters, their states, and what linear probes read at each width."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from probes.experts.latent import (
    LatentStates,
    latent_layers,
    latent_states,
    latent_states_of,
    latent_sum,
    reading_latents,
)
from probes.experts.layers import UnsupportedRouting, expert_layers
from probes.experts.rules import choose
from probes.inputs import InputError
from probes.instruments.linear_probes import held_out_scores
from probes.routing import record_routing
from tests.probes import hybrid_models
from tests.probes.experts.by_hand import mixture_output
from tests.probes.hooked import questions
from tests.probes.hybrid_models import padded

TOLERANCE = 1e-5
WIDTH, LATENT, EXPERTS = 64, 24, 16


@cache
def decoder() -> Any:
    """Shared: leave it as found."""
    return hybrid_models.build("latent")


def real() -> torch.Tensor:
    return padded()["attention_mask"].bool()


def block_calls(model: Any) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """What enters and leaves each mixture for real tokens."""
    found: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    handles = [
        each.block.register_forward_hook(
            lambda _, args, out, layer=layer: found.__setitem__(layer, (args[0][real()], out[real()]))
        )
        for layer, each in latent_layers(model).items()
    ]
    with torch.no_grad():
        model(**padded())
    for handle in handles:
        handle.remove()
    return found


def test_a_mixture_made_again_equals_the_module() -> None:
    for layer, (states, output) in block_calls(decoder()).items():
        again = latent_sum(latent_layers(decoder())[layer], states)
        assert again.latent.shape == again.mixed.shape == (42, LATENT)
        assert (again.output - output).abs().max() < TOLERANCE * output.abs().max()


def test_it_equals_the_recorded_routing_by_hand_too() -> None:
    routing = record_routing(decoder(), padded())
    for layer, (states, _) in block_calls(decoder()).items():
        block = latent_layers(decoder())[layer].block
        rows = zip(states, routing[layer].indices, routing[layer].weights, strict=True)
        expected = torch.stack([mixture_output(block, *row, shared=False) for row in rows]).detach()
        again = latent_sum(latent_layers(decoder())[layer], states)
        assert (again.expanded - expected).abs().max() < TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("wrong", ["gate of the latent", "gate of its way back", "shared of the way back", "no bias"])
def test_wrong_formulas_fail(wrong: str) -> None:
    """Router and shared experts read the state itself, and the bias chooses only."""
    for layer, (states, output) in block_calls(decoder()).items():
        mixture = latent_layers(decoder())[layer]
        right, block, router = latent_sum(mixture, states), mixture.block, mixture.router
        up: Any = block.fc2_latent_proj
        weight: Any = router.weight
        back = right.latent @ up.weight.T
        seen = {"gate of the latent": right.latent @ weight[:, :LATENT].T, "gate of its way back": back @ weight.T}
        affinities = seen.get(wrong, states @ weight.T).sigmoid().detach()
        bias: Any = router.e_score_correction_bias
        indices = choose((affinities + (0 if wrong == "no bias" else bias)).numpy(), 3)
        weights = np.take_along_axis(affinities.numpy(), indices, axis=-1)
        weights = 2.5 * weights / weights.sum(axis=-1, keepdims=True)
        rows = zip(states, indices, weights, strict=True)
        routed = torch.stack([mixture_output(block, *row, shared=False) for row in rows]).detach()
        shared: Any = block.shared_experts
        with torch.no_grad():
            made = routed + (shared(back) if wrong == "shared of the way back" else right.shared)
        assert (made - output).abs().max() > 1000 * TOLERANCE * output.abs().max()


def test_states_are_those_at_each_width() -> None:
    found = latent_states(decoder(), padded(), real())
    assert found.layers == (1, 4)
    assert repr(found) == f"LatentStates(42 tokens, 2 layers, width {WIDTH} and {LATENT})"
    for at, (layer, (states, output)) in enumerate(block_calls(decoder()).items()):
        again = latent_sum(latent_layers(decoder())[layer], states)
        np.testing.assert_array_equal(found.full[:, at], states)
        for name in ("latent", "mixed", "expanded"):
            np.testing.assert_allclose(getattr(found, name)[:, at], getattr(again, name), atol=1e-4)
        np.testing.assert_allclose(torch.from_numpy(found.expanded[:, at]) + again.shared, output, atol=1e-4)
    assert latent_states(decoder(), padded(), real(), layers=[4]).layers == (4,)


def test_a_hooked_models_states_are_read_while_it_scores() -> None:
    model = hybrid_models.hooked("latent")
    encoded = model.encode(questions(), [[120, 121]] * 3)
    tokens = torch.zeros(3, encoded.columns, dtype=torch.bool)
    tokens[:, encoded.prompt_stop - 1] = True
    with reading_latents(model.model, tokens) as found:
        before = model.score(encoded).log_probability
    states = latent_states_of(found)
    assert isinstance(states, LatentStates) and states.full.shape == (3, 2, WIDTH)
    np.testing.assert_array_equal(model.score(encoded).log_probability, before)
    for at, layer in enumerate(states.layers):
        again = latent_sum(latent_layers(model.model)[layer], torch.from_numpy(states.full[:, at]))
        np.testing.assert_allclose(states.expanded[:, at], again.expanded, atol=1e-4)


@contextmanager
def planted(model: Any, direction: torch.Tensor, target: Any) -> Iterator[None]:
    """What enters the first mixture carries each sample's target along a direction, in noise."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(len(target), 1, WIDTH, generator=generator)
    states = states - (states @ direction)[..., None] * direction
    states = states + torch.tensor(2.0 * target - 1.0).float()[:, None, None] * direction
    handle = latent_layers(model)[1].block.register_forward_pre_hook(lambda _, __: (states,))
    yield
    handle.remove()


def accuracies(direction: torch.Tensor) -> dict[str, float]:
    """How often a linear probe tells the target, held out, at each width."""
    model, target = decoder(), np.random.default_rng(0).integers(0, 2, 300)
    inputs = {"input_ids": torch.full((300, 1), 5), "attention_mask": torch.ones(300, 1, dtype=torch.long)}
    with planted(model, direction, target):
        states = latent_states(model, inputs, torch.ones(300, 1, dtype=torch.bool), layers=[1])
    clusters = [str(sample) for sample in range(300)]
    found = {}
    for name in ("full", "latent", "mixed", "expanded"):
        scores = held_out_scores(getattr(states, name), target, np.full(300, 2), clusters)
        found[name] = float((scores[:, 0].argmax(axis=-1) == target).mean())
    return found


def unseen_by(*maps: torch.Tensor) -> torch.Tensor:
    """A unit direction that none of these maps lets through."""
    rows = torch.cat([each.detach().double() for each in maps])
    direction: torch.Tensor = torch.linalg.svd(rows, full_matrices=True).Vh[-1]
    return direction.float()


def test_linear_probes_tell_what_each_width_holds() -> None:
    mixture = latent_layers(decoder())[1]
    down: Any = mixture.block.fc1_latent_proj.weight  # type: ignore[union-attr]
    gate: Any = mixture.router.weight
    lost = accuracies(unseen_by(down, gate))
    assert lost["full"] > 0.95 and max(lost[name] for name in ("latent", "mixed", "expanded")) < 0.6
    through = torch.linalg.svd(down.detach()).Vh[0]
    kept = accuracies(through)
    assert min(kept["full"], kept["latent"]) > 0.95 and kept["expanded"] > 0.6
    # Not in the latent, and yet in the choice of experts: the router reads the full width.
    routed = accuracies(unseen_by(down))
    assert routed["full"] > 0.95 and routed["latent"] < 0.6


def test_experts_of_full_width_and_other_tokens_are_refused() -> None:
    model = hybrid_models.build("nemotron")
    with pytest.raises(
        InputError, match=r"experts of layers \[1, 4\] work at full width; no layer has latent experts, and"
    ):
        latent_layers(model)
    with pytest.raises(InputError, match=r"layers \[0\] have no mixture of experts"):
        latent_layers(decoder(), [0])
    with pytest.raises(InputError, match="experts of layer 1 work at full width"):
        latent_sum(expert_layers(model)[1], torch.zeros(2, WIDTH))
    with pytest.raises(InputError, match=f"states of width {WIDTH} enter the mixture, got {LATENT}"):
        latent_sum(latent_layers(decoder())[1], torch.zeros(2, LATENT))
    with pytest.raises(InputError, match=r"tokens are chosen of \(3, 16\), and 51 go through"):
        latent_states(decoder(), padded(), torch.ones(3, 16, dtype=torch.bool))
    with pytest.raises(InputError, match="True somewhere"):
        latent_states(decoder(), padded(), torch.zeros(3, 17, dtype=torch.bool))
    with pytest.raises(UnsupportedRouting, match="it never ran in this thread"), reading_latents(decoder(), real()):
        pass
    found = {1: {"full": torch.zeros(2, 4), "latent": torch.zeros(2, 2)}}
    found[4] = {"full": torch.zeros(2, 4), "latent": torch.zeros(2, 3)}
    with pytest.raises(InputError, match=r"layers \[1, 4\] differ in their widths"):
        latent_states_of(found)


def test_parts_that_are_not_nemotrons_are_refused() -> None:
    model = hybrid_models.build("latent")
    mixture = latent_layers(model)[1]
    shared: Any = mixture.block.shared_experts
    shared.gate_proj = torch.nn.Linear(2, 2)
    with pytest.raises(UnsupportedRouting, match="its shared experts are not those of Nemotron-H"):
        latent_sum(mixture, torch.zeros(2, WIDTH))
    experts: Any = mixture.experts
    del experts.up_proj
    with pytest.raises(UnsupportedRouting, match="its experts are not those of Nemotron-H"):
        latent_sum(mixture, torch.zeros(2, WIDTH))
