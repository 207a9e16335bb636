"""Calibration: against scikit-learn, by hand, planted over- and underconfidence, coverage."""

import json
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from rewardmodels.calibration import calibration

Floats = npt.NDArray[np.float64]


def calibrated(n: int, stretch: float = 1.0, seed: int = 0) -> Floats:
    """Margins of pairs whose labels fall as sigmoid(margin / stretch) says: calibrated at stretch 1."""
    rng = np.random.default_rng(seed)
    margin = np.abs(rng.normal(0, 1.5, n))
    return np.where(rng.random(n) < special.expit(margin), 1, -1) * margin * stretch


def test_against_scikit_learn() -> None:
    margin = calibrated(500)
    found = calibration(margin, np.zeros(500))
    confidence, right = special.expit(np.abs(margin)), margin > 0
    # The library's bins cut [0, 1]: of twenty, the upper ten are ours.
    accuracy, centre = calibration_curve(right, confidence, n_bins=20)
    filled = [part for part in found.bins if part.accuracy.n]
    assert [part.confidence for part in filled] == pytest.approx(centre.tolist())
    assert [part.accuracy.value for part in filled] == pytest.approx(accuracy.tolist())
    assert found.brier.value == pytest.approx(
        brier_score_loss(np.append(np.ones(500), 0), np.append(special.expit(margin), 0)) * 501 / 500
    )


@given(st.lists(st.floats(-6, 6), min_size=1, max_size=40), st.sampled_from(["equal", "quantile"]), st.integers(1, 7))
def test_by_hand(values: list[float], spacing: str, bins: int) -> None:
    found = calibration(values, [0.0] * len(values), bins=bins, spacing=spacing, resamples=5)  # type: ignore[arg-type]
    assert sum(part.accuracy.n for part in found.bins) == len(values)
    filled = [part for part in found.bins if part.accuracy.n]
    error = sum(part.accuracy.n * abs(part.accuracy.value - part.confidence) for part in filled) / len(values)
    assert found.error.value == pytest.approx(error, abs=1e-12)
    confidence = [1 / (1 + math.exp(-abs(value))) for value in values]
    right = [(np.sign(value) + 1) / 2 for value in values]
    assert found.overconfidence.value == pytest.approx(np.mean(confidence) - np.mean(right), abs=1e-12)
    assert found.error.value >= abs(found.overconfidence.value) - 1e-12
    assert found.brier.value == pytest.approx(np.mean([(1 - 1 / (1 + math.exp(-value))) ** 2 for value in values]))
    for part in filled:
        assert part.low - 1e-12 <= part.confidence <= part.high + 1e-12


def test_one_bin_has_the_error_of_the_mean() -> None:
    found = calibration(calibrated(300, 3.0), np.zeros(300), bins=1)
    assert found.error.value == pytest.approx(abs(found.overconfidence.value))


def test_planted_overconfidence_is_found_and_a_temperature_mends_it() -> None:
    margin = calibrated(4000, stretch=3.0)
    loud = calibration(margin, np.zeros(4000))
    mended = calibration(margin, np.zeros(4000), temperature=3.0)
    assert loud.error.low > 0.05 and loud.overconfidence.low > 0.05
    assert mended.error.low == 0.0 and mended.overconfidence.low < 0 < mended.overconfidence.high
    assert mended.brier.high < loud.brier.low
    shy = calibration(calibrated(4000, stretch=0.2), np.zeros(4000))
    assert shy.overconfidence.high < -0.05


def test_a_one_sided_reading_would_call_a_calibrated_model_wrong() -> None:
    """The chosen answer always wins: sigmoid(margin) against that label is no calibration."""
    margin = calibrated(4000)
    assert calibration(margin, np.zeros(4000)).error.value < 0.03
    assert 1.0 - special.expit(margin).mean() > 0.2


def test_swapping_the_answers_keeps_confidence() -> None:
    margin = calibrated(200)
    one, other = calibration(margin, np.zeros(200)), calibration(-margin, np.zeros(200))
    assert [part.confidence for part in one.bins] == pytest.approx(
        [part.confidence for part in other.bins], nan_ok=True
    )
    assert other.overconfidence.value > one.overconfidence.value


def test_the_interval_covers_the_true_error() -> None:
    truth = calibration(calibrated(200_000, 2.0, seed=99), np.zeros(200_000), resamples=2).error.value
    covered = 0
    for seed in range(60):
        error = calibration(calibrated(200, 2.0, seed=seed), np.zeros(200), resamples=200).error
        covered += error.low <= truth <= error.high
    assert covered >= 56


def test_clusters_widen() -> None:
    margin = np.repeat(calibrated(100, 2.0), 5)
    labels = np.repeat(np.arange(100), 5)
    plain, clustered = calibration(margin, 0 * margin), calibration(margin, 0 * margin, labels)
    assert clustered.error.high - clustered.error.low > 1.5 * (plain.error.high - plain.error.low)
    assert clustered.brier.clusters == clustered.error.clusters == 100


def test_quantile_bins_hold_like_numbers() -> None:
    found = calibration(calibrated(1000), np.zeros(1000), spacing="quantile")
    assert {part.accuracy.n for part in found.bins} <= set(range(99, 102))


def test_extreme_margins_and_json() -> None:
    found = calibration([1e300, -1e300, 0.0], [0.0, 0.0, 0.0])
    assert found.brier.value == pytest.approx((0 + 1 + 0.25) / 3)
    record = json.loads(json.dumps(found.to_dict()))
    assert len(record["bins"]) == 10 and record["bins"][4]["confidence"] is None


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        calibration([], [])
    with pytest.raises(ValueError, match="at least one bin"):
        calibration([1.0], [0.0], bins=0)
    with pytest.raises(ValueError, match="temperature > 0"):
        calibration([1.0], [0.0], temperature=0.0)
    with pytest.raises(ValueError, match="unknown spacing"):
        calibration([1.0], [0.0], spacing="log")  # type: ignore[arg-type]
