"""Recorded routing against what experts are handed, and against mixtures computed by hand; and what is refused."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probes.experts.knockout import ExpertKnockout
from probes.experts.layers import UnsupportedRouting, expert_layers
from probes.experts.records import TEXT, joined
from probes.experts.rules import RouterRule, choose, unexplained
from probes.inputs import InputError
from probes.layer_kinds import layers_with
from probes.model import Question
from probes.routing import LayerRouting, Routing, RoutingRecorder, record_routing
from studies.bundled import BUNDLED_DECODERS
from tests.probes import hybrid_models
from tests.probes.experts.by_hand import mixture_output
from tests.probes.hooked import hooked, picture, questions
from tests.probes.hybrid_models import ROUTED, padded

TOLERANCE = 1e-5
BIASED = ("nemotron", "latent", "dots1", "deepseek_v3")
UNDER_LLAVA = ("dots1", "nemotron", "latent")
NATIVE = ("qwen3_vl_moe", "qwen3_5_moe", "glm4v_moe", "nemotron_h_omni", "dots3_note", "aria")
ANSWER = [120, 121, 122]


@cache
def decoder(name: str) -> Any:
    """Shared: leave it as found."""
    return hybrid_models.build(name)


@contextmanager
def handed(model: Any) -> Iterator[dict[int, dict[str, torch.Tensor]]]:
    """What mixtures and their experts take and give in one forward, by layer: hooks beside the package's own."""
    found: dict[int, dict[str, torch.Tensor]] = {}
    handles = []
    for layer, mixture in expert_layers(model).items():
        kept = found.setdefault(layer, {})

        def experts(_: Any, args: Any, kept: dict[str, torch.Tensor] = kept) -> None:
            kept["indices"], kept["weights"] = args[1].clone(), args[2].clone()

        def block(_: Any, args: Any, output: torch.Tensor, kept: dict[str, torch.Tensor] = kept) -> None:
            kept["state"], kept["output"] = args[0].flatten(0, 1), output.flatten(0, 1)

        handles += [mixture.experts.register_forward_pre_hook(experts), mixture.block.register_forward_hook(block)]
    yield found
    for handle in handles:
        handle.remove()


@pytest.fixture(scope="module", params=ROUTED)
def recorded(request: pytest.FixtureRequest) -> Any:
    """A model, what its experts were handed without padding, and its routing."""
    model, inputs = decoder(request.param), padded()
    with handed(model) as found:
        routing = record_routing(model, inputs)
    real = inputs["attention_mask"].flatten().bool()
    return request.param, model, {at: {k: v[real] for k, v in each.items()} for at, each in found.items()}, routing


def test_choices_and_weights_are_those_that_the_experts_were_handed(recorded: Any) -> None:
    name, _, found, routing = recorded
    assert list(routing) == list(found)
    for layer, record in routing.items():
        assert np.array_equal(record.indices, found[layer]["indices"].numpy())
        assert np.array_equal(record.weights, found[layer]["weights"].numpy())
        assert (np.abs(record.bias).max() > 0.1) == (name in BIASED)


def test_the_highest_scores_are_the_choice_on_every_token_and_raw_logits_are_not(recorded: Any) -> None:
    name, model, _, routing = recorded
    inputs = padded()
    with torch.no_grad():
        logits = model(**inputs, output_router_logits=True).router_logits
    real = inputs["attention_mask"].flatten().bool()
    for record, raw in zip(routing.values(), logits, strict=True):
        k = record.indices.shape[1]
        wanted = np.sort(record.indices, axis=-1)
        best = torch.from_numpy(record.scores).topk(k).indices.sort().values
        assert np.array_equal(best.numpy(), wanted)
        naive = choose(raw[real].float().numpy(), k)
        assert (naive != wanted).any(axis=-1).mean() > 0.85 if name in BIASED else np.array_equal(naive, wanted)
        assert (np.isneginf(record.scores).any()) == (record.grouping.groups > 1) == (name == "deepseek_v3")


