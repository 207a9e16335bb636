"""Traces through each bridge, against this package's own and against eager attentions by a path of their own."""

import sys
import weakref
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

from probes.bridges import NNsightModel, TransformerLensModel, UnsupportedBridge
from probes.bridges import nnsight as nnsight_bridge
from probes.bridges import transformer_lens as lens_bridge
from probes.bridges.nnsight import NNsightRunner
from probes.bridges.passes import Pass, Plan
from probes.bridges.runner import twin
from probes.bridges.support import PATTERNLESS
from probes.inputs import InputError
from probes.interventions import knockout_effects
from probes.model import HookedModel, Question
from probes.trace import Trace
from studies.bundled import BUNDLED_MODEL
from tests.probes.bridges.backends import ANSWER, BRIDGES, CASES, OTHER_TOWER, TOLERANCE, WITHOUT_ADAPTER, backend
from tests.probes.hooked import hooked, picture, questions, reference

pytestmark = pytest.mark.filterwarnings("ignore")
ROWS = ("paper", "predicting", "answer", "after")


def largest_difference(found: Trace, expected: Trace) -> float:
    """Of factors and maps, as a share of the largest, and of log-probability, of two traces of one question."""
    assert found.layers == expected.layers and found.spans == expected.spans and found.answer == expected.answer
    differences = [abs(found.log_probability - expected.log_probability)]
    for rows, factors in expected.factors_by_rows.items():
        assert found.factors_by_rows[rows].shape == factors.shape
        np.testing.assert_array_equal(np.isnan(found.factors_by_rows[rows]), np.isnan(factors))
        pairs = zip(found.maps_by_rows[rows], expected.maps_by_rows[rows], strict=True)
        for one, other in [(found.factors_by_rows[rows], factors), *pairs]:
            differences.append(float(np.nanmax(np.abs(one - other)) / np.nanmax(np.abs(other))))
    return max(differences)


@pytest.mark.parametrize(("bridge", "family"), CASES)
def test_a_padded_batch_gives_the_same_traces(bridge: str, family: str) -> None:
    asked, answers = questions(), [ANSWER, ANSWER[:1], ANSWER[:2]]
    expected = backend("ours", family).trace_batch(asked, answers, rows=ROWS)
    found = backend(bridge, family).trace_batch(asked, answers, rows=ROWS)
    # Log-probabilities are sums over tokens, as below, and rounding differs between processors.
    assert max(largest_difference(one, other) for one, other in zip(found, expected, strict=True)) < 2 * TOLERANCE
    factors = expected[0].factors
    assert np.abs(factors - factors[:, ::-1]).max() / factors.max() > 100 * TOLERANCE


@pytest.mark.parametrize("bridge", BRIDGES)
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
def test_heads_apart_equal_eager_attentions_by_another_path(bridge: str, family: str) -> None:
    question = questions()[0]
    trace = backend(bridge, family).trace(question.images, question.text, ANSWER, rows="answer", per_head=True)
    seen = reference(family, question, ANSWER)
    rows = slice(seen.prompt, seen.prompt + len(ANSWER))
    expected = [[layer[:, rows][..., image].mean((1, 2)) for image in seen.images] for layer in seen.attentions]
    np.testing.assert_allclose(trace.factors, np.moveaxis(np.array(expected), 1, 2), atol=TOLERANCE)
    logits = seen.logits[seen.prompt - 1 :].log_softmax(-1)
    total = sum(float(logits[step, token]) for step, token in enumerate(ANSWER))
    assert trace.log_probability == pytest.approx(total, abs=2 * TOLERANCE)


@pytest.mark.parametrize("bridge", BRIDGES)
def test_generated_answers_anchor_rows_and_image_to_image_are_the_same(bridge: str) -> None:
    question = questions()[0]
    settings: dict[str, Any] = {"max_new_tokens": 4, "rows": "anchor", "image_to_image": True}
    expected = backend("ours", "llava").trace(question.images, question.text, **settings)
    found = backend(bridge, "llava").trace(question.images, question.text, **settings)
    assert found.answer_ids == expected.answer_ids
    assert largest_difference(found, expected) < TOLERANCE
    assert found.pairwise is not None and expected.pairwise is not None
    np.testing.assert_allclose(found.pairwise, expected.pairwise, atol=TOLERANCE)


