"""How evenly tokens go to experts: load by expert and by kind of token, and which experts are called together.

Arrays in, numbers out: nothing here knows a model, and no torch is imported.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from probes.clustering import FloatArray, cluster_index
from probes.errors import InputError
from probes.estimates import Estimate, proportion, proportions
from probes.experts.chance import pair_chances
from probes.experts.rules import IntArray


def expert_load(indices: npt.ArrayLike, experts: int) -> FloatArray:
    """Share of tokens that go to each expert, `ExpertLoad(E, D) = N_ED / N_D` (dots.llm1 technical report).

    Args:
        indices: (..., tokens, k): the experts that each token goes to.
        experts: Number of experts.

    Returns:
        (..., experts) in [0, 1]; sums to k. Where all are called alike each is k / experts.

    Raises:
        InputError: If an index is no expert, a token names one twice, or there are no tokens.

    >>> expert_load([[0, 1], [0, 2]], 4)
    array([1. , 0.5, 0.5, 0. ])
    """
    chosen = as_choices(indices, experts)
    if not chosen.shape[-2]:
        raise InputError("a load is a share of tokens, and there are none")
    return np.asarray(counts(chosen, experts) / chosen.shape[-2])


def load_by_label(
    indices: npt.ArrayLike, labels: npt.ArrayLike, experts: int
) -> tuple[npt.NDArray[np.generic], FloatArray]:
    """The load of each kind of token.

    Args:
        indices: (..., tokens, k).
        labels: (tokens,): the kind of each token: its domain, its modality, or its image's number.
        experts: Number of experts.

    Returns:
        The different labels in order, and (labels, ..., experts).

    Raises:
        InputError: As `expert_load`, or if labels and tokens differ in number.
    """
    chosen, kinds = as_choices(indices, experts), np.asarray(labels)
    if kinds.shape != (chosen.shape[-2],):
        raise InputError(f"{chosen.shape[-2]} tokens need as many labels, and they are {kinds.shape}")
    names = np.unique(kinds)
    return names, np.stack([expert_load(chosen[..., kinds == name, :], experts) for name in names])


def load_estimates(indices: npt.ArrayLike, experts: int, samples: npt.ArrayLike | None = None) -> list[Estimate]:
    """The load of each expert of one layer with its interval.

    Args:
        indices: (tokens, k).
        experts: Number of experts.
        samples: (tokens,): the sample of each token, whose tokens go together; None takes tokens as independent.

    Raises:
        InputError: As `expert_load`.
        ValueError: As `probes.estimates.proportion`.
    """
    chosen = as_choices(indices, experts)
    if chosen.ndim != 2:
        raise InputError(f"loads with intervals are of one layer, (tokens, k), and the indices are {chosen.shape}")
    if samples is None:
        return [proportion(column) for column in called(chosen, experts).T]
    index, clusters = cluster_index(samples, len(chosen))
    return proportions(calls_by_sample(chosen, experts, index, clusters), np.bincount(index, minlength=clusters))


def load_entropy(load: npt.ArrayLike) -> FloatArray:
    """Entropy of a load over that of an even one, (...): 1 where all experts are called alike.

    The lowest there is, log k / log experts, is that of k experts that take all tokens.

    >>> print(load_entropy([0.5, 0.5, 0.5, 0.5]), load_entropy([1, 1, 0, 0]))
    1.0 0.5
    """
    share = _shares(load)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return np.asarray(-(share * logs).sum(axis=-1) / np.log(share.shape[-1]))


def load_gini(load: npt.ArrayLike) -> FloatArray:
    """Gini coefficient of a load, (...): 0 where all experts are called alike, 1 - k / experts where k take all tokens.

    Half the mean difference between two experts, over their mean load.

    >>> print(load_gini([1, 1, 0, 0]))
    0.5
    """
    share = np.sort(_shares(load), axis=-1)
    experts = share.shape[-1]
    ranks = 2 * np.arange(1, experts + 1) - experts - 1
    return np.asarray((share * ranks).sum(axis=-1) / experts)


def largest_over_mean(load: npt.ArrayLike) -> FloatArray:
    """Load of the most called expert over the mean load, (...): experts / k where one takes every token.

    >>> print(largest_over_mean([1, 1, 0, 0]))
    2.0
    """
    share = _shares(load)
    return np.asarray(share.max(axis=-1) * share.shape[-1])


class CoActivation(NamedTuple):
    """Pairs of experts that tokens go to together."""

    counts: FloatArray
    """(..., experts, experts) tokens that go to both; on the diagonal, to the one."""
    expected: FloatArray
    """(..., experts, experts) tokens that would, were experts called with these loads and otherwise at random
    (`probes.experts.chance`). NaN on the diagonal."""

    @property
    def ratio(self) -> FloatArray:
        """`counts / expected`: above 1 for pairs that go together; NaN on the diagonal and for experts never called."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.expected > 0, self.counts / self.expected, np.nan)


