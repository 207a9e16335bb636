"""The strongest pair: a planted one is found with its ratio, and none is found where none is."""

import numpy as np
import pytest

from probes.experts.load import co_activation
from probes.experts.pairs import strongest_pair
from probes.inputs import InputError
from tests.probes.experts.test_load import choices

EXPERTS, K, SAMPLES, TOKENS = 12, 3, 80, 10
OWNERS = np.repeat(np.arange(SAMPLES), TOKENS)


def clustered(seed: int) -> np.ndarray:
    """(tokens, k): samples have favourite experts, and no two experts go together for their sake."""
    rng = np.random.default_rng(seed)
    taste = rng.normal(0, 1, (SAMPLES, EXPERTS))[OWNERS]
    return np.asarray((-(taste + rng.gumbel(size=taste.shape))).argsort(axis=-1)[:, :K])


def test_a_planted_pair_is_found_with_its_ratio() -> None:
    indices = clustered(0)
    rng = np.random.default_rng(1)
    planted = np.stack([np.full(len(indices), 4), np.full(len(indices), 9), rng.integers(0, 4, len(indices))], axis=-1)
    chosen = np.where(rng.random(len(indices))[:, None] < 0.25, planted, indices)
    found = strongest_pair(chosen, EXPERTS, OWNERS, common=25, resamples=300)
    assert found is not None and found.experts == (4, 9)
    whole = co_activation(chosen, EXPERTS).ratio[4, 9]
    assert found.ratio.value == pytest.approx(whole, rel=0.1)
    assert 1.2 < found.ratio.low < found.ratio.value < found.ratio.high
    assert found.ratio.clusters == SAMPLES // 2 and found.ratio.n == len(chosen) // 2


def test_where_no_pair_is_planted_the_ratio_is_one_although_the_largest_is_not() -> None:
    """The control that the plain largest ratio fails: it lies far above 1 every time."""
    largest, measured, covered = [], [], []
    for seed in range(30):
        indices = clustered(seed)
        found = strongest_pair(indices, EXPERTS, OWNERS, resamples=200, seed=seed)
        assert found is not None
        largest.append(np.nanmax(co_activation(indices, EXPERTS).ratio))
        measured.append(found.ratio.value)
        covered.append(found.ratio.low <= 1 <= found.ratio.high)
    assert np.min(largest) > 1.1
    assert abs(np.mean(measured) - 1) < 3 * np.std(measured) / np.sqrt(30) + 0.02
    assert np.mean(covered) > 0.8


def test_the_ratio_is_that_of_the_half_that_did_not_choose() -> None:
    indices = choices(4000, layers=1)[0]
    owners = np.arange(4000) // 10
    found = strongest_pair(indices, 7, owners, resamples=10, seed=3)
    assert found is not None
    halves = np.random.default_rng(3).permutation(400) < 200
    choosing, other = co_activation(indices[halves[owners]], 7), co_activation(indices[~halves[owners]], 7)
    assert choosing.ratio[found.experts] == pytest.approx(np.nanmax(choosing.ratio))
    assert found.ratio.value == pytest.approx(other.ratio[found.experts])


def test_few_samples_and_rare_experts_have_no_pair() -> None:
    assert strongest_pair(choices(30, layers=1)[0], 7, np.arange(30) // 10) is None
    assert strongest_pair(choices(30, layers=1)[0], 7, np.arange(30), common=1000) is None
    with pytest.raises(InputError, match="one layer"):
        strongest_pair(choices(9), 7, np.arange(9))
    with pytest.raises(InputError, match="goes to one"):
        strongest_pair(choices(9, layers=1)[0][:, :1], 7, np.arange(9))


def test_experts_that_the_other_half_never_calls_have_no_ratio() -> None:
    owners = np.repeat(np.arange(40), 20)
    choosing = (np.random.default_rng(0).permutation(40) < 20)[owners]
    found = strongest_pair(np.where(choosing[:, None], [0, 1], [2, 3]), 4, owners)
    assert found is not None and found.experts == (0, 1)
    assert np.isnan(found.ratio.value) and (found.ratio.low, found.ratio.high) == (-np.inf, np.inf)
