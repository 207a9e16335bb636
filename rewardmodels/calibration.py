"""Is ``sigmoid(margin)`` the chance that people prefer the answer? Reliability bins, expected calibration error, Brier.

Arrays in, estimates out. Imports no torch.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from probes.clustering import FloatArray, check_level, cluster_index, deviation_quantile, resampled_totals
from probes.estimates import Estimate, mean, proportion
from rewardmodels.evaluation import margins


@dataclass(frozen=True)
class ReliabilityBin:
    """Pairs of like confidence."""

    low: float
    """Least confidence of the bin."""
    high: float
    """Largest confidence of the bin."""
    confidence: float
    """Mean confidence of its pairs; NaN without any."""
    accuracy: Estimate
    """Share of its pairs ranked correctly; ties count one half."""


@dataclass(frozen=True)
class Calibration:
    """How well confidence matches accuracy over a set of pairs.

    A pair has no first and second answer, so confidence is that in the answer which the model prefers: in [1/2, 1].
    """

    bins: tuple[ReliabilityBin, ...]
    """From low to high confidence."""
    error: Estimate
    """Expected calibration error: mean distance of confidence and accuracy over bins, by their share of pairs."""
    brier: Estimate
    """Mean squared distance of ``sigmoid(margin)`` from 1; 0.25 for a model that does not know."""
    overconfidence: Estimate
    """Mean confidence minus accuracy."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "bins": [
                {
                    "low": part.low,
                    "high": part.high,
                    "confidence": part.confidence if part.accuracy.n else None,
                    "accuracy": part.accuracy.to_dict(),
                }
                for part in self.bins
            ],
            **{name: getattr(self, name).to_dict() for name in ("error", "brier", "overconfidence")},
        }


def calibration(
    chosen: npt.ArrayLike,
    rejected: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    bins: int = 10,
    spacing: Literal["equal", "quantile"] = "equal",
    temperature: float = 1.0,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Calibration:
    """Estimate the calibration of a reward model's margins on pairs.

    The calibration error of a sample is biased upwards, and resampled errors more so; its interval is therefore taken
    from the resampled *deviations* of the bins, by the triangle inequality, and is wide rather than short.

    Args:
        chosen: (pairs,) scores of the better answer.
        rejected: (pairs,) scores of the worse answer.
        clusters: (pairs,) what pairs share; None takes pairs as independent.
        bins: number of bins between confidence 1/2 and 1.
        spacing: bins of equal width, or of about equal numbers of pairs.
        temperature: margins are divided by it first.
        resamples: bootstrap draws of the error's interval.
        seed: of the draws.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if there is no pair, scores are missing, lengths differ, or an option is out of range.

    >>> found = calibration([0.0, 0.0], [0.0, 0.0])
    >>> found.error.value, found.brier.value
    (0.0, 0.25)
    """
    check_level(level)
    if bins < 1 or not 0.0 < temperature < np.inf:
        raise ValueError(f"calibration needs at least one bin and a temperature > 0, got {bins} and {temperature}")
    margin = margins(chosen, rejected) / temperature
    if margin.size == 0:
        raise ValueError("calibration needs at least one pair")
    confidence = special.expit(np.abs(margin))
    right = (np.sign(margin) + 1) / 2
    edges = _edges(confidence, bins, spacing)
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, len(edges) - 2)
    labels = None if clusters is None else np.asarray(clusters)
    parts = []
    for number in range(len(edges) - 1):
        kept = place == number
        accuracy = proportion(right[kept], None if labels is None else labels[kept], level)
        centre = float(confidence[kept].mean()) if kept.any() else float("nan")
        parts.append(ReliabilityBin(float(edges[number]), float(edges[number + 1]), centre, accuracy))
    return Calibration(
        bins=tuple(parts),
        error=_error(confidence - right, place, len(parts), clusters, resamples, seed, level),
        brier=mean(special.expit(-margin) ** 2, clusters, level, (0.0, 1.0)),
        overconfidence=mean(confidence - right, clusters, level, (-1.0, 1.0)),
    )


def _edges(confidence: FloatArray, bins: int, spacing: str) -> FloatArray:
    if spacing == "equal":
        return np.linspace(0.5, 1.0, bins + 1)
    if spacing == "quantile":
        inner = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1])
        return np.unique(np.concatenate([[0.5], inner, [1.0]]))
    raise ValueError(f"unknown spacing of bins {spacing!r}: use 'equal' or 'quantile'")


def _error(
    gaps: FloatArray,
    place: npt.NDArray[np.int64],
    bins: int,
    clusters: npt.ArrayLike | None,
    resamples: int,
    seed: int,
    level: float,
) -> Estimate:
    """Sum over bins of the absolute mean gap, each over all pairs."""
    index, count = cluster_index(clusters, gaps.size)
    sums = np.zeros((count, bins))
    np.add.at(sums, (index, place), gaps)
    sizes = np.bincount(index, minlength=count).astype(np.float64)[:, None]
    centre = sums.sum(0) / gaps.size
    draws = [np.abs(drawn / size - centre).sum(1) for drawn, size in resampled_totals(sums, sizes, resamples, seed)]
    reach = deviation_quantile(np.concatenate(draws), level) if count > 1 else 1.0
    value = float(np.abs(centre).sum())
    shown = None if clusters is None else count
    return Estimate(value, gaps.size, max(0.0, value - reach), min(1.0, value + reach), shown)
