"""Preference pairs into the batches that a trainer takes: conversations, weights, margins, groups, the proxy's view.

Pairs that a model cannot read are counted with their reasons. This file trains nothing and reads no file format.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probes.inputs import InputError, Turn
from rewardmodels.model import RewardModel
from rewardmodels.records import PreferencePair
from rewardmodels.rendering import Conversation
from rewardmodels.scores import reason_of
from rewardmodels.views import viewed


class Skipped(NamedTuple):
    """Pairs that cannot be trained on.

    Attributes:
        pairs: Those that can.
        reasons: How many could not, by the reason's first words.
        first: Up to ten, each its id with the whole reason.
    """

    pairs: tuple[PreferencePair, ...]
    reasons: Mapping[str, int]
    first: tuple[str, ...]


def usable_pairs(
    reward: RewardModel, pairs: Sequence[PreferencePair], advance: Callable[[], object] | None = None
) -> Skipped:
    """Take out the pairs that this model cannot read, by making the inputs of each once.

    Args:
        reward: The model, for its processor and the length that it holds.
        pairs: Chosen and rejected responses.
        advance: Called after each pair, for a progress bar.

    Returns:
        The usable pairs, and what was wrong with the others: nothing is dropped in silence.
    """
    kept: list[PreferencePair] = []
    reasons: Counter[str] = Counter()
    first: list[str] = []
    for pair in pairs:
        reason = why_unusable(reward, pair)
        if reason is None:
            kept.append(pair)
        else:
            reasons[reason_of(reason)] += 1
            if len(first) < 10:
                first.append(f"{pair.id}: {reason}")
        if advance is not None:
            advance()
    return Skipped(tuple(kept), dict(reasons), tuple(first))


def why_unusable(reward: RewardModel, pair: PreferencePair) -> str | None:
    """Say why a model cannot read a pair, by making its inputs once; None if it can."""
    try:
        reward.collator(pair_conversations(reward, [pair]))
    except InputError as error:
        return str(error)
    return None


class PairCollator:
    """Makes the batches of a trainer out of places in a list of pairs.

    A batch holds the chosen conversations, then the rejected ones, as TRL's trainer expects; with a view, the same
    under "proxy" as the text-only proxy sees them. With contrast, both follow once more, with another pair's images.

    Args:
        reward: The model, for its chat template and processor.
        pairs: What the places point at.
        view: What a proxy sees in place of the images, one of `rewardmodels.views.PROXY_VIEWS`; None without a proxy.
        seed: Draws whose images are shown where they are shuffled.
        contrast: Whether every pair is to be read with another one's images as well.
        groups: Names of the groups by their numbers, where an objective has them; by default those of `pairs`, sorted.

    Raises:
        InputError: If the view is unknown, a view or the contrast cannot be made for these prompts, or a pair is of
            none of the groups.
    """

    def __init__(
        self,
        reward: RewardModel,
        pairs: Sequence[PreferencePair],
        view: str | None = None,
        seed: int = 0,
        contrast: bool = False,
        groups: Sequence[str] | None = None,
    ) -> None:
        self._reward = reward
        self._pairs = pairs
        there = {pair.group for pair in pairs}
        self._groups = {name: place for place, name in enumerate(sorted(there) if groups is None else groups)}
        strange = sorted(there - self._groups.keys())
        if strange:
            raise InputError(
                f"pairs are of the groups {strange}, and the objective knows {list(self._groups)}: give it every group "
                "of the pairs to train and to evaluate on"
            )
        self._weighted = any(pair.weight != 1 for pair in pairs)
        self._with_margins = any(pair.margin is not None for pair in pairs)
        prompts, clusters = [pair.prompt for pair in pairs], [pair.cluster for pair in pairs]
        self._view: Callable[[int], tuple[Turn, ...]] | None = None
        if view is not None:
            self._view = viewed(prompts, clusters, view, seed)
        self._other: Callable[[int], tuple[Turn, ...]] | None = None
        if contrast:
            if not any(turn.images for prompt in prompts for turn in prompt):
                raise InputError("no pair has an image, so there is nothing to hold pairs' images against")
            self._other = viewed(prompts, clusters, "shuffled", seed)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups, in the order of their numbers in a batch."""
        return tuple(self._groups)

    def __call__(self, items: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """Make one batch.

        Args:
            items: Each with a pair's place under "index".

        Raises:
            InputError: If a pair cannot be read; the message names it.
        """
        places = [item["index"] for item in items]
        pairs = [self._pairs[place] for place in places]
        batch: dict[str, Any] = dict(self._inputs(pairs, _seen(pairs, places, self._other)))
        if self._view is not None:
            batch["proxy"] = self._inputs(_seen(pairs, places, self._view))
        if self._weighted:
            batch["weight"] = torch.tensor([pair.weight for pair in pairs], dtype=torch.float)
        if self._with_margins:
            batch["margin"] = torch.tensor([pair.margin or 0.0 for pair in pairs], dtype=torch.float)
        batch["group"] = torch.tensor([self._groups[pair.group] for pair in pairs])
        return batch

    def _inputs(self, *blocks: Sequence[PreferencePair]) -> dict[str, Tensor]:
        try:
            return self._reward.collator(
                [conversation for pairs in blocks for conversation in pair_conversations(self._reward, pairs)]
            )
        except InputError as error:
            named = ", ".join(pair.id for pair in blocks[0][:8])
            raise InputError(f"the batch of pairs {named}: {error}") from error


def _seen(
    pairs: Sequence[PreferencePair], places: Sequence[int], view: Callable[[int], tuple[Turn, ...]] | None
) -> list[PreferencePair]:
    """Pairs under a view; none without one."""
    if view is None:
        return []
    return [replace(pair, prompt=view(place)) for pair, place in zip(pairs, places, strict=True)]


def pair_conversations(reward: RewardModel, pairs: Sequence[PreferencePair]) -> list[Conversation]:
    """The chosen conversations, then the rejected ones."""
    both = [(pair.prompt, pair.chosen) for pair in pairs] + [(pair.prompt, pair.rejected) for pair in pairs]
    return [reward.writer.write(prompt, response.text, response.images) for prompt, response in both]
