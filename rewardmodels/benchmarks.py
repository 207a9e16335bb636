"""How published reward benchmarks turn scores into their headline numbers, each with an interval.

VL-RewardBench (overall and macro) and MM-RLHF-RewardBench (ACC and ACC+); RewardBench 2 is in
:mod:`rewardmodels.reward_bench_2`, RM-Bench in :mod:`rewardmodels.styles`. Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from rewardmodels.evaluation import GroupedAccuracy, accuracy_by_group, pair_credits, shares_by_group


def vl_reward_bench_group(record_id: str) -> str:
    """Return the group of a VL-RewardBench record: "reasoning", "hallucination" or "general".

    Ids tell the group by how they start, in either case: a rule that looks for "rlhf" in lower case only, as a
    released scorer does, moves 301 of the 749 hallucination pairs (``RLHF-V-...``, ``RLAIF-V-...``) to "general".

    >>> vl_reward_bench_group("RLAIF-V-12"), vl_reward_bench_group("mmmu_pro_test_Art_3")
    ('hallucination', 'reasoning')
    """
    start = record_id.lower()
    if start.startswith(("mathverse", "mmmu")):
        return "reasoning"
    return "hallucination" if start.startswith(("rlhf", "rlaif", "hallucination")) else "general"


def vl_reward_bench(
    ids: Sequence[str],
    chosen: npt.ArrayLike,
    rejected: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    ties: float = 0.5,
    level: float = 0.95,
) -> GroupedAccuracy:
    """Estimate VL-RewardBench's accuracies: ``micro`` is its overall, ``macro`` its macro average; papers mix them up.

    Args:
        ids: (pairs,) record ids, which tell the groups.
        chosen: (pairs,) scores of the better response.
        rejected: (pairs,) scores of the worse response.
        clusters: (pairs,) what pairs share, such as an image.
        ties: credit of two equal scores.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if there is no pair, scores are missing, or lengths differ.
    """
    groups = [vl_reward_bench_group(record_id) for record_id in ids]
    return accuracy_by_group(chosen, rejected, groups, clusters, ties=ties, level=level)


@dataclass(frozen=True)
class AccuracyAndPlus:
    """MM-RLHF-RewardBench's two accuracies."""

    accuracy: GroupedAccuracy
    """ACC, over pairs; intervals are clustered by question."""
    plus: GroupedAccuracy
    """ACC+, over questions: all pairs of a question must be right, and a tie is not."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"accuracy": self.accuracy.to_dict(), "plus": self.plus.to_dict()}


def mm_rlhf_reward_bench(
    ids: Sequence[str],
    categories: Sequence[str],
    chosen: npt.ArrayLike,
    rejected: npt.ArrayLike,
    *,
    ties: float = 0.5,
    level: float = 0.95,
) -> AccuracyAndPlus:
    """Estimate ACC and ACC+ of MM-RLHF-RewardBench.

    Args:
        ids: (pairs,) question of each pair.
        categories: (pairs,) category of each pair, one for a question: the first part of its image's or video's path.
        chosen: (pairs,) scores of the better response.
        rejected: (pairs,) scores of the worse response.
        ties: credit of two equal scores in ACC.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if there is no pair, scores are missing, lengths differ, or a question has two categories.

    >>> found = mm_rlhf_reward_bench(["q", "q", "r"], ["mcq"] * 3, [2, 0, 1], [1, 1, 0])
    >>> round(found.accuracy.micro.value, 3), found.plus.micro.value
    (0.667, 0.5)
    """
    accuracy = accuracy_by_group(chosen, rejected, categories, ids, ties=ties, level=level)
    right = pair_credits(chosen, rejected, ties=0.0) == 1.0
    whole: dict[str, bool] = {}
    home: dict[str, str] = {}
    for question, category, hit in zip(ids, categories, right.tolist(), strict=True):
        if home.setdefault(question, category) != category:
            raise ValueError(f"the question {question!r} has two categories, {home[question]!r} and {category!r}")
        whole[question] = whole.get(question, True) and hit
    return AccuracyAndPlus(accuracy, shares_by_group(list(whole.values()), list(home.values()), level=level))
