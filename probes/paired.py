"""Differences of two shares over the same samples: bootstrap by base sample, and what could have been detected.

Both sides are drawn together, so what two models have in common cancels out, also where each side counts samples of
its own, such as its own right answers. Knows nothing of models, files or what was counted, and imports no torch.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from probes.clustering import FloatArray, as_flags, check_level, cluster_index, resampled_totals
from probes.estimates import Estimate

RESAMPLES = 4000
"""Bootstrap draws of an interval."""
POWER = 0.8
"""Chance of seeing a difference as large as the smallest detectable one."""


@dataclass(frozen=True)
class ShareDifference:
    """Two shares over the same samples, and the first minus the second."""

    first: float
    """Share of the first side; NaN if it counts no sample."""
    second: float
    """Share of the second side."""
    first_n: int
    """Samples that the first side counts."""
    second_n: int
    """Samples that the second side counts."""
    estimate: Estimate
    """First minus second; ``n`` is the samples that either side counts."""
    standard_error: float
    """Of the difference, over clusters; NaN where none can be seen."""
    detectable: float
    """Smallest true difference that so many clusters would show, see :func:`minimum_detectable`; NaN if unknown."""


def share_difference(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    first_counted: npt.ArrayLike | None = None,
    second_counted: npt.ArrayLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> ShareDifference:
    """Estimate the difference of two shares over paired samples.

    Clusters are drawn with replacement, each with all its samples and for both sides at once, and both shares are
    taken anew. The interval is the percentile interval at tails widened from the normal to Student's quantile at
    ``clusters - 1`` degrees of freedom, without which it is too short for few clusters; the standard error is that of
    the draws, times ``sqrt(clusters / (clusters - 1))``. A bootstrap cannot draw what it has not seen, so the interval
    reaches at least as far as if no cluster had differed: a kind of cluster that ``c`` clusters do not show has at most
    the share ``1 - (a / 2) ** (1 / c)``, ``a = 1 - level`` (the exact binomial bound at no hits; reconstruction). Sides
    that agree everywhere thus differ by 0 with an interval that narrows with the clusters. Where every draw gives the
    same difference there is no standard error, and what could be detected is not known.

    Args:
        first: (samples,) booleans of the first side; True is a hit.
        second: (samples,) booleans of the second side, of the same samples in the same order.
        clusters: (samples,) base sample of each sample; None takes samples as independent.
        first_counted: (samples,) booleans, the samples that the first share is of; None is all.
        second_counted: the same for the second share.
        resamples: bootstrap draws; draws that leave a side without a counted sample are not used.
        seed: of the draws.
        level: confidence level in (0, 1).

    Returns:
        The difference. Its interval is [-1, 1] where a side counts no sample, with fewer than two clusters, and where
        half of the draws left a side without a sample.

    Raises:
        ValueError: if values are missing or no booleans, or lengths differ.

    >>> found = share_difference([True, True, True, False], [False, True, False, False])
    >>> found.first, found.second, found.estimate.value
    (0.75, 0.25, 0.5)
    """
    check_level(level)
    hits = [as_flags(first, "first"), as_flags(second, "second")]
    counted = [
        np.ones(side.size, dtype=bool) if flags is None else as_flags(flags, f"{name}_counted")
        for side, flags, name in zip(hits, (first_counted, second_counted), ("first", "second"), strict=True)
    ]
    sizes = {part.size for part in (*hits, *counted)}
    if len(sizes) > 1:
        raise ValueError(f"paired samples need arrays of equal length, got {sorted(sizes)}")
    if clusters is not None and np.shape(clusters) != (hits[0].size,):
        raise ValueError(f"clusters must hold one label for each of the {hits[0].size} samples")
    used = counted[0] | counted[1]
    index, count = cluster_index(None if clusters is None else np.asarray(clusters)[used], int(used.sum()))
    sums = _by_cluster([hit & kept for hit, kept in zip(hits, counted, strict=True)], used, index, count)
    counts = _by_cluster(counted, used, index, count)
    shares, sides = _shares(sums.sum(0), counts.sum(0)), counts.sum(0).astype(int).tolist()
    value = float(shares[0] - shares[1])
    low, high, error = -1.0, 1.0, math.nan
    if count > 1 and not math.isnan(value):
        low, high, error = _interval(sums, counts, value, resamples, seed, level)
    estimate = Estimate(value, int(used.sum()), low, high, None if clusters is None else count)
    return ShareDifference(
        float(shares[0]), float(shares[1]), sides[0], sides[1], estimate, error, minimum_detectable(error, level)
    )


def minimum_detectable(standard_error: float, level: float = 0.95, power: float = POWER) -> float:
    """Smallest true difference that a two-sided test would show with the given power, by the normal approximation.

    It is ``(z(1 - a / 2) + z(power)) * standard_error`` with ``a = 1 - level``: (1.96 + 0.84) standard errors at 5 %
    and 80 %. The standard error is the one observed, so this tells what a comparison of this size can see, not whether
    a difference is there. Without a standard error, or with one of zero, it is not known: NaN.

    >>> round(minimum_detectable(0.01), 4)
    0.028
    """
    check_level(level)
    check_level(power)
    if not standard_error > 0.0:
        return math.nan
    return float(special.ndtri(0.5 + level / 2) + special.ndtri(power)) * standard_error


def _by_cluster(
    sides: list[npt.NDArray[np.bool_]], used: npt.NDArray[np.bool_], index: npt.NDArray[np.int64], count: int
) -> FloatArray:
    columns = [np.bincount(index, weights=side[used].astype(np.float64), minlength=count) for side in sides]
    return np.stack(columns, axis=1).astype(np.float64)


def _shares(sums: FloatArray, counts: FloatArray) -> FloatArray:
    return np.asarray(np.divide(sums, counts, out=np.full(sums.shape, math.nan), where=counts > 0), dtype=np.float64)


def _interval(
    sums: FloatArray, counts: FloatArray, value: float, resamples: int, seed: int, level: float
) -> tuple[float, float, float]:
    shares = [_shares(hits, sizes) for hits, sizes in resampled_totals(sums, counts, resamples, seed)]
    draws = np.concatenate([share[:, 0] - share[:, 1] for share in shares])
    usable = draws[~np.isnan(draws)]
    if usable.size <= draws.size / 2:
        return -1.0, 1.0, math.nan
    widened = math.sqrt(len(sums) / (len(sums) - 1))
    tail = float(special.ndtr(-widened * special.stdtrit(len(sums) - 1, 0.5 + level / 2)))
    low, high = np.quantile(usable, [tail, 1.0 - tail]).tolist()
    unseen = 1.0 - (0.5 - level / 2) ** (1 / len(sums))
    low, high = min(low, value - unseen), max(high, value + unseen)
    return max(low, -1.0), min(high, 1.0), widened * float(usable.std())
