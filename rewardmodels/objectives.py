"""What a reward model learns by: plain Bradley-Terry, shortcut-aware learning, and what else there is against it.

Every objective takes one :class:`~rewardmodels.bradley_terry.PairBatch` and returns a loss with what to log, so that a
trainer can take any of them by name from :data:`OBJECTIVES`. Knows nothing of models or data.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from rewardmodels.bradley_terry import BradleyTerry as BradleyTerry
from rewardmodels.bradley_terry import Objectified as Objectified
from rewardmodels.bradley_terry import Objective as Objective
from rewardmodels.bradley_terry import PairBatch as PairBatch
from rewardmodels.bradley_terry import Step, ranked_correctly
from rewardmodels.group_dro import GroupDRO as GroupDRO
from rewardmodels.image_contrast import ImageContrast as ImageContrast
from rewardmodels.shortcut import check_exponent, coefficient_from_margins, normalise, pair_loss, weighted_loss


@dataclass
class ShortcutAware(BradleyTerry):
    """Shortcut-aware learning: each pair weighs as much as the text fails to rank it.

    See :func:`rewardmodels.shortcut.shortcut_aware_loss`; with ``exponent`` 1 and no normalisation it is the paper's.
    """

    name: ClassVar[str] = "shortcut-aware"
    needs_text: ClassVar[bool] = True

    exponent: float = 1.0
    """Power of the coefficient; other values than 1 are ours."""
    normalize: bool = False
    """Divide coefficients by their mean over the batch of all processes; ours. Where gradients are accumulated, over
    each part of the step by itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_exponent(self.exponent)

    def main_loss(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the multimodal model, and what to log of it."""
        coefficient = coefficient_from_margins(step.margin, step.text, self.exponent)
        log = _spread("coefficient", coefficient)
        if self.normalize:
            coefficient = normalise(coefficient, step.batch.weight, step.total)
        return weighted_loss(pair_loss(step.margin) * coefficient, step.batch.weight), log


@dataclass
class TextOnlyWeight(BradleyTerry):
    """Weigh each pair by ``max(floor, 1 - p)``, where p is the text-only proxy's probability of the label.

    Not the shortcut-failure coefficient: the multimodal model's own loss plays no part. Seen in another repository.
    """

    name: ClassVar[str] = "text-only-weight"
    needs_text: ClassVar[bool] = True

    floor: float = 0.05
    """Least weight of a pair."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.floor <= 1.0:
            raise ValueError(f"floor must lie in [0, 1], got {self.floor}")

    def main_loss(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the multimodal model, and what to log of it."""
        assert step.batch.margin_text is not None
        factor = torch.sigmoid(-step.batch.margin_text.detach().float()).clamp_min(self.floor)
        return weighted_loss(pair_loss(step.margin) * factor, step.batch.weight), _spread("pair_weight", factor)


@dataclass
class ProductOfExperts(BradleyTerry):
    """Train the multimodal model through the sum of its margin and the proxy's, which is held still.

    What the text already explains need not be learned again (Clark, Yatskar and Zettlemoyer 2019, bias product). When
    it scores, the multimodal model stands alone.
    """

    name: ClassVar[str] = "product-of-experts"
    needs_text: ClassVar[bool] = True

    def main_loss(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the multimodal model, and what to log of it."""
        # The text's margin has the target off: it is not to be taken off twice.
        joint = step.batch.margin + step.text
        return weighted_loss(pair_loss(joint), step.batch.weight), {"accuracy_joint": ranked_correctly(joint)}


OBJECTIVES: dict[str, type[BradleyTerry]] = {
    kind.name: kind for kind in (BradleyTerry, ShortcutAware, TextOnlyWeight, ProductOfExperts, GroupDRO, ImageContrast)
}
"""Every objective by its name."""


def make_objective(name: str, **options: Any) -> Objective:
    """Return an objective by its name, with its options.

    Raises:
        ValueError: if there is no such objective, it has no such option, or an option's value is refused.

    >>> make_objective("shortcut-aware", exponent=0.7)
    ShortcutAware(center=0.0, learn_text=True, exponent=0.7, normalize=False)
    """
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}: there are {', '.join(OBJECTIVES)}")
    kind = OBJECTIVES[name]
    known = [entry.name for entry in fields(kind) if entry.init]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"the objective {name!r} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    return kind(**options)


def _spread(name: str, values: Tensor) -> dict[str, Tensor]:
    return {f"{name}_mean": values.mean(), f"{name}_min": values.min(), f"{name}_max": values.max()}
