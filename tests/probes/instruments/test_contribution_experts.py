"""Contributions of experts: by hand from their own parameters, what fading them does, and beside knock-outs."""

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from probes.experts.effects import chosen_tokens, expert_effects, expert_knockout_effects
from probes.experts.knockout import ExpertKnockout
from probes.experts.layers import UnsupportedRouting, expert_layers
from probes.experts.rules import RULES
from probes.inputs import InputError
from probes.instruments import contribution_experts
from probes.instruments.contribution_reading import contributions
from probes.instruments.contributions import EXPERTS, Contributions, knockout_agreement
from probes.model import HookedModel
from probes.routing import record_routing
from tests.probes import hybrid_models
from tests.probes.experts.by_hand import expert_output, shared_output
from tests.probes.hooked import questions
from tests.probes.mixers.hooked import hybrid

ANSWER = [120, 121]
EVERY = ("latent", "nemotron", "dots1", "deepseek_v3", "mixtral", "qwen3_5_moe")
"""With latent, shared, gated shared and no shared experts."""
REACHING = {"latent": [1], "nemotron": [1], "dots1": [1], "deepseek_v3": [1], "mixtral": [0, 1], "qwen3_5_moe": [0]}
"""Layers with experts before the last one that mixes tokens: what those behind do to an image reaches no answer."""


def loaded(name: str) -> HookedModel:
    return hybrid("nemotron_h") if name == "under mixers" else hybrid_models.hooked(name)


@cache
def found(name: str) -> Contributions:
    return contributions(loaded(name), questions()[0], ANSWER)


@pytest.mark.parametrize("name", EVERY)
def test_experts_shares_are_complete_and_make_up_their_layers_entry(name: str) -> None:
    each = found(name)
    mixtures = expert_layers(loaded(name).model)
    assert [shares.layer for shares in each.experts] == list(mixtures)
    assert each.errors.max() < 1e-5
    entries = each.of_kind(EXPERTS)
    np.testing.assert_array_equal(entries, each.of_kind(EXPERTS, slopes=True))
    for layer, entry in zip(mixtures, entries, strict=True):
        shares = each.by_expert(layer)
        assert shares.routed.shape == (mixtures[layer].count, 3)
        np.testing.assert_allclose(shares.routed.sum(axis=0) + shares.shared, entry, atol=1e-12)
        assert bool(np.abs(shares.shared).max()) == (bool(mixtures[layer].shared) and layer in REACHING[name])
        assert (np.abs(entry).max() > 1e-4) == (layer in REACHING[name])


