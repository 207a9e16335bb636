"""Scores of many pairs or responses by a reward model, with a bar on stderr. It reads and writes no file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rewardmodels.model import RewardModel
from rewardmodels.records import PreferencePair
from rewardmodels.views import viewed
from studies.auditing.progress import Counter

FloatArray = npt.NDArray[np.float64]
_CHUNK = 8
"""Batches that are rendered and sorted by length together."""


@dataclass(frozen=True)
class Scored:
    """Scores of pairs, and the lengths of their responses in characters; each (pairs,)."""

    chosen: FloatArray
    rejected: FloatArray
    chosen_lengths: FloatArray
    rejected_lengths: FloatArray


def score_pairs(
    reward: RewardModel, pairs: Sequence[PreferencePair], batch_size: int, label: str, view: str | None = None
) -> Scored:
    """Score both responses of every pair.

    Args:
        reward: The model.
        pairs: At least one.
        batch_size: Pairs in a forward pass.
        label: What the bar says.
        view: What is seen in place of the images, one of `rewardmodels.views.PROXY_VIEWS`; None leaves them.

    Raises:
        InputError: As `RewardModel.get_scores`.
    """
    prompts = [pair.prompt for pair in pairs]
    seen = viewed(prompts, [pair.cluster for pair in pairs], view) if view is not None else None
    scores: list[tuple[float, float]] = []
    with Counter(label, len(pairs)) as counter:
        for start in range(0, len(pairs), _CHUNK * batch_size):
            some = range(start, min(start + _CHUNK * batch_size, len(pairs)))
            asked = [prompts[place] if seen is None else seen(place) for place in some]
            answers = [pairs[place].chosen for place in some] + [pairs[place].rejected for place in some]
            found = reward.get_scores([*asked, *asked], answers, 2 * batch_size)
            scores += zip(found[: len(some)], found[len(some) :], strict=True)
            counter.advance(len(some))
    chosen, rejected = np.asarray(scores, dtype=np.float64).T
    lengths = np.array([[len(pair.chosen.text), len(pair.rejected.text)] for pair in pairs], dtype=np.float64).T
    return Scored(chosen, rejected, lengths[0], lengths[1])