@pytest.mark.parametrize("bridge", BRIDGES)
def test_the_bundled_model_is_traced_the_same_from_its_folder(bridge: str) -> None:
    images = [picture(seed=seed) for seed in range(3)]
    plain = HookedModel.from_pretrained(BUNDLED_MODEL, dtype="float32", device="cpu")
    bridged = BRIDGES[bridge].of(BUNDLED_MODEL, dtype="float32", device="cpu")
    assert repr(bridged).startswith(f"{type(bridged).__name__}(LlavaForConditionalGeneration, 1.5 M")
    for per_head in (False, True):
        expected = plain.trace(images, "Which image shows a bicycle?", per_head=per_head)
        found = bridged.trace(images, "Which image shows a bicycle?", per_head=per_head)
        assert largest_difference(found, expected) < TOLERANCE


@pytest.mark.parametrize("family", PATTERNLESS)
def test_families_whose_attention_a_library_does_not_show_are_refused_by_name(family: str) -> None:
    with pytest.raises(UnsupportedBridge, match=r"TransformerLens does not take .*it has no attention pattern for the"):
        TransformerLensModel.of(hooked(family))


@pytest.mark.parametrize("bridge", BRIDGES)
def test_settings_of_a_loaded_model_are_refused(bridge: str) -> None:
    with pytest.raises(InputError, match="dtype cannot be set on a model that is loaded"):
        BRIDGES[bridge].of(hooked("llava"), dtype="bfloat16")


@pytest.mark.parametrize("bridge", BRIDGES)
def test_the_model_that_is_given_stays_as_it_is(bridge: str) -> None:
    model = hooked("llava")
    encoded = model.encode([questions()[0]], [ANSWER])
    before, kinds = model.score(encoded), [type(module) for module in model.model.modules()]
    other = BRIDGES[bridge].of(model)
    other.trace_batch([questions()[0]], [ANSWER])
    knockout_effects(other, questions()[0], ANSWER)
    np.testing.assert_array_equal(model.score(encoded).log_probability, before.log_probability)
    assert [type(module) for module in model.model.modules()] == kinds
    assert model.model.config._attn_implementation == "sdpa"
    weights = {parameter.data_ptr() for parameter in model.model.parameters()}
    assert {parameter.data_ptr() for parameter in twin(model.model).parameters()} == weights


@pytest.mark.parametrize(("bridge", "module"), [("transformer_lens", lens_bridge), ("nnsight", nnsight_bridge)])
def test_one_layers_probabilities_are_let_go_before_the_next(
    bridge: str, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[weakref.ref[torch.Tensor]] = []
    living: list[int] = []
    original = module.row_sums

    def row_sums(probabilities: torch.Tensor, sets: torch.Tensor, per_head: bool) -> torch.Tensor:
        living.append(sum(ref() is not None for ref in seen))
        seen.append(weakref.ref(probabilities))
        sums: torch.Tensor = original(probabilities, sets, per_head)
        return sums

    monkeypatch.setattr(module, "row_sums", row_sums)
    backend(bridge, "llava").trace_batch([questions()[0]], [ANSWER])
    assert len(seen) == 3 and max(living) <= 1


@pytest.mark.parametrize("family", (*WITHOUT_ADAPTER, *OTHER_TOWER))
def test_families_without_an_adapter_are_refused_by_name(family: str) -> None:
    with pytest.raises(
        UnsupportedBridge, match=r"TransformerLens does not take .*; read it with probes.Hooked"
    ) as error:
        backend("transformer_lens", family)
    assert type(hooked(family).model).__name__ in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("kind", "module"), [(TransformerLensModel, lens_bridge), (NNsightModel, nnsight_bridge)])
