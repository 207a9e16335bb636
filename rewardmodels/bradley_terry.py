"""What an objective is, what it sees of a batch, and the plain one: Bradley-Terry with margins, weights and centring.

Knows nothing of models or data; the trainer hands in margins.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from rewardmodels.shortcut import pair_loss, weighted_loss

Total = Callable[[Tensor], Tensor]
"""Adds a tensor up over the processes that share a batch."""


def alone(value: Tensor) -> Tensor:
    """Return the value: the total over one process."""
    return value


@dataclass(frozen=True, eq=False)
class PairBatch:
    """What an objective sees of a batch of preference pairs; every tensor has the shape (pairs,)."""

    margin: Tensor
    """Reward of the chosen minus that of the rejected response, by the multimodal model."""
    margin_text: Tensor | None = None
    """The same by the text-only proxy."""
    weight: Tensor | None = None
    """Weights of the pairs from the data; None is ones."""
    group: Tensor | None = None
    """Group of each pair, whole numbers from 0."""
    target: Tensor | None = None
    """By how much the chosen response is to win; taken off the margins before any loss."""
    reward_sum: Tensor | None = None
    """Reward of the chosen plus that of the rejected response, by the multimodal model; for centring."""
    margin_shuffled: Tensor | None = None
    """The margin by the multimodal model, with another pair's images in place of the pair's own."""

    def __post_init__(self) -> None:
        if self.margin.ndim != 1 or self.margin.numel() == 0:
            raise ValueError(
                f"margin must have the shape (pairs,) with at least one pair, got {tuple(self.margin.shape)}"
            )
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value is not None and value.shape != self.margin.shape:
                raise ValueError(
                    f"{entry.name} must hold one value for each of the {self.margin.numel()} pairs, "
                    f"got the shape {tuple(value.shape)}"
                )


class Objectified(NamedTuple):
    """A loss, and what to log beside it."""

    loss: Tensor
    """Scalar, to go backwards from."""
    log: dict[str, Tensor]
    """Scalars without gradient, left on their device: reading one waits for the device."""


class Step(NamedTuple):
    """What the loss of the multimodal model may depend on."""

    batch: PairBatch
    margin: Tensor
    """(pairs,) margins of the multimodal model, the targets taken off."""
    text: Tensor
    """(pairs,) the same of the proxy, without gradient; empty where the batch brings none."""
    training: bool
    total: Total


class Objective(Protocol):
    """What a trainer asks of an objective."""

    name: ClassVar[str]
    needs_text: ClassVar[bool]
    needs_groups: ClassVar[bool]
    needs_shuffled: ClassVar[bool]

    def __call__(self, batch: PairBatch, *, training: bool = True, total: Total = alone) -> Objectified:
        """Return the loss of a batch; only when training may the state move."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold, as plain JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Undo :meth:`state_dict`."""


@dataclass
class BradleyTerry:
    """Plain Bradley-Terry on the multimodal margin; the base of the other objectives.

    ``mean(weight * -log sigmoid(margin - target))``, plus ``center * mean(weight * (reward sum) ** 2)`` as in TRL's
    reward trainer (there without weights). Where the batch brings text-only margins, the proxy learns beside it by
    plain Bradley-Terry too, unless ``learn_text`` is off, as for a proxy that was trained before. Nothing else may go
    back through text-only margins: a trainer may have taken the proxy's gradients, by :func:`proxy_loss`, beforehand.
    """

    name: ClassVar[str] = "bradley-terry"
    needs_text: ClassVar[bool] = False
    needs_groups: ClassVar[bool] = False
    needs_shuffled: ClassVar[bool] = False

    center: float = 0.0
    """Strength of the pull of the rewards' mean towards 0."""
    learn_text: bool = True
    """Whether the text-only proxy learns in the same step."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.center < math.inf:
            raise ValueError(f"center must be finite and >= 0, got {self.center}")

    def __call__(self, batch: PairBatch, *, training: bool = True, total: Total = alone) -> Objectified:
        """Return the loss of a batch.

        Raises:
            ValueError: if the batch lacks what this objective needs.
        """
        self._check(batch)
        margin = _short_of_target(batch.margin, batch.target)
        text = None if batch.margin_text is None else _short_of_target(batch.margin_text, batch.target)
        step = Step(batch, margin, torch.empty(0) if text is None else text.detach(), training, total)
        loss, log = self.main_loss(step)
        log = {"loss_main": loss.detach(), "accuracy": ranked_correctly(batch.margin), **log}
        if text is not None and batch.margin_text is not None:
            loss_text = proxy_loss(batch.margin_text, batch.weight, batch.target)
            log |= {"loss_text": loss_text.detach(), "accuracy_text": ranked_correctly(batch.margin_text)}
            loss = loss + loss_text if self.learn_text else loss
        if self.center:
            assert batch.reward_sum is not None
            centring = self.center * weighted_loss(batch.reward_sum.float() ** 2, batch.weight)
            log |= {"loss_center": centring.detach()}
            loss = loss + centring
        return Objectified(loss, log)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold: nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Undo :meth:`state_dict`.

        Raises:
            ValueError: if the state is another objective's.
        """
        if state:
            raise ValueError(f"the objective {self.name!r} has no state, got {sorted(state)}; was it another one's?")

    def main_loss(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the multimodal model, and what to log of it."""
        return weighted_loss(pair_loss(step.margin), step.batch.weight), {}

    def _check(self, batch: PairBatch) -> None:
        lacks = {
            "margin_text: give it a text-only proxy": self.needs_text and batch.margin_text is None,
            "group: give every pair its group": self.needs_groups and batch.group is None,
            "margin_shuffled: score every pair with another one's images too": self.needs_shuffled
            and batch.margin_shuffled is None,
            "reward_sum: centring needs the rewards themselves": bool(self.center) and batch.reward_sum is None,
        }
        for words, missing in lacks.items():
            if missing:
                raise ValueError(f"the objective {self.name!r} needs the batch's {words}")


def proxy_loss(margin_text: Tensor, weight: Tensor | None = None, target: Tensor | None = None) -> Tensor:
    """What a text-only proxy learns by: plain Bradley-Terry; the main model has no part in it.

    Args:
        margin_text: (pairs,) its margins.
        weight: (pairs,) weights from the data; None is ones.
        target: (pairs,) by how much the chosen response is to win.
    """
    return weighted_loss(pair_loss(_short_of_target(margin_text, target)), weight)


def _short_of_target(margin: Tensor, target: Tensor | None) -> Tensor:
    return margin if target is None else margin - target.to(margin.dtype)


def ranked_correctly(margin: Tensor) -> Tensor:
    """Share of pairs ranked correctly, ties at one half."""
    return ((torch.sign(margin.detach().float()) + 1) / 2).mean()
