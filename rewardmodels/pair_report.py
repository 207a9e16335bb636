"""What scores, lengths and categories of pairs tell about a reward model, in one record. Imports no torch."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.clustering import as_vector
from probes.estimates import Estimate
from rewardmodels.calibration import Calibration, calibration
from rewardmodels.evaluation import GroupedAccuracy, accuracy_by_group
from rewardmodels.lengths import length_slope, partial_correlation
from rewardmodels.rulers import BesideRulers, LengthMatched, beside_rulers, length_matched_accuracy


@dataclass(frozen=True)
class PairReport:
    """What to print of a set of scored pairs: no score without the rulers beside it."""

    accuracy: GroupedAccuracy
    """By group, micro and macro."""
    rulers: BesideRulers
    """The longer answer, the shorter one and a coin on the same pairs."""
    matched: LengthMatched
    """Accuracy with the help of length taken away."""
    length_correlation: Estimate
    """Of score and length, at fixed quality: the better and the worse answers each among themselves."""
    length_slope: Estimate
    """Score for a doubling of length, at fixed quality, in the scores' own unit; NaN where an answer is empty."""
    calibration: Calibration
    """Of ``sigmoid(margin)``."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {entry.name: getattr(self, entry.name).to_dict() for entry in fields(self)}


def pair_report(
    chosen: npt.ArrayLike,
    rejected: npt.ArrayLike,
    chosen_lengths: npt.ArrayLike,
    rejected_lengths: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    clusters: npt.ArrayLike | None = None,
    *,
    seed: int = 0,
    level: float = 0.95,
) -> PairReport:
    """Ask every question that scores, lengths and categories can answer.

    Args:
        chosen: (pairs,) scores of the better answer.
        rejected: (pairs,) scores of the worse answer.
        chosen_lengths: (pairs,) length of the better answer.
        rejected_lengths: (pairs,) length of the worse answer.
        groups: (pairs,) category of each pair; None is one category, "all".
        clusters: (pairs,) what pairs share, such as a prompt or image; None takes pairs as independent.
        seed: of the coin and of every bootstrap.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if there is no pair, values are missing, or lengths differ.

    >>> found = pair_report([2, 0, 3], [1, 1, 1], [9, 5, 8], [4, 7, 2])
    >>> found.rulers.rulers["longer"].value == found.accuracy.micro.value
    True
    """
    better, worse = as_vector(chosen, "chosen"), as_vector(rejected, "rejected")
    rulers = beside_rulers(better, worse, chosen_lengths, rejected_lengths, clusters, seed=seed, level=level)
    lengths = np.concatenate([as_vector(chosen_lengths, "lengths"), as_vector(rejected_lengths, "lengths")])
    scores = np.concatenate([better, worse])
    quality = np.repeat([1.0, 0.0], better.size)
    # Both answers of a pair share its prompt, so they are one cluster at least.
    shared = np.tile(np.arange(better.size) if clusters is None else np.asarray(clusters), 2)
    slope = Estimate(float("nan"), scores.size, -np.inf, np.inf)
    if lengths.size and lengths.min() > 0:
        slope = length_slope(scores, lengths, quality, shared, level=level)
    return PairReport(
        accuracy=accuracy_by_group(
            better, worse, np.full(better.size, "all") if groups is None else groups, clusters, level=level
        ),
        rulers=rulers,
        matched=length_matched_accuracy(better, worse, chosen_lengths, rejected_lengths, clusters, level=level),
        length_correlation=partial_correlation(scores, lengths, quality, shared, seed=seed, level=level),
        length_slope=slope,
        calibration=calibration(better, worse, clusters, seed=seed, level=level),
    )
