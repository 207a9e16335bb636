"""Perturbed inputs and swapped positions: by counting, ties at one half, models that see and do not."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.paired import share_difference
from rewardmodels.evaluation import pair_accuracy
from rewardmodels.perturbations import perturbation, position_swap

SCORES = st.lists(st.tuples(*[st.integers(-2, 2)] * 4), min_size=1, max_size=25)


@settings(max_examples=20)
@given(SCORES)
def test_by_counting(rows: list[tuple[int, int, int, int]]) -> None:
    columns = [[row[place] for row in rows] for place in range(4)]
    found = perturbation(*columns)
    assert found.before == pair_accuracy(columns[0], columns[1]) and found.after == pair_accuracy(*columns[2:])
    assert found.drop.value == pytest.approx(found.before.value - found.after.value)
    assert found.drop.n == len(rows) and found.drop.clusters is None
    flips = [np.sign(a - b) != np.sign(c - d) for a, b, c, d in rows]
    assert found.flipped.value == pytest.approx(np.mean(flips))
    assert found.moved.value == pytest.approx(np.mean([abs((c - d) - (a - b)) for a, b, c, d in rows]))
    assert found.drop.low <= found.drop.value + 1e-12 and found.drop.value <= found.drop.high + 1e-12


def test_without_ties_the_drop_is_the_paired_difference_of_shares() -> None:
    rng = np.random.default_rng(0)
    chosen, after = rng.normal(0.5, 1, 300), rng.normal(0.2, 1, 300)
    clusters = np.arange(300) // 3
    found = perturbation(chosen, np.zeros(300), after, np.zeros(300), clusters)
    expected = share_difference(chosen > 0, after > 0, clusters)
    assert found.drop.value == pytest.approx(expected.estimate.value)
    assert (found.drop.low, found.drop.high) == pytest.approx((expected.estimate.low, expected.estimate.high))
    assert found.detectable == pytest.approx(expected.detectable) and found.drop.clusters == 100


def test_ties_count_one_half_on_both_sides() -> None:
    found = perturbation([1.0] * 40, [0.0] * 40, [1.0] * 40, [1.0] * 40, np.arange(40))
    assert found.drop.value == 0.5 and found.flipped.value == 1.0
    assert 0.3 < found.drop.low <= 0.5


def test_a_model_that_does_not_look_and_one_that_does() -> None:
    rng = np.random.default_rng(1)
    text, image = rng.normal(1.0, 1, 400), rng.normal(1.0, 1, 400)
    zeros = np.zeros(400)
    blind = perturbation(text, zeros, text, zeros)
    assert (blind.drop.value, blind.flipped.value, blind.moved.value) == (0.0, 0.0, 0.0)
    assert blind.drop.low < 0 < blind.drop.high and blind.drop.high < 0.03
    seeing = perturbation(image, zeros, zeros, zeros)
    assert seeing.drop.low > 0.2 and seeing.after.value == 0.5 and seeing.moved.value > 0.5


def test_unpaired_would_be_wider() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(0.5, 1, 500)
    paired = perturbation(base, np.zeros(500), base - 0.05, np.zeros(500)).drop
    shuffled = perturbation(base, np.zeros(500), rng.permutation(base - 0.05), np.zeros(500)).drop
    assert paired.high - paired.low < 0.5 * (shuffled.high - shuffled.low)


def test_position_swap_by_hand() -> None:
    found = position_swap([1, 1, 1, -1, 0], [1, -1, -1, -1, 0])
    assert found.shown_first.value == pytest.approx(3.5 / 5) and found.shown_second.value == pytest.approx(1.5 / 5)
    assert found.bias.value == pytest.approx(0.4)
    assert found.consistent.value == pytest.approx(3 / 5) and found.both.value == pytest.approx(1 / 5)


def test_a_judge_that_always_takes_the_first() -> None:
    found = position_swap([1.0] * 50, [-1.0] * 50)
    assert found.bias.value == 1.0 and found.bias.low > 0.9
    assert found.consistent.value == 0.0 and found.both.value == 0.0
    fair = position_swap([1.0, -1.0] * 25, [1.0, -1.0] * 25)
    assert fair.bias.value == 0.0 and fair.consistent.value == 1.0 and fair.both.value == 0.5


def test_json() -> None:
    found = perturbation([1.0], [0.0], [1.0], [0.0])
    assert math.isnan(found.detectable)
    record = json.loads(json.dumps(found.to_dict()))
    assert record["detectable"] is None and record["drop"]["value"] == 0.0
    assert json.loads(json.dumps(position_swap([1.0, 0.5], [1.0, -1.0]).to_dict()))["bias"]["n"] == 2


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match="the same pairs, at least one; got 2 and 1"):
        perturbation([1, 1], [0, 0], [1], [0])
    with pytest.raises(ValueError, match="got 0 and 0"):
        position_swap([], [])
    with pytest.raises(ValueError, match="chosen holds 1 missing"):
        perturbation([1, 1], [0, 0], [1, math.nan], [0, 0])
