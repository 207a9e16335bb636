"""Routing of every model and what is told of it, against what its routers and experts were handed."""

from collections import Counter
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from probes.experts.evenness import evenness
from probes.experts.latent import latent_layers, latent_states_of, latent_sum, reading_latents
from probes.experts.load import co_activation, expert_load, load_by_label, load_entropy
from probes.experts.margins import margins, moved_by_bias
from probes.experts.records import Routing, joined
from probes.experts.specialisation import specialisation
from probes.experts.stability import checkpoint_stability
from probes.inputs import InputError
from probes.instruments.linear_probes import held_out_scores
from probes.model import HookedModel
from probes.routing import record_routing
from tests.probes.experts.by_hand import mixture_output
from tests.probes.inside.cases import (
    ANSWER,
    EVERY,
    EXPERTS,
    LATENT,
    encoded_of,
    image_columns,
    layers_of,
    model_of,
    module_of,
    question_of,
)

QUESTIONS = 6


class Heard:
    """What routers and experts of one forward were handed, by layer, without a probe."""

    def __init__(self, name: str) -> None:
        self.by_layer: dict[int, dict[str, Any]] = {layer: {} for layer in layers_of(name, EXPERTS)}
        handles = []
        for layer, kept in self.by_layer.items():
            block = module_of(model_of(name).model, layer, EXPERTS)

            def routed(_: Any, given: Any, output: Any, kept: dict[str, Any] = kept) -> None:
                kept["logits"] = output[0].clone()

            def handed(_: Any, given: Any, kept: dict[str, Any] = kept) -> None:
                kept["indices"], kept["weights"] = given[1].clone(), given[2].clone()

            def mixed(_: Any, given: Any, output: Any, kept: dict[str, Any] = kept) -> None:
                kept["states"], kept["output"] = given[0].flatten(0, -2), output.flatten(0, -2)

            handles += [
                block.gate.register_forward_hook(routed),
                block.experts.register_forward_pre_hook(handed),
                block.register_forward_hook(mixed),
            ]
        self.routing = model_of(name).routing(encoded_of(name))
        for handle in handles:
            handle.remove()


@cache
def heard(name: str) -> Heard:
    return Heard(name)


@cache
def routed(name: str) -> Routing:
    """Of several questions, one by one: a video comes alone."""
    model = model_of(name)
    return joined([model.routing(model.encode([question_of(name, seed)], [ANSWER])) for seed in range(QUESTIONS)])


def bias_of(name: str, layer: int) -> torch.Tensor:
    bias: torch.Tensor = module_of(model_of(name).model, layer, EXPERTS).gate.e_score_correction_bias.detach()
    assert float(bias.abs().max()) > 0.1
    return bias


@EVERY
def test_routing_is_the_models_own_on_every_token(name: str) -> None:
    found = heard(name)
    assert list(found.routing.layers) == layers_of(name, EXPERTS)
    assert found.routing.indices.shape[1] == encoded_of(name).columns
    for at, (layer, kept) in enumerate(found.by_layer.items()):
        np.testing.assert_array_equal(found.routing.indices[at], kept["indices"])
        np.testing.assert_array_equal(found.routing.weights[at], kept["weights"].detach())
        scores = kept["logits"].detach().float().sigmoid() + bias_of(name, layer)
        np.testing.assert_array_equal(found.routing.scores[at], scores)
        best = scores.topk(found.routing.k).indices.sort().values
        np.testing.assert_array_equal(best, kept["indices"].sort().values)
        raw = kept["logits"].topk(found.routing.k).indices.sort().values
        assert (raw != best).any(-1).float().mean() > 0.3, "without the bias other experts would be named"


@EVERY
def test_tokens_bear_their_images_number(name: str) -> None:
    images = heard(name).routing.images
    for image, columns in enumerate(image_columns(name)):
        assert np.flatnonzero(images == image).tolist() == columns
    assert set(images.tolist()) == {-1, *range(len(image_columns(name)))}


