"""Best of N: against every subset, ties, the KL bound by integration, and biased ways to do it."""

import json
import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from rewardmodels.best_of_n import best_of_n, expected_best, kl_upper_bound

POOLS = st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), min_size=1, max_size=8)


def over_all_subsets(rewards: list[int], quality: list[int], size: int) -> float:
    """Mean over every subset of the quality of its best response, ties shared."""
    values = []
    for subset in combinations(range(len(rewards)), size):
        best = [place for place in subset if rewards[place] == max(rewards[other] for other in subset)]
        values.append(sum(quality[place] for place in best) / len(best))
    return sum(values) / len(values)


@given(POOLS)
def test_against_every_subset(pool: list[tuple[int, int]]) -> None:
    rewards, quality = [reward for reward, _ in pool], [worth for _, worth in pool]
    for size in range(1, len(pool) + 1):
        assert expected_best(rewards, quality, size) == pytest.approx(
            over_all_subsets(rewards, quality, size), abs=1e-9
        )


@given(POOLS)
def test_ends_of_the_curve(pool: list[tuple[int, int]]) -> None:
    rewards, quality = [reward for reward, _ in pool], [worth for _, worth in pool]
    assert expected_best(rewards, quality, 1) == pytest.approx(np.mean(quality), abs=1e-9)
    ideal = [expected_best(quality, quality, size) for size in range(1, len(pool) + 1)]
    assert ideal[-1] == pytest.approx(max(quality), abs=1e-9)
    assert np.all(np.diff(ideal) > -1e-9)
    assert all(
        expected_best([0] * len(pool), quality, size) == pytest.approx(np.mean(quality), abs=1e-9)
        for size in (1, len(pool))
    )


def test_large_pools() -> None:
    rewards = np.random.default_rng(0).permutation(5000).astype(float)
    found = expected_best(rewards, rewards, 64)
    assert found == pytest.approx(64 / 65 * 5001 - 1, rel=1e-9)


def test_the_estimator_is_unbiased_and_cutting_the_pool_in_blocks_of_the_best_is_not() -> None:
    rng = np.random.default_rng(1)
    closed, biased = [], []
    for _ in range(3000):
        quality = rng.normal(size=8)
        closed.append(expected_best(quality, quality, 4))
        biased.append(np.sort(quality)[-4:].mean())
    # The expected largest of four standard normals.
    truth, _ = integrate.quad(
        lambda x: 4 * x * math.erfc(-x / 2**0.5) ** 3 / 8 * math.exp(-x * x / 2) / (2 * math.pi) ** 0.5, -9, 9
    )
    assert np.mean(closed) == pytest.approx(truth, abs=0.03)
    assert abs(np.mean(biased) - truth) > 0.1


def test_kl_bound_by_integration() -> None:
    for size in (1, 2, 7, 64):
        density = lambda u, n=size: n * u ** (n - 1) * math.log(n * u ** (n - 1)) if u > 0 else 0.0  # noqa: E731
        integral, _ = integrate.quad(density, 0, 1, limit=200)
        assert kl_upper_bound(size) == pytest.approx(integral, abs=1e-6)
    assert kl_upper_bound(64) < math.log(64)


def test_a_pool_with_repeated_rewards_stays_below_the_bound() -> None:
    """Two levels with even chances: the divergence of best-of-N from a coin, exactly."""
    for size in (2, 4, 16):
        low = 0.5**size
        divergence = low * math.log(low / 0.5) + (1 - low) * math.log((1 - low) / 0.5)
        assert divergence < kl_upper_bound(size)


def test_curve() -> None:
    rng = np.random.default_rng(2)
    quality = [rng.random(size) for size in (8, 9, 12, 8)]
    rewards = [worth + rng.normal(0, 0.2, worth.size) for worth in quality]
    found = best_of_n(rewards, quality, bounds=(0, 1))
    assert found.sizes == (1, 2, 4, 8)
    for place, size in enumerate(found.sizes):
        each = [expected_best(own, worth, size) for own, worth in zip(rewards, quality, strict=True)]
        assert found.quality[place].value == pytest.approx(np.mean(each)) and found.quality[place].n == 4
        assert found.ceiling[place] >= found.quality[place].value - 1e-12
    assert found.quality[-1].value > found.quality[0].value
    assert found.kl_bound == tuple(kl_upper_bound(size) for size in (1, 2, 4, 8))
    assert best_of_n(rewards, quality, [3, 1, 3], [0, 0, 1, 1]).quality[0].clusters == 2
    assert json.loads(json.dumps(found.to_dict()))["sizes"] == [1, 2, 4, 8]


def test_over_optimisation_shows() -> None:
    """A reward that peaks past the best quality: more choice first helps, then hurts."""
    rng = np.random.default_rng(3)
    rewards = [rng.normal(size=64) for _ in range(200)]
    quality = [pool - 0.6 * np.maximum(pool, 0) ** 2 for pool in rewards]
    curve = [estimate.value for estimate in best_of_n(rewards, quality).quality]
    assert max(curve) > curve[0] + 0.1 and max(curve) > curve[-1] + 0.1


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match="1 to the pool's 2 responses, got 3 to 3"):
        expected_best([1, 2], [1, 2], 3)
    with pytest.raises(ValueError, match="got 0 to 0"):
        expected_best([1, 2], [1, 2], 0)
    with pytest.raises(ValueError, match="the same responses"):
        expected_best([1, 2], [1], 1)
    with pytest.raises(ValueError, match="the same prompts, got 0 and 0"):
        best_of_n([], [])
    with pytest.raises(ValueError, match="at least one N"):
        best_of_n([[1, 2]], [[1, 2]], [])
    with pytest.raises(ValueError, match="rewards of prompt 0 holds 1 missing"):
        best_of_n([[1, math.nan]], [[1, 2]])
    with pytest.raises(ValueError, match="the same responses, got 0"):
        best_of_n([[]], [[]])
    with pytest.raises(ValueError, match="N >= 1"):
        kl_upper_bound(0)