def test_a_layers_output_follows_from_the_recorded_weights_and_the_experts_own_parameters(recorded: Any) -> None:
    _, _, found, routing = recorded
    model = recorded[1]
    for layer, record in routing.items():
        block, kept = expert_layers(model)[layer].block, found[layer]
        rows = zip(kept["state"], record.indices, record.weights, strict=True)
        rebuilt = torch.stack([mixture_output(block, *row) for row in rows]).detach()
        scale = kept["output"].abs().max()
        assert (rebuilt - kept["output"]).abs().max() < TOLERANCE * scale
        rows = zip(kept["state"], record.indices, record.weights[:, ::-1].copy(), strict=True)
        swapped = torch.stack([mixture_output(block, *row) for row in rows]).detach()
        assert (swapped - kept["output"]).abs().max() > 1000 * TOLERANCE * scale


@pytest.mark.parametrize("name", ROUTED)
def test_padding_is_left_out_and_changes_nothing(name: str) -> None:
    model, inputs = decoder(name), padded()
    together = record_routing(model, inputs)
    alone = [
        record_routing(model, {"input_ids": ids[mask.bool()][None]})
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    for layer, record in together.items():
        assert len(record.indices) == int(inputs["attention_mask"].sum())
        apart = np.concatenate([each[layer].indices for each in alone])
        assert np.array_equal(np.sort(record.indices), np.sort(apart))
        np.testing.assert_allclose(
            np.sort(record.weights), np.sort(np.concatenate([each[layer].weights for each in alone])), atol=1e-4
        )


@pytest.mark.parametrize("name", ROUTED)
def test_half_precision_is_recorded_as_the_experts_were_handed_it(name: str) -> None:
    model, inputs = hybrid_models.build(name).to(torch.bfloat16), padded()
    with handed(model) as found:
        routing = record_routing(model, inputs)
    real = inputs["attention_mask"].flatten().bool()
    for layer, record in routing.items():
        assert np.array_equal(record.indices, found[layer]["indices"][real].numpy())
        assert np.array_equal(record.weights, found[layer]["weights"][real].float().numpy())


@pytest.mark.parametrize("name", ["dots1", "latent", "mixtral"])
def test_a_generation_with_a_cache_is_recorded_step_by_step(name: str) -> None:
    model, inputs = decoder(name), padded()
    recorder = RoutingRecorder(model)
    with torch.no_grad(), recorder:
        sequences = model.generate(**inputs, max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0)
    mask = torch.cat([inputs["attention_mask"], torch.ones(3, 3, dtype=torch.long)], dim=1)
    once = RoutingRecorder(model)
    with torch.no_grad(), once:
        model(input_ids=sequences[:, :-1], attention_mask=mask, use_cache=False)
    stepped, whole = recorder.routing(), once.routing()
    assert np.array_equal(stepped.samples, whole.samples) and np.array_equal(stepped.columns, whole.columns)
    assert np.array_equal(np.sort(stepped.indices), np.sort(whole.indices))
    np.testing.assert_allclose(stepped.kept_affinities, whole.kept_affinities, atol=2e-3)


@pytest.mark.parametrize("name", ["latent", "mixtral"])
@pytest.mark.parametrize("masked", [True, False])
def test_steps_on_a_cache_that_was_filled_before_are_refused(name: str, masked: bool) -> None:
    """Their columns, and which of them is padding, are not those of a first forward."""
    model, inputs = decoder(name), padded()
    mask = torch.cat([inputs["attention_mask"], torch.ones(3, 1, dtype=torch.long)], dim=1)
    with torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
        step = {"input_ids": inputs["input_ids"][:, -1:], "past_key_values": cache}
        with (
            pytest.raises(UnsupportedRouting, match="a cache whose tokens were not heard; enter before the first"),
            RoutingRecorder(model),
        ):
            model(**step, attention_mask=mask if masked else None)
    tokens = torch.ones(3, 1, dtype=torch.bool)
    layer = next(iter(expert_layers(model)))
    with (
        pytest.raises(UnsupportedRouting, match="a cache whose tokens were not heard"),
        torch.no_grad(),
        ExpertKnockout(model, tokens, {layer: [0]}),
    ):
        model(**step, attention_mask=mask if masked else None)


def test_padding_on_the_right_is_left_out_too() -> None:
    model, left = decoder("nemotron"), padded()
    right = {name: torch.stack([row.roll(-3 * at) for at, row in enumerate(each)]) for name, each in left.items()}
    first, second = record_routing(model, left), record_routing(model, right)
    for layer, record in first.items():
        assert np.array_equal(np.sort(record.indices), np.sort(second[layer].indices))
        np.testing.assert_allclose(record.affinities, second[layer].affinities, atol=1e-4)


@pytest.mark.parametrize("name", UNDER_LLAVA)
def test_tokens_of_images_bear_their_images_number(name: str) -> None:
    model = hybrid_models.hooked(name)
    encoded = model.encode(questions(), [ANSWER] * 3)
    routing = model.routing(encoded)
    mask = encoded.inputs["attention_mask"].bool()
    assert np.array_equal(np.stack([routing.samples, routing.columns], 1), mask.nonzero().numpy())
    for row, question in enumerate(questions()):
        for image in range(len(question.images)):
            own = (routing.samples == row) & (routing.images == image)
            assert routing.columns[own].tolist() == list(encoded.spans[row][image].tokens)
        assert routing.images[routing.samples == row].max() == len(question.images) - 1
    is_image = encoded.inputs["input_ids"][mask] == model.model.config.image_token_id
    assert np.array_equal(routing.is_image, is_image.numpy())
    assert (routing.images[~routing.is_image] == TEXT).all()


@pytest.mark.parametrize("family", NATIVE)
def test_families_with_experts_of_their_own_are_read_with_their_images(family: str) -> None:
    model = hooked(family)
    encoded = model.encode(questions(), [ANSWER] * 3)
    with handed(model.model) as found:
        routing = model.routing(encoded)
    real = encoded.inputs["attention_mask"].flatten().bool()
    assert list(routing.layers) == layers_with(model.layer_kinds, "mixture of experts")
    for at, layer in enumerate(routing.layers):
        assert np.array_equal(routing.indices[at], found[layer]["indices"][real].numpy())
    for row, spans in enumerate(encoded.spans):
        for image, span in enumerate(spans):
            own = (routing.samples == row) & (routing.images == image)
            assert routing.columns[own].tolist() == list(span.tokens)


@pytest.mark.parametrize("name", UNDER_LLAVA)
def test_a_hooked_models_routing_is_what_its_experts_were_handed(name: str) -> None:
    model = hybrid_models.hooked(name)
    encoded = model.encode(questions(), [ANSWER] * 3)
    with handed(model.model) as found:
        routing = model.routing(encoded)
    real = encoded.inputs["attention_mask"].flatten().bool()
    assert list(found) == list(routing.layers)
    for at, layer in enumerate(routing.layers):
        assert np.array_equal(routing.indices[at], found[layer]["indices"][real].numpy())
        assert np.array_equal(routing.weights[at], found[layer]["weights"][real].numpy())
    assert np.array_equal(np.sort(routing.indices), choose(routing.scores, routing.k))


def test_a_batch_routes_as_its_questions_alone_do_and_batches_join() -> None:
    model = hybrid_models.hooked("dots1")
    together = model.routing(model.encode(questions()))
    apart = joined([model.routing(model.encode([question])) for question in questions()])
    assert np.array_equal(together.samples, apart.samples) and np.array_equal(together.images, apart.images)
    assert np.array_equal(np.sort(together.indices), np.sort(apart.indices))
    np.testing.assert_allclose(together.kept_affinities, apart.kept_affinities, atol=1e-4)
    bare = joined([together.without_affinities(), apart])
    assert bare.affinities is None and bare.indices.shape[1] == 2 * together.indices.shape[1]
    with pytest.raises(InputError, match="holds no affinities"):
        _ = bare.scores
    with pytest.raises(InputError, match="not of the same layers"):
        joined([together, model.routing(model.encode(questions()), layers=[2])])
    with pytest.raises(InputError, match="no routings are given"):
        joined([])


def test_an_image_changes_where_its_own_tokens_go() -> None:
    model = hybrid_models.hooked("dots1")
    asked = [Question([picture(seed=seed)], "Which?") for seed in (1, 2)]
    first, second = (model.routing(model.encode([each])) for each in asked)
    own = first.is_image
    assert (np.sort(first.indices[:, own]) != np.sort(second.indices[:, own])).any(-1).mean() > 0.5
    before = first.columns < first.columns[own].min()
    assert np.array_equal(first.indices[:, before], second.indices[:, before])


def test_layers_are_chosen_by_their_true_index_and_read_one_by_one() -> None:
    model, inputs = decoder("latent"), padded()
    whole = RoutingRecorder(model)
    with torch.no_grad(), whole:
        model(**inputs)
    routing = whole.routing()
    assert routing.layers == (1, 4) and whole.layers == [1, 4]
    assert list(record_routing(model, inputs, layers=[4])) == [4]
    one = routing.layer(4)
    assert np.array_equal(one.indices, routing.indices[1]) and np.array_equal(one.scores, routing.scores[1])
    with pytest.raises(InputError, match="no routing of layer 3: recorded are 1, 4"):
        routing.layer(3)
    with pytest.raises(InputError, match=r"layers \[0, 3\] have no mixture of experts; .* are \[1, 4\]"):
        record_routing(model, inputs, layers=[0, 1, 3])
    with pytest.raises(InputError, match="no layer of this decoder has any mixture of experts: its layers have atten"):
        record_routing(decoder("llama"), inputs)
    kept = routing.of(routing.samples == 1)
    assert set(kept.samples) == {1} and kept.scores.shape[1] == int(inputs["attention_mask"][1].sum())
    assert "2 layers, 14 tokens of 1 sample, 3 of 16 experts" in repr(kept)
    assert repr(one) == "LayerRouting(42 tokens, 3 of 16 experts)"


def test_routers_that_nobody_knows_are_refused_by_name_until_a_rule_is_given() -> None:
    model, inputs = hybrid_models.build("dots1"), padded()
    expected = record_routing(model, inputs)[1]
    for layer in model.model.layers[1:]:
        layer.mlp.gate.__class__ = type("OracleRouter", (type(layer.mlp.gate),), {})
    with pytest.raises(UnsupportedRouting, match=r"decoder layer 1 \(OracleRouter\): .*rules=\{'OracleRouter': Router"):
        record_routing(model, inputs)
    rule = RouterRule("sigmoid", bias="e_score_correction_bias")
    found = record_routing(model, inputs, rules={"OracleRouter": rule})[1]
    assert np.array_equal(found.indices, expected.indices) and np.array_equal(found.scores, expected.scores)


@pytest.mark.parametrize(
    ("name", "router", "rule"),
    [
        ("dots1", "Dots1TopkRouter", RouterRule("sigmoid")),
        ("latent", "NemotronHTopkRouter", RouterRule("softmax", bias="e_score_correction_bias")),
        ("deepseek_v3", "DeepseekV3TopkRouter", RouterRule("sigmoid", bias="e_score_correction_bias")),
    ],
)
def test_rules_that_do_not_explain_the_choices_are_refused(name: str, router: str, rule: RouterRule) -> None:
    with pytest.raises(UnsupportedRouting, match=rf"\({router}\): \d+ of 42 tokens do not go to the experts"):
        record_routing(decoder(name), padded(), rules={router: rule})


def test_rules_that_ask_for_what_a_router_has_not_are_refused() -> None:
    model, inputs = decoder("mixtral"), padded()
    with pytest.raises(UnsupportedRouting, match="it has no 'bias' of 8 numbers"):
        record_routing(model, inputs, rules={"MixtralTopKRouter": RouterRule("softmax", bias="bias")})
    grouped = RouterRule("softmax", groups=("num_group", "topk_group"))
    model = hybrid_models.build("mixtral")
    for layer in model.model.layers:
        layer.mlp.gate.num_group, layer.mlp.gate.topk_group = 3, 1
    with pytest.raises(UnsupportedRouting, match="its 8 experts do not divide into 3 groups"):
        record_routing(model, inputs, rules={"MixtralTopKRouter": grouped})


def test_routers_that_return_something_else_are_refused() -> None:
    inputs = padded()
    for change, message in (
        (lambda out: (out[1], out[2]), "does not return"),
        (lambda out: (out[0], out[1], out[2].float()), "its indices are torch.float32"),
        (lambda out: (out[0][:, :4], out[1], out[2]), r"returns logits \(51, 4\)"),
    ):
        model = hybrid_models.build("mixtral")
        gate = model.model.layers[0].mlp.gate
        handle = gate.register_forward_hook(lambda _, __, out, change=change: change(out))
        with pytest.raises(UnsupportedRouting, match=message):
            record_routing(model, inputs, layers=[0])
        handle.remove()


def test_scores_are_of_the_bias_at_the_call_and_it_may_not_move_between_calls() -> None:
    model, inputs = decoder("dots1"), padded()
    biases: list[Any] = [mixture.router.e_score_correction_bias for mixture in expert_layers(model).values()]
    recorder = RoutingRecorder(model)
    with torch.no_grad(), recorder:
        model(**inputs)
    before = recorder.routing()
    kept = [bias.clone() for bias in biases]
    try:
        for bias in biases:
            bias += torch.linspace(0, 1, bias.numel())
        after = recorder.routing()
        assert np.array_equal(after.scores, before.scores) and np.array_equal(after.bias, before.bias)
        assert not unexplained(after.scores[0], after.indices[0]).any()
        moving = RoutingRecorder(model)
        with pytest.raises(UnsupportedRouting, match="bias has moved since the last call"), torch.no_grad(), moving:
            cache = model(**inputs, use_cache=True).past_key_values
            biases[0].neg_()
            mask = torch.cat([inputs["attention_mask"], torch.ones(3, 1, dtype=torch.long)], dim=1)
            model(inputs["input_ids"][:, -1:], attention_mask=mask, past_key_values=cache, use_cache=True)
    finally:
        for bias, own in zip(biases, kept, strict=True):
            bias.copy_(own)


def test_a_recorder_follows_one_sequence_and_is_used_once() -> None:
    model, inputs = decoder("mixtral"), padded()
    recorder = RoutingRecorder(model)
    with pytest.raises(RuntimeError, match="after the recorder's with block"):
        recorder.by_layer()
    with pytest.raises(UnsupportedRouting, match="called afresh"), torch.no_grad(), recorder:
        model(**inputs)
        model(**inputs)
    with pytest.raises(RuntimeError, match="used once"), recorder:
        pass
    with pytest.raises(RuntimeError, match="without an error"):
        recorder.routing()
    with pytest.raises(UnsupportedRouting, match="it never ran in this thread"), RoutingRecorder(model):
        pass
    with pytest.raises(UnsupportedRouting, match="called afresh"), torch.no_grad(), RoutingRecorder(model):
        model.generate(**inputs, max_new_tokens=3, use_cache=False)


@pytest.mark.parametrize("name", ["dots1", "latent", "mixtral"])
def test_beams_are_refused_and_caches_left_as_they_were(name: str) -> None:
    """Every step has as many sequences as the last one, which are others: only the cache is told."""
    model, inputs = decoder(name), padded()
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    told = pytest.raises(InputError, match=r"change places .* beams \(num_beams=1\)")
    with told, torch.no_grad(), RoutingRecorder(model):
        model.generate(**inputs, num_beams=2, **options)
    with torch.no_grad(), RoutingRecorder(model):
        cache = model(**inputs, use_cache=True).past_key_values
    cache.reorder_cache(torch.tensor([2, 1, 0]))
    with torch.no_grad():
        assert len(model.generate(**inputs, num_beams=2, **options)) == 3


def test_padding_that_cannot_be_told_is_refused() -> None:
    model, inputs = decoder("mixtral"), padded()
    allowed = torch.ones(17, 17).bool().tril().expand(3, 1, 17, 17)
    with pytest.raises(UnsupportedRouting, match=r"are padding is not known; give attention_mask as \(batch, tokens\)"):
        record_routing(model, {"input_ids": inputs["input_ids"], "attention_mask": allowed})


def test_other_threads_are_not_heard_and_the_model_is_left_as_found() -> None:
    model, inputs = decoder("dots1"), padded()
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    recorder = RoutingRecorder(model)
    with torch.no_grad(), recorder:
        other = threading.Thread(target=lambda: model(input_ids=inputs["input_ids"][:1]))
        other.start()
        other.join()
        model(**inputs)
    assert len(recorder.by_layer()[1].indices) == 42
    assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


def test_spans_that_do_not_fit_and_layers_of_unlike_routers_are_refused() -> None:
    model, inputs = hybrid_models.build("mixtral"), padded()
    gate = model.model.layers[1].mlp.gate
    gate.top_k = 3
    recorder = RoutingRecorder(model)
    with torch.no_grad(), recorder:
        model(**inputs)
    assert {record.indices.shape[1] for record in recorder.by_layer().values()} == {2, 3}
    with pytest.raises(InputError, match=r"layers \[0, 1, 2\] differ in tokens, experts, k or groups"):
        recorder.routing()
    alone = RoutingRecorder(model, layers=[1])
    with torch.no_grad(), alone:
        model(**inputs)
    assert alone.routing([[(7, 9)], [(7, 9), (10, 12)], []]).is_image.sum() == 6
    assert alone.routing([(7, 9), (10, 12)]).is_image.sum() == 12, "one list is the whole batch's"
    assert not alone.routing([[], [], []]).is_image.any()
    for spans, message in (
        ([[(0, 2)], [(0, 2)]], "image spans are given for 2 batch rows, the batch has 3"),
        ([[(0, 2)]] * 4, "image spans are given for 4 batch rows, the batch has 3"),
        ([(9, 18)], "an image span of batch row 0 ends at 18, past the recorded 17 tokens"),
        ([[(4, 4)], [], []], r"\(4, 4\) is no column range"),
    ):
        with pytest.raises(InputError, match=message):
            alone.routing(spans)


def test_records_whose_arrays_do_not_fit_are_refused() -> None:
    whole = RoutingRecorder(decoder("dots1"))
    with torch.no_grad(), whole:
        decoder("dots1")(**padded())
    found = whole.routing()
    fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
    with pytest.raises(InputError, match="differ in their layers, tokens or k"):
        Routing(**(fields | {"layers": (1,)}))
    with pytest.raises(InputError, match="needs as many labels"):
        Routing(**(fields | {"images": found.images[1:]}))
    assert isinstance(found.layer(1), LayerRouting)


@pytest.mark.skipif(not BUNDLED_DECODERS["dots1"].is_dir(), reason="needs the bundled dots.llm1")
def test_the_example_of_the_docs_runs_as_it_stands() -> None:
    text = (Path(__file__).parents[2] / "docs" / "experts.md").read_text()
    names: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    assert names["load"].shape == (5, 16)
    assert names["found"].p_value.shape == (5,)
