"""One unit across kinds of layers: complete, the gradient's own, what small knock-outs do; and what large ones do."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from probes.attention import UnsupportedAttention
from probes.experts.effects import expert_knockout_effects
from probes.inputs import InputError
from probes.instruments.attention_scores import attention_gradient
from probes.instruments.contribution_reading import contributions
from probes.instruments.contributions import EXPERTS, Contributions, knockout_agreement
from probes.instruments.reading import read
from probes.interventions import knockout_effects
from probes.mixers import contributions as arithmetic
from probes.mixers.knockout import MixerKnockout, mixer_knockout_effects
from probes.mixers.readers import READERS, reader_of
from probes.routing import RoutingRecorder
from tests.probes.hooked import hooked, questions
from tests.probes.mixers.hooked import hybrid
from tests.probes.mixers.recurrences import by_recurrence

ANSWER = [120, 121]
MIXERS = ("nemotron_h_omni", "qwen3_5", "nemotron_h", "jamba", "falcon_h1")


@cache
def found(family: str, rows: str = "after") -> Contributions:
    return contributions(loaded(family), questions()[0], ANSWER, rows)


def loaded(family: str) -> Any:
    return hybrid(family) if family in MIXERS else hooked(family)


def rows_and_spans(model: Any) -> Any:
    encoded = model.encode([questions()[0]], [ANSWER])
    rows = torch.zeros_like(encoded.inputs["input_ids"], dtype=torch.bool)
    rows[0, max(span.stop for span in encoded.spans[0]) :] = True
    return encoded, rows


@pytest.mark.parametrize("family", [*MIXERS, "llava", "qwen2_5_vl"])
def test_contributions_are_complete(family: str) -> None:
    """All tokens' shares and the bias make up the gradient times the layer's output."""
    each = found(family)
    assert each.errors.max() < 1e-5
    assert (np.abs(each.totals) > 1e-4).all()
    assert len(each.experts) == each.kinds.count(EXPERTS)
    assert each.nats.shape == each.slopes.shape == (len(each.layers), 3)
    scores = loaded(family).log_probability([questions()[0]], [ANSWER])
    assert each.log_probability == pytest.approx(float(scores.log_probability[0]), abs=1e-3)


def test_entries_stand_in_the_order_of_layers_and_name_their_kinds() -> None:
    assert found("nemotron_h").kinds == ("mamba2", EXPERTS, "mamba2", "attention")
    assert found("nemotron_h").layers == (0, 1, 2, 3)
    assert found("qwen3_5").kinds == ("attention", "delta", "attention")
    assert found("jamba").kinds == ("mamba", "attention", EXPERTS)
    assert found("jamba").layers == (0, 1, 1)
    assert found("falcon_h1").kinds == ("attention", "mamba2", "attention", "mamba2")
    assert found("falcon_h1").layers == (0, 0, 1, 1)
    assert found("llava").kinds == ("attention",) * 3
    assert found("falcon_h1").windows("mamba2") == [[0], [1]]
    assert "through 4 layers of mamba2, mixture of experts, attention, completeness error" in repr(found("nemotron_h"))


def test_a_mixers_share_is_what_its_tokens_add_to_its_own_output() -> None:
    """Of Nemotron-H by hand: the recurrence of the image's tokens, the norm's factors, projection and gradient."""
    model = hybrid("nemotron_h")
    mixers = [each for each in model.model.modules() if type(each).__name__ in READERS]
    encoded, rows = rows_and_spans(model)
    kept: dict[int, dict[str, Any]] = {id(mixer): {} for mixer in mixers}
    handles = []
    for mixer in mixers:
        own = kept[id(mixer)]
        handles += [
            mixer.register_forward_pre_hook(lambda _, given, own=own: own.update(h=given[0].detach())),
            mixer.norm.register_forward_pre_hook(lambda _, a, own=own: own.update(y=a[0].detach(), z=a[1].detach())),
            mixer.register_forward_hook(lambda _, __, out, own=own: (out.retain_grad(), own.update(out=out))[0]),
        ]
    output = model.model(**encoded.inputs, use_cache=False).logits[0, -len(ANSWER) - 1 : -1].log_softmax(-1)
    output.gather(1, torch.tensor(ANSWER)[:, None]).sum().backward()
    for handle in handles:
        handle.remove()
    model.model.zero_grad()
    for place, mixer in enumerate(mixers):
        own = kept[id(mixer)]
        with torch.no_grad():
            reader = reader_of(mixer)
            scan = reader.scan(mixer, reader.project(mixer, own["h"], None), None)
            gated = own["y"] * torch.nn.functional.silu(own["z"])
            groups = gated.unflatten(-1, (-1, mixer.norm.group_size))
            level = (groups.square().mean(-1, keepdim=True) + mixer.norm.variance_epsilon).rsqrt()
            factors = torch.nn.functional.silu(own["z"]) * level.expand_as(groups).flatten(-2) * mixer.norm.weight
            alpha, gradient = by_recurrence(scan), own["out"].grad
            for image, span in enumerate(encoded.spans[0]):
                part = torch.einsum(
                    "bhij,bjhp->bihp", alpha[..., list(span.tokens)], scan.values[:, list(span.tokens)].double()
                )
                added = mixer.out_proj(part.flatten(2).float() * factors)
                right = float((added * gradient)[rows].double().sum())
                assert found("nemotron_h").of_kind("mamba2")[place, image] == pytest.approx(right, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_softmax_shares_are_gradient_times_attention(family: str) -> None:
    reading = read(hooked(family), questions()[0], ANSWER, rows=("after",))
    chosen = reading.query_rows("after")
    for entry, layer in enumerate(reading.heads):
        product = attention_gradient(layer, chosen) * layer.attention[:, chosen]
        right = [float(product[..., image].sum()) for image in reading.images]
        np.testing.assert_allclose(found(family).nats[entry], right, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", MIXERS)
def test_slopes_of_mixers_are_what_small_knockouts_do(family: str) -> None:
    model, each = hybrid(family), found(family)
    encoded, rows = rows_and_spans(model)
    kind = next(kind for kind in each.kinds if kind != "attention")
    scale = np.abs(each.of_kind(kind, slopes=True)).max()
    for (layer,), slopes in zip(each.windows(kind), each.of_kind(kind, slopes=True), strict=True):
        for image, span in enumerate(encoded.spans[0]):
            sides = []
            for strength in (0.05, -0.05):
                with MixerKnockout(model.model, rows, [[span]], [layer], strength):
                    sides.append(float(model.score(encoded).log_probability[0]))
            assert (sides[1] - sides[0]) / 0.1 == pytest.approx(slopes[image], abs=0.02 * scale + 1e-3)


def test_slopes_of_softmax_are_what_fading_its_columns_does() -> None:
    """In every layer at once, by a mask that adds log(1 - s) to the image's columns: first orders add up."""
    model, each = hooked("llava"), found("llava")
    encoded, rows = rows_and_spans(model)
    count = encoded.columns
    for image, span in enumerate(encoded.spans[0]):
        sides = []
        for strength in (0.02, -0.02):
            mask = torch.full((count, count), torch.finfo(torch.float32).min).triu(1)[None, None].clone()
            faded = torch.zeros(count, dtype=torch.bool)
            faded[list(span.tokens)] = True
            mask[0, 0][rows[0][:, None] & faded[None]] += float(np.log(1 - strength))
            with torch.no_grad():
                logits = model.model(**{**encoded.inputs, "attention_mask": mask}, use_cache=False).logits
            scores = logits[0, -len(ANSWER) - 1 : -1].log_softmax(-1)
            sides.append(float(scores.gather(1, torch.tensor(ANSWER)[:, None]).sum()))
        assert (sides[1] - sides[0]) / 0.04 == pytest.approx(float(each.slopes[:, image].sum()), rel=0.03, abs=3e-3)


