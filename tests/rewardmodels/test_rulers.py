"""Rulers and length-matched accuracy: by hand, by counting, and what a model that likes length scores."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.estimates import difference
from rewardmodels.evaluation import pair_accuracy
from rewardmodels.rulers import beside_rulers, length_matched_accuracy, ruler_credits

LENGTHS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30)


@given(LENGTHS)
def test_longer_and_shorter_complement_and_ties_are_shared(pairs: list[tuple[int, int]]) -> None:
    found = ruler_credits([better for better, _ in pairs], [worse for _, worse in pairs])
    assert (found["longer"] + found["shorter"]).tolist() == [1.0] * len(pairs)
    assert found["longer"].tolist() == [(better > worse) + (better == worse) / 2 for better, worse in pairs]


def test_the_coin_is_seeded_and_fair() -> None:
    lengths = np.arange(4000)
    coins = [ruler_credits(lengths, lengths, seed=seed)["random"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(coins[0], coins[1])
    assert (coins[0] != coins[2]).any() and abs(coins[0].mean() - 0.5) < 0.04


def test_a_model_that_counts_characters_gains_nothing_on_its_ruler() -> None:
    rng = np.random.default_rng(0)
    better, worse = rng.integers(1, 400, 200), rng.integers(1, 400, 200)
    found = beside_rulers(better * 0.01, worse * 0.01, better, worse)
    assert found.score == found.rulers["longer"]
    assert (found.gains["longer"].value, found.gains["longer"].low, found.gains["longer"].high) == (0.0, 0.0, 0.0)
    assert set(found.rulers) == set(found.gains) == {"longer", "shorter", "random"}


def test_gains_are_paired_differences() -> None:
    rng = np.random.default_rng(1)
    chosen, rejected = rng.normal(0.4, 1, 90), rng.normal(0, 1, 90)
    better, worse = rng.integers(1, 400, 90), rng.integers(400, 800, 90)
    clusters = np.repeat(np.arange(30), 3)
    found = beside_rulers(chosen, rejected, better, worse, clusters)
    assert found.best == "shorter" and found.rulers["shorter"].value == 1.0
    expected = difference(chosen > rejected, better > worse, clusters)
    assert found.gains["longer"].value == pytest.approx(expected.value)
    assert (found.gains["longer"].low, found.gains["longer"].high) == pytest.approx((expected.low, expected.high))
    assert found.score == pair_accuracy(chosen, rejected, clusters)
    assert json.loads(json.dumps(found.to_dict()))["rulers"]["shorter"]["value"] == 1.0


def test_length_matched_by_hand() -> None:
    chosen, rejected = [2, 0, 2, 2, 0, 1], [1, 1, 1, 1, 1, 1]
    better, worse = [100, 100, 100, 50, 10, 10], [90, 89, 20, 100, 100, 10]
    found = length_matched_accuracy(chosen, rejected, better, worse)
    assert (found.matched.n, found.matched.value) == (2, 0.75)
    assert found.chosen_longer.n == 3 and found.chosen_longer.value == pytest.approx(2 / 3)
    assert (found.chosen_shorter.n, found.chosen_shorter.value) == (2, 0.5)
    assert found.balanced.n == 5 and found.balanced.value == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert length_matched_accuracy(chosen, rejected, better, worse, tolerance=0.11).matched.n == 3


def test_balancing_takes_the_help_of_length_away() -> None:
    rng = np.random.default_rng(2)
    better, worse = rng.integers(200, 800, 600), rng.integers(1, 600, 600)
    lengths = pair_accuracy(better, worse)
    found = length_matched_accuracy(better, worse, better, worse)
    assert lengths.value > 0.7
    assert found.balanced.value == 0.5
    assert found.chosen_longer.value == 1.0 and found.chosen_shorter.value == 0.0
    seeing = rng.random(600) < 0.8
    honest = length_matched_accuracy(seeing, ~seeing, better, worse, np.arange(600) // 2)
    assert honest.balanced.low < 0.8 < honest.balanced.high and honest.balanced.clusters is not None


def test_a_missing_side_has_no_balance() -> None:
    found = length_matched_accuracy([1, 1], [0, 0], [9, 9], [1, 2])
    assert math.isnan(found.balanced.value) and math.isnan(found.chosen_shorter.value) and found.matched.n == 0


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match="a length is >= 0"):
        ruler_credits([-1], [2])
    with pytest.raises(ValueError, match="the same pairs"):
        beside_rulers([1, 2], [0, 0], [1], [2])
    with pytest.raises(ValueError, match="the same pairs"):
        length_matched_accuracy([1, 2], [0, 0], [1], [2])
    with pytest.raises(ValueError, match="tolerance"):
        length_matched_accuracy([1], [0], [1], [2], tolerance=1.0)
