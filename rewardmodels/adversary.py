"""A shortcut adversary: the smallest edit of the text that flips a right preference, the image left as it is.

An edit that keeps what an answer claims (`rewardmodels.edits`) and flips a scorer's verdict shows what the scorer goes
by. "Smallest" is among the edits that are tried: the true smallest may be smaller. Works on any scorer. No torch.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probes.estimates import Estimate, mean, proportion
from probes.inputs import InputError
from rewardmodels.edits import Candidate, Edit, candidates, standard_edits
from rewardmodels.records import PreferencePair, Response
from rewardmodels.scorers import Scorer, name_of, verdicts
from rewardmodels.scores import reason_of


@dataclass(frozen=True)
class Find:
    """Edits that flip a preference."""

    edits: tuple[str, ...]
    kinds: tuple[str, ...]
    keeps: tuple[str, ...]
    """What each keeps: "words", "claims" or "less"; see `rewardmodels.edits`."""
    chosen: str
    """The better answer, as edited."""
    rejected: str
    """The worse answer, as edited."""
    characters: int
    """Put in or taken out."""
    margin: float
    """After the edits: below 0."""


@dataclass(frozen=True)
class Attack:
    """What was tried on one pair."""

    pair: str
    group: str
    cluster: str
    margin: float
    """Before: above 0."""
    find: Find | None
    queries: int
    """Answers that were scored, the two of the pair included."""
    refused: int
    """Edited answers that could not be scored."""
    exhausted: bool
    """Whether the search came to its end: False where the budget ran out before a find or the last candidate."""


@dataclass(frozen=True)
class AdversaryReport:
    """What became of a set of pairs."""

    scorer: str
    attacks: tuple[Attack, ...]
    """Of the pairs that were ranked right; only these can be flipped."""
    ranked_wrong: int
    """Pairs that were ranked wrong or tied before any edit."""
    unscored: Mapping[str, int]
    """Pairs that could not be scored, by reason."""
    flipped: Estimate
    """Share of the right ones that some edit flips."""
    queries_per_find: Estimate
    """Mean over finds of the answers scored until then."""
    characters: Estimate
    """Mean over finds of their cost."""
    kinds: Mapping[str, int]
    """Finds by their kinds of edit, joined by " + ", the most frequent first."""

    @property
    def queries(self) -> int:
        """Answers scored in all, pairs without a find included."""
        return sum(attack.queries for attack in self.attacks)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; attacks and their texts included."""
        return {
            "scorer": self.scorer,
            "ranked_wrong": self.ranked_wrong,
            "unscored": dict(self.unscored),
            "flipped": self.flipped.to_dict(),
            "queries_per_find": self.queries_per_find.to_dict(),
            "characters": self.characters.to_dict(),
            "queries": self.queries,
            "kinds": dict(self.kinds),
            "attacks": [
                {**attack.__dict__, "find": None if attack.find is None else dict(attack.find.__dict__)}
                for attack in self.attacks
            ],
        }

    def __repr__(self) -> str:
        most = next(iter(self.kinds), "none")
        return f"AdversaryReport({self.scorer}: flipped {self.flipped!r}, most often by {most}, {self.queries} queries)"


