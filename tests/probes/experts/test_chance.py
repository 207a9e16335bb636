"""What pairs of experts share by chance, against every set written out, and against draws that know of no pair."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.experts.chance import call_probabilities, pair_chance, pair_chances
from probes.experts.load import co_activation, expert_load
from probes.experts.pairs import strongest_pair
from probes.inputs import InputError


def written_out(odds: np.ndarray, k: int) -> np.ndarray:
    """(experts, experts): how often both are in a set of k whose probability is the product of its odds."""
    sets = [list(each) for each in combinations(range(len(odds)), k)]
    weights = np.array([np.prod(odds[each]) for each in sets])
    table = np.zeros((len(odds), len(odds)))
    for each, weight in zip(sets, weights / weights.sum(), strict=True):
        table[np.ix_(each, each)] += weight
    return table


@given(st.integers(3, 7), st.data())
def test_chance_is_that_of_every_set_written_out(experts: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(2, experts - 1))
    spread = data.draw(st.sampled_from([0.0, 1.0, 3.0, 6.0]))
    odds = np.exp(spread * np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=experts))
    table = written_out(odds, k)
    found, off = pair_chances(table.diagonal(), k), ~np.eye(experts, dtype=bool)
    np.testing.assert_allclose(found[off], table[off], atol=1e-6)
    np.testing.assert_allclose(np.nansum(found, axis=1), (k - 1) * table.diagonal(), atol=1e-6)
    assert np.isnan(found.diagonal()).all()
    pair = (0, experts - 1)
    both = pair_chance([table.diagonal(), table.diagonal()[::-1]], k, pair)
    np.testing.assert_allclose(both, [found[pair], found[pair]], atol=1e-6)


def test_experts_that_are_always_or_never_called_leave_the_others_as_they_are() -> None:
    loads = [1.0, *[1 / 6] * 6, 0.0]
    found = pair_chances(loads, 2)
    np.testing.assert_allclose(found[0, 1:], [*[1 / 6] * 6, 0.0])
    np.testing.assert_allclose(np.nan_to_num(found[1:, 1:]), 0, atol=1e-12)
    np.testing.assert_allclose(call_probabilities(loads, 2), loads, atol=1e-7)


def independent(seed: int = 0) -> np.ndarray:
    """(tokens, 4) of 16 experts, three of them popular, that are called independently of each other."""
    rng = np.random.default_rng(seed)
    calls = np.where(np.arange(16) < 3, 0.88, 0.1)
    drawn = rng.random((120_000, 16)) < calls
    return np.argsort(~drawn[drawn.sum(axis=1) == 4], axis=1, kind="stable")[:, :4]


def test_popular_experts_do_not_go_together_for_being_popular() -> None:
    """The control is the product of loads, scaled to as many pairs as there are: it sees pairs where none are."""
    indices = independent()
    found, load = co_activation(indices, 16), expert_load(indices, 16)
    off = ~np.eye(16, dtype=bool)
    spread = 1 / np.sqrt(found.expected)
    assert np.nanmax(np.abs(found.ratio - 1) / spread) < 5 and found.expected[off].min() > 20
    product = np.where(off, np.outer(load, load), 0)
    scaled = len(indices) * 12 * product / product.sum()
    assert found.counts[3:, 3:][off[3:, 3:]].sum() < 0.7 * scaled[3:, 3:].sum()


def test_the_strongest_pair_of_popular_experts_is_no_pair() -> None:
    indices = independent(1)[:20_000]
    found = strongest_pair(indices, 16, np.arange(len(indices)) // 20, common=3000, resamples=100)
    assert found is not None and max(found.experts) < 3 and abs(found.ratio.value - 1) < 0.02
    always = np.stack([np.zeros(4000, dtype=int), np.random.default_rng(2).integers(1, 8, 4000)], axis=1)
    alone = strongest_pair(always, 8, np.arange(4000) // 10, resamples=100)
    assert alone is not None and alone.ratio.value == pytest.approx(1)


@pytest.mark.parametrize("loads", [[0.5, 0.5, 0.5], [1.5, 0.5, 0.0], [-0.5, 1.5, 1.0], [np.nan, 1.0, 1.0]])
def test_loads_of_no_sets_are_refused(loads: list[float]) -> None:
    with pytest.raises(InputError, match="sum to 2"):
        pair_chances(loads, 2)
