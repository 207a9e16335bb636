"""Estimates: closed forms, coverage by simulation, clusters, empty inputs, and JSON."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from probes.estimates import Estimate, difference, mean, median, proportion, proportions, spread


def wilson_roots(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval from its definition: the p at which the score test of p just rejects."""
    z = stats.norm.ppf(0.5 + level / 2)
    share = successes / n
    roots = np.roots([1 + z**2 / n, -(2 * share + z**2 / n), share**2])
    return float(min(roots)), float(max(roots))


@given(st.integers(1, 60), st.data())
def test_proportion_is_wilson(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    estimate = proportion([True] * successes + [False] * (n - successes))
    low, high = wilson_roots(successes, n)
    assert estimate.value == successes / n
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-7)
    assert estimate.clusters is None


def test_proportion_agrees_with_scipy() -> None:
    interval = stats.binomtest(37, 50).proportion_ci(method="wilson")
    estimate = proportion([True] * 37 + [False] * 13)
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_singleton_clusters_change_nothing_and_copies_add_nothing() -> None:
    values = np.random.default_rng(0).random(40) < 0.7
    plain, single = proportion(values), proportion(values, np.arange(40))
    assert (single.value, single.low, single.high) == pytest.approx((plain.value, plain.low, plain.high), abs=1e-12)
    assert single.clusters == 40
    tripled = proportion(np.repeat(values, 3), np.repeat(np.arange(40), 3))
    naive = proportion(np.repeat(values, 3))
    assert tripled.n == 120
    assert tripled.clusters == 40
    assert tripled.high - tripled.low == pytest.approx(plain.high - plain.low, rel=0.05)
    assert naive.high - naive.low < 0.65 * (plain.high - plain.low)


def test_clustered_variance_by_hand() -> None:
    # Clusters a = (1, 1), b = (1, 0), c = (0, 0): residual sums about 1/2 are 1, 0, -1.
    values, labels = [1, 1, 1, 0, 0, 0], list("aabbcc")
    robust = 3 / 2 * (1 + 0 + 1) / 36
    design = robust / (0.25 / 5)
    # Two clusters hold the rarer outcome; a third, of the mean size 2, is added.
    effective = 6 / ((2 * design + 2) / 3)
    critical = stats.norm.ppf(0.975) * stats.t.ppf(0.975, 2) / stats.t.ppf(0.975, 5)
    centre_shift = critical**2 / effective
    half = critical * math.sqrt(0.25 / effective + critical**2 / (4 * effective**2)) / (1 + centre_shift)
    estimate = proportion(values, labels)
    assert (estimate.low, estimate.high) == pytest.approx((0.5 - half, 0.5 + half))
    average = mean(values, labels)
    width = stats.t.ppf(0.975, 2) * math.sqrt(robust)
    assert (average.low, average.high) == pytest.approx((0.5 - width, 0.5 + width))


RARE = [(30, 10, 0.98, 0.5), (50, 8, 0.98, 0.6), (20, 8, 0.95, 0.8)]


@pytest.mark.parametrize(("groups", "size", "share", "rho"), RARE)
def test_clustered_intervals_cover_near_one(groups: int, size: int, share: float, rho: float) -> None:
    rng = np.random.default_rng(11)

    def make() -> Any:
        return beta_binomial(rng, groups, size, share, rho)

    assert coverage(make, share, proportion, 600) >= 0.93
    failures = coverage(make, share, lambda values, labels: proportion(~values, labels).complement(), 100)
    assert failures >= 0.93


@pytest.mark.parametrize(("groups", "size"), [(10, 10), (30, 4), (50, 8), (200, 5)])
@pytest.mark.parametrize("scattered", [True, False])
def test_the_lower_end_does_not_fall_when_errors_go(groups: int, size: int, scattered: bool) -> None:
    """Errors go one by one, from clusters of their own or from one and the same."""
    labels = np.repeat(np.arange(groups), size)
    values = np.ones(groups * size, dtype=bool)
    places = np.arange(groups) * size if scattered else np.arange(size)
    values[places] = False
    lows = [proportion(values, labels).low]
    for place in places:
        values[place] = True
        lows.append(proportion(values, labels).low)
    assert (np.diff(lows) >= -1e-12).all()
    if groups > 10:  # With ten clusters the interval already reaches as far as ten agreeing samples allow.
        assert lows[-1] > lows[0]


