"""What the study claims: the exponent that dev pictures choose, the gain over plain training, and where it holds.

The rule for the exponent and the bars are fixed in `studies.shortcuts.settings`, before the first run. No torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.estimates import Estimate
from studies.shortcuts.settings import (
    EXPONENTS,
    GAIN_BAR,
    HEADLINE,
    LARGEST_DEV_LOSS,
    LARGEST_LOSS_CHOSEN,
    LARGEST_LOSS_PUBLISHED,
)
from studies.shortcuts.summary import Condition, compare, summarise

PLAIN, PUBLISHED = "plain", "SFC"


@dataclass(frozen=True)
class Gain:
    """What a method changes against plain training, paired by seed; shares."""

    method: str
    iid: Estimate
    ood: Estimate

    @property
    def helps(self) -> bool:
        """Whether accuracy elsewhere rises, at the lower end of its interval."""
        return self.ood.low > 0

    def reaches(self, largest_loss: float) -> bool:
        """Whether accuracy elsewhere rises by the bar at the lower end, for no larger loss at home."""
        return self.ood.low >= GAIN_BAR and self.iid.value >= -largest_loss

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"method": self.method, "iid": self.iid.to_dict(), "ood": self.ood.to_dict()}


@dataclass(frozen=True)
class Verdict:
    """The headline's gains, and the places of the map where they hold too."""

    published: Gain
    chosen: Gain
    """The exponent that dev pictures choose; ours."""
    degradation_plain: Estimate
    degradation_published: Estimate
    helping: Mapping[str, bool]
    """Per complete place with a cue that sometimes fails: whether SFC as published helps at all."""
    reaching: Mapping[str, bool]
    """Whether it reaches the headline's bars."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "published": {**self.published.to_dict(), "reaches": self.published.reaches(LARGEST_LOSS_PUBLISHED)},
            "chosen": {**self.chosen.to_dict(), "reaches": self.chosen.reaches(LARGEST_LOSS_CHOSEN)},
            "degradation": {
                PLAIN: self.degradation_plain.to_dict(),
                PUBLISHED: self.degradation_published.to_dict(),
                "halved": self.degradation_published.value <= self.degradation_plain.value / 2,
            },
            "helping": dict(self.helping),
            "reaching": dict(self.reaching),
        }


def chosen_exponent(folder: Path, condition: Condition, seeds: Sequence[int]) -> str:
    """The method with the largest exponent that costs little enough i.i.d. accuracy on dev pictures.

    Raises:
        InputError: If a run is missing.
    """
    plain = summarise(folder, condition, PLAIN, seeds).dev.value
    losses = {name: plain - summarise(folder, condition, name, seeds).dev.value for name in EXPONENTS}
    fitting = [name for name in EXPONENTS if losses[name] <= LARGEST_DEV_LOSS]
    return fitting[-1] if fitting else EXPONENTS[0]


def gain(folder: Path, condition: Condition, method: str, seeds: Sequence[int]) -> Gain:
    """What a method changes against plain training.

    Raises:
        InputError: If a run is missing.
    """
    return Gain(method, *compare(folder, condition, method, PLAIN, seeds))


def verdict(folder: Path, there: Mapping[Condition, Sequence[int]]) -> Verdict | None:
    """Judge the headline.

    Args:
        folder: The run folder.
        there: Complete places, measured at the end of training, with their seeds.

    Returns:
        None where the headline has no complete seed yet.
    """
    headline = Condition(*HEADLINE)
    if headline not in there:
        return None
    seeds = there[headline]
    comparable = [each for each in there if each.backbone == "seeing" and each.strength < 1.0]
    gains = {each: gain(folder, each, PUBLISHED, there[each]) for each in comparable}
    return Verdict(
        gains[headline],
        gain(folder, headline, chosen_exponent(folder, headline, seeds), seeds),
        summarise(folder, headline, PLAIN, seeds).degradation,
        summarise(folder, headline, PUBLISHED, seeds).degradation,
        {each.label: found.helps for each, found in gains.items()},
        {each.label: found.reaches(LARGEST_LOSS_PUBLISHED) for each, found in gains.items()},
    )
