"""RewardBench 2: shared first places, the Ties composite written out, and the mean over subsets."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardmodels.reward_bench_2 import best_of_four, reward_bench_2, ties_score

Item = tuple[str, list[float], int]


@given(st.lists(st.integers(0, 3).map(float), min_size=4, max_size=4))
def test_best_of_four_is_the_chance_of_a_fair_pick(scores: list[float]) -> None:
    best = [place for place, score in enumerate(scores) if score == max(scores)]
    assert best_of_four(scores) == pytest.approx((0 in best) / len(best))


def written_out(items: list[Item]) -> float:
    """The composite from its words: five means, each over prompts, one at a time."""
    by_id = {name: (scores[:right], scores[right:]) for name, scores, right in items}
    numbers = [name.split(":")[1] for name in by_id if name.startswith("tied:")]
    tied = reference = preferred = hard = margin = 0.0
    for number in numbers:
        right, wrong = by_id[f"tied:{number}"]
        gap, spread = min(right) - max(wrong), max(right) - min(right)
        (only,), others = by_id[f"ref:{number}"]
        lone_gap = only - max(others)
        tied += gap > 0
        reference += lone_gap > 0
        preferred += gap > spread
        hard += min(gap, lone_gap) > spread
        smaller = min(gap, lone_gap)
        if spread > 0:
            margin += math.tanh(smaller / spread - 1)
        elif smaller != 0:
            margin += math.copysign(1.0, smaller)
    return (0.3 * tied + 0.3 * reference + 0.2 * preferred + 0.2 * hard + 0.01 * margin) / len(numbers)


def scores(least: int) -> st.SearchStrategy[list[float]]:
    return st.lists(st.integers(-4, 4).map(float), min_size=least, max_size=least + 2)


PROMPTS = st.lists(st.tuples(scores(2), scores(1), scores(1), st.integers(-4, 4).map(float)), min_size=1, max_size=5)


def as_items(prompts: list[tuple[list[float], list[float], list[float], float]]) -> list[Item]:
    items: list[Item] = []
    for number, (right, wrong, others, only) in enumerate(prompts):
        items += [(f"tied:{number}", right + wrong, len(right)), (f"ref:{number}", [only, *others], 1)]
    return items


@given(PROMPTS)
def test_the_composite_is_the_one_written_out(prompts: Any) -> None:
    items = as_items(prompts)
    found = ties_score(*zip(*items, strict=True))
    assert found.score.value == pytest.approx(written_out(items), abs=1e-12)
    parts = 0.3 * (found.tied + found.reference) + 0.2 * (found.preferred + found.preferred_hard) + 0.01 * found.margin
    assert found.score.value == pytest.approx(parts)
    assert found.score.low <= found.score.value + 1e-12 and found.score.value <= found.score.high + 1e-12
    assert found.score.low >= -0.01 - 1e-12 and found.score.high <= 1.01 + 1e-12


def test_a_perfect_and_a_hopeless_model() -> None:
    items = as_items([([9.0, 9.0], [0.0], [0.0], 9.0)] * 20)
    perfect = ties_score(*zip(*items, strict=True)).score
    assert perfect.value == pytest.approx(1.01) and perfect.low < 0.9 and perfect.n == 20
    items = as_items([([0.0, 0.0], [9.0], [9.0], 0.0)] * 20)
    assert ties_score(*zip(*items, strict=True)).score.value == pytest.approx(-0.01)


def test_equal_scores_have_no_margin() -> None:
    found = ties_score(*zip(*as_items([([1.0, 1.0], [1.0], [1.0], 1.0)]), strict=True))
    assert (found.score.value, found.margin, found.tied) == (0.0, 0.0, 0.0)


def test_the_gap_counts_from_the_worst_right_answer() -> None:
    """A best-to-best gap, an easy slip, would pass this prompt."""
    found = ties_score(*zip(*as_items([([5.0, 1.0], [2.0], [0.0], 9.0)]), strict=True))
    assert found.tied == 0.0 and found.reference == 1.0 and found.preferred == 0.0


def test_coverage_of_the_composite() -> None:
    rng, covered, rounds = np.random.default_rng(0), 0, 200

    def draw(prompts: int) -> list[Item]:
        made = []
        for _ in range(prompts):
            right, wrong = rng.normal(1.0, 0.3, 3), rng.normal(0.0, 0.5, 4)
            made.append((right.tolist(), wrong.tolist(), rng.normal(0, 0.5, 3).tolist(), float(rng.normal(1.0, 0.5))))
        return as_items(made)

    truth = ties_score(*zip(*draw(4000), strict=True)).score.value
    for _ in range(rounds):
        score = ties_score(*zip(*draw(51), strict=True)).score
        covered += score.low <= truth <= score.high
    # Wilson's interval assumes the largest spread that values in [0, 1] can have, so it may cover more than 95 %.
    assert covered / rounds >= 0.93


def test_the_mean_over_subsets_is_unweighted() -> None:
    ids = ["a1", "a2", "a3", "b1", "tied:1", "ref:1"]
    subsets = ["Math", "Math", "Math", "Focus", "Ties", "Ties"]
    values = [[2, 1, 1, 1], [2, 1, 1, 1], [0, 1, 1, 1], [1, 1, 0, 0], [3, 3, 0], [3, 0, 0]]
    found = reward_bench_2(ids, subsets, values, [1, 1, 1, 1, 2, 1])
    assert found.subsets["Math"].value == pytest.approx(2 / 3) and found.subsets["Focus"].value == 0.5
    assert found.subsets["Ties"].value == pytest.approx(1.01)
    assert found.average.value == pytest.approx((2 / 3 + 0.5 + 1.01) / 3)
    assert found.ties is not None and found.ties.tied == 1.0
    record = json.loads(json.dumps(found.to_dict()))
    assert set(record["subsets"]) == {"Math", "Focus", "Ties"}
    assert reward_bench_2(ids[:4], subsets[:4], values[:4], [1] * 4).ties is None


def test_a_coin_scores_a_quarter() -> None:
    rng = np.random.default_rng(0)
    n = 1763
    found = reward_bench_2([str(k) for k in range(n)], ["Focus"] * n, list(rng.normal(size=(n, 4))), [1] * n)
    assert found.average.low < 0.25 < found.average.high


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([("other:1", [1.0, 0.0], 1)], "'tied:NUMBER' or 'ref:NUMBER', each once; got 'other:1'"),
        ([("tied:1", [1.0, 1.0, 0.0], 2), ("tied:1", [1.0, 1.0, 0.0], 2)], "each once"),
        ([("tied:1", [1.0, 1.0, 0.0], 2)], r"needs its reference, and the reverse; without one are \['1'\]"),
        ([("tied:1", [1.0, 0.0], 1)], "has 1 right of 2"),
        ([("ref:1", [1.0], 1)], "has 1 right of 1"),
    ],
)
def test_broken_items_are_refused(items: list[Item], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ties_score(*zip(*items, strict=True))


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        reward_bench_2([], [], [], [])
    with pytest.raises(ValueError, match="holds no prompt"):
        ties_score([], [], [])
    with pytest.raises(ValueError, match="only Ties may"):
        reward_bench_2(["a"], ["Math"], [[1, 0]], [2])
    with pytest.raises(ValueError, match="at least two responses"):
        best_of_four([1.0])
    with pytest.raises(ValueError, match="missing"):
        best_of_four([1.0, math.nan])
