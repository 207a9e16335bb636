"""Small preferences about drawn pictures, and scorers of known habits, for the tests of questions to scorers."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from probes.inputs import ImageRef, Turn
from rewardmodels.preferences import Preferences
from rewardmodels.records import Preference, PreferencePair, Response
from rewardmodels.scorers import CallableScorer, Verdict
from tests.rewardmodels.drawn import WORDS, drawn_pairs

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "white": (240, 240, 240)}


def as_record(pair: PreferencePair, **changes: object) -> Preference:
    """A pair as the record of two responses that it came from, the worse one first in every second."""
    number = int(pair.id.split("-")[1])
    sides = (pair.chosen, pair.rejected)
    record = Preference(
        id=pair.id,
        prompt=pair.prompt,
        responses=sides if number % 2 else sides[::-1],
        ranks=(0, 1) if number % 2 else (1, 0),
        group=pair.group,
        source=pair.source,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def drawn_preferences(count: int = 8, seed: int = 0, **changes: object) -> Preferences:
    """Records that ask which colour a picture has."""
    records = tuple(as_record(pair, **changes) for pair in drawn_pairs(count, seed))
    return Preferences(records, (), "sightcheck", "drawn here")


def colour_of(prompt: Sequence[Turn]) -> str:
    """The word for the colour of a prompt's first picture; empty without a picture."""
    images = [image for turn in prompt for image in turn.images]
    return _colour(images[0]) if images else ""


@lru_cache(maxsize=1024)
def _colour(image: ImageRef) -> str:
    seen = np.asarray(image.open()).reshape(-1, 3).mean(0)
    return min(COLOURS, key=lambda word: float(np.abs(seen - COLOURS[word]).sum()))


def is_right(prompt: Sequence[Turn], response: Response) -> float:
    """1 where the answer's only colour is the picture's."""
    named = [word for word in WORDS if word in response.text.lower()]
    return float(named == [colour_of(prompt)])


looking = CallableScorer(is_right, "looking")
"""Knows the truth by looking."""
by_length = CallableScorer(lambda _, response: len(response.text), "by length")
"""Sees no image."""


class FirstJudge:
    """A judge of pairs that prefers what is shown first, unless only the other answer is right."""

    name = "first judge"

    def __init__(self, looks: bool) -> None:
        self.looks = looks
        self.asked = 0

    def compare_pairs(
        self,
        prompts: Sequence[Sequence[Turn]],
        firsts: Sequence[Response],
        seconds: Sequence[Response],
        skip: bool,  # noqa: ARG002
    ) -> list[Verdict]:
        self.asked += len(prompts)
        found = []
        for prompt, first, second in zip(prompts, firsts, seconds, strict=True):
            margin = is_right(prompt, first) - is_right(prompt, second) if self.looks else 0.0
            found.append(Verdict(margin or 1.0))
        return found
