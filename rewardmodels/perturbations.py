"""What becomes of a reward model's choices when the image is blanked or shuffled, or the answers change places.

Scores before and after in, paired differences out; who blanked, shuffled or swapped is not known here. No torch.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.clustering import FloatArray, as_vector, cluster_index
from probes.estimates import Estimate, mean, proportion
from probes.paired import ShareDifference, share_difference
from rewardmodels.evaluation import margins, pair_credits


@dataclass(frozen=True)
class Perturbed:
    """Pair accuracy with the real input and with a perturbed one, over the same pairs."""

    before: Estimate
    """Accuracy with the real input."""
    after: Estimate
    """Accuracy with the perturbed input."""
    drop: Estimate
    """Before minus after, paired; near 0 where the model does not use what was perturbed."""
    detectable: float
    """Smallest true drop that so many pairs would show; NaN if unknown."""
    flipped: Estimate
    """Share of pairs whose verdict changed, for better or worse; a tie is a verdict of its own."""
    moved: Estimate
    """Mean absolute change of the margin, in the scores' own unit."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return _as_dict(self)


@dataclass(frozen=True)
class PositionSwap:
    """A judge that sees both answers at once, with the better one shown first and then second."""

    shown_first: Estimate
    """Accuracy where the better answer is shown first."""
    shown_second: Estimate
    """Accuracy where it is shown second."""
    bias: Estimate
    """First minus second, paired: above 0 the judge leans to what it sees first."""
    detectable: float
    """Smallest true bias that so many pairs would show; NaN if unknown."""
    consistent: Estimate
    """Share of pairs with the same verdict in both orders."""
    both: Estimate
    """Share of pairs right in both orders."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return _as_dict(self)


def perturbation(
    chosen: npt.ArrayLike,
    rejected: npt.ArrayLike,
    chosen_after: npt.ArrayLike,
    rejected_after: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Perturbed:
    """Estimate what blanking or shuffling the images of pairs does to their ranking.

    Args:
        chosen: (pairs,) scores of the better response with the real image.
        rejected: (pairs,) scores of the worse response with the real image.
        chosen_after: (pairs,) scores of the better response with the perturbed image.
        rejected_after: (pairs,) scores of the worse response with the perturbed image.
        clusters: (pairs,) what pairs share; None takes pairs as independent.
        level: confidence level in (0, 1).
        seed: of the bootstrap.

    Raises:
        ValueError: if there is no pair, scores are missing, or lengths differ.

    >>> found = perturbation([2, 2, 2, 1], [1, 1, 1, 2], [1, 1, 2, 1], [2, 2, 1, 2])
    >>> found.drop.value, found.flipped.value
    (0.5, 0.5)
    """
    before, after = margins(chosen, rejected), margins(chosen_after, rejected_after)
    _check(before, after)
    verdicts = [2 * pair_credits(*pair) for pair in ((chosen, rejected), (chosen_after, rejected_after))]
    paired = _accuracy_difference(verdicts[0], verdicts[1], clusters, level, seed)
    return Perturbed(
        before=proportion(verdicts[0] / 2, clusters, level),
        after=proportion(verdicts[1] / 2, clusters, level),
        drop=paired.estimate,
        detectable=paired.detectable,
        flipped=proportion(verdicts[0] != verdicts[1], clusters, level),
        moved=mean(np.abs(after - before), clusters, level, (0.0, np.inf)),
    )


def position_swap(
    margin_first: npt.ArrayLike,
    margin_second: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> PositionSwap:
    """Estimate how much a judge's verdict hangs on the order in which it sees the answers.

    Args:
        margin_first: (pairs,) score of the better minus the worse answer, the better one shown first.
        margin_second: (pairs,) the same pairs, the better one shown second.
        clusters: (pairs,) what pairs share; None takes pairs as independent.
        level: confidence level in (0, 1).
        seed: of the bootstrap.

    Raises:
        ValueError: if there is no pair, margins are missing, or lengths differ.

    >>> found = position_swap([1, 1, 1, -1], [1, -1, -1, -1])
    >>> found.bias.value, found.consistent.value, found.both.value
    (0.5, 0.5, 0.25)
    """
    first, second = as_vector(margin_first, "margin_first"), as_vector(margin_second, "margin_second")
    _check(first, second)
    verdicts = np.sign(first) + 1, np.sign(second) + 1
    paired = _accuracy_difference(*verdicts, clusters, level, seed)
    return PositionSwap(
        shown_first=proportion(verdicts[0] / 2, clusters, level),
        shown_second=proportion(verdicts[1] / 2, clusters, level),
        bias=paired.estimate,
        detectable=paired.detectable,
        consistent=proportion(verdicts[0] == verdicts[1], clusters, level),
        both=proportion((verdicts[0] == 2) & (verdicts[1] == 2), clusters, level),
    )


def _accuracy_difference(
    first: FloatArray, second: FloatArray, clusters: npt.ArrayLike | None, level: float, seed: int
) -> ShareDifference:
    """Paired difference of accuracies from verdicts 0 (wrong), 1 (tied), 2 (right).

    Every pair stands twice in one cluster, once with its ties wrong and once with them right: half a hit for each.
    """
    hits = [np.concatenate([verdict == 2, verdict >= 1]) for verdict in (first, second)]
    index, _ = cluster_index(clusters, first.size)
    found = share_difference(hits[0], hits[1], np.tile(index, 2), level=level, seed=seed)
    shown = None if clusters is None else found.estimate.clusters
    estimate = replace(found.estimate, n=first.size, clusters=shown)
    return replace(found, estimate=estimate, first_n=first.size, second_n=first.size)


def _check(first: FloatArray, second: FloatArray) -> None:
    if first.size == 0 or first.size != second.size:
        raise ValueError(f"both sides must hold the same pairs, at least one; got {first.size} and {second.size}")


def _as_dict(record: Perturbed | PositionSwap) -> dict[str, Any]:
    values = {entry.name: getattr(record, entry.name) for entry in fields(record)}
    plain = {name: value.to_dict() for name, value in values.items() if isinstance(value, Estimate)}
    detectable = values["detectable"]
    return plain | {"detectable": detectable if np.isfinite(detectable) else None}
