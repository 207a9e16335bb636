"""Best of N: how good is the response that a reward model picks out of N, for every N up to the pool?

One pool of responses a prompt gives an unbiased value for every N at once. Imports no torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from probes.clustering import FloatArray, as_vector
from probes.estimates import Estimate, mean


@dataclass(frozen=True)
class BestOfNCurve:
    """Mean quality of the picked response, by N."""

    sizes: tuple[int, ...]
    """The N, rising."""
    quality: tuple[Estimate, ...]
    """Mean over prompts of the expected quality of the pick."""
    ceiling: tuple[float, ...]
    """The same for a reward model that picks by quality itself."""
    kl_bound: tuple[float, ...]
    """``log N - (N - 1) / N``: an upper bound on the KL divergence of best-of-N from the policy, in nats."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "sizes": list(self.sizes),
            "quality": [estimate.to_dict() for estimate in self.quality],
            "ceiling": list(self.ceiling),
            "kl_bound": list(self.kl_bound),
        }


def expected_best(rewards: npt.ArrayLike, quality: npt.ArrayLike, size: int) -> float:
    """Return the expected quality of the response with the highest reward among ``size`` drawn without replacement.

    The mean over all subsets of the pool, in closed form: the response of rank i (from 1) is the best of
    ``C(i - 1, N - 1)`` of the ``C(M, N)`` subsets. Responses with one reward share what they win.

    Args:
        rewards: (pool,) scores by the reward model.
        quality: (pool,) what the responses are worth.
        size: N, from 1 to the pool's size.

    Raises:
        ValueError: if lengths differ, values are missing, or ``size`` is outside 1 to the pool's size.

    >>> round(expected_best([1.0, 2.0, 3.0], [0.0, 1.0, 0.0], 2), 6)
    0.333333
    """
    return float(_expected(as_vector(rewards, "rewards"), as_vector(quality, "quality"), [size])[0])


def best_of_n(
    rewards: Sequence[npt.ArrayLike],
    quality: Sequence[npt.ArrayLike],
    sizes: Sequence[int] | None = None,
    clusters: npt.ArrayLike | None = None,
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    level: float = 0.95,
) -> BestOfNCurve:
    """Estimate the best-of-N curve from one pool of responses for every prompt.

    Args:
        rewards: for each prompt the (pool,) scores by the reward model; pools may differ in size.
        quality: for each prompt the (pool,) worth of the same responses.
        sizes: the N; None is 1, 2, 4, ... up to the smallest pool.
        clusters: (prompts,) what prompts share; None takes prompts as independent.
        bounds: what quality cannot leave.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if there is no prompt, numbers differ, or a size is larger than a pool or below 1.

    >>> best_of_n([[1, 2, 3, 4]], [[0, 0, 1, 1]]).sizes
    (1, 2, 4)
    """
    pools = [as_vector(pool, f"rewards of prompt {number}") for number, pool in enumerate(rewards)]
    worth = [as_vector(pool, f"quality of prompt {number}") for number, pool in enumerate(quality)]
    if not pools or len(pools) != len(worth):
        raise ValueError(f"best of N needs rewards and quality of the same prompts, got {len(pools)} and {len(worth)}")
    smallest = min(pool.size for pool in pools)
    if sizes is None:
        sizes = [2**power for power in range(max(smallest, 1).bit_length())]
    wanted = sorted(set(sizes))
    if not wanted:
        raise ValueError("best of N needs at least one N")
    table = np.stack([_expected(pool, own, wanted) for pool, own in zip(pools, worth, strict=True)])
    ideal = np.stack([_expected(own, own, wanted) for own in worth])
    return BestOfNCurve(
        sizes=tuple(wanted),
        quality=tuple(mean(table[:, place], clusters, level, bounds) for place in range(len(wanted))),
        ceiling=tuple(float(value) for value in ideal.mean(0)),
        kl_bound=tuple(kl_upper_bound(size) for size in wanted),
    )


def kl_upper_bound(size: int) -> float:
    """Return ``log N - (N - 1) / N``, in nats: reached where no two responses have one reward, never exceeded.

    >>> kl_upper_bound(1), round(kl_upper_bound(64), 3)
    (0.0, 3.175)
    """
    if size < 1:
        raise ValueError(f"best of N needs N >= 1, got {size}")
    return math.log(size) - (size - 1) / size


def _expected(rewards: FloatArray, quality: FloatArray, sizes: Sequence[int]) -> FloatArray:
    pool = rewards.size
    if pool == 0 or quality.size != pool:
        raise ValueError(f"rewards and quality must hold the same responses, got {pool} and {quality.size}")
    if not 1 <= min(sizes) <= max(sizes) <= pool:
        raise ValueError(f"N must lie in 1 to the pool's {pool} responses, got {min(sizes)} to {max(sizes)}")
    _, rank, count = np.unique(rewards, return_inverse=True, return_counts=True)
    worth = np.bincount(rank, weights=quality) / count
    upto = np.cumsum(count)
    found = []
    for size in sizes:
        # Share of subsets whose best reward is at most each level; steps of it are the chances of each level.
        below = np.exp(_log_choose(upto, size) - _log_choose(np.array([pool]), size))
        found.append(float(np.diff(below, prepend=0.0) @ worth))
    return np.array(found)


def _log_choose(total: npt.NDArray[np.int64], size: int) -> FloatArray:
    """Logarithm of the binomial coefficient; minus infinity where ``size`` exceeds ``total``."""
    enough = np.maximum(total, size).astype(np.float64)
    value = special.gammaln(enough + 1) - special.gammaln(size + 1) - special.gammaln(enough - size + 1)
    return np.where(total >= size, value, -np.inf)
