"""How far two checkpoints of one training run route the same tokens alike.

Experts are matched by their number, which keeps its meaning along one run. Between two runs it has none: there even the
same solution may stand in another order, and overlap says nothing. Arrays in, numbers out; no torch is imported.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from probes.clustering import FloatArray, cluster_index, resampled_totals
from probes.errors import InputError
from probes.estimates import Estimate, mean
from probes.experts.load import as_choices, called, expert_load
from probes.experts.records import Routing
from probes.experts.rules import IntArray


@dataclass(frozen=True)
class Stability:
    """How alike two checkpoints route the tokens of one layer."""

    overlap: Estimate
    """Mean share of a token's k experts that are the same: 1 for the same routing (OLMoE's router saturation, as we
    recall it)."""
    overlap_floor: float
    """Expected overlap of k experts drawn at random twice: k / experts."""
    overlap_floor_of_loads: float
    """The same of two routings with these loads that have nothing to do with each other: sum of both loads' products
    over k. Above `overlap_floor` where both prefer the same experts whatever the token."""
    jaccard: Estimate
    """Mean of experts in both over experts in either."""
    jaccard_floor: float
    """Expected Jaccard index of k experts drawn at random twice."""
    load_correlation: Estimate
    """Pearson correlation of the two loads over experts; NaN with [-1, 1] where a load is the same for all experts."""


def stability(
    first: npt.ArrayLike, second: npt.ArrayLike, experts: int, samples: npt.ArrayLike | None = None
) -> list[Stability]:
    """How alike two checkpoints of one training run route the same tokens, layer by layer.

    Args:
        first: (layers, tokens, k): experts that each token goes to in one checkpoint.
        second: The same in another.
        experts: Number of experts.
        samples: (tokens,): the sample of each token; None takes tokens as independent.

    Raises:
        InputError: If the two are not of the same layers, tokens and k, an index is no expert, or there are no tokens.
        ValueError: As `probes.estimates.mean`.
    """
    before, after = as_choices(first, experts), as_choices(second, experts)
    if before.shape != after.shape or before.ndim != 3:
        raise InputError(
            f"two checkpoints are compared on the same layers, tokens and k: got {before.shape} and {after.shape}, "
            "and (layers, tokens, k) is needed twice: record both with the same inputs and layers, and of unlike "
            "models compare loads (probes.experts.load)"
        )
    return [_stability(*pair, experts, samples) for pair in zip(before, after, strict=True)]


def checkpoint_stability(first: Routing, second: Routing) -> dict[int, Stability]:
    """How alike two checkpoints of one training run route the same tokens, by true layer index; clustered by sample.

    Args:
        first: What one checkpoint's routers did.
        second: The same of another, with the same inputs: questions and given answers.

    Raises:
        InputError: If the two are not of the same layers, experts and k, or not of the same tokens.
    """
    forms = [f"layers {list(each.layers)} with {each.k} of {each.experts} experts" for each in (first, second)]
    if forms[0] != forms[1]:
        raise InputError(
            f"checkpoints of one run have the same shape, and these are {forms[0]} and {forms[1]}: record layers that "
            "both have (layers=), and of unlike models compare loads (probes.experts.load)"
        )
    labels = [np.stack([each.samples, each.columns, each.images]) for each in (first, second)]
    if not np.array_equal(labels[0], labels[1]):
        raise InputError(
            f"checkpoints are compared on the same tokens, and these routings are of {labels[0].shape[1]} and "
            f"{labels[1].shape[1]} tokens of other samples, columns or images: encode the same questions with the same "
            "answers for both, in the same batches, as padding moves columns"
        )
    found = stability(first.indices, second.indices, first.experts, first.samples)
    return dict(zip(first.layers, found, strict=True))


def overlap_counts(first: npt.ArrayLike, second: npt.ArrayLike, experts: int) -> IntArray:
    """How many experts each token has in both routings, (..., tokens).

    Raises:
        InputError: As `stability`.

    >>> overlap_counts([[0, 1], [2, 3]], [[1, 0], [2, 0]], 4)
    array([2, 1])
    """
    before, after = as_choices(first, experts), as_choices(second, experts)
    if before.shape != after.shape:
        raise InputError(f"routings of unlike form are compared: {before.shape} and {after.shape}")
    return np.asarray((called(before, experts) & called(after, experts)).sum(axis=-1))


def jaccard_floor(k: int, experts: int) -> float:
    """Expected Jaccard index of two sets of k experts drawn at random (hypergeometric).

    >>> jaccard_floor(1, 4)
    0.25
    """
    shared = np.arange(max(0, 2 * k - experts), k + 1)
    chances = special.comb(k, shared) * special.comb(experts - k, k - shared) / special.comb(experts, k)
    return float((chances * shared / (2 * k - shared)).sum())


def _stability(before: IntArray, after: IntArray, experts: int, samples: npt.ArrayLike | None) -> Stability:
    k = before.shape[-1]
    loads = expert_load(before, experts), expert_load(after, experts)
    shared = overlap_counts(before, after, experts)
    return Stability(
        overlap=mean(shared / k, samples, bounds=(0.0, 1.0)),
        overlap_floor=k / experts,
        overlap_floor_of_loads=float((loads[0] * loads[1]).sum() / k),
        jaccard=mean(shared / (2 * k - shared), samples, bounds=(0.0, 1.0)),
        jaccard_floor=jaccard_floor(k, experts),
        load_correlation=_load_correlation(before, after, experts, samples),
    )


def _load_correlation(
    before: IntArray, after: IntArray, experts: int, samples: npt.ArrayLike | None, resamples: int = 1000
) -> Estimate:
    """With the percentile interval of a bootstrap over samples."""
    hits = np.concatenate([called(before, experts), called(after, experts)], axis=-1).astype(np.float64)
    index, clusters = cluster_index(samples, len(hits))
    sums = np.zeros((clusters, 2 * experts))
    np.add.at(sums, index, hits)
    shown = None if samples is None else clusters
    value = float(_correlation(sums.sum(axis=0), experts))
    draws = np.concatenate(
        [_correlation(drawn, experts) for drawn, _ in resampled_totals(sums, np.ones_like(sums), resamples, seed=0)]
    )
    if math.isnan(value) or clusters < 2 or np.isnan(draws).all():
        return Estimate(value, len(hits), -1.0, 1.0, shown)
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Estimate(value, len(hits), min(float(low), value), max(float(high), value), shown)


def _correlation(counts: FloatArray, experts: int) -> FloatArray:
    """Correlation between the first and the second half of the last axis; NaN where one half is constant."""
    halves = [counts[..., :experts], counts[..., experts:]]
    left, right = (half - half.mean(axis=-1, keepdims=True) for half in halves)
    scale = np.sqrt((left**2).sum(axis=-1) * (right**2).sum(axis=-1))
    product = (left * right).sum(axis=-1)
    return np.asarray(np.divide(product, scale, out=np.full_like(product, np.nan), where=scale > 0))