@EVERY
@torch.no_grad()
def test_recorded_weights_and_the_experts_own_parameters_make_up_the_layers_output(name: str) -> None:
    for at, (layer, kept) in enumerate(heard(name).by_layer.items()):
        block, right = module_of(model_of(name).model, layer, EXPERTS), kept["output"].detach()
        tokens = range(0, len(right), 7)
        record = heard(name).routing
        made = [mixture_output(block, kept["states"][t], record.indices[at, t], record.weights[at, t]) for t in tokens]
        assert (torch.stack(made) - right[::7]).abs().max() < 1e-5 * right.abs().max()


@EVERY
def test_load_and_evenness_are_counts(name: str) -> None:
    found = routed(name)
    load = expert_load(found.indices, found.experts)
    names, by_label = load_by_label(found.indices, found.is_image, found.experts)
    assert names.tolist() == [False, True]
    for at, layer in enumerate(found.indices.tolist()):
        counted = Counter(expert for token in layer for expert in token)
        np.testing.assert_allclose(load[at], [counted[expert] / len(layer) for expert in range(found.experts)])
        shown = Counter(e for token, image in zip(layer, found.is_image, strict=True) if image for e in token)
        np.testing.assert_allclose(
            by_label[1, at], [shown[expert] / found.is_image.sum() for expert in range(found.experts)]
        )
        share = np.array([counted[expert] for expert in range(found.experts)]) / (len(layer) * found.k)
        entropy = -sum(p * np.log(p) for p in share if p) / np.log(found.experts)
        even = evenness(found.indices[at], found.experts, found.samples, resamples=50)
        assert load_entropy(load)[at] == pytest.approx(entropy) == even.entropy.value
        assert even.entropy.low <= entropy < 1 and even.entropy.clusters == QUESTIONS
        gaps = np.abs(share[:, None] - share[None]).mean() / (2 * share.mean())
        assert even.gini.value == pytest.approx(gaps) and even.largest_over_mean.value == pytest.approx(
            share.max() * found.experts
        )


@EVERY
def test_margins_and_what_the_bias_moves(name: str) -> None:
    found = heard(name).routing
    for at, (layer, kept) in enumerate(heard(name).by_layer.items()):
        affinities = kept["logits"].detach().float().sigmoid()
        ranked = (affinities + bias_of(name, layer)).sort(dim=-1, descending=True).values
        gaps = margins(found.scores[at], found.k)
        np.testing.assert_allclose(gaps, ranked[:, found.k - 1] - ranked[:, found.k], atol=1e-6)
        assert (gaps >= 0).all() and gaps.mean() > 1e-3
        with_bias = (affinities + bias_of(name, layer)).topk(found.k).indices.sort().values
        right = (affinities.topk(found.k).indices.sort().values != with_bias).any(-1)
        np.testing.assert_array_equal(
            moved_by_bias(found.kept_affinities[at], found.bias[at], found.k, found.grouping), right
        )


@EVERY
def test_experts_tell_image_from_text_and_shuffled_labels_do_not(name: str) -> None:
    """Labels that change places in half of the samples mean nothing, whatever experts are for."""
    found = routed(name)
    told = specialisation(found.indices, found.is_image, found.samples, found.experts, permutations=199)
    assert told.scheme == "within samples" and told.clusters == QUESTIONS
    assert (told.p_value <= 0.05).all() and (told.information > 1.5 * told.chance).all()
    assert (told.divergence_p_value <= 0.05).all()
    shuffled = found.is_image ^ (found.samples % 2 == 0)
    lost = specialisation(found.indices, shuffled, found.samples, found.experts, permutations=199)
    assert (lost.p_value > 0.05).all() and (lost.information < told.information).all()


@EVERY
def test_pairs_of_experts_are_counted_token_by_token(name: str) -> None:
    found = routed(name)
    pairs = co_activation(found.indices, found.experts)
    for at, layer in enumerate(found.indices.tolist()):
        counted = Counter(pair for token in layer for pair in combinations(sorted(token), 2))
        for first, second in combinations(range(found.experts), 2):
            assert pairs.counts[at, first, second] == pairs.counts[at, second, first] == counted[first, second]
        expected = np.nansum(pairs.expected[at])
        assert expected == pytest.approx(2 * sum(counted.values())), "as many pairs are expected as there are"


