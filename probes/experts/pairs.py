"""Which two experts of a layer go together most, told without flattering them.

The largest of many ratios is large by chance alone. So the pair is chosen on half of the samples, and its ratio is that
of the other half. Arrays in, numbers out: nothing here knows a model, and no torch is imported.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from probes.clustering import FloatArray, cluster_index, resampled_totals
from probes.errors import InputError
from probes.estimates import Estimate
from probes.experts.chance import pair_chance
from probes.experts.load import as_choices, called, co_activation

_BLOCK = 2**21
"""Numbers that chance of many draws takes at once."""
COMMON = 10.0
"""Tokens that two experts have to be expected to share before their pair can be chosen."""


class Pair(NamedTuple):
    """Two experts of one layer."""

    experts: tuple[int, int]
    """Ascending."""
    ratio: Estimate
    """`CoActivation.ratio` of the samples that did not choose the pair: 1 for experts that go together as their loads
    have it."""


def strongest_pair(
    indices: npt.ArrayLike,
    experts: int,
    samples: npt.ArrayLike,
    common: float = COMMON,
    resamples: int = 1000,
    seed: int = 0,
) -> Pair | None:
    """The pair of experts that one layer's tokens go to together most often for their loads.

    Half of the samples, drawn at random, choose it; the interval is the percentile one of a bootstrap over the others
    (the halves are our own).

    Args:
        indices: (tokens, k): the experts that each token goes to, k at least 2.
        experts: Number of experts.
        samples: (tokens,): the sample of each token.
        common: Tokens that a pair has to be expected to share among those that choose, so that rare ones do not win.
        resamples: Draws of the bootstrap.
        seed: Of the halves and the draws.

    Returns:
        The pair; None where no pair is common enough, or fewer than four samples are there.

    Raises:
        InputError: As `co_activation`, or if the indices are not of one layer.
        ValueError: If a sample's label is missing.
    """
    chosen = as_choices(indices, experts)
    if chosen.ndim != 2:
        raise InputError(f"a pair is of one layer's tokens, (tokens, k), and the indices are {chosen.shape}")
    index, clusters = cluster_index(samples, len(chosen))
    if clusters < 4:
        return None
    choosing = np.random.default_rng(seed).permutation(clusters) < clusters // 2
    mine = choosing[index]
    found = co_activation(chosen[mine], experts)
    likely = np.where(np.nan_to_num(found.expected) >= common, found.ratio, -np.inf)
    first, second = sorted(divmod(int(likely.argmax()), experts))
    if not np.isfinite(likely[first, second]):
        return None
    return Pair((first, second), _ratio(chosen[~mine], experts, index[~mine], (first, second), resamples, seed))


def _ratio(
    chosen: npt.NDArray[np.int64],
    experts: int,
    samples: npt.NDArray[np.int64],
    pair: tuple[int, int],
    resamples: int,
    seed: int,
) -> Estimate:
    """The pair's ratio, from sums by sample: tokens to each expert, tokens to both, and tokens."""
    hits = called(chosen, experts)
    both = hits[:, pair[0]] & hits[:, pair[1]]
    rows = np.concatenate([hits, both[:, None], np.ones((len(hits), 1), dtype=bool)], axis=1)
    index, clusters = cluster_index(samples, len(rows))
    sums = np.zeros((clusters, experts + 2))
    np.add.at(sums, index, rows.astype(np.float64))

    def ratio(totals: FloatArray) -> FloatArray:
        loads = totals[..., :experts] / totals[..., -1:]
        expected = totals[..., -1] * pair_chance(loads, chosen.shape[1], pair)
        return np.asarray(np.divide(totals[..., -2], expected, out=np.full_like(expected, np.nan), where=expected > 0))

    value = float(ratio(sums.sum(axis=0)))
    drawn = np.concatenate([totals for totals, _ in resampled_totals(sums, np.ones_like(sums), resamples, seed)])
    blocks = np.array_split(drawn, min(len(drawn), drawn.size * (chosen.shape[1] + 1) // _BLOCK + 1))
    draws = np.concatenate([ratio(block) for block in blocks])
    if np.isnan(value) or np.isnan(draws).all():
        return Estimate(value, len(rows), -np.inf, np.inf, clusters)
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Estimate(value, len(rows), min(float(low), value), max(float(high), value), clusters)
