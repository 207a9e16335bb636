"""Rulers that see no content: the longer answer, the shorter one, and a coin, beside a reward model's score.

A benchmark that a ruler passes says little of a model that also passes it. Beside them, accuracy with the help of
length taken away. Imports no torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.clustering import FloatArray, as_vector
from probes.estimates import Estimate, mean, proportion
from rewardmodels.evaluation import pair_credits
from rewardmodels.group_means import group_means, macro_mean


@dataclass(frozen=True)
class BesideRulers:
    """A score, what the rulers score on the same pairs, and how far the score lies above each."""

    score: Estimate
    """Pair accuracy of the reward model."""
    rulers: Mapping[str, Estimate]
    """Pair accuracy of "longer", "shorter" and "random"."""
    gains: Mapping[str, Estimate]
    """Score minus each ruler, over the same pairs."""

    @property
    def best(self) -> str:
        """The ruler that does best on these pairs."""
        return max(self.rulers, key=lambda name: self.rulers[name].value)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "score": self.score.to_dict(),
            "rulers": {name: estimate.to_dict() for name, estimate in self.rulers.items()},
            "gains": {name: estimate.to_dict() for name, estimate in self.gains.items()},
        }


@dataclass(frozen=True)
class LengthMatched:
    """Pair accuracy with the help of length taken away, in two ways."""

    matched: Estimate
    """Over pairs whose answers are about equally long."""
    chosen_longer: Estimate
    """Over pairs whose better answer is the longer one: length helps a model that likes it."""
    chosen_shorter: Estimate
    """Over pairs whose better answer is the shorter one: length hurts it."""
    balanced: Estimate
    """Mean of the last two; missing where either is. The longer-answer ruler scores one half here."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        names = ("matched", "chosen_longer", "chosen_shorter", "balanced")
        return {name: getattr(self, name).to_dict() for name in names}


def ruler_credits(
    chosen_lengths: npt.ArrayLike, rejected_lengths: npt.ArrayLike, *, seed: int = 0
) -> dict[str, FloatArray]:
    """Return each ruler's credit on every pair: 1 right, 0 wrong, 1/2 for answers of one length.

    Args:
        chosen_lengths: (pairs,) length of the better answer, in characters or tokens.
        rejected_lengths: (pairs,) length of the worse answer, in the same unit.
        seed: of the coin.

    Raises:
        ValueError: if lengths are missing or negative, or their numbers differ.

    >>> ruler_credits([5, 2, 3], [1, 4, 3])["longer"]
    array([1. , 0. , 0.5])
    """
    longer = pair_credits(chosen_lengths, rejected_lengths)
    lengths = np.concatenate([as_vector(chosen_lengths, "lengths"), as_vector(rejected_lengths, "lengths")])
    if lengths.size and lengths.min() < 0:
        raise ValueError(f"a length is >= 0, got {lengths.min():g}")
    coin = np.random.default_rng(seed).integers(0, 2, longer.size).astype(np.float64)
    return {"longer": longer, "shorter": 1.0 - longer, "random": coin}


def beside_rulers(
    chosen: npt.ArrayLike,
    rejected: npt.ArrayLike,
    chosen_lengths: npt.ArrayLike,
    rejected_lengths: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    seed: int = 0,
    level: float = 0.95,
) -> BesideRulers:
    """Estimate pair accuracy beside that of the rulers on the same pairs; ties count one half throughout.

    Args:
        chosen: (pairs,) scores of the better answer.
        rejected: (pairs,) scores of the worse answer.
        chosen_lengths: (pairs,) length of the better answer.
        rejected_lengths: (pairs,) length of the worse answer.
        clusters: (pairs,) what pairs share; None takes pairs as independent.
        seed: of the coin.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if values are missing, or lengths differ.

    >>> beside_rulers([3, 1], [1, 2], [9, 9], [4, 4]).best
    'longer'
    """
    own = pair_credits(chosen, rejected)
    by_ruler = ruler_credits(chosen_lengths, rejected_lengths, seed=seed)
    if by_ruler["longer"].size != own.size:
        raise ValueError(f"scores and lengths must be of the same pairs, got {own.size} and {by_ruler['longer'].size}")
    return BesideRulers(
        score=proportion(own, clusters, level),
        rulers={name: proportion(right, clusters, level) for name, right in by_ruler.items()},
        gains={name: mean(own - right, clusters, level, (-1.0, 1.0)) for name, right in by_ruler.items()},
    )


def length_matched_accuracy(
    chosen: npt.ArrayLike,
    rejected: npt.ArrayLike,
    chosen_lengths: npt.ArrayLike,
    rejected_lengths: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    tolerance: float = 0.1,
    level: float = 0.95,
) -> LengthMatched:
    """Estimate pair accuracy among answers of like length, and balanced over which answer is longer.

    Args:
        chosen: (pairs,) scores of the better answer.
        rejected: (pairs,) scores of the worse answer.
        chosen_lengths: (pairs,) length of the better answer.
        rejected_lengths: (pairs,) length of the worse answer.
        clusters: (pairs,) what pairs share; None takes pairs as independent.
        tolerance: lengths match if the shorter is at least ``1 - tolerance`` of the longer.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if values are missing, lengths differ, or ``tolerance`` is outside [0, 1).

    >>> found = length_matched_accuracy([2, 2, 0], [1, 1, 1], [100, 50, 10], [95, 20, 40])
    >>> found.matched.value, found.balanced.value
    (1.0, 0.5)
    """
    if not 0.0 <= tolerance < 1.0:
        raise ValueError(f"the tolerance of matched lengths lies in [0, 1), got {tolerance}")
    shares = pair_credits(chosen, rejected)
    better, worse = as_vector(chosen_lengths, "chosen_lengths"), as_vector(rejected_lengths, "rejected_lengths")
    if not shares.size == better.size == worse.size:
        raise ValueError(
            f"scores and lengths must be of the same pairs, got {shares.size}, {better.size}, {worse.size}"
        )
    labels = None if clusters is None else np.asarray(clusters)

    def over(kept: npt.NDArray[np.bool_]) -> Estimate:
        return proportion(shares[kept], None if labels is None else labels[kept], level)

    longer, shorter = better > worse, better < worse
    differ = longer | shorter
    sides = over(longer), over(shorter)
    balanced = Estimate(math.nan, int(differ.sum()), 0.0, 1.0)
    if longer.any() and shorter.any():
        side = np.where(longer[differ], "longer", "shorter")
        balanced = macro_mean(group_means(shares[differ], side, None if labels is None else labels[differ], level))
    matched = np.minimum(better, worse) >= (1.0 - tolerance) * np.maximum(better, worse)
    return LengthMatched(over(matched), *sides, balanced)
