"""Estimates: a number, how many samples stand behind it, and its interval, clustered by base sample.

Knows nothing of models, images or attention, and imports no torch: arrays in, :class:`Estimate` out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from probes.clustering import (
    FloatArray,
    IntArray,
    SpreadKind,
    as_vector,
    check_level,
    cluster_index,
    deviation_quantile,
    group_table,
    resampled_totals,
    spread_of_means,
)

_SLACK = 1e-9


@dataclass(frozen=True, eq=False)
class Estimate:
    """A published number with its interval.

    >>> Estimate(0.873, 1204, 0.851, 0.893, 602)
    0.873 [0.851, 0.893] (n = 1204, 602 clusters)
    """

    value: float
    """The point estimate; NaN when no sample stands behind it."""
    n: int
    """Samples used."""
    low: float
    """Lower end of the interval; ``-inf`` when unbounded."""
    high: float
    """Upper end of the interval; ``inf`` when unbounded."""
    clusters: int | None = None
    """Independent clusters among the samples, or None when samples were taken as independent."""

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError(f"an Estimate needs n >= 0, got n = {self.n}")
        if math.isnan(self.low) or math.isnan(self.high) or self.low > self.high:
            raise ValueError(f"an Estimate needs low <= high, neither NaN; got [{self.low}, {self.high}]")

    def __repr__(self) -> str:
        clusters = "" if self.clusters is None else f", {self.clusters} clusters"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n}{clusters})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Estimate) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(tuple(self.to_dict().values()))

    def __float__(self) -> float:
        return self.value

    def to_dict(self) -> dict[str, float | int | None]:
        """Return plain JSON values: NaN and infinite ends become None.

        >>> Estimate(math.nan, 0, 0.0, 1.0).to_dict()
        {'value': None, 'n': 0, 'low': 0.0, 'high': 1.0, 'clusters': None}
        """
        return {
            "value": _finite(self.value),
            "n": self.n,
            "low": _finite(self.low),
            "high": _finite(self.high),
            "clusters": self.clusters,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Estimate":
        """Undo :meth:`to_dict`: a missing value is NaN, a missing end unbounded.

        Raises:
            ValueError: if the record has no ``value``, ``n``, ``low`` or ``high``.
        """
        missing = [name for name in ("value", "n", "low", "high") if name not in record]
        if missing:
            raise ValueError(f"an Estimate record needs {', '.join(missing)}; got the keys {sorted(record)}")
        value, low, high, clusters = (record.get(name) for name in ("value", "low", "high", "clusters"))
        return cls(
            value=math.nan if value is None else float(value),
            n=int(record["n"]),
            low=-math.inf if low is None else float(low),
            high=math.inf if high is None else float(high),
            clusters=None if clusters is None else int(clusters),
        )

    def complement(self) -> "Estimate":
        """Return the estimate of one minus this proportion.

        >>> Estimate(0.75, 8, 0.5, 1.0).complement()
        0.250 [0.000, 0.500] (n = 8)
        """
        return Estimate(1.0 - self.value, self.n, 1.0 - self.high, 1.0 - self.low, self.clusters)


def proportion(success: npt.ArrayLike, clusters: npt.ArrayLike | None = None, level: float = 0.95) -> Estimate:
    """Estimate a proportion with Wilson's interval.

    With clusters, Wilson's interval is taken at the effective sample size ``n / d``, where the design effect ``d`` is
    the cluster-robust variance over the binomial one (never below 1), and the normal quantile is widened by the ratio
    of Student's quantiles at ``clusters - 1`` and ``n - 1`` degrees of freedom (Korn and Graubard's correction). When
    all samples agree no variance can be seen, and the number of clusters is taken as the effective size. Where few
    clusters hold the rarer outcome little of it is seen: ``d`` is then drawn towards the mean cluster size, as if one
    more cluster had shown it, and the interval reaches at least as far as if all samples agreed, so that the lower end
    does not fall when the last errors go. Both corrections are ours; with one sample per cluster neither acts.

    Args:
        success: (samples,) booleans, or shares in [0, 1] where ties were shared.
        clusters: (samples,) base sample of each sample; None takes samples as independent.
        level: confidence level in (0, 1).

    Returns:
        The estimate; no samples give NaN with [0, 1].

    Raises:
        ValueError: if values are missing or outside [0, 1], or lengths differ.

    >>> proportion([True, True, True, False])
    0.750 [0.301, 0.954] (n = 4)
    >>> proportion([])
    nan [0.000, 1.000] (n = 0)
    """
    values = as_vector(success, "success")
    if values.size and (values.min() < 0.0 or values.max() > 1.0):
        raise ValueError(f"a proportion needs values in [0, 1], got {values.min():g} to {values.max():g}")
    check_level(level)
    index, count = cluster_index(clusters, values.size)
    n, shown = values.size, None if clusters is None else count
    if n == 0:
        return Estimate(math.nan, 0, 0.0, 1.0, shown)
    share = float(values.mean())
    effective = float(n) if clusters is None else _effective_size(values, index, count)
    return Estimate(share, n, *_interval(share, n, count, effective, level), shown)


def proportions(sums: npt.ArrayLike, sizes: npt.ArrayLike, level: float = 0.95) -> list[Estimate]:
    """`proportion` of many columns over the same clustered samples, from what each cluster adds up to.

    Args:
        sums: (clusters, columns) successes of each cluster.
        sizes: (clusters,) its samples, at least one.
        level: confidence level in (0, 1).

    Returns:
        An estimate for each column, as `proportion` gives it of the samples themselves.

    Raises:
        ValueError: if shapes do not fit, a size is no whole number from one on, or a sum is not from 0 to its size.

    >>> proportions([[2, 0], [1, 0]], [2, 2]) == [proportion(hits, [0, 0, 1, 1]) for hits in ([1, 1, 1, 0], [0] * 4)]
    True
    """
    totals, counts = np.asarray(sums, dtype=np.float64), as_vector(sizes, "sizes")
    check_level(level)
    if totals.ndim != 2 or totals.shape[0] != counts.size:
        raise ValueError(f"sums must be (clusters, columns) of {counts.size} clusters, got the shape {totals.shape}")
    if (counts < 1).any() or (counts % 1).any() or not ((totals >= 0) & (totals <= counts[:, None])).all():
        raise ValueError("a cluster has at least one sample, and from 0 to all of them are successes")
    return [_of_totals(column, counts, level) for column in np.ascontiguousarray(totals.T)]


def mean(
    values: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    level: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Estimate a mean with Student's interval; with clusters, from the cluster-robust variance.

    Args:
        values: (samples,) finite numbers.
        clusters: (samples,) base sample of each sample; None takes samples as independent.
        level: confidence level in (0, 1).
        bounds: what the mean cannot leave; the interval is cut there.

    Returns:
        The estimate; no samples give NaN, and fewer than two clusters give the bounds as the interval.

    Raises:
        ValueError: if values are missing, or lengths differ.

    >>> mean([1.0, 2.0, 3.0, 4.0])
    2.500 [0.446, 4.554] (n = 4)
    """
    numbers = as_vector(values, "values")
    check_level(level)
    index, count = cluster_index(clusters, numbers.size)
    shown = None if clusters is None else count
    centre = float(numbers.mean()) if numbers.size else math.nan
    if count < 2:
        return Estimate(centre, numbers.size, *bounds, shown)
    width = float(special.stdtrit(count - 1, 0.5 + level / 2)) * math.sqrt(_robust_variance(numbers, index, count))
    low, high = np.clip([centre - width, centre + width], *bounds)
    return Estimate(centre, numbers.size, float(low), float(high), shown)


