"""Does a reward model pay for length? Partial correlation and slope at fixed quality.

Arrays in, estimates out; pairs of like length are in :mod:`rewardmodels.rulers`. Imports no torch.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from probes.clustering import FloatArray, as_vector, check_level, cluster_index, resampled_totals
from probes.estimates import Estimate

_TINY = 1e-12


class LengthCorrelations(NamedTuple):
    """Correlation of reward and length, with more and more held fixed."""

    total: Estimate
    """Over all responses."""
    at_fixed_quality: Estimate
    """Good and bad responses each among themselves."""
    within_prompt: Estimate
    """The same, and only responses to one prompt compared."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: estimate.to_dict() for name, estimate in self._asdict().items()}


def length_correlations(
    reward: npt.ArrayLike,
    length: npt.ArrayLike,
    quality: npt.ArrayLike,
    prompts: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> LengthCorrelations:
    """Estimate the three correlations, each by :func:`partial_correlation`, with intervals over clusters.

    Args:
        reward: (responses,) scores by the reward model.
        length: (responses,) lengths, or their logarithms.
        quality: (responses,) or (responses, controls) what to hold fixed.
        prompts: (responses,) label of each response's prompt.
        clusters: (responses,) what responses share; None is the prompt.
        resamples: bootstrap draws.
        seed: of the draws.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if values are missing, or lengths differ.
    """
    shared = prompts if clusters is None else clusters
    settings: dict[str, Any] = {"resamples": resamples, "seed": seed, "level": level}
    return LengthCorrelations(
        partial_correlation(reward, length, None, shared, **settings),
        partial_correlation(reward, length, quality, shared, **settings),
        partial_correlation(reward, length, quality, shared, within=prompts, **settings),
    )


def partial_correlation(
    reward: npt.ArrayLike,
    length: npt.ArrayLike,
    quality: npt.ArrayLike | None = None,
    clusters: npt.ArrayLike | None = None,
    *,
    within: npt.ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Estimate the correlation of reward and length with quality held fixed.

    What quality explains linearly is taken off both, and the rest correlated. Without clusters the interval is
    Fisher's, at ``n - 3`` less the controls; with clusters it is the percentile interval of a bootstrap over them.

    Args:
        reward: (responses,) scores by the reward model.
        length: (responses,) lengths, or their logarithms.
        quality: (responses,) or (responses, controls) what to hold fixed; None is nothing.
        clusters: (responses,) what responses share; None takes responses as independent.
        within: (responses,) labels, such as prompts, inside which alone responses are compared.
        resamples: bootstrap draws.
        seed: of the draws.
        level: confidence level in (0, 1).

    Returns:
        The estimate; NaN with [-1, 1] where reward or length does not vary at fixed quality.

    Raises:
        ValueError: if values are missing, or lengths differ.

    >>> partial_correlation([1.0, 2.0, 3.0, 4.1], [1.0, 2.0, 3.0, 4.0]).value > 0.99
    True
    """
    check_level(level)
    table, controls, groups = _table(reward, length, quality, within)
    index, count = cluster_index(clusters, len(table))
    shown = None if clusters is None else count
    value = float(_partial((table.T @ table)[None])[0])
    if math.isnan(value):
        return Estimate(value, len(table), -1.0, 1.0, shown)
    if clusters is None:
        freedom = len(table) - controls - groups - 2
        if freedom < 1 or abs(value) >= 1.0:
            return Estimate(value, len(table), -1.0, 1.0)
        reach = float(special.ndtri(0.5 + level / 2)) / math.sqrt(freedom)
        centre = math.atanh(value)
        return Estimate(value, len(table), math.tanh(centre - reach), math.tanh(centre + reach))
    low, high = _bootstrapped(table, index, count, resamples, seed, level)
    return Estimate(value, len(table), min(low, value), max(high, value), shown)


def length_slope(
    reward: npt.ArrayLike,
    length: npt.ArrayLike,
    quality: npt.ArrayLike | None = None,
    clusters: npt.ArrayLike | None = None,
    *,
    within: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """Estimate how much reward a doubling of length is worth at fixed quality, by least squares.

    The interval is Student's, from the sandwich variance that clusters (or, without them, unequal variances) ask for.

    Args:
        reward: (responses,) scores by the reward model.
        length: (responses,) lengths, > 0.
        quality: (responses,) or (responses, controls) what to hold fixed; None is nothing.
        clusters: (responses,) what responses share; None takes responses as independent.
        within: (responses,) labels, such as prompts, inside which alone responses are compared.
        level: confidence level in (0, 1).

    Returns:
        The estimate; NaN with an unbounded interval where length does not vary at fixed quality.

    Raises:
        ValueError: if values are missing, a length is not positive, or lengths differ.

    >>> round(length_slope([1.0, 2.0, 3.0, 4.5], [10, 20, 40, 80]).value, 3)
    1.15
    """
    check_level(level)
    lengths = as_vector(length, "length")
    if lengths.size and lengths.min() <= 0:
        raise ValueError(f"a slope over the logarithm of length needs lengths > 0, got {lengths.min():g}")
    table, controls, groups = _table(reward, np.log2(lengths), quality, within)
    index, count = cluster_index(clusters, len(table))
    shown = None if clusters is None else count
    target, cause = _residuals(table[:, :2], table[:, 2:]).T
    strength = float(cause @ cause)
    if strength <= _TINY * max(1.0, float(table[:, 1] @ table[:, 1])):
        return Estimate(math.nan, len(table), -math.inf, math.inf, shown)
    slope = float(cause @ target) / strength
    freedom = count - 1 if clusters is not None else len(table) - controls - groups - 1
    if freedom < 1:
        return Estimate(slope, len(table), -math.inf, math.inf, shown)
    scores = np.bincount(index, weights=cause * (target - slope * cause), minlength=count)
    error = math.sqrt(float(scores @ scores) * count / freedom) / strength
    reach = float(special.stdtrit(freedom, 0.5 + level / 2)) * error
    return Estimate(slope, len(table), slope - reach, slope + reach, shown)


def _table(
    reward: npt.ArrayLike, length: npt.ArrayLike, quality: npt.ArrayLike | None, within: npt.ArrayLike | None
) -> tuple[FloatArray, int, int]:
    """Columns reward, length, controls, centred (inside labels); the number of controls and of labels."""
    first, second = as_vector(reward, "reward"), as_vector(length, "length")
    columns = [first, second]
    if quality is not None:
        held = np.asarray(quality, dtype=np.float64)
        held = held[:, None] if held.ndim == 1 else held
        if held.ndim != 2:
            raise ValueError(f"quality must have the shape (responses,) or (responses, controls), got {held.shape}")
        columns += [as_vector(held[:, place], "quality") for place in range(held.shape[1])]
    if len({column.size for column in columns}) > 1:
        raise ValueError(f"reward, length and quality differ in length: {[column.size for column in columns]}")
    table = np.stack(columns, axis=1)
    index, groups = (np.zeros(len(table), dtype=np.int64), 1) if within is None else cluster_index(within, len(table))
    sizes = np.bincount(index, minlength=groups).clip(min=1)
    for place in range(table.shape[1]):
        table[:, place] -= (np.bincount(index, weights=table[:, place], minlength=groups) / sizes)[index]
    return table, table.shape[1] - 2, groups


def _residuals(values: FloatArray, controls: FloatArray) -> FloatArray:
    if controls.shape[1] == 0:
        return values
    return np.asarray(values - controls @ np.linalg.lstsq(controls, values, rcond=None)[0], dtype=np.float64)


def _partial(products: FloatArray) -> FloatArray:
    """Partial correlations of the first two columns from (draws, columns, columns) centred cross-products."""
    controls = products[:, 2:, 2:]
    crossed = products[:, 2:, :2]
    rest = products[:, :2, :2] - np.swapaxes(crossed, 1, 2) @ np.linalg.pinv(controls, hermitian=True) @ crossed
    spread = rest[:, 0, 0] * rest[:, 1, 1]
    seen = (rest[:, 0, 0] > _TINY * products[:, 0, 0]) & (rest[:, 1, 1] > _TINY * products[:, 1, 1])
    found = np.divide(rest[:, 0, 1], np.sqrt(spread, where=seen, out=np.ones_like(spread)))
    return np.where(seen, np.clip(found, -1.0, 1.0), math.nan)


def _bootstrapped(
    table: FloatArray, index: npt.NDArray[np.int64], count: int, resamples: int, seed: int, level: float
) -> tuple[float, float]:
    """Percentile interval over clusters; the means move with every draw, as an intercept does."""
    width = table.shape[1]
    extended = np.column_stack([table, np.ones(len(table))])
    products = np.zeros((count, width + 1, width + 1))
    np.add.at(products, index, extended[:, :, None] * extended[:, None, :])
    sums = products.reshape(count, -1)
    draws = []
    for drawn, _ in resampled_totals(sums, np.ones((count, 1)), resamples, seed):
        square = drawn.reshape(-1, width + 1, width + 1)
        means = square[:, :-1, -1] / square[:, -1:, -1]
        centred = square[:, :-1, :-1] - square[:, -1:, -1:] * means[:, :, None] * means[:, None, :]
        draws.append(_partial(centred))
    values = np.concatenate(draws)
    usable = values[~np.isnan(values)]
    if count < 2 or usable.size <= values.size / 2:
        return -1.0, 1.0
    low, high = np.quantile(usable, [0.5 - level / 2, 0.5 + level / 2]).tolist()
    return low, high
