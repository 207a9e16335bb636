"""Loads and what is made of them, against closed forms and counts in plain Python."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.estimates import proportion
from probes.experts.load import (
    as_choices,
    calls_by_sample,
    co_activation,
    expert_load,
    largest_over_mean,
    load_by_label,
    load_entropy,
    load_estimates,
    load_gini,
)
from probes.inputs import InputError

EXPERTS, K = 7, 3


def choices(tokens: int, experts: int = EXPERTS, k: int = K, seed: int = 0, layers: int = 2) -> Any:
    """Random choices, (layers, tokens, k)."""
    return np.random.default_rng(seed).random((layers, tokens, experts)).argsort(axis=-1)[..., :k]


@given(st.integers(1, 40), st.integers(0, 1000))
def test_load_is_the_share_of_tokens_and_sums_to_k(tokens: int, seed: int) -> None:
    indices = choices(tokens, seed=seed)
    load = expert_load(indices, EXPERTS)
    assert load.shape == (2, EXPERTS)
    np.testing.assert_allclose(load.sum(axis=-1), K)
    for layer in range(2):
        for expert in range(EXPERTS):
            assert load[layer, expert] == sum(expert in token for token in indices[layer].tolist()) / tokens


def test_an_even_load_is_k_over_experts_as_in_dots_llm1() -> None:
    indices = np.stack([(np.arange(6) + token) % 128 for token in range(128)])
    np.testing.assert_allclose(expert_load(indices, 128), 6 / 128)
    assert round(6 / 128, 4) == 0.0469


@pytest.mark.parametrize(("experts", "k"), [(8, 2), (16, 4), (128, 6)])
def test_even_and_collapsed_loads_have_their_closed_forms(experts: int, k: int) -> None:
    even = np.full(experts, k / experts)
    collapsed = np.r_[np.ones(k), np.zeros(experts - k)]
    assert load_entropy(even) == pytest.approx(1)
    assert load_entropy(collapsed) == pytest.approx(np.log(k) / np.log(experts))
    assert load_gini(even) == pytest.approx(0, abs=1e-12)
    assert load_gini(collapsed) == pytest.approx(1 - k / experts)
    assert largest_over_mean(even) == pytest.approx(1)
    assert largest_over_mean(collapsed) == pytest.approx(experts / k)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=9))
def test_gini_and_entropy_equal_brute_force_and_know_no_scale_and_no_order(load: list[float]) -> None:
    share = np.array(load) / sum(load)
    pairs = sum(abs(left - right) for left in load for right in load)
    assert load_gini(load) == pytest.approx(pairs / (2 * len(load) ** 2 * np.mean(load)), abs=1e-9)
    assert load_entropy(load) == pytest.approx(-(share * np.log(share)).sum() / np.log(len(load)))
    for measure in (load_gini, load_entropy, largest_over_mean):
        assert measure(load[::-1]) == pytest.approx(measure(np.array(load) * 3), abs=1e-9)


def test_labels_split_the_load() -> None:
    indices = choices(30)
    labels = np.where(np.arange(30) % 3 == 0, "text", "image")
    names, load = load_by_label(indices, labels, EXPERTS)
    assert names.tolist() == ["image", "text"] and load.shape == (2, 2, EXPERTS)
    np.testing.assert_allclose(load[1], expert_load(indices[:, ::3], EXPERTS))
    np.testing.assert_allclose((20 * load[0] + 10 * load[1]) / 30, expert_load(indices, EXPERTS))
    with pytest.raises(InputError, match="30 tokens need as many labels"):
        load_by_label(indices, labels[1:], EXPERTS)


def test_intervals_grow_when_samples_go_together() -> None:
    """Ten samples whose twenty tokens all go the same way: hardly more than ten numbers."""
    indices = np.repeat(choices(10, layers=1)[0], 20, axis=0)
    samples = np.repeat(np.arange(10), 20)
    alone, clustered = load_estimates(indices, EXPERTS), load_estimates(indices, EXPERTS, samples)
    np.testing.assert_allclose([each.value for each in alone], expert_load(indices, EXPERTS))
    assert all(each.clusters == 10 and each.n == 200 for each in clustered)
    widths = [[each.high - each.low for each in found] for found in (alone, clustered)]
    assert min(np.array(widths[1]) / widths[0]) > 2
    with pytest.raises(InputError, match="are of one layer"):
        load_estimates(choices(4), EXPERTS)


def test_pairs_are_counted_and_expected() -> None:
    indices = choices(50)
    found = co_activation(indices, EXPERTS)
    for left, right in combinations(range(EXPERTS), 2):
        together = sum({left, right} <= set(token) for token in indices[0].tolist())
        assert found.counts[0, left, right] == found.counts[0, right, left] == together
    np.testing.assert_allclose(found.counts[0].diagonal() / 50, expert_load(indices, EXPERTS)[0])
    off = ~np.eye(EXPERTS, dtype=bool)
    assert found.expected[1][off].sum() == pytest.approx(found.counts[1][off].sum())
    assert np.isnan(found.expected[:, ~off]).all() and np.isnan(found.ratio[:, ~off]).all()


def test_pairs_drawn_at_random_are_as_expected_and_a_planted_pair_is_not() -> None:
    every = np.array(list(combinations(range(EXPERTS), K)))
    assert co_activation(every, EXPERTS).ratio[0, 1] == pytest.approx(1)
    indices = choices(2000, layers=1)[0]
    ratio = co_activation(indices, EXPERTS).ratio
    assert np.nanmax(np.abs(ratio - 1)) < 0.15
    others = [[2 + (token + step) % 5 for step in range(3)] for token in range(2000)]
    planted = np.array([[0, 1, token[0]] if number % 2 else token for number, token in enumerate(others)])
    ratio = co_activation(planted, EXPERTS).ratio
    assert ratio[0, 1] > 2 and np.nanargmax(ratio) in (1, EXPERTS)
    with pytest.raises(InputError, match="here each goes to one"):
        co_activation(indices[:, :1], EXPERTS)
    unused = co_activation(indices, EXPERTS + 1).ratio
    assert np.isnan(unused[-1]).all()


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([[0, 7]], "expert 7 is none of the 7 experts, which are 0 to 6"),
        ([[0, -1]], "expert -1 is none"),
        ([[2, 2]], "goes to one expert twice"),
        ([0, 1], r"whole numbers \(..., tokens, k\)"),
        ([[0.5, 1.0]], "got float64"),
    ],
)
def test_choices_that_are_none_are_refused(indices: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_choices(indices, EXPERTS)


def test_loads_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match="there are none"):
        expert_load(np.zeros((0, 2), int), EXPERTS)
    for load, message in (([1.0], "two experts or more"), ([0, 0], "some above"), ([-1, 2], "from 0 on")):
        with pytest.raises(InputError, match=message):
            load_gini(load)


def test_intervals_are_those_of_each_experts_column() -> None:
    """Skewed loads over uneven samples, one expert never called and one by every token."""
    rng = np.random.default_rng(3)
    drawn = np.argsort(rng.random((400, 5)) ** [0.3, 1.0, 2.0, 3.0, 4.0], axis=1)[:, -2:] + 1
    indices, samples = np.hstack([np.zeros((400, 1), dtype=int), drawn]), np.sort(rng.integers(0, 30, 400)) * 7
    found = load_estimates(indices, EXPERTS, samples)
    for expert, estimate in enumerate(found):
        alone = proportion((indices == expert).any(axis=1), samples)
        assert (estimate.n, estimate.clusters) == (alone.n, alone.clusters) == (400, len(np.unique(samples)))
        ends = (alone.value, alone.low, alone.high)
        np.testing.assert_allclose((estimate.value, estimate.low, estimate.high), ends, rtol=1e-12, atol=1e-15)
    assert found[0].value == 1.0 and found[-1].value == 0.0
    assert len({(each.low, each.high) for each in found}) > 3


def test_calls_are_counted_sample_by_sample() -> None:
    indices, samples = choices(30, layers=1)[0], np.arange(30) % 4
    found = calls_by_sample(indices, EXPERTS, samples, 4)
    by_hand = [
        [sum(expert in token for token in indices[samples == each]) for expert in range(EXPERTS)] for each in range(4)
    ]
    assert found.tolist() == by_hand