def test_one_sample_per_cluster_stays_wilson_at_the_edge() -> None:
    values: Any = np.arange(50) > 0
    assert proportion(values, np.arange(50)).low == pytest.approx(wilson_roots(49, 50)[0])
    assert proportion(np.ones(50), np.arange(50)).low == pytest.approx(wilson_roots(50, 50)[0])


def test_a_difference_of_flags_stays_within_one() -> None:
    one = difference([True, True], [False, True], clusters=["a", "a"])
    assert (one.low, one.high) == (-1.0, 1.0)
    few = difference([True, True, False], [False, False, True])
    assert (few.low, few.high) == (-1.0, 1.0)
    numbers = difference([1.5, 2.0], [0.0, 1.0], clusters=["a", "a"])
    assert (numbers.low, numbers.high) == (-math.inf, math.inf)


@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 10_000))
def test_totals_of_clusters_say_what_their_samples_do(groups: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, groups)
    clusters = np.repeat(np.arange(groups), sizes)
    hits = rng.random((sizes.sum(), columns)) < rng.random(columns).round()[None] * 0.5 + rng.random(columns) * 0.5
    sums = np.stack([hits[clusters == each].sum(axis=0) for each in range(groups)])
    for column, found in enumerate(proportions(sums, sizes)):
        alone = proportion(hits[:, column], clusters)
        assert (found.n, found.clusters) == (alone.n, alone.clusters)
        np.testing.assert_allclose(
            (found.value, found.low, found.high), (alone.value, alone.low, alone.high), atol=1e-12
        )


def test_order_and_names_of_clusters_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    values, labels = rng.random(60) < 0.6, rng.integers(0, 15, 60)
    order = rng.permutation(60)
    names = np.array([f"base-{label}" for label in labels], dtype=object)
    assert proportion(values, labels) == proportion(values[order], labels[order])
    assert proportion(values, names).low == pytest.approx(proportion(values, labels).low)


def beta_binomial(rng: np.random.Generator, groups: int, size: int, share: float, rho: float) -> Any:
    odds = (1 - rho) / rho
    rates = rng.beta(share * odds, (1 - share) * odds, groups)
    return (rng.random((groups, size)) < rates[:, None]).ravel(), np.repeat(np.arange(groups), size)


def coverage(make: Callable[[], Any], truth: float, estimate: Callable[..., Estimate], rounds: int) -> float:
    estimates = [estimate(*make()) for _ in range(rounds)]
    return float(np.mean([found.low <= truth <= found.high for found in estimates]))


@pytest.mark.parametrize(("groups", "size", "share"), [(30, 4, 0.8), (120, 3, 0.95)])
def test_clustered_interval_covers_and_the_naive_one_does_not(groups: int, size: int, share: float) -> None:
    rng = np.random.default_rng(7)

    def make() -> Any:
        return beta_binomial(rng, groups, size, share, rho=0.4)

    assert coverage(make, share, proportion, 500) >= 0.93
    assert coverage(make, share, lambda values, _: proportion(values), 500) < 0.91


@pytest.mark.parametrize("shift", [0.0, 0.15])
def test_spread_covers_the_true_spread(shift: float) -> None:
    rng = np.random.default_rng(11)
    rates = np.array([0.6 + shift, 0.6, 0.6, 0.6 - shift])

    def make() -> Any:
        latent = 0.7 * rng.normal(size=(80, 1)) + math.sqrt(0.51) * rng.normal(size=(80, 4))
        return list((latent < stats.norm.ppf(rates)).T), [np.arange(80)] * 4

    for kind, truth in (("range", float(np.ptp(rates))), ("std", float(rates.std()))):
        estimate: Any = lambda values, clusters, kind=kind: spread(values, clusters, kind=kind, resamples=200)  # noqa: E731
        assert coverage(make, truth, estimate, 150) >= 0.92


