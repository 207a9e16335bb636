"""What verdicts of a judge that sees both answers say, each pair shown in both orders. Imports no torch."""

from dataclasses import dataclass, fields
from typing import Any

import numpy.typing as npt

from probes.clustering import as_vector
from rewardmodels.evaluation import GroupedAccuracy, accuracy_by_group
from rewardmodels.perturbations import PositionSwap, position_swap
from rewardmodels.rulers import BesideRulers, LengthMatched, beside_rulers, length_matched_accuracy


@dataclass(frozen=True)
class JudgedPairs:
    """Accuracy of a judge of pairs, with the rulers and the order of the answers beside it."""

    accuracy: GroupedAccuracy
    """By the mean of both orders: verdicts that contradict each other are a tie, and ties count one half."""
    rulers: BesideRulers
    matched: LengthMatched
    position: PositionSwap
    """What the order of the answers does to the verdict."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {entry.name: getattr(self, entry.name).to_dict() for entry in fields(self)}


def judged_pairs(
    margin_first: npt.ArrayLike,
    margin_second: npt.ArrayLike,
    chosen_lengths: npt.ArrayLike,
    rejected_lengths: npt.ArrayLike,
    groups: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    seed: int = 0,
    level: float = 0.95,
) -> JudgedPairs:
    """Ask every question that verdicts on pairs can answer.

    Args:
        margin_first: (pairs,) above 0 where the better answer wins, shown first.
        margin_second: (pairs,) the same with the better answer shown second.
        chosen_lengths: (pairs,) length of the better answer.
        rejected_lengths: (pairs,) length of the worse answer.
        groups: (pairs,) category of each pair.
        clusters: (pairs,) what pairs share; None takes pairs as independent.
        seed: Of coins and bootstraps.
        level: Confidence level in (0, 1).

    Raises:
        ValueError: if there is no pair, values are missing, or lengths differ.

    >>> found = judged_pairs([1, 1], [1, -1], [5, 5], [4, 9], ["all"] * 2)
    >>> found.accuracy.micro.value, found.accuracy.ties, found.position.bias.value
    (0.75, 1, 0.5)
    """
    first, second = as_vector(margin_first, "margin_first"), as_vector(margin_second, "margin_second")
    # Checks that both hold the same pairs.
    position = position_swap(first, second, clusters, level=level, seed=seed)
    margin = (first + second) / 2
    other = margin * 0
    return JudgedPairs(
        accuracy=accuracy_by_group(margin, other, groups, clusters, level=level),
        rulers=beside_rulers(margin, other, chosen_lengths, rejected_lengths, clusters, seed=seed, level=level),
        matched=length_matched_accuracy(margin, other, chosen_lengths, rejected_lengths, clusters, level=level),
        position=position,
    )
