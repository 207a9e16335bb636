"""Reward against length: closed forms, two other ways to compute them, coverage, and planted lovers of length."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rewardmodels.lengths import length_correlations, length_slope, partial_correlation

Floats = npt.NDArray[np.float64]


def sample(n: int = 300, likes: float = 0.5, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Quality that drives length and reward; reward likes length beyond that by so much."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=n)
    length = 0.8 * quality + rng.normal(size=n)
    return quality + likes * length + rng.normal(size=n), length, quality


def by_recursion(reward: Floats, length: Floats, quality: Floats) -> float:
    """The textbook formula from three plain correlations."""
    rl, rq, lq = (np.corrcoef(*pair)[0, 1] for pair in ((reward, length), (reward, quality), (length, quality)))
    return float((rl - rq * lq) / math.sqrt((1 - rq**2) * (1 - lq**2)))


def by_precision(columns: Floats) -> float:
    """From the inverse of the covariance matrix, for any number of controls."""
    inverse = np.linalg.inv(np.cov(columns, rowvar=False))
    return float(-inverse[0, 1] / math.sqrt(inverse[0, 0] * inverse[1, 1]))


@pytest.mark.parametrize("seed", range(5))
def test_two_other_ways(seed: int) -> None:
    reward, length, quality = sample(seed=seed)
    found = partial_correlation(reward, length, quality)
    assert found.value == pytest.approx(by_recursion(reward, length, quality), abs=1e-12)
    controls = np.column_stack([quality, np.random.default_rng(seed + 50).normal(size=(300, 2))])
    many = partial_correlation(reward, length, controls)
    assert many.value == pytest.approx(by_precision(np.column_stack([reward, length, controls])), abs=1e-12)


def test_without_quality_it_is_pearsons_with_fishers_interval() -> None:
    reward, length, _ = sample()
    expected = stats.pearsonr(reward, length)
    found = partial_correlation(reward, length)
    interval = expected.confidence_interval()
    assert (found.value, found.low, found.high) == pytest.approx((expected.statistic, interval.low, interval.high))


def test_a_control_costs_one_degree_of_freedom() -> None:
    reward, length, quality = sample(50)
    found = partial_correlation(reward, length, quality)
    reach = stats.norm.ppf(0.975) / math.sqrt(50 - 1 - 3)
    assert math.atanh(found.high) - math.atanh(found.value) == pytest.approx(reach)
    within = partial_correlation(reward, length, within=np.arange(50) // 10)
    assert math.atanh(within.high) - math.atanh(within.value) == pytest.approx(
        stats.norm.ppf(0.975) / math.sqrt(50 - 4 - 3)
    )


@given(st.floats(0.1, 10), st.floats(-5, 5), st.floats(0.1, 10), st.floats(-5, 5))
def test_units_do_not_matter(a: float, b: float, c: float, d: float) -> None:
    reward, length, quality = sample(60)
    plain = partial_correlation(reward, length, quality).value
    assert partial_correlation(a * reward + b, c * length + d, quality).value == pytest.approx(plain, abs=1e-9)
    assert partial_correlation(length, reward, quality).value == pytest.approx(plain, abs=1e-12)
    assert partial_correlation(-reward, length, quality).value == pytest.approx(-plain, abs=1e-12)
    assert partial_correlation(reward + 3 * quality, length, quality).value == pytest.approx(plain, abs=1e-9)


def test_a_fair_model_is_cleared_and_the_raw_correlation_would_blame_it() -> None:
    reward, length, quality = sample(2000, likes=0.0)
    found = partial_correlation(reward, length, quality)
    assert found.low < 0 < found.high
    assert partial_correlation(reward, length).low > 0.3
    planted = partial_correlation(*sample(2000, likes=0.3))
    assert planted.low > 0.2


def test_inside_labels_is_as_if_each_label_were_a_control() -> None:
    reward, length, quality = sample(120)
    prompts = np.arange(120) // 6
    shifted = reward + 5 * prompts
    dummies = (prompts[:, None] == np.arange(1, 20)).astype(float)
    expected = partial_correlation(shifted, length, np.column_stack([quality, dummies]))
    found = partial_correlation(shifted, length, quality, within=prompts)
    assert (found.value, found.low) == pytest.approx((expected.value, expected.low))
    assert abs(partial_correlation(shifted, length, quality).value - found.value) > 0.1


def test_the_bootstrap_over_singletons_is_near_fishers_interval_and_copies_widen_it() -> None:
    reward, length, quality = sample(400)
    plain = partial_correlation(reward, length, quality)
    drawn = partial_correlation(reward, length, quality, np.arange(400))
    assert drawn.value == pytest.approx(plain.value, abs=1e-12) and drawn.clusters == 400
    assert (drawn.low, drawn.high) == pytest.approx((plain.low, plain.high), abs=0.02)
    copied = [np.repeat(column, 4) for column in (reward, length, quality)]
    clustered = partial_correlation(copied[0], copied[1], copied[2], np.repeat(np.arange(400), 4))
    assert (clustered.low, clustered.high) == pytest.approx((drawn.low, drawn.high), abs=0.02)
    naive = partial_correlation(*copied)
    assert naive.high - naive.low < 0.6 * (clustered.high - clustered.low)


def test_the_bootstrap_takes_each_draw_anew() -> None:
    """Clusters far apart move the means of a draw, which must be taken off again."""
    reward, length, quality = sample(40, seed=3)
    clusters = np.arange(40) // 5
    levels = 3 * np.random.default_rng(4).normal(size=(2, 8))
    reward, length = reward + levels[0][clusters], length + levels[1][clusters]
    found = partial_correlation(reward, length, quality, clusters, resamples=3000)
    rng, draws = np.random.default_rng(7), []
    for _ in range(3000):
        kept = np.concatenate([np.flatnonzero(clusters == label) for label in rng.integers(0, 8, 8)])
        draws.append(by_recursion(reward[kept], length[kept], quality[kept]))
    assert (found.low, found.high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.03)


def test_what_does_not_vary_has_no_correlation() -> None:
    _, length, quality = sample(20)
    for case in (
        partial_correlation(np.ones(20), length),
        partial_correlation(2 * quality, length, quality),
        partial_correlation([], []),
        partial_correlation([1.0], [2.0]),
    ):
        assert math.isnan(case.value) and (case.low, case.high) == (-1.0, 1.0)
    assert (partial_correlation([1.0, 2.0], [1.0, 3.0]).low, partial_correlation([1.0, 2.0], [1.0, 3.0]).high) == (
        -1,
        1,
    )


def test_slope_by_least_squares() -> None:
    reward, log_length, quality = sample(200)
    design = np.column_stack([log_length, np.ones(200), quality])
    expected, *_ = np.linalg.lstsq(design, reward, rcond=None)
    found = length_slope(reward, 2.0**log_length, quality)
    assert found.value == pytest.approx(expected[0])
    residual = reward - design @ expected
    bread = np.linalg.inv(design.T @ design)
    variance = (bread @ (design.T * residual**2) @ design @ bread)[0, 0] * 200 / 197
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 197) * math.sqrt(variance))
    labels = np.arange(200) // 5
    scores = np.array([design[labels == label].T @ residual[labels == label] for label in range(40)])
    clustered = (bread @ (scores.T @ scores) @ bread)[0, 0] * 40 / 39
    found = length_slope(reward, 2.0**log_length, quality, labels)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 39) * math.sqrt(clustered))
    assert found.clusters == 40


def test_slope_is_per_doubling() -> None:
    lengths = np.array([10.0, 20.0, 40.0, 80.0, 160.0])
    assert length_slope(0.3 * np.log2(lengths) + 7, lengths).value == pytest.approx(0.3)
    assert length_slope(0.3 * np.log2(lengths), 50 * lengths).value == pytest.approx(0.3)
    flat = length_slope([1.0, 2.0, 3.0], [5, 5, 5])
    assert math.isnan(flat.value) and flat.low == -math.inf


def test_coverage_of_the_slope() -> None:
    covered = 0
    for seed in range(300):
        reward, log_length, quality = sample(60, likes=0.5, seed=seed)
        found = length_slope(reward, 2.0**log_length, quality)
        covered += found.low <= 0.5 <= found.high
    assert 0.91 <= covered / 300 <= 0.985


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"differ in length: \[2, 1\]"):
        partial_correlation([1, 2], [1])
    with pytest.raises(ValueError, match="quality holds 1 missing"):
        partial_correlation([1, 2], [1, 2], [1, math.nan])
    with pytest.raises(ValueError, match="quality must have the shape"):
        partial_correlation([1, 2], [1, 2], np.ones((2, 1, 1)))
    with pytest.raises(ValueError, match="lengths > 0"):
        length_slope([1, 2], [0, 2])
    with pytest.raises(ValueError, match="one label for each"):
        partial_correlation([1, 2], [1, 2], within=["a"])


def test_a_model_that_pays_for_length_inside_a_prompt_only() -> None:
    rng = np.random.default_rng(0)
    prompt = np.repeat(np.arange(100), 4)
    long = np.tile([0.0, 1.0, 0.0, 1.0], 100)
    right = np.tile([0.0, 0.0, 1.0, 1.0], 100)
    length = long + 4 * rng.normal(size=100)[prompt]
    reward = 0.5 * long + right + 6 * rng.normal(size=100)[prompt] + 0.1 * rng.normal(size=400)
    found = length_correlations(reward, length, right, prompt, resamples=100)
    assert found.within_prompt.value > 0.9 and abs(found.total.value) < 0.3
    expected = partial_correlation(reward, length, right, prompt, within=prompt, resamples=100)
    assert found.within_prompt == expected and found.within_prompt.clusters == 100
    assert found.to_dict()["total"] == partial_correlation(reward, length, None, prompt, resamples=100).to_dict()
