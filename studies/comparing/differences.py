"""The differences B - A of two paired audits, and whether they hold a bar. Numbers in, numbers out.

It knows audits and intervals; no file, no table and no figure. No torch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from probes.inputs import InputError
from probes.paired import ShareDifference, share_difference
from studies.auditing.entries import Entry
from studies.comparing.audits import ByKind, Pair, Where
from studies.scaling import ROWS

BOTH, OWN, ALL = "right in both", "right in each", "all"
"""Which samples a share is of: those that both runs answer right, each run's own right answers, or all."""

_SLACK = 1e-9
"""Points by which a drop may pass the bar through rounding alone."""


@dataclass(frozen=True)
class Compared:
    """One metric of both runs, and B - A: the first share is the candidate's (B), the second the baseline's (A)."""

    name: str
    """As in metrics.json."""
    rows: str | None
    subset: str
    """One of `BOTH`, `OWN` and `ALL`."""
    found: ShareDifference
    by_kind: ByKind | None = None
    """The measure and the kind of layers whose focus it is; None for attention factors."""

    @property
    def label(self) -> str:
        """The metric as a person would say it."""
        if self.rows is None:
            return "answers right"
        quantity = "P(focus = target)" if self.name == "attention_overall" else f"attention accuracy, {self.subset}"
        return f"{quantity}, {self.rows if self.by_kind is None else self.by_kind.label}"

    def as_json(self) -> Entry:
        """Shares, difference with interval, and what could have been detected; NaN becomes null."""
        numbers = {
            "baseline": self.found.second,
            "candidate": self.found.first,
            "standard_error": self.found.standard_error,
            "detectable": self.found.detectable,
        }
        return {
            "name": self.name,
            **({} if self.by_kind is None else self.by_kind._asdict()),
            "rows": self.rows,
            "subset": self.subset,
            "label": self.label,
            "estimate": self.found.estimate.to_dict(),
            **{name: None if math.isnan(number) else number for name, number in numbers.items()},
            "baseline_n": self.found.second_n,
            "candidate_n": self.found.first_n,
        }


class Verdict(NamedTuple):
    """What --fail-under says."""

    failed: bool
    line: str


def compare(pair: Pair, seed: int = 0) -> Iterator[Compared]:
    """Every difference B - A of two paired audits, over the samples that both could score."""
    sides = (pair.candidate, pair.baseline)
    cluster = pair.baseline.cluster
    kept = sides[0].scored & sides[1].scored
    answers = share_difference(sides[0].right[kept], sides[1].right[kept], cluster[kept], seed=seed)
    yield Compared("answer_accuracy", None, ALL, answers)
    everywhere: tuple[Where, ...] = (*ROWS, *pair.by_kind)
    for where in everywhere:
        yield from _of_focus(pair, where, seed)


def _of_focus(pair: Pair, where: Where, seed: int) -> Iterator[Compared]:
    """The differences of what one focus hits."""
    sides = (pair.candidate, pair.baseline)
    rows, by_kind = (where.rows, where) if isinstance(where, ByKind) else (where, None)
    kept = sides[0].scorable(where) & sides[1].scorable(where)
    hits = [side.hits(where)[kept] for side in sides]
    right = [side.right[kept] for side in sides]
    both, groups = right[0] & right[1], pair.baseline.cluster[kept]
    common = share_difference(hits[0][both], hits[1][both], groups[both], seed=seed)
    yield Compared("attention_accuracy", rows, BOTH, common, by_kind)
    own = share_difference(hits[0], hits[1], groups, first_counted=right[0], second_counted=right[1], seed=seed)
    yield Compared("attention_accuracy", rows, OWN, own, by_kind)
    yield Compared("attention_overall", rows, ALL, share_difference(hits[0], hits[1], groups, seed=seed), by_kind)


def judge(compared: Sequence[Compared], rows: str, points: float, lost: int = 0) -> Verdict:
    """Hold attention accuracy on the samples that both answer right against a bar, in points.

    It fails when the difference B - A is below minus the bar. The interval does not decide, since a small audit would
    then pass whatever it found; the line says what the interval leaves open.

    Args:
        compared: As `compare` gives them.
        rows: The row set.
        points: The bar, 0 or more.
        lost: Samples that went well in the baseline alone: they are in no difference, and the line says so.

    Raises:
        InputError: If no sample was answered right by both.
    """
    softmax = [each for each in compared if each.by_kind is None]
    entry = next(each for each in softmax if each.name == "attention_accuracy" and each.rows == rows)
    estimate = entry.found.estimate
    if math.isnan(estimate.value):
        raise InputError(
            f"--fail-under {points:g}: no sample with {rows} rows was answered right in both runs, so there is no "
            "difference to hold against it: leave --fail-under out, or audit more questions"
        )
    bar = f"{-points:g}" if points else "0"
    failed = 100 * estimate.value < -points - _SLACK
    without = f" (without {lost} samples that failed in B alone)" if lost else ""
    said = f"B - A of {entry.label}: {in_points(entry)} points, n = {estimate.n}{without}"
    if failed:
        beyond = 100 * estimate.high < -points - _SLACK
        interval = "lies wholly below it" if beyond else "reaches up to it, so chance alone could have done this"
        return Verdict(True, f"FAILED --fail-under {points:g}: {said}, is below {bar}; the interval {interval}")
    reaches = 100 * estimate.low < -points - _SLACK
    interval = "does not exclude" if reaches else "excludes"
    return Verdict(
        False, f"passed --fail-under {points:g}: {said}, is not below {bar}; the interval {interval} a larger drop"
    )


def in_points(entry: Compared) -> str:
    """The difference and its interval, in points, as a person reads it."""
    estimate = entry.found.estimate
    if math.isnan(estimate.value):
        return "–"
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
