"""How evenly one layer's experts are called, with intervals over samples.

Arrays in, numbers out: nothing here knows a model, and no torch is imported.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from probes.clustering import FloatArray, cluster_index, resampled_totals
from probes.errors import InputError
from probes.estimates import Estimate
from probes.experts.load import as_choices, calls_by_sample, largest_over_mean, load_entropy, load_gini


class Evenness(NamedTuple):
    """How evenly the experts of one layer are called."""

    entropy: Estimate
    """`probes.experts.load.load_entropy`: 1 where all are called alike."""
    gini: Estimate
    """`probes.experts.load.load_gini`: 0 where all are called alike."""
    largest_over_mean: Estimate
    """`probes.experts.load.largest_over_mean`: 1 where all are called alike."""


def evenness(
    indices: npt.ArrayLike,
    experts: int,
    samples: npt.ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Evenness:
    """Evenness of one layer's load, with the percentile intervals of a bootstrap over samples.

    Of few samples the numbers themselves look less even than they are, and draws of them even less: an interval is
    stretched to hold its value, and says how far it may move with other samples.

    Args:
        indices: (tokens, k): the experts that each token goes to.
        experts: Number of experts.
        samples: (tokens,): the sample of each token; None takes tokens as independent.
        resamples: Draws of the bootstrap.
        seed: Of the draws.

    Raises:
        InputError: If indices are of no such form, an index is no expert, or there are no tokens.
        ValueError: If a sample's label is missing.

    >>> evenness([[0, 1], [2, 3], [0, 2], [1, 3]], 4).entropy.value
    1.0
    """
    chosen = as_choices(indices, experts)
    if chosen.ndim != 2 or not len(chosen):
        raise InputError(f"evenness is of one layer's tokens, (tokens, k), and the indices are {chosen.shape}")
    index, clusters = cluster_index(samples, len(chosen))
    sums = calls_by_sample(chosen, experts, index, clusters)
    draws = np.concatenate([drawn for drawn, _ in resampled_totals(sums, np.ones_like(sums), resamples, seed)])
    shown = None if samples is None else clusters

    def estimate(measure: Callable[[npt.ArrayLike], FloatArray]) -> Estimate:
        value = float(measure(sums.sum(axis=0)))
        if clusters < 2:
            return Estimate(value, len(chosen), -np.inf, np.inf, shown)
        low, high = np.quantile(measure(draws), [0.025, 0.975])
        return Estimate(value, len(chosen), min(float(low), value), max(float(high), value), shown)

    return Evenness(estimate(load_entropy), estimate(load_gini), estimate(largest_over_mean))
