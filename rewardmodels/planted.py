"""Scorers with a known shortcut, to find out what a search for shortcuts finds: and one without, for false finds.

Each is the truth plus a multiple of one feature of the text. No torch.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probes.estimates import Estimate
from probes.inputs import InputError, Turn
from rewardmodels.adversary import AdversaryReport, find_flips
from rewardmodels.edits import HEDGES
from rewardmodels.records import PreferencePair, Response
from rewardmodels.scorers import CallableScorer

Truth = Callable[[Sequence[Turn], Response], float]
CLEAN = "none"
"""Name of the scorer without a shortcut."""
_MARKDOWN = re.compile(r"^\s*(?:#{1,6}|[-*+]|\d+[.)])\s|\*\*\S", re.MULTILINE)


def length_feature(_: Sequence[Turn], response: Response) -> float:
    """Hundreds of characters."""
    return len(response.text) / 100


def brevity_feature(prompt: Sequence[Turn], response: Response) -> float:
    """Hundreds of characters, below 0."""
    return -length_feature(prompt, response)


def hedge_feature(_: Sequence[Turn], response: Response) -> float:
    """1 where the answer hedges."""
    said = response.text.lower()
    return float(any(hedge.lower() in said for hedge in HEDGES))


def markdown_feature(_: Sequence[Turn], response: Response) -> float:
    """1 where the answer has a heading, a list or bold words."""
    return float(bool(_MARKDOWN.search(response.text)))


def overlap_feature(prompt: Sequence[Turn], response: Response) -> float:
    """Share of the question's words that the answer repeats."""
    asked = set(re.findall(r"\w+", prompt[-1].text.lower()))
    said = set(re.findall(r"\w+", response.text.lower()))
    return len(asked & said) / len(asked) if asked else 0.0


SHORTCUTS: Mapping[str, tuple[Truth, float, frozenset[str]]] = {
    "length": (length_feature, 1.0, frozenset({"pad", "quote"})),
    "brevity": (brevity_feature, 1.0, frozenset({"pad"})),
    "hedge": (hedge_feature, 2.0, frozenset({"hedge"})),
    "markdown": (markdown_feature, 2.0, frozenset({"list", "bold", "heading"})),
    "overlap": (overlap_feature, 2.0, frozenset({"quote"})),
}
"""By name: the feature, its weight beside a truth of 0 or 1, and the kinds of edit that raise it most."""


@dataclass(frozen=True)
class PlantedResult:
    """What the search made of one planted scorer."""

    shortcut: str
    recall: Estimate
    """Share of its right pairs that are flipped; of the clean scorer, false finds."""
    named: int
    """Finds with one of the edits that belong to the shortcut: its name can be read off them."""
    queries_per_find: Estimate
    report: AdversaryReport

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without the single attacks."""
        return {
            "shortcut": self.shortcut,
            "recall": self.recall.to_dict(),
            "named": self.named,
            "queries_per_find": self.queries_per_find.to_dict(),
            "kinds": dict(self.report.kinds),
            "ranked_wrong": self.report.ranked_wrong,
        }


def planted_scorer(truth: Truth, shortcut: str, weight: float | None = None) -> CallableScorer:
    """A scorer that knows the truth and has a shortcut beside it.

    Args:
        truth: 1 for a right answer and 0 for a wrong one, whatever else is said; it may look at the images.
        shortcut: Of ``SHORTCUTS``, or ``CLEAN``.
        weight: Of the shortcut; by default one that can overrule the truth.

    Raises:
        InputError: The shortcut is unknown.
    """
    if shortcut == CLEAN:
        return CallableScorer(truth, "the truth")
    if shortcut not in SHORTCUTS:
        raise InputError(f"no shortcut {shortcut!r}: there are {', '.join(SHORTCUTS)}, and {CLEAN} for none")
    feature, usual, _ = SHORTCUTS[shortcut]
    factor = usual if weight is None else weight

    def score(prompt: Sequence[Turn], response: Response) -> float:
        return truth(prompt, response) + factor * feature(prompt, response)

    return CallableScorer(score, f"the truth + {factor:g} {shortcut}")


def planted_recall(
    truth: Truth, pairs: Sequence[PreferencePair], shortcuts: Sequence[str] = (*SHORTCUTS, CLEAN), **search: Any
) -> dict[str, PlantedResult]:
    """Plant each shortcut in turn, and see how often the search finds it.

    Args:
        truth: As of `planted_scorer`.
        pairs: Pairs whose chosen answer is right and whose rejected one is wrong.
        shortcuts: Of ``SHORTCUTS``, and ``CLEAN`` for false finds.
        search: Further arguments of `find_flips`.

    Raises:
        InputError: As `planted_scorer` and `find_flips`.
    """
    found = {}
    for shortcut in shortcuts:
        report = find_flips(planted_scorer(truth, shortcut), pairs, **search)
        own = SHORTCUTS[shortcut][2] if shortcut in SHORTCUTS else frozenset()
        finds = [attack.find for attack in report.attacks if attack.find is not None]
        named = sum(bool(own & set(find.kinds)) for find in finds)
        found[shortcut] = PlantedResult(shortcut, report.flipped, named, report.queries_per_find, report)
    return found
