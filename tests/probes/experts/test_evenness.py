"""Evenness with intervals: the plain measures, and the spread of fresh samples of the same kind."""

import numpy as np
import pytest

from probes.experts.evenness import evenness
from probes.experts.load import expert_load, largest_over_mean, load_entropy, load_gini
from probes.inputs import InputError
from tests.probes.experts.test_load import choices


def test_values_are_those_of_the_load() -> None:
    indices = choices(90, layers=1)[0]
    found, load = evenness(indices, 7, np.arange(90) // 3), expert_load(indices, 7)
    assert found.entropy.value == pytest.approx(load_entropy(load))
    assert found.gini.value == pytest.approx(load_gini(load))
    assert found.largest_over_mean.value == pytest.approx(largest_over_mean(load))
    for each in found:
        assert each.low <= each.value <= each.high and (each.n, each.clusters) == (90, 30)


def test_intervals_are_as_wide_as_samples_differ() -> None:
    """Samples whose tokens all route alike: an interval over tokens would be far too narrow."""
    rng = np.random.default_rng(0)
    chance = np.array([0.4, 0.25, 0.15, 0.1, 0.1])
    draws = [np.repeat(rng.choice(5, 60, p=chance), 20)[:, None] for _ in range(60)]
    samples = np.repeat(np.arange(60), 20)
    spread = np.std([load_entropy(expert_load(draw, 5)) for draw in draws])
    widths = [evenness(draw, 5, samples, 200).entropy for draw in draws[:20]]
    clustered = np.mean([(each.high - each.low) / 3.92 for each in widths])
    alone = evenness(draws[0], 5, None, 200).entropy
    assert 0.6 * spread < clustered < 1.6 * spread
    assert (alone.high - alone.low) / 3.92 < 0.4 * spread


def test_one_sample_has_no_interval_and_bad_indices_are_refused() -> None:
    found = evenness(choices(9, layers=1)[0], 7, np.zeros(9))
    assert found.gini.low == -np.inf and found.gini.high == np.inf
    with pytest.raises(InputError, match="one layer"):
        evenness(choices(9), 7)
    with pytest.raises(InputError, match="none of the 3 experts"):
        evenness(choices(9, layers=1)[0], 3)
