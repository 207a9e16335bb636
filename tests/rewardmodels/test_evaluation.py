"""Pair accuracy: by counting, ties, symmetry, clusters, micro and macro."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.estimates import proportion
from rewardmodels.evaluation import accuracy_by_group, margins, pair_accuracy, pair_credits

SCORES = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.sampled_from("abc")), min_size=1, max_size=30)


@given(SCORES)
def test_by_counting(pairs: list[tuple[int, int, str]]) -> None:
    chosen, rejected, groups = ([pair[place] for pair in pairs] for place in range(3))
    wins = sum(better > worse for better, worse, _ in pairs)
    ties = sum(better == worse for better, worse, _ in pairs)
    assert pair_accuracy(chosen, rejected).value == pytest.approx((wins + ties / 2) / len(pairs))
    assert pair_accuracy(chosen, rejected, ties=0.0).value == pytest.approx(wins / len(pairs))
    found = accuracy_by_group(chosen, rejected, groups)
    assert found.ties == ties
    assert found.micro == pair_accuracy(chosen, rejected)
    own = []
    for name, estimate in found.groups.items():
        kept = [(better > worse) + (better == worse) / 2 for better, worse, group in pairs if group == name]
        own.append(sum(kept) / len(kept))
        assert estimate == proportion(kept)
    assert found.macro.value == pytest.approx(sum(own) / len(own))


@given(SCORES)
def test_swapping_the_answers_complements(pairs: list[tuple[int, int, str]]) -> None:
    chosen, rejected = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    one, other = pair_accuracy(chosen, rejected), pair_accuracy(rejected, chosen)
    assert one.value == pytest.approx(1 - other.value)
    assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low))
    np.testing.assert_array_equal(margins(chosen, rejected), -margins(rejected, chosen))


def test_any_rising_map_of_scores_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(size=50), rng.normal(size=50)
    assert pair_accuracy(chosen, rejected) == pair_accuracy(np.exp(chosen), np.exp(rejected))


def test_counting_ties_as_right_is_not_the_same() -> None:
    assert pair_accuracy([1.0] * 9, [1.0] * 9).value == 0.5
    assert pair_accuracy([1.0] * 9, [1.0] * 9, ties=1.0).value == 1.0


def test_micro_and_macro_differ_where_sizes_do() -> None:
    found = accuracy_by_group([1] * 9 + [0], [0] * 9 + [1], ["a"] * 9 + ["b"])
    assert found.micro.value == 0.9 and found.macro.value == 0.5
    assert (found.groups["a"].n, found.groups["b"].n) == (9, 1)


def test_pairs_of_one_prompt_widen_the_interval() -> None:
    right = np.repeat(np.random.default_rng(0).random(60) < 0.7, 5).astype(float)
    prompts = np.repeat(np.arange(60), 5)
    plain, clustered = pair_accuracy(right, 1 - right), pair_accuracy(right, 1 - right, prompts)
    assert clustered.clusters == 60
    assert clustered.high - clustered.low > 2 * (plain.high - plain.low)
    groups = np.where(prompts % 2 == 0, "even", "odd")
    found = accuracy_by_group(right, 1 - right, groups, prompts)
    assert found.micro == clustered and found.groups["even"].clusters == 30
    loose = accuracy_by_group(right, 1 - right, groups)
    assert found.macro.high - found.macro.low > 2 * (loose.macro.high - loose.macro.low)


def test_tiny_differences_of_scores_count() -> None:
    tiny = 5e-324
    assert pair_credits([tiny, 0.0], [0.0, tiny]).tolist() == [1.0, 0.0]


def test_json() -> None:
    record = json.loads(json.dumps(accuracy_by_group([1, 0], [0, 0], ["a", "b"]).to_dict()))
    assert record["groups"]["b"]["value"] == 0.5 and record["macro"]["value"] == 0.75 and record["ties"] == 1


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match="chosen and rejected must hold the same pairs, got 1 and 2"):
        pair_accuracy([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="rejected holds 1 missing or infinite"):
        pair_accuracy([1.0], [math.nan])
    with pytest.raises(ValueError, match="credit of a tie"):
        pair_accuracy([1.0], [1.0], ties=2.0)
    with pytest.raises(ValueError, match="one label for each"):
        accuracy_by_group([1.0], [0.0], ["a", "b"])
    with pytest.raises(ValueError, match="at least one sample"):
        accuracy_by_group([], [], [])
    assert math.isnan(pair_accuracy([], []).value)
