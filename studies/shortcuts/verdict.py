"""What the study claims: the exponent that dev pictures choose, the gain over plain training, and where it holds.

The rule for the exponent and the bars are fixed in `studies.shortcuts.settings`, before the first run. No torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from probes.estimates import Estimate
from studies.shortcuts.settings import (
    EXPONENTS,
    FINER_EXPONENTS,
    GAIN_BAR,
    HEADLINE,
    LARGEST_DEV_LOSS,
    LARGEST_LOSS_CHOSEN,
    LARGEST_LOSS_PUBLISHED,
    STOPS,
    Place,
)
from studies.shortcuts.summary import Condition, compare, summarise

PLAIN, PUBLISHED = "plain", "SFC"
STOPPED = "plain, stopped early"
Done = Mapping[str, Sequence[int]]
"""The seeds of which a method's runs are all there, by method."""


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
class PlaceVerdict:
    """What shortcut-aware learning does in one place."""

    published: Gain
    chosen: Gain | None
    """The exponent that dev pictures choose, ours; None where an exponent was not run."""
    chosen_finer: Gain | None
    """The same, with exponents between those that were fixed; None where one of them was not run."""
    degradation_plain: Estimate
    degradation_published: Estimate

    @property
    def halves(self) -> bool:
        """Whether SFC as published at least halves shortcut-failure degradation."""
        return self.degradation_published.value <= self.degradation_plain.value / 2

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        chosen = {"chosen": self.chosen, "chosen_finer": self.chosen_finer}
        return {
            "published": {**self.published.to_dict(), "reaches": self.published.reaches(LARGEST_LOSS_PUBLISHED)},
            **{
                name: found and {**found.to_dict(), "reaches": found.reaches(LARGEST_LOSS_CHOSEN)}
                for name, found in chosen.items()
            },
            "degradation": {
                PLAIN: self.degradation_plain.to_dict(),
                PUBLISHED: self.degradation_published.to_dict(),
                "halved": self.halves,
            },
        }


@dataclass(frozen=True)
class Verdict:
    """The headline, and every place where it could hold: a backbone that sees, and a cue that sometimes fails."""

    headline: PlaceVerdict
    places: Mapping[Condition, PlaceVerdict]

    @property
    def helping(self) -> dict[str, bool]:
        """Per place, whether SFC as published helps at all."""
        return {each.label: found.published.helps for each, found in self.places.items()}

    @property
    def reaching(self) -> dict[str, bool]:
        """Per place, whether it reaches the headline's bars."""
        return {each.label: found.published.reaches(LARGEST_LOSS_PUBLISHED) for each, found in self.places.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **self.headline.to_dict(),
            "helping": self.helping,
            "reaching": self.reaching,
            "places": {each.label: found.to_dict() for each, found in self.places.items()},
        }


def chosen_exponent(
    folder: Path, condition: Condition, seeds: Sequence[int], exponents: Sequence[str] = EXPONENTS
) -> str:
    """The method with the largest exponent that costs little enough i.i.d. accuracy on dev pictures.

    Args:
        folder: The run folder.
        condition: The place.
        seeds: Complete ones.
        exponents: Methods, by rising exponent.

    Raises:
        InputError: If a run is missing.
    """
    plain = summarise(folder, condition, PLAIN, seeds).dev.value
    losses = {name: plain - summarise(folder, condition, name, seeds).dev.value for name in exponents}
    fitting = [name for name in exponents if losses[name] <= LARGEST_DEV_LOSS]
    return fitting[-1] if fitting else exponents[0]


def gain(folder: Path, condition: Condition, method: str, seeds: Sequence[int]) -> Gain:
    """What a method changes against plain training.

    Raises:
        InputError: If a run is missing.
    """
    return Gain(method, *compare(folder, (condition, method), (condition, PLAIN), seeds))


def gain_of_stopping(folder: Path, condition: Condition, seeds: Sequence[int]) -> Gain:
    """What it changes to stop plain training early, against going on to its end.

    Raises:
        InputError: If a run is missing.
    """
    early = replace(condition, stop=STOPS[0])
    return Gain(STOPPED, *compare(folder, (early, PLAIN), (condition, PLAIN), seeds))


def verdict(folder: Path, there: Mapping[Condition, Done], headline: Place = HEADLINE) -> Verdict | None:
    """Judge the headline.

    Args:
        folder: The run folder.
        there: Places, measured at the end of training, with the seeds of each method.
        headline: The place that is judged.

    Returns:
        None where SFC as published has no complete seed at the headline.
    """
    comparable = [each for each in there if each.backbone == "seeing" and each.strength < 1.0]
    judged = {each: _judge(folder, each, there[each]) for each in comparable if there[each].get(PUBLISHED)}
    return Verdict(judged[Condition(*headline)], judged) if Condition(*headline) in judged else None


def _judge(folder: Path, condition: Condition, done: Done) -> PlaceVerdict:
    seeds = done[PUBLISHED]

    def chosen(exponents: Sequence[str]) -> Gain | None:
        together = [seed for seed in seeds if all(seed in done.get(name, ()) for name in exponents)]
        if not together:
            return None
        return gain(folder, condition, chosen_exponent(folder, condition, together, exponents), together)

    return PlaceVerdict(
        gain(folder, condition, PUBLISHED, seeds),
        chosen(EXPONENTS),
        chosen(FINER_EXPONENTS),
        summarise(folder, condition, PLAIN, seeds).degradation,
        summarise(folder, condition, PUBLISHED, seeds).degradation,
    )