def test_wrong_attention_is_refused_at_load(
    kind: type[TransformerLensModel | NNsightModel], module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module.row_sums
    monkeypatch.setattr(module, "row_sums", lambda *args: original(*args) * 1.05)
    with pytest.raises(UnsupportedBridge, match="its attention differ from the plain model's by"):
        kind.of(hooked("llava"))
    monkeypatch.setattr(module, "row_sums", lambda *args: original(*args) * torch.nan)
    with pytest.raises(UnsupportedBridge, match="its attention differ"):
        kind.of(hooked("llava"))


class Off(NNsightRunner):
    """Gives logits that are off by a little, in the longer question alone."""

    def run(self, inputs: Mapping[str, Any], plan: Plan) -> Pass:
        found = super().run(inputs, plan)
        logits = found.logits.clone()
        logits[-1, -1, 5] += 1e-2 * logits.abs().max()
        return found._replace(logits=logits)


class Unmasked(NNsightRunner):
    """Forgets which tokens are padding."""

    def run(self, inputs: Mapping[str, Any], plan: Plan) -> Pass:
        return super().run({**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])}, plan)


class Silent(NNsightRunner):
    """Shows no attention of its last layer."""

    def run(self, inputs: Mapping[str, Any], plan: Plan) -> Pass:
        found = super().run(inputs, plan)
        found.sums.pop(2, None)
        return found


class Unwilling(NNsightRunner):
    """Refuses in words of its own."""

    def run(self, inputs: Mapping[str, Any], plan: Plan) -> Pass:
        raise ValueError(f"no room for {len(inputs)} inputs of {plan}")


class Broken(NNsightRunner):
    """Fails as libraries do."""

    def run(self, inputs: Mapping[str, Any], plan: Plan) -> Pass:
        raise KeyError(f"no such hook among {len(inputs)}\nand more for {plan}")


@pytest.mark.parametrize(
    ("runner", "message"),
    [
        (Off, "its logits differ .* at most 1e-04"),
        (Unmasked, "its logits differ"),
        (Silent, r"layers \[2\] show no"),
        (Unwilling, "ValueError: no room"),
        (Broken, "KeyError: .no such"),
    ],
)
def test_libraries_that_give_other_numbers_or_none_are_refused_at_load(
    runner: type[NNsightRunner], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NNsightModel, "runner_class", runner)
    with pytest.raises(UnsupportedBridge, match=message):
        NNsightModel.of(hooked("llava"))


def test_a_hook_that_never_runs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens_bridge, "_pattern", lambda layer: f"blocks.{layer}.attn.hook_hidden_states")
    with pytest.raises(UnsupportedBridge, match=r"its hook blocks.0.attn.hook_hidden_states never ran"):
        TransformerLensModel.of(hooked("llava"))
    monkeypatch.setattr(lens_bridge, "_pattern", lambda layer: f"blocks.{layer}.attn.hook_of_another_release")
    with pytest.raises(UnsupportedBridge, match=r"no attention pattern for the layers \[0, 1, 2\]"):
        TransformerLensModel.of(hooked("llava"))


@pytest.mark.parametrize("library", ["nnsight", "transformer_lens"])
def test_a_library_that_is_not_installed_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"probes.bridges.{library}")
    for name in [each for each in sys.modules if each.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(InputError, match=r"pip install sightcheck\[bridges\]"):
        import_module(f"probes.bridges.{library}")


def test_half_precision_is_let_through() -> None:
    model = HookedModel.from_pretrained(BUNDLED_MODEL, device="cpu")
    assert model.model.dtype == torch.bfloat16
    found, expected = (
        each.trace_batch([Question([picture()], "What is in the image?")], [[5, 6]]) for each in (_both(model))
    )
    assert np.abs(found[0].factors - expected[0].factors).max() < 1e-2


def _both(model: HookedModel) -> Sequence[HookedModel]:
    return NNsightModel.of(model), model