def median(values: npt.ArrayLike, level: float = 0.95) -> Estimate:
    """Estimate a median with the exact interval that inverts the sign test; no shape of the spread is assumed.

    It lies between the k-th smallest and the k-th largest value, for the largest k at which a fair coin shows fewer
    than k heads in n throws with probability ``(1 - level) / 2`` at most.

    Args:
        values: (samples,) finite numbers, independent of one another.
        level: confidence level in (0, 1).

    Returns:
        The estimate; no samples give NaN, and so few that no k does (5 at 95 %) an interval without ends.

    Raises:
        ValueError: if values are missing.

    >>> median([5.0, 1.0, 2.0, 4.0, 3.0, 90.0])
    3.500 [1.000, 90.000] (n = 6)
    """
    numbers = np.sort(as_vector(values, "values"))
    check_level(level)
    n = numbers.size
    centre = float(np.median(numbers)) if n else math.nan
    outside = special.bdtr(np.arange(n), n, 0.5) <= (1.0 - level) / 2
    k = int(outside.sum())
    if k == 0:
        return Estimate(centre, n, -math.inf, math.inf)
    return Estimate(centre, n, float(numbers[k - 1]), float(numbers[n - k]))


def difference(
    left: npt.ArrayLike, right: npt.ArrayLike, clusters: npt.ArrayLike | None = None, level: float = 0.95
) -> Estimate:
    """Estimate the mean of ``left - right`` over paired samples, with the interval of :func:`mean`.

    The interval of a difference of booleans is cut at -1 and 1, and is [-1, 1] with fewer than two clusters.

    Args:
        left: (samples,) numbers or booleans.
        right: (samples,) numbers or booleans of the same samples.
        clusters: (samples,) base sample of each sample; None takes samples as independent.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if values are missing, or lengths differ.

    >>> difference([True, True, True, False], [False, True, False, False]).value
    0.5
    """
    first, second = as_vector(left, "left"), as_vector(right, "right")
    if first.size != second.size:
        raise ValueError(f"a paired difference needs equal lengths, got {first.size} and {second.size}")
    flags = all(np.asarray(side).dtype == np.bool_ for side in (left, right))
    return mean(first - second, clusters, level, (-1.0, 1.0) if flags else (-math.inf, math.inf))


