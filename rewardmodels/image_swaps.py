"""The image changes and the answers stay: does the verdict change where it has to?

With another image the rejected answer may become the right one, where the data say so; a scorer that looks then changes
its verdict, and one that does not keeps it. Images that say nothing of either answer stand beside it. No torch.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from probes.estimates import Estimate, mean, proportion
from probes.inputs import InputError
from rewardmodels.records import PreferencePair, Response
from rewardmodels.scorers import Scorer, name_of, verdicts
from rewardmodels.views import Turns, blanked, partners, with_images_of

KINDS = ("counter", "another", "blank")
"""Images with which the rejected answer is right; another pair's, of another cluster; white ones."""


class Swap(NamedTuple):
    """One pair, before and after its images changed."""

    pair: str
    cluster: str
    kind: str
    before: float
    """The margin: above 0."""
    after: float

    @property
    def kept(self) -> bool:
        """Whether the verdict stayed."""
        return self.after > 0


@dataclass(frozen=True)
class SwapNumbers:
    """What one kind of image did to the pairs that were ranked right."""

    kept: Estimate
    """Share whose verdict stays. Under "counter" each of these is a verdict that the image does not bear out; the other
    kinds have no right verdict, and a high share only says that the image is not needed."""
    moved: Estimate
    """Mean absolute change of the margin, in the scores' own unit."""
    left_out: Mapping[str, int]
    """Pairs without such images or a score with them, by reason."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"kept": self.kept.to_dict(), "moved": self.moved.to_dict(), "left_out": dict(self.left_out)}


@dataclass(frozen=True)
class SwapReport:
    """What changed images did to a scorer's verdicts."""

    scorer: str
    ranked_wrong: int
    """Pairs that were ranked wrong or tied with their own images, and are left out."""
    kinds: Mapping[str, SwapNumbers]
    swaps: tuple[Swap, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "scorer": self.scorer,
            "ranked_wrong": self.ranked_wrong,
            "kinds": {kind: numbers.to_dict() for kind, numbers in self.kinds.items()},
            "swaps": [swap._asdict() for swap in self.swaps],
        }


def words_of(response: Response) -> str:
    """A response's words, white space aside."""
    return " ".join(response.text.split())


def counterparts(
    pairs: Sequence[PreferencePair], meaning: Callable[[Response], str] = words_of
) -> dict[str, PreferencePair]:
    """For each pair another one, of other images, that says the reverse: there its rejected answer is the better one.

    Both ask the same in the same words with as many images, and prefer the same two answers in reverse order.

    Args:
        pairs: Where counterparts are looked for.
        meaning: What makes two answers the same; by default their words.

    Returns:
        By pair id its counterpart; pairs without one are not among them.
    """
    known: dict[tuple[Any, str, str], list[PreferencePair]] = defaultdict(list)
    for pair in pairs:
        known[_asked(pair), meaning(pair.chosen), meaning(pair.rejected)].append(pair)
    found = {}
    for pair in pairs:
        reverse = known.get((_asked(pair), meaning(pair.rejected), meaning(pair.chosen)), [])
        other = next((other for other in reverse if other.cluster != pair.cluster and _count(other)), None)
        if other is not None:
            found[pair.id] = other
    return found


def swap_images(
    scorer: Scorer,
    pairs: Sequence[PreferencePair],
    kinds: Sequence[str] = KINDS,
    *,
    meaning: Callable[[Response], str] = words_of,
    seed: int = 0,
    level: float = 0.95,
) -> SwapReport:
    """Change the images of pairs that are ranked right, and see which verdicts stay.

    Args:
        scorer: Who ranks.
        pairs: Each with its prompt's images.
        kinds: Of ``KINDS``.
        meaning: As of `counterparts`.
        seed: Draws other pairs' images.
        level: Confidence level in (0, 1).

    Raises:
        InputError: There is no pair, a kind is unknown, or a pair cannot be scored with its own images.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or not kinds or not pairs:
        raise InputError(f"{len(pairs)} pairs and the kinds {list(kinds)}: give pairs, and kinds of {', '.join(KINDS)}")
    margins = _margins(scorer, [(pair.prompt, pair) for pair in pairs], skip=False)
    right = [(pair, margin) for pair, margin in zip(pairs, margins, strict=True) if margin is not None and margin > 0]
    swaps: list[Swap] = []
    numbers = {}
    for kind in dict.fromkeys(kinds):
        shown, left_out = _shown(kind, pairs, meaning, seed)
        asked = [(pair, margin) for pair, margin in right if pair.id in shown]
        after = _margins(scorer, [(shown[pair.id], pair) for pair, _ in asked], skip=True)
        own = [
            Swap(pair.id, pair.cluster, kind, before, changed)
            for (pair, before), changed in zip(asked, after, strict=True)
            if changed is not None
        ]
        reasons = Counter(left_out[pair.id] for pair, _ in right if pair.id in left_out)
        reasons["not scored"] = len(asked) - len(own)
        clusters = [swap.cluster for swap in own]
        numbers[kind] = SwapNumbers(
            kept=proportion([swap.kept for swap in own], clusters, level),
            moved=mean([abs(swap.after - swap.before) for swap in own], clusters, level, (0.0, math.inf)),
            left_out={reason: count for reason, count in reasons.items() if count},
        )
        swaps += own
    return SwapReport(name_of(scorer), len(pairs) - len(right), numbers, tuple(swaps))


def _shown(
    kind: str, pairs: Sequence[PreferencePair], meaning: Callable[[Response], str], seed: int
) -> tuple[dict[str, Turns], dict[str, str]]:
    """By pair id, the prompt with other images; or why there is none."""
    reverse = counterparts(pairs, meaning) if kind == "counter" else {}
    others = partners([_count(pair) for pair in pairs], [pair.cluster for pair in pairs], seed)
    shown: dict[str, Turns] = {}
    left_out: dict[str, str] = {}
    for pair, other in zip(pairs, others, strict=True):
        if not _count(pair):
            left_out[pair.id] = "it has no image"
        elif kind == "blank":
            shown[pair.id] = blanked(pair.prompt)
        elif kind == "counter":
            if pair.id in reverse:
                shown[pair.id] = with_images_of(pair.prompt, reverse[pair.id].prompt)
            else:
                left_out[pair.id] = "no pair of other images prefers the reverse"
        elif other is None:
            left_out[pair.id] = "no pair of another cluster has as many images"
        else:
            shown[pair.id] = with_images_of(pair.prompt, pairs[other].prompt)
    return shown, left_out


def _margins(scorer: Scorer, asked: Sequence[tuple[Turns, PreferencePair]], skip: bool) -> list[float | None]:
    prompts = [prompt for prompt, _ in asked for _ in range(2)]
    responses = [response for _, pair in asked for response in (pair.chosen, pair.rejected)]
    given = verdicts(scorer, prompts, responses, skip)
    halves = zip(given[::2], given[1::2], strict=True)
    return [None if one.error or two.error else one.score - two.score for one, two in halves]


def _asked(pair: PreferencePair) -> tuple[Any, ...]:
    return tuple((turn.role, turn.text, len(turn.images)) for turn in pair.prompt)


def _count(pair: PreferencePair) -> int:
    return sum(len(turn.images) for turn in pair.prompt)
