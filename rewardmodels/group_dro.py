"""Group-distributionally robust training: the objective that keeps a weight for each group of pairs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from rewardmodels.bradley_terry import BradleyTerry, Step
from rewardmodels.shortcut import pair_loss


@dataclass
class GroupDRO(BradleyTerry):
    """Group-distributionally robust training: groups that do badly gain weight (Sagawa et al. 2020, algorithm 1).

    Each training step multiplies the weight of every group in the batch by ``exp(step * its mean loss)`` and
    normalises the weights; the loss is the weighted sum of the groups' mean losses. A group that is not in the batch
    adds nothing, and one whose loss is not finite does not move the weights. A batch is what reaches this call: with
    gradient accumulation, each part of it.
    """

    name: ClassVar[str] = "group-dro"
    needs_groups: ClassVar[bool] = True

    groups: tuple[str, ...] = ()
    """Names of the groups, by the number that the batch gives them."""
    step: float = 0.01
    """Step of the exponentiated gradient."""
    _log_weights: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.groups = tuple(self.groups)
        if len(self.groups) < 2 or len(set(self.groups)) != len(self.groups):
            raise ValueError(f"group-dro needs at least two groups of different names, got {list(self.groups)}")
        if not 0.0 < self.step < math.inf:
            raise ValueError(f"the step of the group weights must be finite and > 0, got {self.step}")
        self._log_weights = torch.full((len(self.groups),), -math.log(len(self.groups)))

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each group; they add up to 1."""
        return dict(zip(self.groups, self._log_weights.exp().tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return the names of the groups and the logarithms of their weights."""
        return {"groups": list(self.groups), "log_weights": self._log_weights.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Undo :meth:`state_dict`.

        Raises:
            ValueError: if the state is of other groups, or no weights.
        """
        if list(state.get("groups", [])) != list(self.groups):
            raise ValueError(f"the state holds the groups {state.get('groups')}, this objective {list(self.groups)}")
        values = torch.tensor(state.get("log_weights", []), dtype=torch.float32)
        if values.shape != self._log_weights.shape or not bool(values.isfinite().all()):
            raise ValueError(f"the state must hold one finite log weight for each of {len(self.groups)} groups")
        self._log_weights = values

    def main_loss(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the multimodal model, and what to log of it."""
        assert step.batch.group is not None
        losses = pair_loss(step.margin)
        if step.batch.weight is not None:
            losses = losses * step.batch.weight.to(losses.dtype)
        member = functional.one_hot(self._checked(step.batch.group), len(self.groups)).to(losses.dtype)
        sums, counts = losses @ member, member.sum(0)
        everywhere = step.total(torch.stack([sums.detach(), counts, torch.ones_like(counts)]))
        shared = everywhere[1].clamp_min(1.0)
        self._log_weights = self._log_weights.to(losses.device)
        if step.training:
            means = (everywhere[0] / shared).float()
            moved = torch.where(means.isfinite(), means, 0.0)
            self._log_weights = torch.log_softmax(self._log_weights + self.step * moved, dim=0)
        weights = self._log_weights.exp()
        # Processes average their gradients, so each multiplies its part by how many they are.
        loss = (weights * sums / shared).sum() * everywhere[2, 0]
        return loss, {f"group_weight/{name}": weights[place] for place, name in enumerate(self.groups)}

    def _checked(self, group: Tensor) -> Tensor:
        if group.is_floating_point() or int(group.min()) < 0 or int(group.max()) >= len(self.groups):
            raise ValueError(
                f"groups must be whole numbers from 0 to {len(self.groups) - 1}, got {sorted(set(group.tolist()))}"
            )
        return group.long()
