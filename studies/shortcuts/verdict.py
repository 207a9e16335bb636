"""What the study claims: the exponent that dev pictures choose, gains over plain training, and no change elsewhere.

The rule for the exponent and the bars are fixed in `studies.shortcuts.settings`, before the first run. No torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from probes.estimates import Estimate, mean
from studies.shortcuts.settings import (
    EXPONENTS,
    FINER_EXPONENTS,
    GAIN_BAR,
    HEADLINE,
    LARGEST_CONTROL_CHANGE,
    LARGEST_DEV_LOSS,
    LARGEST_LOSS_CHOSEN,
    LARGEST_LOSS_PUBLISHED,
    STOPS,
    TEXT_ONLY,
    Place,
)
from studies.shortcuts.summary import Condition, compare, degradations, summarise

PLAIN, HALF_RATE, PUBLISHED = "plain", "half rate", "SFC"
Done = Mapping[str, Sequence[int]]
"""The seeds of which a method's runs are all there, by method."""


def stopped(method: str) -> str:
    """How a method is called where its training was stopped early."""
    return f"{method}, stopped early"


@dataclass(frozen=True)
class Gain:
    """What a method changes against another, by default plain training, paired by seed; shares."""

    method: str
    iid: Estimate
    ood: Estimate
    against: str = PLAIN

    @property
    def helps(self) -> bool:
        """Whether accuracy elsewhere rises, at the lower end of its interval."""
        return self.ood.low > 0

    @property
    def is_small(self) -> bool:
        """Whether it changes as little as it must where no method can help."""
        return max(abs(self.iid.value), abs(self.ood.value)) < LARGEST_CONTROL_CHANGE

    def reaches(self, largest_loss: float) -> bool:
        """Whether accuracy elsewhere rises by the bar at the lower end, for no larger loss at home."""
        return self.ood.low >= GAIN_BAR and self.iid.value >= -largest_loss

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"method": self.method, "against": self.against, "iid": self.iid.to_dict(), "ood": self.ood.to_dict()}


@dataclass(frozen=True)
class PlaceVerdict:
    """What shortcut-aware learning does in one place."""

    published: Gain
    chosen: Gain | None
    """The exponent that dev pictures choose, ours; None where an exponent was not run, or none costs little enough."""
    chosen_finer: Gain | None
    """The same, with exponents between those that were fixed."""
    chosen_without_proxy: Gain | None
    """Plain training, rate and stop chosen on dev by the exponent's rule; None without half the rate."""
    against_stopped: tuple[Gain, ...]
    """SFC as published against trainings that were stopped early, and know no proxy; those with two seeds or more."""
    degradation_plain: Estimate
    degradation_published: Estimate
    beyond_half: Estimate
    """Shortcut-failure degradation of SFC as published, minus half of plain training's, paired by seed; in points."""

    @property
    def halves(self) -> bool:
        """Whether SFC as published at least halves shortcut-failure degradation, at the upper end of the interval."""
        return self.beyond_half.high <= 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        chosen = {"chosen": self.chosen, "chosen_finer": self.chosen_finer}
        return {
            "published": {**self.published.to_dict(), "reaches": self.published.reaches(LARGEST_LOSS_PUBLISHED)},
            **{
                name: found and {**found.to_dict(), "reaches": found.reaches(LARGEST_LOSS_CHOSEN)}
                for name, found in chosen.items()
            },
            "chosen_without_proxy": self.chosen_without_proxy and self.chosen_without_proxy.to_dict(),
            "against_stopped": [each.to_dict() for each in self.against_stopped],
            "degradation": {
                PLAIN: self.degradation_plain.to_dict(),
                PUBLISHED: self.degradation_published.to_dict(),
                "beyond_half": self.beyond_half.to_dict(),
                "halved": self.halves,
            },
        }


