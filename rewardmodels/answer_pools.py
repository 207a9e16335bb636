"""Pools of answers to one prompt each: scored by a scorer, and made into a best-of-N curve. No torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from probes.inputs import Turn
from rewardmodels.best_of_n import BestOfNCurve, best_of_n
from rewardmodels.records import Response
from rewardmodels.scorers import Scorer, name_of, verdicts

Prompt = Sequence[Turn]


@dataclass(frozen=True)
class ScoredPools:
    """Answers to prompts, what a scorer gives them, and what they are worth."""

    scorer: str
    answers: tuple[tuple[str, ...], ...]
    """(prompts, pool)"""
    rewards: tuple[tuple[float, ...], ...]
    quality: tuple[tuple[float, ...], ...]
    empty: int
    """Answers without words. They cannot be scored, and are picked after all others of their pool."""
    curve: BestOfNCurve

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, every answer with its reward and worth included."""
        return {
            "scorer": self.scorer,
            "curve": self.curve.to_dict(),
            "empty": self.empty,
            "pools": [
                {"answers": list(answers), "rewards": list(rewards), "quality": list(quality)}
                for answers, rewards, quality in zip(self.answers, self.rewards, self.quality, strict=True)
            ],
        }


def score_pools(
    scorer: Scorer,
    prompts: Sequence[Prompt],
    pools: Sequence[Sequence[str]],
    quality: Callable[[int, str], float],
    *,
    sizes: Sequence[int] | None = None,
    clusters: Sequence[str] | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    level: float = 0.95,
) -> ScoredPools:
    """Score pools of answers and estimate what best-of-N makes of them.

    Args:
        scorer: Who picks.
        prompts: One per pool.
        pools: Answers; the same answer twice is scored once.
        quality: What an answer to the prompt of a place is worth.
        sizes: As of `best_of_n`.
        clusters: What prompts share.
        bounds: What quality cannot leave.
        level: Confidence level in (0, 1).

    Raises:
        InputError: An answer cannot be scored.
        ValueError: As `best_of_n`.
    """
    asked = [(place, text) for place, pool in enumerate(pools) for text in dict.fromkeys(pool) if text.strip()]
    given = verdicts(scorer, [prompts[place] for place, _ in asked], [Response(text) for _, text in asked])
    known = {key: verdict.score for key, verdict in zip(asked, given, strict=True)}
    rewards = []
    for place, pool in enumerate(pools):
        lowest = min((known[place, text] for text in pool if text.strip()), default=0.0) - 1.0
        rewards.append(tuple(known.get((place, text), lowest) for text in pool))
    worth = [tuple(quality(place, text) for text in pool) for place, pool in enumerate(pools)]
    return ScoredPools(
        scorer=name_of(scorer),
        answers=tuple(map(tuple, pools)),
        rewards=tuple(rewards),
        quality=tuple(worth),
        empty=sum(not text.strip() for pool in pools for text in pool),
        curve=best_of_n(rewards, worth, sizes, clusters, bounds=bounds, level=level),
    )
