"""Knock-outs of mixers against transformers' own scans of values that are zero, and their effects on answers."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from probes.encoding import Encoded
from probes.inputs import InputError
from probes.interventions import knockout_effects
from probes.knockout import AttentionKnockout
from probes.mixers.knockout import MixerKnockout, joint_knockout_effects, mixer_knockout_effects
from probes.mixers.recorder import MixerRecorder
from tests.probes.hooked import questions
from tests.probes.mixers.hooked import hybrid
from tests.probes.mixers.models import build, tokens

LENGTH, SPAN = 30, (4, 15)
ANSWER = [120, 121]
SCANS = {
    "nemotron_h": "mamba2_chunk_scan",
    "falcon_h1_without_norm": "mamba2_chunk_scan",
    "mamba": "mamba_selective_scan",
    "qwen3_5": "torch_chunk_gated_delta_rule",
}
"""What a family's layers call, in the module of the layer's class."""


def rows_from(first: int, batch: int = 2) -> torch.Tensor:
    return (torch.arange(LENGTH) >= first).repeat(batch, 1)


def silenced(family: str, scan: Any) -> Any:
    """The same scan, but what rows behind the image get of it is a scan of values that are zero at the image."""

    def called(*args: Any, **keywords: Any) -> Any:
        place = 2 if family == "qwen3_5" else 0
        values = args[place].clone()
        channels_first = family == "mamba"
        if channels_first:
            values[..., slice(*SPAN)] = 0
        else:
            values[:, slice(*SPAN)] = 0
        own, silent = scan(*args, **keywords), scan(*args[:place], values, *args[place + 1 :], **keywords)
        whole = own[0] if isinstance(own, tuple) else own
        part = silent[0] if isinstance(silent, tuple) else silent
        if channels_first:
            mixed = torch.cat([whole[..., : SPAN[1]], part[..., SPAN[1] :]], dim=-1)
        else:
            mixed = torch.cat([whole[:, : SPAN[1]], part[:, SPAN[1] :]], dim=1)
        return (mixed, own[1]) if isinstance(own, tuple) else mixed

    return called


@pytest.mark.parametrize("family", SCANS)
def test_a_knockout_equals_a_scan_of_silent_values(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    model, ids = build(family), tokens(2, LENGTH)
    with torch.no_grad():
        before = model(ids, use_cache=False).logits
        with MixerKnockout(model, rows_from(SPAN[1]), [[SPAN], [SPAN]]):
            found = model(ids, use_cache=False).logits
        module = sys.modules[type(model).__module__]
        monkeypatch.setattr(module, SCANS[family], silenced(family, getattr(module, SCANS[family])))
        right = model(ids, use_cache=False).logits
        monkeypatch.undo()
        after = model(ids, use_cache=False).logits
    scale = float((right - before).abs().max())
    assert scale > 1e-2
    assert float((found - right).abs().max()) < 1e-3 * scale
    assert torch.equal(before, after)
    assert torch.equal(found[:, : SPAN[1]], before[:, : SPAN[1]])


def test_knockouts_are_by_batch_row_and_fade() -> None:
    model, ids = build("nemotron_h"), tokens(2, LENGTH)
    with torch.no_grad():
        before = model(ids, use_cache=False).logits
        with MixerKnockout(model, rows_from(SPAN[1]), [[SPAN], []]):
            first = model(ids, use_cache=False).logits
        rows = rows_from(SPAN[1])
        rows[1, :-1] = False
        with MixerKnockout(model, rows, [[SPAN], [SPAN]]):
            second = model(ids, use_cache=False).logits
        with MixerKnockout(model, rows_from(SPAN[1]), [[SPAN], []], strength=0.0):
            none = model(ids, use_cache=False).logits
    torch.testing.assert_close(first[1], before[1])
    torch.testing.assert_close(second[0], first[0])
    torch.testing.assert_close(second[1, :-1], before[1, :-1])
    assert (second[1, -1] - before[1, -1]).abs().max() > 1e-3
    torch.testing.assert_close(none, before)


def test_what_does_nothing_or_does_not_fit_is_refused() -> None:
    model, ids = build("nemotron_h"), tokens(2, LENGTH)
    with pytest.raises(InputError, match="the knock-out does nothing"):
        MixerKnockout(model, rows_from(LENGTH), [[SPAN], [SPAN]])
    with pytest.raises(InputError, match="the knock-out does nothing"):
        MixerKnockout(model, rows_from(SPAN[1]), [[], []])
    with pytest.raises(InputError, match=r"bool mask .batch, tokens. with columns per batch row"):
        MixerKnockout(model, rows_from(SPAN[1]).long(), [[SPAN], [SPAN]])
    with pytest.raises(InputError, match="batch row 1 end at 31, past 30 tokens"):
        MixerKnockout(model, rows_from(SPAN[1]), [[SPAN], [(4, 31)]])
    with pytest.raises(InputError, match="layers names none"):
        MixerKnockout(model, rows_from(SPAN[1]), [[SPAN], [SPAN]], layers=[])
    with pytest.raises(InputError, match=r"no mixer in layers \[1\]"):
        MixerKnockout(model, rows_from(SPAN[1]), [[SPAN], [SPAN]], layers=[1])
    with (
        pytest.raises(InputError, match=r"for 2 sequences of 30 tokens, the model runs \(2, 12\)"),
        torch.no_grad(),
        MixerKnockout(model, rows_from(SPAN[1]), [[SPAN], [SPAN]]),
    ):
        model(ids[:, :12], use_cache=False)


def behind_images(encoded: Encoded) -> torch.Tensor:
    """Bool (1, tokens): the rows behind the last image of the one question."""
    rows = torch.zeros_like(encoded.inputs["input_ids"], dtype=torch.bool)
    rows[0, max(span.stop for span in encoded.spans[0]) :] = True
    return rows


@cache
def effects(family: str) -> Any:
    return mixer_knockout_effects(hybrid(family), questions()[0], ANSWER)


@pytest.mark.parametrize("family", ["nemotron_h_omni", "qwen3_5", "jamba"])
def test_effects_are_the_drops_in_the_answers_log_probability(family: str) -> None:
    model, question = hybrid(family), questions()[0]
    encoded = model.encode([question], [ANSWER])
    before = float(model.score(encoded).log_probability[0])
    rows = behind_images(encoded)
    for image, span in enumerate(encoded.spans[0]):
        with MixerKnockout(model.model, rows, [[span]]):
            after = float(model.score(encoded).log_probability[0])
        assert effects(family)[0, image] == pytest.approx(before - after, abs=1e-4)
    assert np.abs(effects(family)).max() > 1e-2


def test_windows_and_rows_are_those_of_attention_knockouts() -> None:
    model, question = hybrid("nemotron_h"), questions()[0]
    each = mixer_knockout_effects(model, question, ANSWER, windows=[[0], [2], [0, 2]], batch_size=2)
    assert each.shape == (3, 3)
    np.testing.assert_allclose(each[2:], effects("nemotron_h"), atol=1e-4)
    assert knockout_effects(model, question, ANSWER, windows=[[3]]).shape == (1, 3)
    for call, layers in ((mixer_knockout_effects, r"\[0, 2\]"), (knockout_effects, r"\[3\]")):
        with pytest.raises(InputError, match=f"each window needs at least one layer; this model's are {layers}"):
            call(model, question, ANSWER, windows=[[]])
        with pytest.raises(InputError, match="needs at least one row set"):
            call(model, question, ANSWER, rows=[])
    last = mixer_knockout_effects(model, question, ANSWER, rows="anchor")
    assert np.isnan(last[0, 2])
    assert not np.isnan(last[0, :2]).any()


@pytest.mark.parametrize("outside", [True, False])
def test_a_recorder_hears_the_layers_own_scan(outside: bool) -> None:
    """Whichever of the two is entered first."""
    model, ids = build("nemotron_h"), tokens(2, LENGTH)
    sets = {"rows": rows_from(LENGTH - 2)}
    with torch.no_grad(), MixerRecorder(model, [SPAN], sets) as alone:
        plain = model(ids, use_cache=False).logits
    recorder = MixerRecorder(model, [SPAN], sets)
    knockout = MixerKnockout(model, rows_from(SPAN[1]), [[SPAN], [SPAN]], layers=[2])
    first, second = (recorder, knockout) if outside else (knockout, recorder)
    with torch.no_grad(), first, second:
        cut = model(ids, use_cache=False).logits
    assert (cut - plain).abs().max() > 1e-3
    torch.testing.assert_close(recorder.factors("rows", "signed"), alone.factors("rows", "signed"))


@cache
def joint(family: str) -> Any:
    return joint_knockout_effects(hybrid(family), questions()[0], ANSWER)


def test_a_joint_knockout_is_both_cuts_in_one_forward() -> None:
    model, question = hybrid("nemotron_h"), questions()[0]
    each = joint_knockout_effects(model, question, ANSWER, windows=[[0, 2], [3], [2, 3], [0, 2, 3]], batch_size=2)
    np.testing.assert_allclose(each[:1], effects("nemotron_h"), atol=1e-4)
    np.testing.assert_allclose(each[1:2], knockout_effects(model, question, ANSWER), atol=1e-4)
    np.testing.assert_allclose(each[3:], joint("nemotron_h"), atol=1e-4)
    assert np.abs(each[3] - each[0] - each[1]).max() > 1e-4
    with pytest.raises(InputError, match=r"layers \[1, 9\] mix no tokens; those with attention or a mixer are"):
        joint_knockout_effects(model, question, ANSWER, windows=[[0], [1, 9]])
    with pytest.raises(InputError, match="each window needs at least one layer"):
        joint_knockout_effects(model, question, ANSWER, windows=[])


@pytest.mark.parametrize("family", ["falcon_h1", "qwen3_5"])
def test_a_joint_knockout_enters_both_cuts_also_where_one_layer_has_both(family: str) -> None:
    model, question = hybrid(family), questions()[0]
    encoded = model.encode([question], [ANSWER])
    before = float(model.score(encoded).log_probability[0])
    rows = behind_images(encoded)
    for image, span in enumerate(encoded.spans[0]):
        with MixerKnockout(model.model, rows, [[span]]), AttentionKnockout(model.model, rows, [[span]]):
            after = float(model.score(encoded).log_probability[0])
        assert joint(family)[0, image] == pytest.approx(before - after, abs=1e-4)
    assert np.abs(joint(family) - effects(family)).max() > 1e-4
