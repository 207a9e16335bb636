"""One test of interventions for every back end: the same numbers, and the same refusals."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch

from probes.backend import Backend
from probes.bridges import NNsightModel, TransformerLensModel, UnsupportedBridge
from probes.bridges import nnsight as nnsight_bridge
from probes.bridges import transformer_lens as lens_bridge
from probes.changes import Change, Knockout, Patch
from probes.inputs import InputError
from probes.interventions import blank_effects, knocked_out, knockout_effects, layer_windows
from probes.patching import image_tokens, patch_effects
from tests.probes.bridges.backends import ANSWER, BACKENDS, BRIDGES, CASES, TOLERANCE, backend
from tests.probes.hooked import hooked, picture, questions

pytestmark = pytest.mark.filterwarnings("ignore")
FAMILIES = ("llava", "qwen2_5_vl", "gemma3", "qwen3_vl", "qwen3_5")
BY_MASK = ("qwen2_5_vl", "qwen3_vl")
"""Families whose attention TransformerLens leaves to transformers."""
Numbers = npt.NDArray[np.float64]


class Effects(NamedTuple):
    """What one back end says of one question."""

    knocked: Numbers
    knocked_by_layer: Numbers
    patched_by_layer: Numbers
    patched_everywhere: Numbers
    swapped_in: Numbers
    blanked: Numbers
    both: Numbers


def effects_of(model: Backend) -> Effects:
    """Interventions on one question with three images, written against the protocol alone."""
    question, layers = questions()[0], model.residual_layers
    encoded = model.encode([question] * 3, [ANSWER] * 3)
    tokens = image_tokens(encoded, [0, 1, 2])
    rolled = {layer: values.flip(0) for layer, values in model.residuals(encoded, tokens, layers[1:2]).items()}
    both: list[Change] = [knocked_out(encoded, "after", [2, 1, 0]), Patch(tokens, rolled)]
    return Effects(
        knocked=knockout_effects(model, question, ANSWER),
        knocked_by_layer=knockout_effects(model, question, ANSWER, layer_windows(model.layers, 1), batch_size=2),
        patched_by_layer=patch_effects(model, question, ANSWER),
        patched_everywhere=patch_effects(model, question, ANSWER, windows=[layers])[0],
        swapped_in=patch_effects(model, question, ANSWER, [picture(50, 20, 7)], windows=[layers[:2]]),
        blanked=blank_effects(model, question, ANSWER),
        both=model.score(encoded, both).log_probability,
    )


@cache
def expected_effects(family: str) -> Effects:
    """The reference numbers, of this package's own hooks; these are held against masks and hooks by hand elsewhere."""
    return effects_of(hooked(family))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", BACKENDS)
def test_interventions(name: str, family: str) -> None:
    model = backend(name, family)
    found, expected = effects_of(model), expected_effects(family)
    for field, numbers in found._asdict().items():
        np.testing.assert_allclose(numbers, getattr(expected, field), atol=TOLERANCE, err_msg=field)
        assert np.abs(numbers).max() > 100 * TOLERANCE, field
    np.testing.assert_allclose(found.patched_everywhere, found.blanked, atol=2 * TOLERANCE)

    encoded = model.encode([questions()[0]] * 3, [ANSWER] * 3)
    baseline = model.score(encoded).log_probability
    tokens = image_tokens(encoded, [0, 1, 2])
    itself = Patch(tokens, model.residuals(encoded, tokens, model.residual_layers))
    np.testing.assert_allclose(model.score(encoded, [itself]).log_probability, baseline, atol=1e-6)
    everything = Knockout(behind(encoded.columns, encoded.spans[0][-1].stop), [list(row) for row in encoded.spans])
    all_hidden = baseline - model.score(encoded, [everything]).log_probability
    assert np.abs(all_hidden).min() > 100 * TOLERANCE
    assert np.abs(all_hidden - found.knocked[0]).min() > 10 * TOLERANCE
    np.testing.assert_array_equal(model.score(encoded).log_probability, baseline)


def behind(tokens: int, first: int) -> torch.Tensor:
    """The rows from one on, in each of three sequences."""
    return (torch.arange(tokens) >= first).repeat(3, 1)