def spread(
    values_by_group: Sequence[npt.ArrayLike],
    clusters: Sequence[npt.ArrayLike] | None = None,
    *,
    kind: SpreadKind = "range",
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Estimate how far group means lie apart, with a bootstrap over clusters.

    A spread of noisy means is biased upwards, so resampled spreads miss a true spread of zero. Instead the spread of
    the resampled *deviations* (draw minus estimate) is taken: by the triangle inequality the true spread lies no
    farther from the estimate than the spread of the true deviations. Exact at zero spread, wide at large ones;
    groups in which all samples agree show no deviation, and so no width.

    Args:
        values_by_group: one (samples,) array for each group, at least two groups.
        clusters: one (samples,) array for each group; a cluster may stand in many groups and is drawn as a whole.
            None takes every sample as its own cluster.
        kind: ``"range"`` is largest minus smallest group mean; ``"std"`` is the population standard deviation of the
            group means.
        resamples: bootstrap draws; draws that leave a group empty are not used.
        seed: of the draws.
        level: confidence level in (0, 1).

    Returns:
        The estimate; NaN with [0, inf] if a group has no samples, and [0, inf] if half of the draws left a group empty.

    Raises:
        ValueError: if fewer than two groups are given, values are missing, or lengths differ.

    >>> spread([[1, 1, 1, 1], [0, 0, 0, 0]]).value
    1.0
    """
    sums, counts = group_table(values_by_group, clusters)
    total, shown = int(counts.sum()), None if clusters is None else len(sums)
    value = float(spread_of_means(sums.sum(0), counts.sum(0), kind))
    if math.isnan(value):
        return Estimate(value, total, 0.0, math.inf, shown)
    centre = sums.sum(0) / counts.sum(0)
    draws = [
        spread_of_means(drawn - centre * size, size, kind)
        for drawn, size in resampled_totals(sums, counts, resamples, seed)
    ]
    reach = deviation_quantile(np.concatenate(draws), level)
    return Estimate(value, total, max(0.0, value - reach), value + reach, shown)


def _effective_size(values: FloatArray, index: IntArray, count: int) -> float:
    share, n = float(values.mean()), values.size
    if n == 1 or count == 1 or share in (0.0, 1.0):
        return float(count)
    sizes = np.bincount(index, minlength=count)
    sums = np.bincount(index, weights=values, minlength=count).astype(np.float64)
    return _after_design(share, sums, sizes, _robust_variance(values, index, count))


def _of_totals(sums: FloatArray, sizes: FloatArray, level: float) -> Estimate:
    n, count = int(sizes.sum()), sizes.size
    if n == 0:
        return Estimate(math.nan, 0, 0.0, 1.0, count)
    share = float(sums.sum()) / n
    effective = float(count)
    if n > 1 and count > 1 and 0.0 < share < 1.0:
        variance = float(count / (count - 1) * ((sums - share * sizes) ** 2).sum() / n**2)
        effective = _after_design(share, sums, sizes, variance)
    return Estimate(share, n, *_interval(share, n, count, effective, level), count)


def _after_design(share: float, sums: FloatArray, sizes: FloatArray | IntArray, robust: float) -> float:
    """Samples over the design effect, drawn towards the mean cluster size where few clusters hold the rarer outcome."""
    n, count = float(sizes.sum()), len(sizes)
    seen = max(1.0, robust / (share * (1.0 - share) / (n - 1)))
    mixed = min(int((sums < sizes - _SLACK).sum()), int((sums > _SLACK).sum()))
    return n / max(seen, (mixed * seen + n / count) / (mixed + 1))


def _interval(share: float, n: int, count: int, effective: float, level: float) -> tuple[float, float]:
    """Wilson's interval at the effective size, its quantile and its reach corrected for clusters."""
    critical = float(special.ndtri(0.5 + level / 2))
    if 1 < count < n:
        critical *= float(special.stdtrit(count - 1, 0.5 + level / 2) / special.stdtrit(n - 1, 0.5 + level / 2))
    low, high = _wilson(share, effective, critical)
    if count < n:
        agreed, _ = _wilson(1.0, float(count), critical)
        low, high = min(low, agreed), max(high, 1.0 - agreed)
    return low, high


def _robust_variance(values: FloatArray, index: IntArray, count: int) -> float:
    residuals = np.bincount(index, weights=values - values.mean(), minlength=count)
    return float(count / (count - 1) * (residuals**2).sum() / values.size**2)


def _wilson(share: float, size: float, critical: float) -> tuple[float, float]:
    squared = critical**2
    centre = (share + squared / (2 * size)) / (1 + squared / size)
    width = critical / (1 + squared / size) * math.sqrt(share * (1 - share) / size + squared / (4 * size**2))
    return max(0.0, min(centre - width, share)), min(1.0, max(centre + width, share))


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
