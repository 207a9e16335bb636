"""Models that go without experts, against mixtures computed by hand, and against nothing at all."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from probes.experts.effects import chosen_tokens, expert_effects
from probes.experts.knockout import ExpertKnockout
from probes.experts.layers import UnsupportedRouting, expert_layers
from probes.inputs import InputError
from probes.model import Question
from probes.routing import RoutingRecorder, record_routing
from tests.probes import hybrid_models
from tests.probes.experts.by_hand import mixture_output
from tests.probes.hooked import picture, questions
from tests.probes.hybrid_models import ROUTED, padded

TOLERANCE = 1e-5
ANSWER = [120, 121, 122]
SHARING = ("nemotron", "latent", "dots1", "deepseek_v3")


@cache
def decoder(name: str) -> Any:
    """Shared: leave it as found."""
    return hybrid_models.build(name)


def chosen() -> torch.Tensor:
    """Every second column of the padded batch."""
    return (torch.arange(17) % 2 == 0).expand(3, 17).clone()


def first_layer(name: str) -> int:
    return next(iter(expert_layers(decoder(name))))


def mixtures_output(model: Any, layer: int, knocked: Sequence[ExpertKnockout]) -> tuple[torch.Tensor, torch.Tensor]:
    """States that enter a mixture and leave it, (tokens, hidden), under knock-outs."""
    found: list[torch.Tensor] = []
    block = expert_layers(model)[layer].block
    handle = block.register_forward_hook(lambda _, args, out: found.extend([args[0].flatten(0, 1), out.flatten(0, 1)]))
    with torch.no_grad(), ExitStack() as stack:
        stack.callback(handle.remove)
        for each in knocked:
            stack.enter_context(each)
        model(**padded(), use_cache=False)
    return found[0], found[1]


def by_hand(name: str, layer: int, change: Any, shared: bool = True) -> torch.Tensor:
    """The mixture's output for real tokens, their weights changed by `change(indices, weights)`, shared experts or not
    at every second column."""
    model, inputs = decoder(name), padded()
    record = record_routing(model, inputs)[layer]
    real = inputs["attention_mask"].bool().flatten()
    states = mixtures_output(model, layer, [])[0][real]
    block, rows = expert_layers(model)[layer].block, []
    for state, indices, weights, concerned in zip(
        states, record.indices, record.weights, chosen().flatten()[real], strict=True
    ):
        own = change(indices, weights.copy()) if concerned else weights
        rows.append(mixture_output(block, state, indices, own, shared or not bool(concerned)))
    return torch.stack(rows).detach()


@pytest.mark.parametrize("name", ROUTED)
@pytest.mark.parametrize("renormalize", [False, True])
def test_a_knock_out_equals_the_mixture_by_hand_without_the_experts(name: str, renormalize: bool) -> None:
    layer, gone = first_layer(name), [0, 1, 2, 3, 4]

    def change(indices: Any, weights: Any) -> Any:
        left = np.where(np.isin(indices, gone), 0, weights)
        return left * weights.sum() / left.sum() if renormalize and left.sum() else left

    knocked = ExpertKnockout(decoder(name), chosen(), {layer: gone}, renormalize=renormalize)
    real = padded()["attention_mask"].bool().flatten()
    found = mixtures_output(decoder(name), layer, [knocked])[1][real]
    expected = by_hand(name, layer, change)
    scale = expected.abs().max()
    assert (found - expected).abs().max() < TOLERANCE * scale
    plain = mixtures_output(decoder(name), layer, [])[1][real]
    concerned = chosen().flatten()[real]
    assert torch.equal(found[~concerned], plain[~concerned])
    assert (found - plain).abs().max() > 1000 * TOLERANCE * scale


@pytest.mark.parametrize("name", SHARING)
def test_without_shared_experts_only_routed_ones_are_left(name: str) -> None:
    layer = first_layer(name)
    real = padded()["attention_mask"].bool().flatten()
    knocked = ExpertKnockout(decoder(name), chosen(), shared=[layer])
    found = mixtures_output(decoder(name), layer, [knocked])[1][real]
    expected = by_hand(name, layer, lambda _, weights: weights, shared=False)
    assert (found - expected).abs().max() < TOLERANCE * expected.abs().max()
    everything = [knocked, ExpertKnockout(decoder(name), chosen(), {layer: range(16)})]
    nothing = mixtures_output(decoder(name), layer, everything)[1][real]
    assert nothing[chosen().flatten()[real]].abs().max() == 0


def test_shared_experts_behind_a_gate_are_taken_away_too() -> None:
    model = decoder("qwen3_5_moe")
    knocked = [ExpertKnockout(model, torch.ones(3, 17).bool(), {0: range(16)}, shared=[0])]
    assert mixtures_output(model, 0, [])[1].abs().max() > 0.1
    assert mixtures_output(model, 0, knocked)[1].abs().max() == 0


@pytest.mark.parametrize("name", ["dots1", "latent", "mixtral"])
def test_an_expert_that_no_token_goes_to_changes_not_a_bit(name: str) -> None:
    model, inputs, layer = decoder(name), padded(), first_layer(name)
    record = record_routing(model, inputs)[layer]
    tokens = torch.zeros(3, 17, dtype=torch.bool)
    tokens[0, 4] = True
    unused = [expert for expert in range(len(record.bias)) if expert not in record.indices[4]]
    with torch.no_grad():
        before = model(**inputs).logits
        for renormalize in (False, True):
            with ExpertKnockout(model, tokens, {layer: unused}, renormalize=renormalize):
                assert torch.equal(model(**inputs).logits, before)
        with ExpertKnockout(model, tokens, {layer: [int(record.indices[4, 0])]}):
            after = model(**inputs).logits
    assert torch.equal(after[0, :4], before[0, :4]) and torch.equal(after[1:], before[1:])
    assert (after[0, 4] - before[0, 4]).abs().max() > 1e-2


def test_renormalised_weights_keep_their_sum_and_a_recorder_inside_hears_what_is_left() -> None:
    model, inputs = decoder("dots1"), padded()
    plain = record_routing(model, inputs)[1]
    every = torch.ones(3, 17, dtype=torch.bool)
    for renormalize in (False, True):
        recorder = RoutingRecorder(model, [1])
        with torch.no_grad(), ExpertKnockout(model, every, {1: [0, 1, 2]}, renormalize=renormalize), recorder:
            model(**inputs)
        heard = recorder.by_layer()[1]
        assert np.array_equal(heard.indices, plain.indices)
        assert (heard.weights[np.isin(heard.indices, [0, 1, 2])] == 0).all()
        some = ~np.isin(plain.indices, [0, 1, 2]).all(axis=-1)
        sums = heard.weights.sum(axis=-1)[some]
        kept = np.allclose(sums, plain.weights.sum(axis=-1)[some], atol=1e-5)
        assert kept == renormalize


def test_generated_tokens_go_without_where_asked() -> None:
    model, inputs = decoder("mixtral"), padded()
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.no_grad():
        plain = model.generate(**inputs, **options)
        recorder = RoutingRecorder(model, [1])
        nobody = torch.zeros(3, 17, dtype=torch.bool)
        with ExpertKnockout(model, nobody, {1: range(8)}, generated=True), recorder:
            model.generate(**inputs, **options)
        with ExpertKnockout(model, torch.ones(3, 17).bool(), {1: range(8)}):
            prompt = model.generate(**inputs, **options)
    routing = recorder.routing()
    assert (routing.weights[0, routing.columns >= 17] == 0).all()
    assert (routing.weights[0, routing.columns < 17] > 0).all()
    assert not torch.equal(prompt, plain)


EFFECTS: Mapping[str, tuple[int, ...]] = {"dots1": (1, 2), "latent": (1, 4)}


@pytest.mark.parametrize("name", EFFECTS)
def test_effects_are_differences_of_the_answers_probability(name: str) -> None:
    model, question = hybrid_models.hooked(name), questions()[0]
    layer = EFFECTS[name][0]
    routing = model.routing(model.encode([question], [ANSWER]))
    used = routing.indices[0, routing.is_image]
    unused = [expert for expert in range(16) if expert not in used]
    most = int(np.bincount(used.ravel(), minlength=16).argmax())
    asked: list[tuple[int, int | str]] = [(layer, most), (layer, "shared"), *((layer, expert) for expert in unused)]
    effects = expert_effects(model, question, ANSWER, asked, tokens="images")
    assert effects.shape == (len(asked),) and np.abs(effects[:2]).min() > 1e-3
    assert unused and (effects[2:] == 0).all()

    encoded = model.encode([question], [ANSWER])
    tokens = encoded.inputs["input_ids"][0] == model.model.config.image_token_id
    gate = expert_layers(model.model)[layer].router

    def zero(_: Any, __: Any, output: Any) -> Any:
        weights = output[1].clone()
        weights[tokens[:, None] & (output[2] == most)] = 0
        return output[0], weights, output[2]

    baseline = model.score(encoded).log_probability[0]
    handle = gate.register_forward_hook(zero)
    expected = baseline - model.score(encoded).log_probability[0]
    handle.remove()
    assert effects[0] == pytest.approx(expected, abs=1e-6)
    text, every = (expert_effects(model, question, ANSWER, asked[:1], name)[0] for name in ("text", "all"))
    assert len({round(float(each), 6) for each in (text, every, effects[0])}) == 3


def test_images_text_and_all_tokens_are_told_apart_in_a_batch() -> None:
    model = hybrid_models.hooked("dots1")
    encoded = model.encode(questions(), [ANSWER] * 3)
    every, images, text = (chosen_tokens(encoded, name) for name in ("all", "images", "text"))
    assert torch.equal(every, encoded.inputs["attention_mask"].bool())
    assert torch.equal(images, encoded.inputs["input_ids"] == model.model.config.image_token_id)
    assert torch.equal(images | text, every) and not (images & text).any()


def test_what_cannot_be_taken_away_is_refused() -> None:
    model, every = decoder("latent"), torch.ones(3, 17, dtype=torch.bool)
    with pytest.raises(InputError, match=r"layers \[3\] have no mixture of experts; .* are \[1, 4\]"):
        ExpertKnockout(model, every, {3: [0]})
    with pytest.raises(InputError, match=r"layer 4 has no experts \[-1, 16\]: its routed experts are 0 to 15, and"):
        ExpertKnockout(model, every, {4: [16, 3, -1]})
    nothings: list[dict[int, list[int]] | None] = [{}, {1: []}, None]
    for nothing in nothings:
        with pytest.raises(InputError, match="without experts does nothing"):
            ExpertKnockout(model, every, nothing)
    for tokens in (every.int(), every[0], torch.zeros(3, 17, dtype=torch.bool)):
        with pytest.raises(InputError, match=r"bool mask \(batch, tokens\)"):
            ExpertKnockout(model, tokens, {1: [0]})
    with pytest.raises(InputError, match=r"layers \[0, 1\] have no shared experts; those that do are \[\]"):
        ExpertKnockout(decoder("mixtral"), every, shared=[0, 1])
    knocked = ExpertKnockout(model, every[:2], {1: [0]})
    with pytest.raises(UnsupportedRouting, match="for 2 sequences, and the model runs 3"), torch.no_grad(), knocked:
        model(**padded())
    with pytest.raises(UnsupportedRouting, match="it never ran"), ExpertKnockout(model, every, {1: [0]}):
        pass


def test_effects_that_cannot_be_measured_are_refused() -> None:
    model, question = hybrid_models.hooked("dots1"), Question([picture()], "Which?")
    with pytest.raises(InputError, match="name the experts"):
        expert_effects(model, question, ANSWER, [])
    with pytest.raises(InputError, match="the answer is empty"):
        expert_effects(model, question, [], [(1, 0)])
    with pytest.raises(InputError, match="unknown tokens 'both'"):
        expert_effects(model, question, ANSWER, [(1, 0)], tokens="both")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown expert 'gate'"):
        expert_effects(model, question, ANSWER, [(1, "gate")])