def test_a_wrong_hidden_attention_is_not_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    own = arithmetic.scan_contributions

    def without_steps(scan: Any, rows: Any, weights: Any) -> Any:
        return own(replace(scan, step=torch.ones_like(scan.step)), rows, weights)

    monkeypatch.setattr("probes.instruments.contribution_parts.scan_contributions", without_steps)
    wrong = contributions(hybrid("nemotron_h"), questions()[0], ANSWER)
    assert (wrong.errors[[0, 2]] > 0.02).all()
    assert (wrong.errors[[1, 3]] < 1e-5).all()


def test_other_rows_take_part_by_themselves() -> None:
    """The rows behind the images are the template's tail and those of the other sets."""
    whole, paper, answer = found("nemotron_h"), found("nemotron_h", "paper"), found("nemotron_h", "answer")
    assert paper.rows == "paper"
    assert not np.allclose(paper.nats, whole.nats)
    assert answer.errors.max() < 1e-5
    with pytest.raises(
        InputError, match="rows behind all images, after, paper, predicting, answer, and not of 'anchor'"
    ):
        found("nemotron_h", "anchor")


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(InputError, match=r"more than the limit of 0.0 MiB; give fewer images or rows"):
        contributions(hybrid("nemotron_h"), questions()[0], ANSWER, limit_bytes=100)
    with pytest.raises(InputError, match="the answer is empty"):
        contributions(hybrid("nemotron_h"), questions()[0], [])
    with pytest.raises(
        UnsupportedAttention, match=r"Lfm2ShortConv.: .*a mixer without softmax, and its class is not k"
    ):
        contributions(hooked("lfm2_vl"), questions()[0], ANSWER)
    with pytest.raises(UnsupportedAttention, match=r"layer 0 .Gemma3Attention.: a norm follows its output"):
        contributions(hooked("gemma3"), questions()[0], ANSWER)
    with pytest.raises(InputError, match="no 'delta' layer here; there are mamba2, mixture of experts, attention"):
        found("nemotron_h").of_kind("delta")


