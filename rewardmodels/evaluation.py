"""How often a reward model ranks a pair as people did: overall, by group, micro and macro.

Scores in, estimates out, whoever gave the scores: a model, a callable, a judge or a file. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.clustering import FloatArray, as_vector
from probes.estimates import Estimate, proportion
from rewardmodels.group_means import group_means, macro_mean


@dataclass(frozen=True)
class GroupedAccuracy:
    """Pair accuracy by group, and its two averages, which published tables mix up."""

    groups: Mapping[str, Estimate]
    """Accuracy in each group."""
    micro: Estimate
    """Over all pairs: groups count by their size. Called "overall" in most tables."""
    macro: Estimate
    """Over groups: each counts once."""
    ties: int
    """Pairs whose two scores are equal."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "groups": {name: estimate.to_dict() for name, estimate in self.groups.items()},
            "micro": self.micro.to_dict(),
            "macro": self.macro.to_dict(),
            "ties": self.ties,
        }


def margins(chosen: npt.ArrayLike, rejected: npt.ArrayLike) -> FloatArray:
    """Return the score of the chosen minus that of the rejected response of every pair.

    Args:
        chosen: (pairs,) scores, finite.
        rejected: (pairs,) scores, finite.

    Raises:
        ValueError: if scores are missing or infinite, or lengths differ.

    >>> margins([2.0, 1.0], [1.5, 3.0])
    array([ 0.5, -2. ])
    """
    better, worse = as_vector(chosen, "chosen"), as_vector(rejected, "rejected")
    if better.size != worse.size:
        raise ValueError(f"chosen and rejected must hold the same pairs, got {better.size} and {worse.size} scores")
    return better - worse


def pair_credits(chosen: npt.ArrayLike, rejected: npt.ArrayLike, *, ties: float = 0.5) -> FloatArray:
    """Return what each pair adds to the accuracy: 1 if the chosen response scores higher, 0 if lower.

    Args:
        chosen: (pairs,) scores.
        rejected: (pairs,) scores.
        ties: credit of two equal scores; one half is what a coin would get, and 0 is what many benchmarks give.

    Raises:
        ValueError: if scores are missing, lengths differ, or ``ties`` is outside [0, 1].

    >>> pair_credits([2.0, 1.0, 1.0], [1.0, 2.0, 1.0])
    array([1. , 0. , 0.5])
    """
    if not 0.0 <= ties <= 1.0:
        raise ValueError(f"the credit of a tie lies in [0, 1], got {ties}")
    # Not the sign of the difference: that of two distinct tiny scores may round to zero.
    margins(chosen, rejected)
    better, worse = as_vector(chosen, "chosen"), as_vector(rejected, "rejected")
    return np.where(better > worse, 1.0, np.where(better == worse, ties, 0.0))


def pair_accuracy(
    chosen: npt.ArrayLike,
    rejected: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    ties: float = 0.5,
    level: float = 0.95,
) -> Estimate:
    """Estimate the share of pairs whose chosen response scores higher, with a clustered Wilson interval.

    Args:
        chosen: (pairs,) scores of the better response.
        rejected: (pairs,) scores of the worse response.
        clusters: (pairs,) what pairs share, such as their prompt or image; None takes pairs as independent.
        ties: credit of two equal scores.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if scores are missing, or lengths differ.

    >>> pair_accuracy([2.0, 1.0, 1.0, 0.0], [1.0, 0.5, 1.0, 3.0])
    0.625 [0.219, 0.908] (n = 4)
    """
    return proportion(pair_credits(chosen, rejected, ties=ties), clusters, level)


def accuracy_by_group(
    chosen: npt.ArrayLike,
    rejected: npt.ArrayLike,
    groups: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    ties: float = 0.5,
    level: float = 0.95,
) -> GroupedAccuracy:
    """Estimate pair accuracy in each group, over pairs (micro) and over groups (macro), each with its own interval.

    Args:
        chosen: (pairs,) scores of the better response.
        rejected: (pairs,) scores of the worse response.
        groups: (pairs,) category of each pair.
        clusters: (pairs,) what pairs share; a cluster may stand in several groups.
        ties: credit of two equal scores.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if there is no pair, scores or groups are missing, or lengths differ.

    >>> found = accuracy_by_group([1, 1, 1, 0], [0, 0, 0, 1], ["a", "a", "a", "b"])
    >>> found.micro.value, found.macro.value
    (0.75, 0.5)
    """
    tied = int((as_vector(chosen, "chosen") == as_vector(rejected, "rejected")).sum())
    return shares_by_group(pair_credits(chosen, rejected, ties=ties), groups, clusters, ties=tied, level=level)


def shares_by_group(
    shares: npt.ArrayLike,
    groups: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    ties: int = 0,
    level: float = 0.95,
) -> GroupedAccuracy:
    """Do :func:`accuracy_by_group` for what was credited before.

    Args:
        shares: (samples,) credits in [0, 1].
        groups: (samples,) category of each sample.
        clusters: (samples,) what samples share.
        ties: how many of them were tied, to show.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if there is no sample, values are missing or outside [0, 1], or lengths differ.
    """
    means = group_means(shares, groups, clusters, level)
    return GroupedAccuracy(
        groups=dict(zip(means.labels, means.estimates, strict=True)),
        micro=proportion(shares, clusters, level),
        macro=macro_mean(means),
        ties=ties,
    )
