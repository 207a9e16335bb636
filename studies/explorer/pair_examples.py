"""The examples of the Reward view: bundled preference pairs, ready to click, and pictures to show instead of theirs.

Knows the records of preferences and nothing of models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from probes.inputs import ImageRef
from rewardmodels.records import Preference
from studies.bundled import BUNDLED_DATA
from studies.explorer.examples import Example, example_card
from studies.explorer.looking import plain_question

SHOWN = 6
_DRAWN = 60
"""Pairs that other pictures are taken from."""


@dataclass(frozen=True)
class PairExample:
    """A prompt with two answers, the better one first."""

    asked: Example
    answers: tuple[str, str]


@dataclass(frozen=True)
class PairExamples:
    """What the view offers: a few pairs, and pictures of others."""

    pairs: tuple[PairExample, ...] = ()
    pictures: tuple[ImageRef, ...] = ()


def read_pair_examples() -> PairExamples:
    """Take examples from the bundled test pairs; none where the benchmark is not in this checkout."""
    if not BUNDLED_DATA.exists():
        return PairExamples()
    from studies.reward.bundled_pairs import bundled_pairs

    return pair_examples(bundled_pairs("test", _DRAWN))


def pair_examples(preferences: Sequence[Preference], shown: int = SHOWN) -> PairExamples:
    """Offer the first preferences, of one turn each, and the pictures of all.

    Args:
        preferences: Of two responses.
        shown: How many to offer.
    """
    pairs = []
    for each in preferences[:shown]:
        turn, (pair, *_) = each.prompt[-1], each.pairs()
        question = plain_question(turn.text, len(turn.images))
        asked = Example(question, turn.images, each.group, pair.chosen.text, each.target)
        pairs.append(PairExample(asked, (pair.chosen.text, pair.rejected.text)))
    pictures = dict.fromkeys(image for each in preferences for image in each.images)
    return PairExamples(tuple(pairs), tuple(pictures))


def pair_card(example: PairExample) -> str:
    """Thumbnails, the question and both answers, as HTML; texts are escaped."""
    better, worse = example.answers
    return example_card(example.asked, f" · {better} over {worse}")
