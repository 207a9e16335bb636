"""Weighted sums of group means: Newcombe's published interval, coverage by simulation, clusters across groups."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from probes.estimates import Estimate, proportion
from rewardmodels.group_means import group_means, macro_mean, share_gap, weighted_sum


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 10), 0.6075, 1.0000),
    ],
)
def test_the_gap_is_newcombes_published_interval(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    """Table II of Newcombe 1998 (Statistics in Medicine 17, 873-890), method 10."""
    shares = [1] * first[0] + [0] * (first[1] - first[0]) + [1] * second[0] + [0] * (second[1] - second[0])
    inside = [True] * first[1] + [False] * second[1]
    gap = share_gap(shares, inside)[2]
    assert (gap.low, gap.high) == pytest.approx((low, high), abs=6e-5)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), min_size=1, max_size=40))
def test_means_are_those_of_the_parts(samples: list[tuple[bool, str]]) -> None:
    values, groups = [hit for hit, _ in samples], [group for _, group in samples]
    found = group_means(values, groups)
    for label, estimate in zip(found.labels, found.estimates, strict=True):
        assert estimate == proportion([hit for hit, group in samples if group == label])
    macro = macro_mean(found)
    assert macro.value == pytest.approx(np.mean([estimate.value for estimate in found.estimates]))
    assert 0.0 <= macro.low <= macro.value + 1e-12 and macro.value <= macro.high + 1e-12 and macro.high <= 1.0
    assert macro.n == len(samples)


def test_singleton_clusters_change_nothing() -> None:
    rng = np.random.default_rng(0)
    values, groups = rng.random(60) < 0.7, rng.integers(0, 3, 60).astype(str)
    plain, single = macro_mean(group_means(values, groups)), macro_mean(group_means(values, groups, np.arange(60)))
    assert (single.low, single.high) == pytest.approx((plain.low, plain.high), abs=1e-12)
    assert plain.clusters is None and single.clusters == 60


def test_one_group_is_its_own_macro_mean() -> None:
    values = [1, 1, 0, 1]
    macro, own = macro_mean(group_means(values, ["a"] * 4)), proportion(values)
    assert (macro.value, macro.low, macro.high) == pytest.approx((own.value, own.low, own.high))


def test_unanimous_groups_keep_a_width() -> None:
    macro = macro_mean(group_means([1] * 10 + [1] * 10, ["a"] * 10 + ["b"] * 10))
    assert macro.value == 1.0 and 0.75 < macro.low < 0.90


def simulated(rng: np.random.Generator, shared: bool, alike: float = 3.0) -> tuple[list[float], list[str], list[int]]:
    """Two groups, 60 clusters of two samples each; clusters stand in both groups if shared, else in one."""
    values: list[float] = []
    groups: list[str] = []
    clusters: list[int] = []
    for cluster in range(60):
        level = rng.beta(0.7 * alike, 0.3 * alike)
        for place in range(2):
            group = ("a", "b")[place if shared else cluster % 2]
            values.append(float(rng.random() < level))
            groups.append(group)
            clusters.append(cluster)
    return values, groups, clusters


@pytest.mark.parametrize("shared", [True, False])
def test_coverage_of_macro_and_gap(shared: bool) -> None:
    rng = np.random.default_rng(1)
    covered, covered_gap, widths = 0, 0, []
    rounds = 400
    for _ in range(rounds):
        values, groups, clusters = simulated(rng, shared)
        macro = macro_mean(group_means(values, groups, clusters))
        covered += macro.low <= 0.7 <= macro.high
        gap = share_gap(values, [group == "a" for group in groups], clusters)[2]
        covered_gap += gap.low <= 0.0 <= gap.high
        widths.append(gap.high - gap.low)
    # At a true rate of 0.95, 400 rounds stay within 0.92 and 0.98 but once in a hundred times.
    assert 0.92 <= covered / rounds <= 0.985
    assert 0.92 <= covered_gap / rounds <= 0.985


def test_clusters_in_both_groups_widen_the_macro_mean_and_narrow_the_gap() -> None:
    values, groups, clusters = simulated(np.random.default_rng(2), shared=True, alike=0.5)
    found = group_means(values, groups, clusters)
    assert found.correlation[0, 1] > 0.1
    blind = found._replace(correlation=np.eye(2))
    wide, narrow = macro_mean(found), macro_mean(blind)
    assert wide.high - wide.low > 1.03 * (narrow.high - narrow.low)
    tight = share_gap(values, [group == "a" for group in groups], clusters)[2]
    loose = weighted_sum(found.estimates, [1, -1])
    assert tight.high - tight.low < 0.97 * (loose.high - loose.low)


def test_normal_intervals_add_up_as_variances_do() -> None:
    z = float(stats.norm.ppf(0.975))
    parts = [Estimate(value, 100, value - z * error, value + z * error) for value, error in ((2.0, 0.3), (1.0, 0.4))]
    total = weighted_sum(parts, [1, 2])
    assert total.value == 4.0 and total.high - 4.0 == pytest.approx(z * math.hypot(0.3, 0.8))
    together = weighted_sum(parts, [1, -1], [[1.0, 0.5], [0.5, 1.0]])
    assert together.high - 1.0 == pytest.approx(z * math.sqrt(0.09 + 0.16 - 0.12))


def test_an_empty_side_has_no_gap() -> None:
    inside, outside, gap = share_gap([1, 0], [True, True])
    assert inside.value == 0.5 and math.isnan(outside.value) and math.isnan(gap.value)
    assert (gap.low, gap.high, gap.n) == (-1.0, 1.0, 2)


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        group_means([], [])
    with pytest.raises(ValueError, match="one label for each"):
        group_means([1, 0], ["a"])
    with pytest.raises(ValueError, match="none missing"):
        group_means([1, 0], np.array(["a", None], dtype=object))
    with pytest.raises(ValueError, match="one weight for each"):
        weighted_sum([proportion([1])], [1, 2])
    with pytest.raises(ValueError, match="one length"):
        share_gap([1, 0], [True])