def measured(family: str) -> dict[str, Any]:
    model, each = hybrid(family), found(family)
    question = questions()[0]
    kinds = [kind for kind in dict.fromkeys(each.kinds) if kind not in ("attention", EXPERTS)]
    cut = {kind: mixer_knockout_effects(model, question, ANSWER, each.windows(kind)) for kind in kinds}
    if EXPERTS in each.kinds:
        cut[EXPERTS] = expert_knockout_effects(model, question, ANSWER, each.windows(EXPERTS))
    return {**cut, "attention": knockout_effects(model, question, ANSWER, each.windows("attention"))}


@pytest.mark.parametrize("family", [family for family in MIXERS if family != "nemotron_h_omni"])
def test_slopes_agree_with_knockouts_of_mixers(family: str) -> None:
    result = knockout_agreement([found(family)], [measured(family)], slopes=True)
    kind = next(kind for kind in result if kind not in ("attention", EXPERTS))
    assert result[kind].correlation.value > 0.9
    assert set(result) == set(found(family).kinds)
    assert found(family).focus(kind, last=1) in (0, 1, 2)


def test_a_knockout_that_sends_tokens_to_other_experts_is_not_foretold() -> None:
    """Slopes hold as far as routing does: of the third image, until the knock-out is all but whole."""
    model, each = hybrid("nemotron_h_omni"), found("nemotron_h_omni")
    encoded, rows = rows_and_spans(model)
    plain = model.routing(encoded)
    baseline = float(model.score(encoded).log_probability[0])
    for image, strength, kept in ((0, 1.0, True), (1, 1.0, True), (2, 0.25, True), (2, 1.0, False)):
        recorder = RoutingRecorder(model.model)
        with MixerKnockout(model.model, rows, [[encoded.spans[0][image]]], [0], strength), recorder:
            effect = baseline - float(model.score(encoded).log_probability[0])
        same = np.array_equal(np.sort(recorder.routing().indices), np.sort(plain.indices))
        foretold = strength * each.of_kind("mamba2", slopes=True)[0, image]
        assert same == kept
        assert (abs(effect - foretold) < 0.15 * abs(foretold)) == kept


def made(nats: Any, kinds: tuple[str, ...] = ("mamba2", "mamba2")) -> Contributions:
    table = np.asarray(nats, dtype=np.float64)
    zeros = np.zeros(len(kinds))
    return Contributions(tuple(range(len(kinds))), kinds, "after", table, -table, zeros, zeros, 0.0)


def test_agreement_by_hand() -> None:
    samples = [made([[1.0, 0.0], [2.0, 0.5]]), made([[0.0, 1.0], [0.0, 2.0]]), made([[3.0, 1.0], [0.0, 0.0]])]
    effects = [
        {"mamba2": [[2.0, 0.0], [4.0, 1.0]]},
        {"mamba2": [[0.0, -1.0], [0.0, -2.0]]},
        {"mamba2": [[3.0, np.nan], [0.0, np.nan]]},
    ]
    result = knockout_agreement(samples, effects)["mamba2"]
    assert result.correlation.value == pytest.approx((1 - 1 + 1) / 3)
    assert result.top.estimate.value == pytest.approx(2 / 3)
    assert result.top.chance == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert knockout_agreement(samples, effects, slopes=True)["mamba2"].correlation.value == pytest.approx(-1 / 3)
    assert result.rank_correlation.value == pytest.approx(np.mean([spearmanr([1, 0, 2, 0.5], [2, 0, 4, 1])[0], -1, 1]))
    level = knockout_agreement([made([[0.0, 0.0]] * 2), *samples], [effects[0], *effects])["mamba2"]
    assert level.correlation == result.correlation and level.correlation.n == 3, "no correlation of what does not vary"
    bent = knockout_agreement([made([[1.0, 0.0], [2.0, 9.0]])], effects[:1])["mamba2"]
    assert bent.rank_correlation.value == pytest.approx(spearmanr([1, 0, 2, 9], [2, 0, 4, 1])[0])
    assert bent.rank_correlation.value != pytest.approx(bent.correlation.value, abs=0.05)
    with pytest.raises(InputError, match="3 samples have contributions, and 2 have effects"):
        knockout_agreement(samples, effects[:2])
    with pytest.raises(InputError, match=r"sample 0: its effects of 'mamba2' layers have the shape \(0,\)"):
        knockout_agreement(samples[:1], [{}])
