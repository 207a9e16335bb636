"""Whatever gives a response a number: a reward model, a callable, a judge. One form for all, and what failed by name.

A `rewardmodels.RewardModel` is a `Scorer` as it is. Scores made elsewhere are read in
`rewardmodels.score_files`; judges are in `rewardmodels.judges`. Knows no model and no view of a prompt. No torch.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from probes.inputs import InputError, Turn
from rewardmodels.records import Response

Prompts = Sequence[Sequence[Turn]]
Item = TypeVar("Item")


class Scorer(Protocol):
    """Anything that gives a response a number; higher is better."""

    def get_scores(self, prompts: Prompts, responses: Sequence[Response]) -> list[float]:
        """Score responses, each to its own prompt.

        Raises:
            InputError: If one cannot be scored.
        """


class Verdict(NamedTuple):
    """What became of one question to a scorer or a judge.

    Attributes:
        score: The score; of a pair, positive for the first, negative for the second, 0 for a tie. NaN without one.
        error: Why there is none, in one line.
    """

    score: float
    error: str = ""

    @classmethod
    def missing(cls, error: str) -> "Verdict":
        """No score, and why."""
        return cls(math.nan, error)


class VerdictScorer(Scorer, Protocol):
    """A scorer that tells of each response why it has no score, such as a judge that answers nonsense."""

    def get_verdicts(self, prompts: Prompts, responses: Sequence[Response], skip: bool) -> list[Verdict]:
        """Score responses; with `skip`, failures are verdicts without a score, else the first is raised."""


@runtime_checkable
class PairJudge(Protocol):
    """Anything that sees two responses at once and says which is better."""

    def compare_pairs(
        self, prompts: Prompts, firsts: Sequence[Response], seconds: Sequence[Response], skip: bool
    ) -> list[Verdict]:
        """Compare responses in the order in which they are given.

        Args:
            prompts: One per pair.
            firsts: What is shown first.
            seconds: What is shown second.
            skip: Whether failures are verdicts without a score; else the first is raised.

        Raises:
            InputError: If one fails and is not skipped.
        """


class CallableScorer:
    """A function of one prompt and one response as a scorer.

    Args:
        function: Takes the prompt's turns and a response, and returns a number.
        name: How reports call it; by default the function's own name.

    >>> CallableScorer(lambda prompt, response: len(response.text), "length").get_scores([()], [Response("four")])
    [4.0]
    """

    def __init__(self, function: Callable[[Sequence[Turn], Response], float], name: str = "") -> None:
        self.name = name or getattr(function, "__name__", type(function).__name__)
        self._function = function

    def __repr__(self) -> str:
        return f"CallableScorer({self.name})"

    def get_scores(self, prompts: Prompts, responses: Sequence[Response]) -> list[float]:
        """Score responses one by one.

        Raises:
            InputError: If a value is no finite number.
        """
        return [self._score(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]

    def _score(self, prompt: Sequence[Turn], response: Response) -> float:
        value = self._function(prompt, response)
        try:
            score = float(value)
        except (TypeError, ValueError):
            raise InputError(f"{self.name} gives {value!r:.60}, which is no number") from None
        if not math.isfinite(score):
            raise InputError(f"{self.name} gives {score}, which is no finite number")
        return score


def name_of(scorer: object) -> str:
    """How reports call a scorer: its `name`, or what it shows of itself."""
    name = getattr(scorer, "name", None)
    return name if isinstance(name, str) and name else repr(scorer)


def is_pair_judge(scorer: Scorer | PairJudge) -> bool:
    """Whether it compares pairs instead of scoring responses."""
    return isinstance(scorer, PairJudge)


def verdicts(scorer: Scorer, prompts: Prompts, responses: Sequence[Response], skip: bool = False) -> list[Verdict]:
    """Score responses, each with the reason where it has no score.

    Args:
        scorer: Who scores.
        prompts: One per response.
        responses: What is scored.
        skip: Keep going past responses that cannot be scored; a batch that is refused is halved until the one at fault
            is alone.

    Raises:
        InputError: If a response cannot be scored and is not skipped, or the scorer gives another number of scores.
    """
    if not responses:
        return []
    explains = getattr(scorer, "get_verdicts", None)
    if explains is not None:
        found: list[Verdict] = _checked(explains(prompts, responses, skip), len(responses), scorer)
        return found
    try:
        scores = _checked(scorer.get_scores(prompts, responses), len(responses), scorer)
    except InputError as error:
        if not skip:
            raise
        if len(responses) == 1:
            # Its place among those that were asked with it is 0, and says nothing.
            return [Verdict.missing(str(error).removeprefix("response 0: "))]
        half = len(responses) // 2
        return [
            *verdicts(scorer, prompts[:half], responses[:half], skip),
            *verdicts(scorer, prompts[half:], responses[half:], skip),
        ]
    found = [Verdict(score) if math.isfinite(score) else Verdict.missing(f"its score is {score}") for score in scores]
    bad = [place for place, verdict in enumerate(found) if verdict.error]
    if bad and not skip:
        raise InputError(f"response {bad[0]}: {found[bad[0]].error}, and {len(bad)} of {len(found)} have no number")
    return found


def _checked(given: Sequence[Item], count: int, scorer: object) -> list[Item]:
    if len(given) != count:
        raise InputError(f"{name_of(scorer)} gives {len(given)} scores for {count} responses")
    return list(given)
