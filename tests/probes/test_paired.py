"""Differences of paired shares: against closed forms, a bootstrap by hand, simulated coverage and power."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from probes.estimates import difference
from probes.paired import minimum_detectable, share_difference

Bools = npt.NDArray[np.bool_]


def sample(n: int, clusters: int, seed: int = 0) -> tuple[Bools, Bools, npt.NDArray[np.int64]]:
    """Correlated sides over clusters that have a level of their own."""
    rng = np.random.default_rng(seed)
    label = np.sort(rng.integers(0, clusters, n))
    level = rng.uniform(0.3, 0.9, clusters)[label]
    first = rng.random(n) < level
    second = np.where(rng.random(n) < 0.6, first, rng.random(n) < level)
    return first, second.astype(bool), label


def test_the_value_is_the_mean_of_the_differences() -> None:
    first, second, label = sample(500, 120)
    found = share_difference(first, second, label)
    assert found.first == pytest.approx(first.mean()) and found.second == pytest.approx(second.mean())
    assert found.estimate.value == pytest.approx(np.mean(first.astype(float) - second))
    assert (found.first_n, found.second_n, found.estimate.n) == (500, 500, 500)
    assert found.estimate.clusters == len(set(label.tolist()))


@pytest.mark.parametrize("clustered", [False, True])
def test_standard_error_and_interval_are_near_the_closed_form(clustered: bool) -> None:
    first, second, label = sample(2000, 300)
    groups = label if clustered else np.arange(2000)
    deviations = first.astype(float) - second - np.mean(first.astype(float) - second)
    sums = np.bincount(groups, weights=deviations)
    sums = sums[np.isin(np.arange(len(sums)), groups)]
    count = len(sums)
    error = math.sqrt(count / (count - 1) * float(np.sum(sums**2)) / 2000**2)
    found = share_difference(first, second, groups if clustered else None)
    assert found.standard_error == pytest.approx(error, rel=0.04)
    student = difference(first, second, groups if clustered else None)
    assert found.estimate.low == pytest.approx(student.low, abs=0.15 * error)
    assert found.estimate.high == pytest.approx(student.high, abs=0.15 * error)


def by_hand(first: Bools, second: Bools, label: npt.NDArray[np.int64], mine: Bools, other: Bools) -> list[float]:
    """A bootstrap written out: draw labels, put their samples together, take both shares."""
    rng, names = np.random.default_rng(99), np.unique(label)
    places = {name: np.flatnonzero(label == name) for name in names}
    draws = []
    for _ in range(2000):
        drawn = np.concatenate([places[name] for name in rng.choice(names, len(names))])
        if mine[drawn].any() and other[drawn].any():
            draws.append(float(first[drawn][mine[drawn]].mean() - second[drawn][other[drawn]].mean()))
    return draws


def test_own_subsets_agree_with_a_bootstrap_by_hand() -> None:
    first, second, label = sample(300, 80, seed=1)
    rng = np.random.default_rng(2)
    mine, other = rng.random(300) < 0.7, rng.random(300) < 0.8
    found = share_difference(first, second, label, first_counted=mine, second_counted=other)
    assert found.estimate.value == pytest.approx(first[mine].mean() - second[other].mean())
    assert (found.first_n, found.second_n) == (mine.sum(), other.sum())
    assert found.estimate.n == (mine | other).sum()
    used = mine | other
    draws = by_hand(first[used], second[used], label[used], mine[used], other[used])
    clusters = len(np.unique(label[used]))
    error = float(np.std(draws)) * math.sqrt(clusters / (clusters - 1))
    assert found.standard_error == pytest.approx(error, rel=0.06)
    assert found.estimate.low == pytest.approx(np.quantile(draws, 0.025), abs=0.25 * error)
    assert found.estimate.high == pytest.approx(np.quantile(draws, 0.975), abs=0.25 * error)


def test_the_checks_see_a_bootstrap_that_ignores_clusters_or_pairs() -> None:
    first, second, _ = sample(400, 40, seed=3)
    twice = [np.concatenate([each, each]) for each in (first, second, np.arange(400))]
    right = share_difference(first, second).standard_error
    assert share_difference(*twice).standard_error == pytest.approx(right, rel=0.04)
    assert share_difference(twice[0], twice[1]).standard_error == pytest.approx(right / math.sqrt(2), rel=0.04)
    unpaired = math.sqrt((first.var() + second.var()) / 400)
    assert share_difference(first, second).standard_error < 0.8 * unpaired


def test_nothing_differs_from_itself() -> None:
    first, _, label = sample(200, 50)
    found = share_difference(first, first, label)
    clusters = len(set(label.tolist()))
    assert found.estimate.value == 0.0
    # Of nothing in so many draws, the exact binomial bound.
    bound = stats.beta.ppf(0.975, 1, clusters)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((-bound, bound))
    assert found.standard_error == 0.0 and math.isnan(found.detectable)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.booleans()] * 4, st.integers(0, 6)), min_size=1, max_size=30))
def test_swapping_negates_and_intervals_hold_their_value(rows: list[tuple[bool, bool, bool, bool, int]]) -> None:
    first, second, mine, other = (np.array([row[place] for row in rows], dtype=bool) for place in range(4))
    label = [row[4] for row in rows]
    there = share_difference(first, second, label, first_counted=mine, second_counted=other, resamples=200)
    back = share_difference(second, first, label, first_counted=other, second_counted=mine, resamples=200)
    ours, theirs = there.estimate, back.estimate
    numbers = [ours.value, ours.low, ours.high, there.standard_error, there.first, there.first_n]
    swapped = [-theirs.value, -theirs.high, -theirs.low, back.standard_error, back.second, back.second_n]
    assert numbers == pytest.approx(swapped, nan_ok=True, abs=1e-12)
    assert -1 <= ours.low <= ours.high <= 1
    assert math.isnan(ours.value) or ours.low <= ours.value <= ours.high


@pytest.mark.parametrize(("n", "differing"), [(60, 0.03), (150, 0.2)])
def test_intervals_cover_the_truth(n: int, differing: float) -> None:
    rng, covered = np.random.default_rng(5), 0
    for number in range(200):
        first = rng.random(n) < 0.7
        flipped = rng.random(n) < np.where(first, differing, 0.0)
        found = share_difference(first, first & ~flipped, resamples=400, seed=number)
        covered += found.estimate.low <= 0.7 * differing <= found.estimate.high
    # 200 draws at 95 % leave 3.1 points of noise at two standard deviations.
    assert covered / 200 >= 0.915


def test_the_detectable_difference_is_detected_four_times_in_five() -> None:
    rng, n = np.random.default_rng(6), 400
    error = math.sqrt(0.2 / n)
    detectable = minimum_detectable(error)
    assert detectable == pytest.approx((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * error)
    up, down = (0.2 + detectable) / 2, (0.2 - detectable) / 2
    counts = rng.multinomial(n, [up, down, 0.8], size=4000)
    means = (counts[:, 0] - counts[:, 1]) / n
    errors = np.sqrt(((counts[:, 0] + counts[:, 1]) / n - means**2) / n)
    assert float(np.mean(np.abs(means) > 1.96 * errors)) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("error", [0.0, math.nan])
def test_nothing_detectable_is_known_without_a_spread(error: float) -> None:
    assert math.isnan(minimum_detectable(error))


def test_sides_without_samples_are_unknown() -> None:
    empty = share_difference([], [])
    assert math.isnan(empty.estimate.value) and (empty.estimate.low, empty.estimate.high) == (-1.0, 1.0)
    one = share_difference([True, True], [False, False], ["a", "a"])
    assert one.estimate.value == 1.0 and (one.estimate.low, one.estimate.high) == (-1.0, 1.0)
    none = share_difference([True, True], [True, False], first_counted=[False, False])
    assert math.isnan(none.first) and math.isnan(none.estimate.value) and none.first_n == 0


@pytest.mark.parametrize(
    ("first", "second", "clusters", "message"),
    [
        ([True], [True, False], None, "equal length"),
        ([True, 2], [True, False], None, "first must hold True or False"),
        ([True, None], [True, False], None, "first"),
        ([True, False], [True, False], ["a"], "clusters must hold one label"),
        ([True, False], [True, False], ["a", None], "missing labels"),
    ],
)
def test_bad_samples_are_refused(first: list[bool], second: list[bool], clusters: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        share_difference(first, second, clusters)


def test_bad_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="confidence level"):
        share_difference([True], [True], level=1.0)