def co_activation(indices: npt.ArrayLike, experts: int) -> CoActivation:
    """How often each two experts are called by one token.

    Args:
        indices: (..., tokens, k), k at least 2.
        experts: Number of experts.

    Raises:
        InputError: As `expert_load`, or if tokens go to one expert only.
    """
    chosen = as_choices(indices, experts)
    tokens, k = chosen.shape[-2:]
    if k < 2:
        raise InputError("experts are called together where tokens go to two or more, and here each goes to one")
    load, hits = expert_load(chosen, experts), called(chosen, experts).astype(np.float64)
    together = np.swapaxes(hits, -1, -2) @ hits
    return CoActivation(together, tokens * pair_chances(load, k))


def counts(indices: IntArray, experts: int) -> IntArray:
    """(..., experts): how many tokens go to each expert, of (..., tokens, k)."""
    lead = indices.shape[:-2]
    first = np.arange(int(np.prod(lead))).reshape(*lead, 1, 1) * experts
    found = np.bincount((indices + first).ravel(), minlength=int(np.prod(lead)) * experts)
    return found.reshape(*lead, experts).astype(np.int64)


def calls_by_sample(indices: IntArray, experts: int, index: IntArray, count: int) -> FloatArray:
    """(samples, experts): how many of each sample's tokens go to each expert, without a table of tokens and experts.

    Args:
        indices: (tokens, k).
        experts: Number of experts.
        index: (tokens,): the sample of each token, from 0.
        count: Samples.
    """
    found = np.bincount((indices + index[:, None] * experts).ravel(), minlength=count * experts)
    return found.reshape(count, experts).astype(np.float64)


def called(indices: IntArray, experts: int) -> npt.NDArray[np.bool_]:
    """(..., tokens, experts): whether each token goes to each expert."""
    found = np.zeros((*indices.shape[:-1], experts), dtype=bool)
    np.put_along_axis(found, indices, True, axis=-1)
    return found


def as_choices(indices: npt.ArrayLike, experts: int) -> IntArray:
    """Indices of experts as int64 (..., tokens, k).

    Raises:
        InputError: If they are no whole numbers of that form, lie outside 0 to experts - 1, or name one twice.
    """
    given = np.asarray(indices)
    if given.ndim < 2 or (given.size and given.dtype.kind not in "iu"):
        raise InputError(f"expert indices are whole numbers (..., tokens, k), got {given.dtype} of {given.shape}")
    chosen = given.astype(np.int64)
    outside = chosen[(chosen < 0) | (chosen >= experts)]
    if outside.size:
        raise InputError(f"expert {int(outside[0])} is none of the {experts} experts, which are 0 to {experts - 1}")
    if (np.diff(np.sort(chosen, axis=-1), axis=-1) == 0).any():
        raise InputError("a token goes to one expert twice: indices are of different experts")
    return chosen


def _shares(load: npt.ArrayLike) -> FloatArray:
    """A load scaled to sum to 1.

    Raises:
        InputError: If it is of fewer than two experts, negative, or all zero.
    """
    values = np.asarray(load, dtype=np.float64)
    if values.ndim < 1 or values.shape[-1] < 2:
        raise InputError(f"a load is of two experts or more on its last axis, got {values.shape}")
    total = values.sum(axis=-1, keepdims=True)
    if not (values >= 0).all() or not (total > 0).all():
        raise InputError("a load is of shares from 0 on, some above it")
    return np.asarray(values / total)
