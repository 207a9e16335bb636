"""RewardBench 2: best of four, the Ties composite, and the unweighted mean over subsets. Imports no torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.clustering import FloatArray, as_vector
from probes.estimates import Estimate, proportion
from rewardmodels.group_means import weighted_sum

TIES = "Ties"
"""Name of the subset that is scored in its own way; compared without regard to case."""


@dataclass(frozen=True)
class TiesScore:
    """RewardBench 2's Ties subset: is every right answer above every wrong one, and are right ones close together?"""

    score: Estimate
    """The composite, up to 1.01: 0.3 ``tied`` + 0.3 ``reference`` + 0.2 ``preferred`` + 0.2 ``preferred_hard`` and
    0.01 of a margin in [-1, 1]; ``n`` is the pairs of prompts."""
    tied: float
    """Share of prompts with many right answers where the worst right one is above the best wrong one."""
    reference: float
    """The same for their reference prompts with one right answer."""
    preferred: float
    """Share where right ones lie closer together than the gap to the best wrong one is wide."""
    preferred_hard: float
    """The same with the smaller gap of the prompt and its reference."""
    margin: float
    """Mean ``tanh(gap / spread - 1)``."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        parts = ("tied", "reference", "preferred", "preferred_hard", "margin")
        return {"score": self.score.to_dict(), **{name: getattr(self, name) for name in parts}}


@dataclass(frozen=True)
class RewardBench2Score:
    """RewardBench 2: one number a subset, and their unweighted mean."""

    subsets: Mapping[str, Estimate]
    """Share of items won, and the Ties composite."""
    average: Estimate
    """Unweighted mean over subsets."""
    ties: TiesScore | None
    """Parts of the Ties composite, where the subset is there."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        subsets = {name: estimate.to_dict() for name, estimate in self.subsets.items()}
        return {
            "subsets": subsets,
            "average": self.average.to_dict(),
            "ties": None if self.ties is None else self.ties.to_dict(),
        }


def best_of_four(scores: npt.ArrayLike) -> float:
    """Return what an item adds: 1 if its first response scores highest, shared among all that tie for it.

    >>> best_of_four([3.0, 1.0, 2.0, 0.0]), best_of_four([3.0, 3.0, 2.0, 0.0]), best_of_four([1.0, 3.0, 2.0, 0.0])
    (1.0, 0.5, 0.0)
    """
    values = as_vector(scores, "scores of an item")
    if values.size < 2:
        raise ValueError(f"an item needs at least two responses, got {values.size}")
    return 1.0 / int((values == values.max()).sum()) if values[0] == values.max() else 0.0


def ties_score(
    ids: Sequence[str], scores: Sequence[npt.ArrayLike], num_correct: Sequence[int], *, level: float = 0.95
) -> TiesScore:
    """Score RewardBench 2's Ties subset as its authors' code does (``process_single_model`` in allenai/reward-bench).

    The interval is Wilson's for the mean of the composites of prompt pairs, scaled to [0, 1]; no spread of values in
    that range is larger than it assumes.

    Args:
        ids: (items,) "tied:NUMBER" for a prompt with several right answers, "ref:NUMBER" for its reference with one.
        scores: for each item the scores of its responses, the right ones first.
        num_correct: (items,) how many are right.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if an id has another form or stands twice, a prompt lacks its partner, or an item has no right, no
            wrong or, where tied, a single right response.
    """
    parts: dict[str, dict[str, tuple[float, float]]] = {"tied": {}, "ref": {}}
    for item, values, right in zip(ids, scores, num_correct, strict=True):
        kind, _, number = item.partition(":")
        if kind not in parts or not number or number in parts[kind]:
            raise ValueError(f"an id of the Ties subset is 'tied:NUMBER' or 'ref:NUMBER', each once; got {item!r}")
        parts[kind][number] = _gap_and_spread(item, as_vector(values, f"scores of {item}"), right, kind == "tied")
    alone = sorted(set(parts["tied"]) ^ set(parts["ref"]))
    if alone:
        raise ValueError(f"every tied prompt needs its reference, and the reverse; without one are {alone}")
    if not parts["tied"]:
        raise ValueError("the Ties subset holds no prompt")
    numbers = sorted(parts["tied"])
    gap, spread = (np.array([parts["tied"][number][side] for number in numbers]) for side in (0, 1))
    reference = np.array([parts["ref"][number][0] for number in numbers])
    smaller = np.minimum(gap, reference)
    with np.errstate(divide="ignore", invalid="ignore"):
        closeness = np.nan_to_num(np.tanh(smaller / spread - 1.0), nan=0.0)
    columns = np.stack([gap > 0, reference > 0, gap > spread, smaller > spread, closeness], axis=1).astype(np.float64)
    composite = columns @ np.array([0.3, 0.3, 0.2, 0.2, 0.01])
    unit = proportion(np.clip((composite + 0.01) / 1.02, 0.0, 1.0), level=level)
    score = Estimate(float(composite.mean()), unit.n, 1.02 * unit.low - 0.01, 1.02 * unit.high - 0.01)
    return TiesScore(score, *(float(column) for column in columns.mean(0)))


def reward_bench_2(
    ids: Sequence[str],
    subsets: Sequence[str],
    scores: Sequence[npt.ArrayLike],
    num_correct: Sequence[int],
    *,
    level: float = 0.95,
) -> RewardBench2Score:
    """Estimate RewardBench 2's numbers from the scores of every item's responses.

    Args:
        ids: (items,) record ids.
        subsets: (items,) subset of each item.
        scores: for each item the scores of its responses, the right ones first, as published files have them.
        num_correct: (items,) how many responses are right: 1 but in the Ties subset.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if there is no item, lengths differ, scores are missing, or an item outside of Ties has several
            right responses.
    """
    items = list(zip(ids, subsets, scores, num_correct, strict=True))
    if not items:
        raise ValueError("RewardBench 2 needs at least one item")
    tied = [item for item in items if item[1].lower() == TIES.lower()]
    won: dict[str, list[float]] = {}
    for record_id, subset, values, right in items:
        if subset.lower() == TIES.lower():
            continue
        if right != 1:
            raise ValueError(f"{record_id} of {subset!r} has {right} right responses; only Ties may have other than 1")
        won.setdefault(subset, []).append(best_of_four(values))
    found = {name: proportion(shares, level=level) for name, shares in sorted(won.items())}
    ties = None
    if tied:
        ties = ties_score(
            [item[0] for item in tied], [item[2] for item in tied], [item[3] for item in tied], level=level
        )
        found[tied[0][1]] = ties.score
    average = weighted_sum(list(found.values()), np.full(len(found), 1 / len(found)))
    return RewardBench2Score(found, average, ties)


def _gap_and_spread(item: str, scores: FloatArray, right: int, tied: bool) -> tuple[float, float]:
    """Worst right minus best wrong, and best right minus worst right (NaN for a reference)."""
    if not 1 + tied <= right < scores.size:
        raise ValueError(f"{item} has {right} right of {scores.size} responses; it needs a wrong one, and enough right")
    best, worst = float(scores[:right].max()), float(scores[:right].min())
    return worst - float(scores[right:].max()), best - worst if tied else math.nan