@pytest.mark.parametrize("name", ["latent", "dots1", "mixtral"])
def test_an_experts_share_is_its_own_output_times_weight_and_gradient(name: str) -> None:
    """From the experts' parameters, one token at a time, and the block's gradient by autograd."""
    model = loaded(name)
    encoded = model.encode([questions()[0]], [ANSWER])
    layer = REACHING[name][0]
    record = record_routing(model.model, encoded.inputs, [layer])[layer]
    block: Any = expert_layers(model.model)[layer].block
    kept: dict[str, Any] = {}

    def keep(_: Any, given: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        kept.update(states=given[0][0].detach(), output=output)

    handle = block.register_forward_hook(keep)
    scores = model.model(**encoded.inputs, use_cache=False).logits[0, -len(ANSWER) - 1 : -1].log_softmax(-1)
    scores.gather(1, torch.tensor(ANSWER)[:, None]).sum().backward()
    handle.remove()
    model.model.zero_grad()
    gradient, states = kept["output"].grad[0], kept["states"]
    latent = name == "latent"
    routed, shared = np.zeros((len(record.bias), 3)), np.zeros(3)
    with torch.no_grad():
        for image, span in enumerate(encoded.spans[0]):
            for token in span.tokens:
                inner = block.fc1_latent_proj.weight @ states[token] if latent else states[token]
                for expert, weight in zip(record.indices[token], record.weights[token], strict=True):
                    made = float(weight) * expert_output(block, int(expert), inner)
                    made = block.fc2_latent_proj.weight @ made if latent else made
                    routed[expert, image] += float(gradient[token] @ made)
                shared[image] += float(gradient[token] @ shared_output(block, states[token]))
    shares = found(name).by_expert(layer)
    np.testing.assert_allclose(shares.routed, routed, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(shares.shared, shared, rtol=1e-3, atol=1e-6)
    called = [set(record.indices[list(span.tokens)].ravel()) for span in encoded.spans[0]]
    for image, experts in enumerate(called):
        unused = [expert for expert in range(len(record.bias)) if expert not in experts]
        assert unused or name == "mixtral"
        assert not shares.routed[unused, image].any(), "an expert that no token goes to gives nothing"


@pytest.mark.parametrize("name", ["latent", "mixtral"])
def test_half_precision_is_complete_to_its_own_digits(name: str) -> None:
    model = HookedModel(deepcopy(loaded(name).model).to(torch.bfloat16), loaded(name).processor)
    each = contributions(model, questions()[0], ANSWER)
    assert each.errors.max() < 3e-3
    of_experts = [error for error, kind in zip(each.errors, each.kinds, strict=True) if kind == EXPERTS]
    assert max(of_experts) > 1e-6
    assert np.isfinite(each.nats).all()


@pytest.mark.parametrize("name", ["latent", "dots1", "mixtral", "under mixers"])
def test_shares_are_what_fading_experts_does(name: str) -> None:
    """Of all experts of a layer, routed and shared, and of the one that gives most, at one image's tokens."""
    model, each = loaded(name), found(name)
    encoded = model.encode([questions()[0]], [ANSWER])
    mixtures = expert_layers(model.model)
    layer = next(iter(mixtures))
    shares, entry = each.by_expert(layer), each.of_kind(EXPERTS)[0]
    shared, scale = [layer] if mixtures[layer].shared else [], np.abs(entry).max()
    assert scale > 3e-3
    for image in range(3):
        tokens = chosen_tokens(encoded, image)
        most = int(np.abs(shares.routed[:, image]).argmax())
        for experts, rest, right in (
            (range(mixtures[layer].count), shared, entry[image]),
            ([most], [], shares.routed[most, image]),
        ):
            sides = []
            for strength in (0.01, -0.01):
                with ExpertKnockout(model.model, tokens, {layer: experts}, rest, strength=strength):
                    sides.append(float(model.score(encoded).log_probability[0]))
            slope = (sides[1] - sides[0]) / 0.02
            assert slope == pytest.approx(right, abs=0.03 * scale + 5e-5)


@pytest.mark.parametrize("wrong", ["weights swapped", "without weights", "without shared experts"])
def test_a_wrong_sum_is_not_complete(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part = contribution_experts.ExpertPart
    if wrong == "without shared experts":
        own_init = part.__init__

        def alone(self: Any, mixture: Any) -> None:
            own_init(self, mixture)
            self._shared = []

        monkeypatch.setattr(part, "__init__", alone)
    else:
        own = part._keep

        def keep(self: Any, module: Any, given: Any) -> None:
            own(self, module, given)
            states, indices, weights = self._given
            changed = weights.flip(1) if wrong == "weights swapped" else torch.ones_like(weights)
            self._given = states, indices, changed

        monkeypatch.setattr(part, "_keep", keep)
    model = loaded("dots1")
    errors = contributions(model, questions()[0], ANSWER).errors
    kinds = found("dots1").kinds
    assert min(error for error, kind in zip(errors, kinds, strict=True) if kind == EXPERTS) > 1e-3
    assert max(error for error, kind in zip(errors, kinds, strict=True) if kind != EXPERTS) < 1e-5


def test_knockouts_are_of_one_images_tokens_in_one_layer_and_rank_as_shares_do() -> None:
    model, question, each = loaded("mixtral"), questions()[0], found("mixtral")
    effects = expert_knockout_effects(model, question, ANSWER, each.windows(EXPERTS), batch_size=2)
    assert effects.shape == (3, 3)
    encoded = model.encode([question], [ANSWER])
    baseline = model.score(encoded).log_probability[0]
    for window, layer in ((0, 0), (1, 1)):
        tokens = torch.zeros_like(encoded.inputs["input_ids"], dtype=torch.bool)
        tokens[0, list(encoded.spans[0][1].tokens)] = True
        block: Any = expert_layers(model.model)[layer].block
        handle = block.register_forward_hook(lambda _, __, out, tokens=tokens: out.masked_fill(tokens[..., None], 0.0))
        right = baseline - model.score(encoded).log_probability[0]
        handle.remove()
        assert effects[window, 1] == pytest.approx(right, abs=1e-4)
    np.testing.assert_allclose(effects[2], 0, atol=1e-4)
    whole = expert_knockout_effects(model, question, ANSWER)
    assert whole.shape == (1, 3) and not np.allclose(whole[0], effects.sum(axis=0), atol=1e-4)
    attention = {"attention": np.zeros((3, 3))}
    result = knockout_agreement([each], [{**attention, EXPERTS: effects}])
    assert set(result) == {"attention", EXPERTS}
    assert result[EXPERTS].correlation.value == pytest.approx(
        np.corrcoef(each.of_kind(EXPERTS).ravel(), effects.ravel())[0, 1]
    )


def test_one_expert_is_taken_from_one_images_tokens() -> None:
    model, question = loaded("dots1"), questions()[0]
    shares = found("dots1").by_expert(1)
    experts: list[tuple[int, int | str]] = [(1, expert) for expert in range(16)]
    effects = np.stack([expert_effects(model, question, ANSWER, experts, tokens=image) for image in range(3)], axis=1)
    unused = shares.routed == 0
    assert unused.any() and not effects[unused].any() and np.abs(effects[~unused]).max() > 1e-3
    assert np.corrcoef(effects.ravel(), shares.routed.ravel())[0, 1] > 0.3
    with pytest.raises(InputError, match="has no image 3: its images are 0 to 2, videos behind images"):
        expert_effects(model, question, ANSWER, experts[:1], tokens=3)
    with pytest.raises(InputError, match="has no image -1"):
        expert_effects(model, question, ANSWER, experts[:1], tokens=-1)


def test_what_cannot_be_read_or_taken_away_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, question = loaded("dots1"), questions()[0]
    with pytest.raises(InputError, match=r"layers \[0, 3\] have no experts; the layers with experts are \[1, 2\]"):
        expert_knockout_effects(model, question, ANSWER, [[1], [0, 3]])
    with pytest.raises(InputError, match=r"each window needs at least one layer; the layers with experts are \[1, 2\]"):
        expert_knockout_effects(model, question, ANSWER, [[]])
    with pytest.raises(InputError, match="the answer is empty"):
        expert_knockout_effects(model, question, [], [[1]])
    with pytest.raises(InputError, match=r"no experts of layer 0 were read; those of layers \[1, 2\] were"):
        found("dots1").by_expert(0)
    assert repr(found("dots1").by_expert(1)) == "ExpertShares(layer 1, 16 experts, 3 images)"
    monkeypatch.setattr(
        "probes.experts.layers.RULES", {name: rule for name, rule in RULES.items() if "Dots1" not in name}
    )
    with pytest.raises(UnsupportedRouting, match=r"layer 1 .Dots1TopkRouter.: .*or read contributions with experts=F"):
        contributions(model, question, ANSWER)
    bare = contributions(model, question, ANSWER, experts=False)
    assert bare.kinds == ("attention",) * 3 and bare.experts == ()
    entries = [kind == "attention" for kind in found("dots1").kinds]
    np.testing.assert_allclose(bare.nats, found("dots1").nats[entries], rtol=1e-5, atol=1e-9)