def test_resampled_spreads_alone_would_miss_zero() -> None:
    rng = np.random.default_rng(3)
    values = list((rng.random((400, 4)) < 0.7).T)
    draws = [np.ptp([group[pick].mean() for group in values]) for pick in rng.integers(0, 400, (300, 400))]
    assert np.quantile(draws, 0.025) > 0.0
    assert spread(values, [np.arange(400)] * 4, resamples=300).low == 0.0


def test_spread_by_hand_and_seeded() -> None:
    groups = [[1, 1, 0, 1], [0, 1, 0, 1], [1, 0, 0, 0]]
    clusters = [[0, 1, 2, 3]] * 3
    found = spread(groups, clusters, resamples=200, seed=5)
    assert found.value == 0.5
    assert spread(groups, clusters, kind="std", resamples=20).value == pytest.approx(np.std([0.75, 0.5, 0.25]))
    noise = list(np.random.default_rng(0).normal(size=(3, 40)))
    assert spread(noise, resamples=200, seed=5) == spread(noise, resamples=200, seed=5)
    assert spread(noise, resamples=200, seed=5) != spread(noise, resamples=200, seed=6)
    assert (found.n, found.clusters) == (12, 4)


def test_spread_draws_whole_clusters() -> None:
    # Both groups rise and fall together: drawn as wholes their gap never moves.
    values = np.random.default_rng(0).random(50) < 0.5
    together = spread([values, values], [np.arange(50)] * 2, resamples=200)
    apart = spread([values, values], resamples=200)
    assert (together.value, together.low, together.high) == (0.0, 0.0, 0.0)
    assert apart.high > 0.05


def test_mean_is_student() -> None:
    values = np.random.default_rng(2).normal(3.0, 2.0, 25)
    reference = stats.ttest_1samp(values, 0.0).confidence_interval()
    estimate = mean(values)
    assert (estimate.low, estimate.high) == pytest.approx((reference.low, reference.high))