@EVERY
def test_checkpoints_of_one_run_are_alike_and_unrelated_routings_are_at_their_floor(name: str) -> None:
    found = routed(name)
    same = checkpoint_stability(found, found)
    assert all(each.overlap.value == each.jaccard.value == 1 for each in same.values())
    later = _stirred(name)
    one = model_of(name).routing(encoded_of(name))
    moved = checkpoint_stability(one, later)
    for at, each in enumerate(moved.values()):
        pairs = zip(one.indices[at].tolist(), later.indices[at].tolist(), strict=True)
        right = np.mean([len(set(mine) & set(theirs)) / one.k for mine, theirs in pairs])
        assert each.overlap.value == pytest.approx(right) and each.overlap_floor < right < 1
    order = np.random.default_rng(0).permutation(found.indices.shape[1])
    for each in checkpoint_stability(found, replace(found, indices=found.indices[:, order])).values():
        assert each.overlap.value == pytest.approx(each.overlap_floor_of_loads, abs=0.05)
        assert each.load_correlation.value == pytest.approx(1)


def _stirred(name: str) -> Routing:
    """The first question's routing after a small step of every router."""
    bare = deepcopy(model_of(name).model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in layers_of(name, EXPERTS):
            weight = module_of(bare, layer, EXPERTS).gate.weight
            weight += 0.3 * weight.std() * torch.randn(weight.shape, generator=generator)
    return HookedModel(bare, model_of(name).processor).routing(encoded_of(name))


def test_checkpoints_of_other_shapes_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"layers \[1, 2\] with 3 of 16 experts and layers \[1, 4\] with 3 of 16"):
        checkpoint_stability(routed("dots1"), routed("nemotron_h"))
    with pytest.raises(
        InputError, match=r"layers \[0\] have no mixture of experts; the layers with mixture of experts are \[1, 2\]"
    ):
        record_routing(model_of("dots1").model, encoded_of("dots1").inputs, [0])


@EVERY
def test_latent_experts_are_made_again_and_others_are_refused(name: str) -> None:
    model = model_of(name)
    if name != LATENT:
        with pytest.raises(InputError, match=r"experts of layers .* work at full width; no layer has latent experts"):
            latent_layers(model.model)
        return
    for layer, mixture in latent_layers(model.model).items():
        kept = heard(name).by_layer[layer]
        right = kept["output"].detach()
        again = latent_sum(mixture, kept["states"].detach())
        assert (again.output - right).abs().max() < 1e-5 * right.abs().max()
        assert (again.expanded - right).abs().max() > 0.01 * right.abs().max(), "shared experts count"


@EVERY
def test_linear_probes_tell_an_images_tokens_at_every_width(name: str) -> None:
    """And do not where their targets are shuffled. Behind experts less is left than before them."""
    encoded = encoded_of(name)
    target = np.isin(np.arange(encoded.columns), np.concatenate(image_columns(name)))
    features = _features(name, torch.ones(1, encoded.columns, dtype=torch.bool))
    for width, states in features.items():
        told, shuffled = (_held_out(states, each) for each in (target, np.random.default_rng(0).permutation(target)))
        assert shuffled < 0.65 < told - (0.0 if width in ("mixed", "expanded") else 0.1), width


def _features(name: str, tokens: torch.Tensor) -> dict[str, npt.NDArray[np.float64]]:
    """(tokens, layers, width) by what is read: the residual stream, and latent experts' states where there are any."""
    model, layers = model_of(name), layers_of(name, EXPERTS)
    streams = model.residuals(encoded_of(name), tokens, layers)
    found = {"stream": np.stack([streams[layer].numpy() for layer in layers], axis=1).astype(np.float64)}
    if name == LATENT:
        with reading_latents(model.model, tokens) as read:
            model.score(encoded_of(name))
        states = latent_states_of(read)
        found |= {width: getattr(states, width) for width in ("full", "latent", "mixed", "expanded")}
    return found


def _held_out(states: npt.NDArray[Any], target: npt.NDArray[Any]) -> float:
    """How often a probe of the first layer is right about tokens of either sort that it was not trained on."""
    names = [str(token) for token in range(len(target))]
    scores = held_out_scores(states[:, :1], target.astype(int), np.full(len(target), 2), names)
    right = scores[:, 0].argmax(-1) == target
    return float((right[target].mean() + right[~target].mean()) / 2)