@pytest.mark.parametrize("name", BACKENDS)
def test_changes_that_do_not_fit_are_refused(name: str) -> None:
    model = backend(name, "llava")
    encoded = model.encode([questions()[1]], [ANSWER])
    tokens = image_tokens(encoded, [0])
    rows, span = behind(encoded.columns, encoded.spans[0][0].stop)[:1], encoded.spans[0][0]
    own = model.residuals(encoded, tokens, [1])[1]
    everything = [(0, encoded.columns)]
    refused: list[tuple[Change, str]] = [
        (Knockout(rows, [[span]], (7,)), r"layers \[7\] have no attention"),
        (Knockout(rows, [[span]], ()), "layer"),
        (Knockout(rows, []), r"columns per batch row"),
        (Knockout(rows.int(), [[span]]), "bool mask"),
        (Knockout(rows, [[(0, 999)]]), "end at 999, past"),
        (Knockout(torch.zeros_like(rows), [[span]]), "does nothing"),
        (Knockout(rows, [[]]), "does nothing"),
        (Knockout(rows, [everything]), "a row would see nothing at all"),
        (Patch(tokens, {7: own}), r"no decoder layers \[7\]"),
        (Patch(tokens, {1: own[1:]}), "are patched, and the values have"),
        (Patch(torch.zeros_like(tokens), {1: own}), "True somewhere"),
    ]
    for change, message in refused:
        with pytest.raises(InputError, match=message):
            model.score(encoded, [change])
    with pytest.raises(InputError, match="no decoder layers"):
        model.residuals(encoded, tokens, [9])
    with pytest.raises(InputError, match="True somewhere"):
        model.residuals(encoded, torch.zeros_like(tokens), [0])


@pytest.mark.parametrize("family", FAMILIES)
def test_transformer_lens_hides_in_masks_where_its_scores_are_dead(family: str) -> None:
    model = backend("transformer_lens", family)
    knockout_effects(model, questions()[0], ANSWER)
    assert isinstance(model, TransformerLensModel)
    assert model.runner.knocks_out_by == ("mask" if family in BY_MASK else "scores")


def test_a_knockout_without_effect_is_refused_at_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lens, nnsight = TransformerLensModel.of(hooked("llava")), NNsightModel.of(hooked("llava"))
    for module in (lens_bridge, nnsight_bridge):
        monkeypatch.setattr(module, "with_hidden", lambda *call: (call[0], call[1], torch.zeros((), dtype=torch.bool)))
    monkeypatch.setattr(lens_bridge, "hide", lambda scores, _: scores)
    for model in (lens, nnsight):
        with pytest.raises(UnsupportedBridge, match="its logits under a knock-out differ from the plain model's"):
            knockout_effects(model, questions()[0], ANSWER)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_change_for_another_batch_is_refused_and_not_spread_over_all(name: str) -> None:
    model = backend(name, "llava")
    encoded = model.encode([questions()[0]] * 3, [ANSWER] * 3)
    cut, tokens = knocked_out(encoded, "after", [0, 1, 2]), image_tokens(encoded, [0, 1, 2])
    values = model.residuals(encoded, tokens, [1])[1][: int(tokens[0].sum())]
    for change in (Knockout(cut.rows[:1], cut.columns[:1]), Patch(tokens[:1], {1: values})):
        with pytest.raises(InputError, match=r"for 1 sequences|does not fit a run of|with \(1, \d+\) tokens"):
            model.score(encoded, [change])
    assert np.isfinite(model.score(encoded, [cut]).log_probability).all()


@pytest.mark.parametrize("name", ["transformer_lens", "nnsight"])
def test_a_change_of_another_length_is_refused(name: str) -> None:
    model = backend(name, "llava")
    encoded = model.encode([questions()[0]], [ANSWER])
    cut = knocked_out(encoded, "after", [0])
    with pytest.raises(InputError, match="does not fit a run of"):
        model.score(encoded, [Knockout(cut.rows[:, :-1], cut.columns)])


def test_a_patch_without_effect_is_refused_at_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lens, nnsight = TransformerLensModel.of(hooked("llava")), NNsightModel.of(hooked("llava"))
    for module in (lens_bridge, nnsight_bridge):
        monkeypatch.setattr(module, "replaced", lambda _layer, residual, *_: residual)
    for model in (lens, nnsight):
        with pytest.raises(UnsupportedBridge, match="its logits under a patch differ from the plain model's"):
            patch_effects(model, questions()[0], ANSWER)


def test_another_layers_residual_stream_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model = TransformerLensModel.of(hooked("llava"))
    monkeypatch.setattr(lens_bridge, "_residual", lambda layer: f"blocks.{layer}.hook_out")
    encoded = model.encode([questions()[0]], [ANSWER])
    with pytest.raises(UnsupportedBridge, match="its residual stream before layer 0 differ"):
        model.residuals(encoded, image_tokens(encoded, [0]), [0])


def test_the_docs_say_how_many_families_were_run_with_pictures() -> None:
    """Families are counted where they are listed for the tests; whoever lists one more sees this fail."""
    run = {bridge: {family for each, family in CASES if each == bridge} for bridge in BRIDGES}
    assert run["transformer_lens"] < run["nnsight"] and set(FAMILIES) <= run["transformer_lens"]
    text = " ".join((Path(__file__).parents[3] / "docs" / "bridges.md").read_text(encoding="utf-8").split())
    said = (
        f"; {len(run['nnsight'])} families with real processors and pictures ({len(run['transformer_lens'])} through "
        f"TransformerLens), {len(FAMILIES)} of them through the one test of interventions"
    )
    assert said in text, f"docs/bridges.md should say: {said}"