def find_flips(
    scorer: Scorer,
    pairs: Sequence[PreferencePair],
    edits: Sequence[Edit] | None = None,
    *,
    most_edits: int = 2,
    max_queries: int = 160,
    batch: int = 8,
    level: float = 0.95,
    advance: Callable[[], object] | None = None,
) -> AdversaryReport:
    """Look for the smallest edit that flips each pair which is ranked right.

    Candidates are tried by increasing characters, some at a time; the first of these that makes the rejected answer
    score higher than the chosen one is the find. A tie is no flip.

    Args:
        scorer: Who is attacked.
        pairs: What it ranks.
        edits: Single edits, in the order in which they are combined; by default `standard_edits`.
        most_edits: Edits to combine.
        max_queries: Most answers to score for a pair; the two of the pair are among them.
        batch: Answers scored at a time; a larger one is faster and may spend more queries than were needed.
        level: Confidence level in (0, 1).
        advance: Called after each pair, for a progress bar.

    Raises:
        InputError: There is no pair or no edit, or a number is out of range.
    """
    tried = standard_edits() if edits is None else tuple(edits)
    if not pairs or not tried:
        raise InputError(f"an adversary needs pairs and edits, and there are {len(pairs)} and {len(tried)}")
    if most_edits < 1 or max_queries < 3 or batch < 1:
        raise InputError(f"most_edits {most_edits}, max_queries {max_queries}, batch {batch}: give 1, 3, 1 or more")
    attacks: list[Attack] = []
    unscored: Counter[str] = Counter()
    wrong = 0
    for pair in pairs:
        chosen, rejected = verdicts(scorer, [pair.prompt] * 2, [pair.chosen, pair.rejected], skip=True)
        if chosen.error or rejected.error:
            unscored[reason_of(chosen.error or rejected.error)] += 1
        elif chosen.score > rejected.score:
            options = candidates(pair.prompt, pair.chosen, pair.rejected, tried, most_edits)
            known = {pair.chosen: chosen.score, pair.rejected: rejected.score}
            attacks.append(_attack(scorer, pair, options, known, max_queries, batch))
        else:
            wrong += 1
        if advance is not None:
            advance()
    finds = [(attack, attack.find) for attack in attacks if attack.find is not None]
    where = [attack.cluster for attack, _ in finds]
    return AdversaryReport(
        scorer=name_of(scorer),
        attacks=tuple(attacks),
        ranked_wrong=wrong,
        unscored=dict(unscored),
        flipped=proportion(
            [attack.find is not None for attack in attacks], [attack.cluster for attack in attacks], level
        ),
        queries_per_find=mean([attack.queries for attack, _ in finds], where, level, (2.0, math.inf)),
        characters=mean([find.characters for _, find in finds], where, level, (1.0, math.inf)),
        kinds=dict(Counter(" + ".join(find.kinds) for _, find in finds).most_common()),
    )


def _attack(
    scorer: Scorer,
    pair: PreferencePair,
    options: Sequence[Candidate],
    known: Mapping[Response, float],
    max_queries: int,
    batch: int,
) -> Attack:
    """Try candidates in turn; an answer that several share is scored once."""
    scores: dict[Response, float | None] = dict(known)
    margin = known[pair.chosen] - known[pair.rejected]
    waiting = list(options)
    find = None
    while waiting and find is None:
        some, fresh = _next(waiting, scores, min(batch, max_queries - len(scores)))
        if not some:
            break
        given = verdicts(scorer, [pair.prompt] * len(fresh), fresh, skip=True)
        scores |= {
            response: None if verdict.error else verdict.score for response, verdict in zip(fresh, given, strict=True)
        }
        waiting = waiting[len(some) :]
        find = next((found for option in some if (found := _flip(option, scores)) is not None), None)
    refused = sum(score is None for score in scores.values())
    done = not waiting or find is not None
    return Attack(pair.id, pair.group, pair.cluster, margin, find, len(scores), refused, done)


def _next(
    waiting: Sequence[Candidate], scores: Mapping[Response, float | None], room: int
) -> tuple[list[Candidate], list[Response]]:
    """The next candidates whose answers, as far as they are new, fit into the room; and these answers."""
    some: list[Candidate] = []
    fresh: dict[Response, None] = {}
    for option in waiting:
        new = {side: None for side in (option.chosen, option.rejected) if side not in scores and side not in fresh}
        if len(fresh) + len(new) > room:
            break
        fresh |= new
        some.append(option)
    return some, list(fresh)


def _flip(option: Candidate, scores: Mapping[Response, float | None]) -> Find | None:
    chosen, rejected = scores[option.chosen], scores[option.rejected]
    if chosen is None or rejected is None or chosen >= rejected:
        return None
    return Find(
        edits=tuple(edit.name for edit in option.edits),
        kinds=tuple(edit.kind for edit in option.edits),
        keeps=tuple(edit.keeps for edit in option.edits),
        chosen=option.chosen.text,
        rejected=option.rejected.text,
        characters=option.characters,
        margin=chosen - rejected,
    )
