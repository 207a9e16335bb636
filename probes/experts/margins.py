"""How narrowly experts are chosen, and what the bias of a router decides.

Arrays in, numbers out: nothing here knows a model, and no torch is imported.
"""

import numpy as np
import numpy.typing as npt

from probes.errors import InputError
from probes.estimates import Estimate, proportion
from probes.experts.records import Routing
from probes.experts.rules import NO_GROUPS, FloatArray, Grouping, choose, selection_scores


def margins(scores: npt.ArrayLike, k: int) -> FloatArray:
    """Score of the last expert chosen minus that of the first one that is not.

    Args:
        scores: (..., experts): what the choice is made by. Of biased scores (`Routing.scores`), how little noise would
            change the routing; of those without (`Routing.unbiased_scores`), how narrow the choice would be then.
        k: Experts chosen.

    Returns:
        (...,); infinite where groups shut out every other expert.

    Raises:
        InputError: If no expert is left over, or none is chosen.

    >>> print(margins([0.1, 0.75, 0.5, 0.25], 2))
    0.25
    """
    values = np.asarray(scores, dtype=np.float32)
    if not 1 <= k < values.shape[-1]:
        raise InputError(f"a margin is between the {k} experts chosen and the rest, and there are {values.shape[-1]}")
    ordered = np.sort(values, axis=-1)
    return np.asarray(ordered[..., -k] - ordered[..., -k - 1])


def bias_effect(
    affinities: npt.ArrayLike,
    bias: npt.ArrayLike,
    k: int,
    grouping: Grouping = NO_GROUPS,
    samples: npt.ArrayLike | None = None,
) -> Estimate:
    """Share of tokens that would go to other experts if the router's bias were zero.

    Args:
        affinities: (tokens, experts), without bias.
        bias: (experts,).
        k: Experts chosen.
        grouping: Groups of experts.
        samples: (tokens,): the sample of each token; None takes tokens as independent.

    Raises:
        InputError: If shapes do not fit.
        ValueError: As `probes.estimates.proportion`.

    >>> bias_effect([[0.9, 0.5, 0.1], [0.9, 0.1, 0.5]], [0, 0, 0.5], 1).value
    0.5
    """
    return proportion(moved_by_bias(affinities, bias, k, grouping), samples)


def moved_by_bias(
    affinities: npt.ArrayLike, bias: npt.ArrayLike, k: int, grouping: Grouping = NO_GROUPS
) -> npt.NDArray[np.bool_]:
    """Which tokens would go to other experts if the router's bias were zero.

    Args:
        affinities: (tokens, experts), without bias.
        bias: (experts,).
        k: Experts chosen.
        grouping: Groups of experts.

    Returns:
        (tokens,).

    Raises:
        InputError: If shapes do not fit.

    >>> moved_by_bias([[0.9, 0.5, 0.1], [0.9, 0.1, 0.5]], [0, 0, 0.5], 1)
    array([False,  True])
    """
    values, added = np.asarray(affinities, dtype=np.float32), np.asarray(bias, dtype=np.float32)
    if values.ndim != 2 or added.shape != values.shape[1:] or not 1 <= k <= values.shape[1]:
        raise InputError(
            f"affinities are (tokens, experts) and a bias (experts,), of which k are chosen: got {values.shape}, "
            f"{added.shape} and k = {k}"
        )
    with_bias = choose(selection_scores(values, added, grouping), k)
    without = choose(selection_scores(values, np.zeros_like(added), grouping), k)
    moved: npt.NDArray[np.bool_] = (with_bias != without).any(axis=-1)
    return moved


def bias_effects(routing: Routing) -> dict[int, Estimate]:
    """`bias_effect` of every layer by its true index, clustered by sample.

    Raises:
        InputError: If the routing holds no affinities.
    """
    return {
        layer: bias_effect(affinities, bias, routing.k, routing.grouping, routing.samples)
        for layer, affinities, bias in zip(routing.layers, routing.kept_affinities, routing.bias, strict=True)
    }