@dataclass(frozen=True)
class Verdict:
    """The headline, and every place where it could hold: a backbone that sees, and a cue that sometimes fails."""

    headline: PlaceVerdict
    places: Mapping[Condition, PlaceVerdict]
    """Those with two seeds or more, as one has no interval."""

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
) -> str | None:
    """The method with the largest exponent that costs little enough i.i.d. accuracy on dev pictures; None if none does.

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
    return fitting[-1] if fitting else None


def chosen_without_proxy(folder: Path, condition: Condition, seeds: Sequence[int]) -> tuple[Condition, str]:
    """Rate and stop of plain training, chosen as the exponent is: what spends most of the same loss on dev pictures.

    Returns:
        Where it is measured, and the method; plain training to its end where nothing else costs little enough.

    Raises:
        InputError: If a run is missing.
    """
    plain = summarise(folder, condition, PLAIN, seeds).dev.value
    tried = [(replace(condition, stop=stop), name) for stop in STOPS for name in (PLAIN, HALF_RATE)]
    dev = {each: summarise(folder, *each, seeds).dev.value for each in tried}
    return min((each for each in tried if plain - dev[each] <= LARGEST_DEV_LOSS), key=lambda each: dev[each])


def gain(folder: Path, condition: Condition, method: str, seeds: Sequence[int]) -> Gain:
    """What a method changes against plain training.

    Raises:
        InputError: If a run is missing.
    """
    return Gain(method, *compare(folder, (condition, method), (condition, PLAIN), seeds))


def gain_of_stopping(folder: Path, condition: Condition, method: str, seeds: Sequence[int]) -> Gain:
    """What a method that is stopped early changes against plain training to its end.

    Raises:
        InputError: If a run is missing.
    """
    early = replace(condition, stop=STOPS[0])
    return Gain(stopped(method), *compare(folder, (early, method), (condition, PLAIN), seeds))


def controls(folder: Path, there: Mapping[Condition, Done]) -> dict[Condition, tuple[Gain, ...]]:
    """What methods change where none can help: from a backbone that does not see, or with a cue that is never wrong."""
    return {
        each: tuple(gain(folder, each, name, seeds) for name, seeds in done.items() if name not in (PLAIN, TEXT_ONLY))
        for each, done in there.items()
        if each.backbone == "blind" or each.strength == 1.0
    }


def verdict(folder: Path, there: Mapping[Condition, Done], headline: Place = HEADLINE) -> Verdict | None:
    """Judge the headline.

    Args:
        folder: The run folder.
        there: Places, measured at the end of training, with the seeds of each method.
        headline: The place that is judged.

    Returns:
        None where SFC as published has fewer than two seeds at the headline.
    """
    comparable = [each for each in there if each.backbone == "seeing" and each.strength < 1.0]
    judged = {each: _judge(folder, each, there[each]) for each in comparable if len(there[each].get(PUBLISHED, ())) > 1}
    return Verdict(judged[Condition(*headline)], judged) if Condition(*headline) in judged else None


def _judge(folder: Path, condition: Condition, done: Done) -> PlaceVerdict:
    seeds = done[PUBLISHED]

    def chosen(exponents: Sequence[str]) -> Gain | None:
        together = [seed for seed in seeds if all(seed in done.get(name, ()) for name in exponents)]
        name = chosen_exponent(folder, condition, together, exponents) if together else None
        return gain(folder, condition, name, together) if name else None

    plain, published = (degradations(folder, condition, name, seeds) for name in (PLAIN, PUBLISHED))
    return PlaceVerdict(
        gain(folder, condition, PUBLISHED, seeds),
        chosen(EXPONENTS),
        chosen(FINER_EXPONENTS),
        _chosen_without_proxy(folder, condition, [seed for seed in seeds if seed in done.get(HALF_RATE, ())]),
        _against_stopped(folder, condition, done),
        summarise(folder, condition, PLAIN, seeds).degradation,
        summarise(folder, condition, PUBLISHED, seeds).degradation,
        mean(published - plain / 2, bounds=(-150.0, 150.0)),
    )


def _chosen_without_proxy(folder: Path, condition: Condition, seeds: Sequence[int]) -> Gain | None:
    if len(seeds) < 2:
        return None
    at, name = chosen_without_proxy(folder, condition, seeds)
    change = compare(folder, (at, name), (condition, PLAIN), seeds)
    return Gain(name if at == condition else stopped(name), *change)


def _against_stopped(folder: Path, condition: Condition, done: Done) -> tuple[Gain, ...]:
    found = []
    for name in (PLAIN, HALF_RATE):
        seeds = [seed for seed in done[PUBLISHED] if seed in done.get(name, ())]
        if len(seeds) > 1:
            early = replace(condition, stop=STOPS[0])
            change = compare(folder, (condition, PUBLISHED), (early, name), seeds)
            found.append(Gain(PUBLISHED, *change, against=stopped(name)))
    return tuple(found)
