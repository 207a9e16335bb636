"""Time to expect: a few questions of differing length are really asked and traced, and the rest lies between them."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from studies.doctor.lengths import Length

if TYPE_CHECKING:
    from probes.model import HookedModel
    from studies.auditing.run import Settings

QUESTIONS = 3
"""Questions that are timed."""
TOGETHER = 8
"""Most copies of a question in a timed batch; what a larger batch saves besides is not counted."""


class Timed(NamedTuple):
    """One question asked and traced, in a batch of its copies."""

    tokens: int
    seconds: float
    """Per copy."""


def time_questions(
    ask: Callable[[Length, int], object],
    lengths: Sequence[Length],
    copies: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timed]:
    """Ask a batch of copies of each question once, after one that is not counted.

    Args:
        ask: Answers and traces so many copies of one question.
        lengths: The questions, in any order.
        copies: Size of a batch.
        clock: Seconds.
    """
    ask(lengths[0], copies)
    timed = []
    for length in lengths:
        start = clock()
        ask(length, copies)
        timed.append(Timed(length.tokens, (clock() - start) / copies))
    return timed


def expected_seconds(timed: Sequence[Timed], tokens: Sequence[int], samples: int) -> float:
    """Seconds for all samples: linear in tokens between the timed questions, scaled to `samples`.

    >>> expected_seconds([Timed(100, 1.0), Timed(200, 3.0)], [100, 150, 200], 30)
    60.0
    """
    ordered = sorted(timed)
    seconds = np.interp(tokens, [each.tokens for each in ordered], [each.seconds for each in ordered])
    return float(seconds.mean() * samples)


def tracer(model: "HookedModel", settings: "Settings") -> Callable[[Length, int], object]:
    """Ask copies of one question as an audit does."""
    from studies.auditing.run import trace_records

    return lambda length, copies: trace_records(model, [length.record] * copies, settings)