@pytest.mark.parametrize("n", [1, 5, 6, 7, 20, 33])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_of_a_median_inverts_the_sign_test(n: int, level: float) -> None:
    values = np.random.default_rng(n).permutation(n).astype(float)
    found = median(values, level)
    tails = [sum(math.comb(n, heads) for heads in range(k)) / 2**n for k in range(n // 2 + 1)]
    k = max(k for k, tail in enumerate(tails) if tail <= (1 - level) / 2)
    ends = (float(k - 1), float(n - k)) if k else (-math.inf, math.inf)
    assert (found.value, found.n, found.low, found.high) == ((n - 1) / 2, n, *ends)


def test_the_interval_of_a_median_covers_where_outliers_spoil_the_mean() -> None:
    """Ratios around 1 of which some were disturbed by other work, twice as long or more."""
    rng = np.random.default_rng(0)
    hits = np.zeros(2)
    for _ in range(1000):
        noise = rng.exponential(5.0, 16) * (rng.random(16) < 0.1)
        ratios = 1 + 0.01 * rng.standard_normal(16) + noise * rng.choice([-0.1, 1.0], 16)
        for place, found in enumerate((median(ratios), mean(ratios))):
            hits[place] += found.low <= 1.0 <= found.high and found.high - found.low < 0.1
    assert hits[0] > 930 > 600 > hits[1]


def test_difference_is_the_paired_t_interval() -> None:
    rng = np.random.default_rng(4)
    left, right = rng.random(30) < 0.8, rng.random(30) < 0.5
    reference = stats.ttest_rel(left.astype(float), right.astype(float)).confidence_interval()
    estimate = difference(left, right)
    assert (estimate.low, estimate.high) == pytest.approx((reference.low, reference.high))


def test_no_samples_and_one_sample() -> None:
    assert math.isnan(median([]).value) and median([]).low == -math.inf
    empty = proportion([], [])
    assert math.isnan(empty.value)
    assert (empty.n, empty.low, empty.high, empty.clusters) == (0, 0.0, 1.0, 0)
    one = proportion([True])
    assert (one.value, one.high) == (1.0, 1.0)
    assert one.low == pytest.approx(wilson_roots(1, 1)[0])
    assert proportion([True, True, True], [4, 4, 4]).low == pytest.approx(one.low)
    assert (mean([2.0]).low, mean([2.0]).high) == (-math.inf, math.inf)
    assert mean([], bounds=(0.0, 1.0)).to_dict() == {"value": None, "n": 0, "low": 0.0, "high": 1.0, "clusters": None}
    assert math.isnan(spread([[1.0], []]).value)


def test_unanimous_clusters_count_as_clusters() -> None:
    everyone = proportion([True] * 100, np.repeat(np.arange(10), 10))
    assert everyone.low < proportion([True] * 100).low
    assert everyone.low > proportion([True] * 5).low


@settings(max_examples=50)
@given(
    st.one_of(st.floats(0, 1), st.just(math.nan)),
    st.integers(0, 10_000),
    st.one_of(st.floats(-5, 0), st.just(-math.inf)),
    st.one_of(st.floats(1, 5), st.just(math.inf)),
    st.one_of(st.none(), st.integers(0, 500)),
)
def test_json_round_trip(value: float, n: int, low: float, high: float, clusters: int | None) -> None:
    estimate = Estimate(value, n, low, high, clusters)
    text = json.dumps(estimate.to_dict(), allow_nan=False)
    assert Estimate.from_dict(json.loads(text)) == estimate
    assert hash(Estimate.from_dict(json.loads(text))) == hash(estimate)


def test_repr() -> None:
    assert repr(Estimate(0.873, 1204, 0.851, 0.893, 602)) == "0.873 [0.851, 0.893] (n = 1204, 602 clusters)"
    assert repr(Estimate(math.nan, 0, 0.0, 1.0)) == "nan [0.000, 1.000] (n = 0)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: proportion([0.5, 1.5]), r"values in \[0, 1\]"),
        (lambda: proportion(np.array([0.5, "x"], dtype=object)), "leave out"),
        (lambda: proportion([0.0, math.nan]), "1 missing"),
        (lambda: proportion(["yes"]), "numbers or booleans"),
        (lambda: proportion([[True]]), "one-dimensional"),
        (lambda: proportion([True, False], ["a"]), "one label for each of the 2 samples"),
        (lambda: proportion([True, False], np.array(["a", None], dtype=object)), "missing labels"),
        (lambda: proportion([True], level=95), "between 0 and 1"),
        (lambda: proportions([1, 1], [1, 1]), r"\(clusters, columns\) of 2 clusters, got the shape \(2,\)"),
        (lambda: proportions([[1], [2]], [1, 1]), "from 0 to all of them"),
        (lambda: proportions([[0], [0]], [1, 0]), "at least one sample"),
        (lambda: difference([1], [1, 0]), "equal lengths"),
        (lambda: spread([[1.0]]), "at least two groups"),
        (lambda: spread([[1.0], [0.0]], [[1], [1, 2]]), "as long as"),
        (lambda: spread([[1.0], [0.0]], kind="gap"), "unknown kind"),  # type: ignore[arg-type]
        (lambda: spread([[1.0], [0.0]], resamples=0), "at least one resample"),
        (lambda: Estimate(0.5, 1, 0.9, 0.1), "low <= high"),
        (lambda: Estimate(0.5, -1, 0.1, 0.9), "n >= 0"),
        (lambda: Estimate.from_dict({"value": 1.0, "n": 2}), "low, high"),
    ],
)
def test_bad_input_says_why(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("module", ["probes.estimates", "probes.scores"])
def test_loads_no_torch(module: str) -> None:
    code = f"import {module}, sys; assert not {{'torch', 'transformers'}} & set(sys.modules), 'torch was loaded'"
    subprocess.run([sys.executable, "-c", code], check=True)
