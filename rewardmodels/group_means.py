"""Weighted sums of group means with one interval: macro averages, and differences of groups.

Knows nothing of rewards, models or files, and imports no torch.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from probes.clustering import FloatArray, IntArray, as_vector, check_level, cluster_index
from probes.estimates import Estimate, proportion


class GroupMeans(NamedTuple):
    """The mean of shares in each group, and how much the means vary together."""

    labels: tuple[str, ...]
    """Names of the groups, sorted."""
    estimates: tuple[Estimate, ...]
    """One for each label."""
    correlation: FloatArray
    """(groups, groups) correlation of the means that comes from clusters which stand in several groups."""
    clusters: int | None
    """Clusters over all groups; None where samples were taken as independent."""


def group_means(
    shares: npt.ArrayLike, groups: npt.ArrayLike, clusters: npt.ArrayLike | None = None, level: float = 0.95
) -> GroupMeans:
    """Estimate the mean of shares in [0, 1] for every group, each with :func:`probes.estimates.proportion`.

    Args:
        shares: (samples,) booleans, or shares in [0, 1].
        groups: (samples,) the group of each sample.
        clusters: (samples,) base sample of each sample; None takes samples as independent.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if there is no sample, values are missing or outside [0, 1], or lengths differ.

    >>> found = group_means([1, 1, 0, 1], ["a", "a", "b", "b"])
    >>> found.labels, [estimate.value for estimate in found.estimates]
    (('a', 'b'), [1.0, 0.5])
    """
    values, (labels, index) = as_vector(shares, "shares"), _group_index(groups)
    if values.size == 0:
        raise ValueError("means by group need at least one sample")
    if index.size != values.size:
        raise ValueError(f"groups must hold one label for each of the {values.size} samples, got {index.size}")
    of_cluster, count = cluster_index(clusters, values.size)
    estimates = tuple(
        proportion(values[index == number], None if clusters is None else of_cluster[index == number], level)
        for number in range(len(labels))
    )
    residuals = np.zeros((count, len(labels)))
    centred = values - np.array([estimate.value for estimate in estimates])[index]
    np.add.at(residuals, (of_cluster, index), centred)
    return GroupMeans(labels, estimates, _correlation(residuals), None if clusters is None else count)


def weighted_sum(
    estimates: Sequence[Estimate],
    weights: npt.ArrayLike,
    correlation: npt.ArrayLike | None = None,
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    clusters: int | None = None,
) -> Estimate:
    """Estimate a weighted sum of estimates from their intervals (MOVER; Zou and Donner 2008, Donner and Zou 2012).

    Each end lies as far from the sum as the estimates lie from those of their own ends that pull the sum there, added
    up as standard deviations of correlated terms are. For the difference of two independent proportions with Wilson's
    intervals this is Newcombe's hybrid score interval (1998). Unanimous groups keep the width that their size gives.

    Args:
        estimates: the terms; a missing value makes the sum missing, with the bounds as its interval.
        weights: (estimates,) finite numbers.
        correlation: (estimates, estimates) correlation of the terms; None takes them as independent.
        bounds: what the sum cannot leave; the interval is cut there.
        clusters: independent clusters behind all terms, to show.

    Raises:
        ValueError: if lengths differ or weights are missing.

    >>> weighted_sum([Estimate(0.8, 10, 0.5, 0.9), Estimate(0.4, 10, 0.2, 0.7)], [1, -1])
    0.400 [-0.024, 0.624] (n = 20)
    """
    factors = as_vector(weights, "weights")
    if factors.size != len(estimates):
        raise ValueError(f"a weighted sum needs one weight for each estimate, got {factors.size} for {len(estimates)}")
    n = sum(estimate.n for estimate in estimates)
    value = float(sum(factor * estimate.value for factor, estimate in zip(factors, estimates, strict=True)))
    if math.isnan(value):
        return Estimate(value, n, *bounds, clusters)
    together = np.eye(factors.size) if correlation is None else np.asarray(correlation, dtype=np.float64)
    signs = np.sign(factors)
    signed = signs[:, None] * together * signs
    below = [estimate.value - estimate.low for estimate in estimates]
    above = [estimate.high - estimate.value for estimate in estimates]
    downwards = np.abs(factors) * np.where(factors > 0, below, above)
    upwards = np.abs(factors) * np.where(factors > 0, above, below)
    low = value - math.sqrt(max(0.0, float(downwards @ signed @ downwards)))
    high = value + math.sqrt(max(0.0, float(upwards @ signed @ upwards)))
    return Estimate(value, n, max(low, bounds[0]), min(high, bounds[1]), clusters)


def macro_mean(means: GroupMeans) -> Estimate:
    """Estimate the unweighted mean over groups of means that are shares in [0, 1].

    >>> macro_mean(group_means([1, 1, 0, 1], ["a", "a", "b", "b"])).value
    0.75
    """
    count = len(means.labels)
    return weighted_sum(
        means.estimates, np.full(count, 1 / count), means.correlation, bounds=(0.0, 1.0), clusters=means.clusters
    )


def share_gap(
    shares: npt.ArrayLike, inside: npt.ArrayLike, clusters: npt.ArrayLike | None = None, level: float = 0.95
) -> tuple[Estimate, Estimate, Estimate]:
    """Estimate the mean of shares inside a set, outside it, and the first minus the second.

    Args:
        shares: (samples,) booleans, or shares in [0, 1].
        inside: (samples,) booleans.
        clusters: (samples,) base sample of each sample; a cluster may stand on both sides.
        level: confidence level in (0, 1).

    Returns:
        The three estimates; where a side is empty its mean and the gap are missing.

    Raises:
        ValueError: if values are missing, or lengths differ.

    >>> [round(estimate.value, 2) for estimate in share_gap([1, 1, 0, 1], [True, True, False, False])]
    [1.0, 0.5, 0.5]
    """
    check_level(level)
    flags = as_vector(inside, "inside") > 0.5
    values = as_vector(shares, "shares")
    if values.size != flags.size:
        raise ValueError(f"shares and sides must have one length, got {values.size} and {flags.size}")
    if flags.all() or not flags.any():
        sides = [proportion(values[side], _kept(clusters, side), level) for side in (flags, ~flags)]
        shown = None if clusters is None else cluster_index(clusters, values.size)[1]
        return sides[0], sides[1], Estimate(math.nan, values.size, -1.0, 1.0, shown)
    means = group_means(values, np.where(flags, "0", "1"), clusters, level)
    gap = weighted_sum(means.estimates, [1.0, -1.0], means.correlation, bounds=(-1.0, 1.0), clusters=means.clusters)
    return means.estimates[0], means.estimates[1], gap


def _kept(clusters: npt.ArrayLike | None, side: npt.NDArray[np.bool_]) -> npt.ArrayLike | None:
    return None if clusters is None else np.asarray(clusters)[side]


def _group_index(groups: npt.ArrayLike) -> tuple[tuple[str, ...], IntArray]:
    names = np.asarray(groups)
    if names.ndim != 1 or any(name is None or name != name for name in names.tolist()):
        raise ValueError("groups must be one label for each sample, none missing")
    labels, index = np.unique(names.astype(str), return_inverse=True)
    return tuple(labels.tolist()), index.astype(np.int64)


def _correlation(residuals: FloatArray) -> FloatArray:
    covariance = residuals.T @ residuals
    scale = np.sqrt(np.diag(covariance))
    product = np.outer(scale, scale)
    found = np.divide(covariance, product, out=np.zeros_like(covariance), where=product > 0)
    np.fill_diagonal(found, 1.0)
    return np.asarray(found, dtype=np.float64)
