"""Does it matter where the target stands? Accuracies by target position, and how far they spread.

A reconstruction: the Implicit visual misunderstanding paper claims that attention accuracy is steadier across target
positions than answer accuracy, and no script of it was found. Knows nothing of models or files, and imports no torch.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.clustering import (
    BoolArray,
    FloatArray,
    IntArray,
    as_flags,
    as_indices,
    as_vector,
    cluster_index,
    deviation_quantile,
    group_table,
    resampled_totals,
    spread_of_means,
)
from probes.estimates import Estimate, proportion, spread


@dataclass(frozen=True)
class PositionSpread:
    """One accuracy by target position."""

    positions: tuple[int, ...]
    """0-based target positions."""
    by_position: tuple[Estimate, ...]
    """Accuracy at each position."""
    range: Estimate
    """Largest minus smallest accuracy, with a bootstrap over clusters."""
    std: Estimate
    """Population standard deviation over positions, with a bootstrap over clusters."""
    noise_range: float
    """Mean range after shuffling positions within each cluster: what a model without position bias would show."""


@dataclass(frozen=True)
class PositionStudy:
    """Answer accuracy against attention accuracy by target position."""

    answer: PositionSpread
    """P(answer correct) by target position."""
    attention: PositionSpread
    """P(focus = target | answer correct) by target position."""
    gap: Estimate
    """Range of answer accuracy minus range of attention accuracy, bootstrapped together: above 0, attention is the
    steadier of the two. The interval is wider than its level says: each range may stray by the whole range of its
    deviations, both at once and in opposite directions. That holds whether positions truly differ or not; a sharper
    bootstrap has to know which positions truly lie highest and lowest, and falls short of its level where it does not.
    """


def position_spread(
    success: npt.ArrayLike,
    position: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PositionSpread:
    """Accuracy by target position, its range and standard deviation (reconstruction).

    Args:
        success: (samples,) booleans, or shares in [0, 1].
        position: (samples,) 0-based target position of each sample.
        clusters: (samples,) base sample: the samples that differ only in where the target stands. Clusters with
            fewer positions than others (of fewer images) confound place with what they ask: take each number of
            images alone where that matters.
        resamples: bootstrap draws, and shuffles.
        seed: of both.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if fewer than two positions occur, values are missing, or lengths differ.

    >>> position_spread([1, 1, 0, 1], [0, 0, 1, 1], resamples=10).range.value
    0.5
    """
    values, places = as_vector(success, "success"), as_indices(position, "position")
    return _spread(values, places, clusters, sorted({*places.tolist()}), resamples, seed, level)


def position_study(
    focused: npt.ArrayLike,
    target: npt.ArrayLike,
    correct: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PositionStudy:
    """Compare how answer accuracy and attention accuracy spread over target positions (reconstruction).

    Args:
        focused: (samples,) 0-based image in focus.
        target: (samples,) 0-based target position.
        correct: (samples,) whether the answer was right.
        clusters: (samples,) base sample: the samples that differ only in where the target stands.
        resamples: bootstrap draws, and shuffles.
        seed: of both.
        level: confidence level in (0, 1).

    Returns:
        Both spreads and their gap; at a position without right answers the attention accuracy and its spreads are NaN.

    Raises:
        ValueError: if fewer than two positions occur, values are missing, or lengths differ.
    """
    places, right = as_indices(target, "target"), as_flags(correct, "correct")
    hit = as_indices(focused, "focused")
    if not places.size == right.size == hit.size:
        raise ValueError(f"lengths differ: {hit.size} in focus, {places.size} targets, {right.size} answers")
    hits = np.asarray(hit == places)
    numbers = None if clusters is None else cluster_index(clusters, places.size)[0]
    some = None if numbers is None else numbers[right]
    order = sorted({*places.tolist()})
    return PositionStudy(
        answer=_spread(right.astype(np.float64), places, numbers, order, resamples, seed, level),
        attention=_spread(hits[right].astype(np.float64), places[right], some, order, resamples, seed, level),
        gap=_gap(right, hits, places, numbers, order, resamples, seed, level),
    )


def _spread(
    values: FloatArray,
    places: IntArray,
    clusters: npt.ArrayLike | None,
    order: list[int],
    resamples: int,
    seed: int,
    level: float,
) -> PositionSpread:
    if values.size != places.size:
        raise ValueError(f"lengths differ: {values.size} values, {places.size} positions")
    index, _ = cluster_index(clusters, values.size)
    masks = [places == place for place in order]
    groups = [values[mask] for mask in masks]
    ids = None if clusters is None else [index[mask] for mask in masks]
    named = ids or [None] * len(order)
    ranged = spread(groups, ids, kind="range", resamples=resamples, seed=seed, level=level)
    scattered = spread(groups, ids, kind="std", resamples=resamples, seed=seed, level=level)
    return PositionSpread(
        positions=tuple(order),
        by_position=tuple(proportion(group, label, level) for group, label in zip(groups, named, strict=True)),
        range=_capped(ranged, 1.0),
        std=_capped(scattered, 0.5),
        noise_range=_noise(values, places, index if clusters is not None else None, order, resamples, seed),
    )


def _noise(
    values: FloatArray, places: IntArray, index: IntArray | None, order: list[int], resamples: int, seed: int
) -> float:
    """Mean range over shuffles of the positions within each cluster (over all samples when there are none)."""
    cluster = np.zeros(values.size) if index is None else index
    column = np.searchsorted(order, places)
    counts = np.bincount(column, minlength=len(order)).astype(np.float64)
    if (counts == 0).any():
        return math.nan
    rng, slots, ranges = np.random.default_rng(seed), np.argsort(cluster, kind="stable"), np.empty(resamples)
    for number in range(resamples):
        shuffled = np.lexsort((rng.random(values.size), cluster))
        sums = np.bincount(column[slots], weights=values[shuffled], minlength=len(order)).astype(np.float64)
        ranges[number] = spread_of_means(sums, counts, "range")
    return float(ranges.mean())


def _gap(
    right: BoolArray,
    hit: BoolArray,
    places: IntArray,
    clusters: IntArray | None,
    order: list[int],
    resamples: int,
    seed: int,
    level: float,
) -> Estimate:
    masks = [places == place for place in order]
    ids = None if clusters is None else [clusters[mask] for mask in masks]
    answered, asked = group_table([right[mask] for mask in masks], ids)
    looked, _ = group_table([(hit & right)[mask] for mask in masks], ids)
    ranges = [
        float(spread_of_means(top.sum(0), base.sum(0), "range"))
        for top, base in ((answered, asked), (looked, answered))
    ]
    value, shown = ranges[0] - ranges[1], None if clusters is None else len(asked)
    if math.isnan(value):
        return Estimate(value, places.size, -1.0, 1.0, shown)
    draws = _gap_deviations(answered, asked, looked, resamples, seed)
    reach = deviation_quantile(draws, level)
    return Estimate(value, places.size, max(-1.0, value - reach), min(1.0, value + reach), shown)


def _gap_deviations(
    answered: FloatArray, asked: FloatArray, looked: FloatArray, resamples: int, seed: int
) -> FloatArray:
    """Both ranges of the deviations of resampled accuracies, added up: a bound on how far the gap strays."""
    answer, attention = answered.sum(0) / asked.sum(0), looked.sum(0) / answered.sum(0)
    size, draws = answered.shape[1], []
    stacked = np.concatenate([answered, looked], axis=1), np.concatenate([asked, asked], axis=1)
    for sums, counts in resampled_totals(*stacked, resamples, seed):
        right, hits, total = sums[:, :size], sums[:, size:], counts[:, :size]
        draws.append(
            spread_of_means(right - answer * total, total, "range")
            + spread_of_means(hits - attention * right, right, "range")
        )
    return np.concatenate(draws)


def _capped(estimate: Estimate, cap: float) -> Estimate:
    return Estimate(estimate.value, estimate.n, estimate.low, min(estimate.high, cap), estimate.clusters)
