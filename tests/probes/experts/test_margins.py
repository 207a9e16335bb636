"""Margins against sorting by hand and against noise, and the share of choices that a bias decides."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probes.experts.margins import bias_effect, bias_effects, margins
from probes.experts.records import Routing
from probes.experts.rules import Grouping, choose
from probes.inputs import InputError
from probes.routing import RoutingRecorder, record_routing
from tests.probes import hybrid_models
from tests.probes.hybrid_models import padded

EXPERTS, K = 9, 3


@given(st.integers(0, 1000), st.integers(1, EXPERTS - 1))
def test_a_margin_is_the_step_behind_the_last_chosen_score(seed: int, k: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(2, 5, EXPERTS)).astype(np.float32)
    found = margins(scores, k)
    for row, margin in zip(scores.reshape(-1, EXPERTS), found.reshape(-1), strict=True):
        ordered = sorted(row.tolist(), reverse=True)
        assert margin == np.float32(ordered[k - 1]) - np.float32(ordered[k])


def test_a_small_margin_predicts_a_change_under_noise() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4000, EXPERTS)).astype(np.float32)
    noisy = scores + rng.normal(0, 0.1, scores.shape).astype(np.float32)
    changed = (choose(scores, K) != choose(noisy, K)).any(axis=-1)
    narrow = margins(scores, K) < np.median(margins(scores, K))
    assert changed[narrow].mean() > 5 * changed[~narrow].mean() > 0
    below = np.abs(noisy - scores).max(axis=-1) * 2 < margins(scores, K)
    assert below.any() and not changed[below].any()


@pytest.mark.parametrize("k", [0, EXPERTS])
def test_a_margin_needs_someone_left_over(k: int) -> None:
    with pytest.raises(InputError, match="there are 9"):
        margins(np.zeros((1, EXPERTS)), k)


def test_a_bias_changes_what_it_pushes_over_the_margin() -> None:
    affinities = np.array([[0.9, 0.5, 0.4, 0.1], [0.9, 0.5, 0.2, 0.1], [0.9, 0.8, 0.1, 0.4]])
    found = bias_effect(affinities, [0, 0, 0.2, 0], 2, samples=[0, 0, 1])
    assert found.value == pytest.approx(1 / 3) and found.n == 3 and found.clusters == 2
    assert bias_effect(affinities, [0, 0, 0, 0], 2).value == 0
    assert bias_effect(affinities, [0.3, 0.3, 0.3, 0.3], 2).value == 0
    # One group of two is kept: the bias makes it the other one, and changes every choice.
    assert bias_effect(affinities, [0, 0, 2, 0], 2, Grouping(2, 1, 2)).value == 1
    for bias, k in (([0, 0], 2), ([0, 0, 0, 0], 0), ([0, 0, 0, 0], 5)):
        with pytest.raises(InputError, match=r"affinities are \(tokens, experts\)"):
            bias_effect(affinities, bias, k)


@pytest.mark.parametrize("name", ["dots1", "deepseek_v3"])
def test_the_effect_of_a_bias_is_that_of_setting_the_models_to_zero(name: str) -> None:
    """Of the first mixture, whose states do not depend on other routers."""
    model, inputs = hybrid_models.build(name), padded()
    recorder = RoutingRecorder(model)
    with torch.no_grad(), recorder:
        model(**inputs)
    routing = recorder.routing()
    effects = bias_effects(routing)
    assert list(effects) == [1, 2]
    before = np.sort(routing.indices[0])
    for layer in model.model.layers[1:]:
        layer.mlp.gate.e_score_correction_bias.zero_()
    after = np.sort(record_routing(model, inputs)[1].indices)
    changed = (before != after).any(axis=-1)
    assert effects[1].value == changed.mean() > 0.5
    assert effects[1].n == 42 and effects[1].clusters == 3
    with pytest.raises(InputError, match="holds no affinities"):
        bias_effects(routing.without_affinities())


def test_routers_without_bias_show_no_effect_and_one_margin() -> None:
    model = hybrid_models.build("olmoe")
    recorder = RoutingRecorder(model)
    with torch.no_grad(), recorder:
        model(**padded())
    routing = recorder.routing()
    assert {effect.value for effect in bias_effects(routing).values()} == {0.0}
    assert np.array_equal(margins(routing.scores, routing.k), margins(routing.kept_affinities, routing.k))


def test_groups_leave_an_infinite_margin_where_they_shut_out_everyone_else() -> None:
    recorder = RoutingRecorder(model := hybrid_models.build("deepseek_v3", topk_group=1, num_experts_per_tok=4))
    with torch.no_grad(), recorder:
        model(**padded())
    routing = recorder.routing()
    assert np.isposinf(margins(routing.scores, routing.k)).all()
    assert np.isposinf(margins(routing.unbiased_scores, routing.k)).all()
    assert np.isfinite(margins(routing.kept_affinities, routing.k)).all(), "control: groups are what shuts them out"


def test_without_bias_groups_still_shut_experts_out() -> None:
    """By its best two the second group wins without bias, and 0.9 of the first one is shut out."""
    routing = Routing(
        layers=(0,),
        indices=np.array([[[4]]]),
        weights=np.ones((1, 1, 1), dtype=np.float32),
        bias=np.array([[0, 0, 0, 0, 1, 1]], dtype=np.float32),
        grouping=Grouping(3, 1, 2),
        samples=np.zeros(1, dtype=np.int64),
        columns=np.zeros(1, dtype=np.int64),
        images=np.full(1, -1),
        affinities=np.array([[[0.9, 0.2, 0.8, 0.5, 0.1, 0.0]]], dtype=np.float32),
    )
    assert margins(routing.unbiased_scores, 1) == pytest.approx(0.3)
    assert margins(routing.kept_affinities, 1) == pytest.approx(0.1), "control: without groups it is another"
    assert margins(routing.scores, 1) == pytest.approx(0.1), "with bias the third group wins"
