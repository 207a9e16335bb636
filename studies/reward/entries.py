"""The numbers of `reward eval` under the names that its table, its JSON and model cards call them by.

It picks and names; how each is computed is `rewardmodels`. No torch.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from probes.estimates import Estimate
from rewardmodels.benchmark_scores import BenchmarkResult
from rewardmodels.benchmarks import AccuracyAndPlus
from rewardmodels.best_of_n import BestOfNCurve
from rewardmodels.evaluation import GroupedAccuracy
from rewardmodels.judged_pairs import JudgedPairs
from rewardmodels.pair_report import PairReport
from rewardmodels.reports import Report, ViewReport
from rewardmodels.reward_bench_2 import RewardBench2Score
from rewardmodels.styles import StyleMatrix

Unit = Literal["share", "difference", "points", "number"]
"""How a value is shown: in percent, in percentage points, in the points that it is in already, or as it is."""
SEEN = {
    "blank": "blank images",
    "blank-224": "blank images of 224 x 224",
    "shuffled": "shuffled images",
    "removed": "removed images",
    "text alone": "text alone",
}


@dataclass(frozen=True)
class Entry:
    """One number."""

    section: str
    name: str
    estimate: Estimate
    unit: Unit = "share"
    note: str = ""

    def to_dict(self, where: str) -> dict[str, Any]:
        """Return plain JSON values, as `rewardmodels.card_numbers.Measured` takes them.

        Args:
            where: The set that it was measured on.
        """
        told = {"section": self.section, "name": self.name, "where": where, "unit": self.unit, "note": self.note}
        return {**told, **self.estimate.to_dict()}

    def shown(self) -> tuple[str, str]:
        """The value and its interval as text.

        >>> Entry("accuracy", "pair accuracy", Estimate(0.873, 9, 0.851, 0.893)).shown()
        ('87.3 %', '[85.1, 89.3]')
        """
        scale = 100.0 if self.unit in ("share", "difference") else 1.0
        value, low, high = (scale * number for number in (self.estimate.value, self.estimate.low, self.estimate.high))
        if math.isnan(value):
            return "–", ""
        sign, digits = ("", 1) if self.unit == "share" else ("+", 1) if self.unit != "number" else ("", 3)
        ends = f"[{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
        return f"{value:{sign}.{digits}f}{' %' if self.unit == 'share' else ''}", ends


def entries_of(report: Report, proxy_note: str = "") -> list[Entry]:
    """Name the numbers of a report.

    Args:
        report: What was asked.
        proxy_note: Whose text-only ranking the shortcut-failure degradation rests on.
    """
    pairs = report.pairs
    found = [*_accuracy(pairs.accuracy, "pair accuracy"), *_sources(report.sources), *_benchmark(report.benchmark)]
    found += _rulers(pairs)
    for view, change in report.views.items():
        found += _view(SEEN.get(view, view), change)
    found += _position(pairs)
    if report.degradation is not None:
        sides = f"{report.degradation.n_plus:,} with the shortcut, {report.degradation.n_minus:,} against it"
        name = "shortcut-failure degradation (points)"
        found.append(Entry("shortcut", name, report.degradation, "points", f"{sides}; {proxy_note}"))
    return [*found, *_length(pairs), *_calibration(pairs)]


def _accuracy(found: GroupedAccuracy, name: str, section: str = "accuracy") -> Iterator[Entry]:
    several = len(found.groups) > 1
    ties = f"; {found.ties:,} ties count one half" if found.ties else ""
    yield Entry(section, name, found.micro, note=f"micro: over pairs{ties}" if several else ties.removeprefix("; "))
    if several:
        yield Entry(section, f"{name}, macro", found.macro, note="macro: over groups, each counts once")
        for group, estimate in found.groups.items():
            yield Entry(section, f"{name}, {group}", estimate)


def _sources(found: GroupedAccuracy | None) -> Iterator[Entry]:
    for source, estimate in ({} if found is None else found.groups).items():
        yield Entry("accuracy", f"pair accuracy, source {source}", estimate)


def _benchmark(found: BenchmarkResult | None) -> Iterator[Entry]:
    if found is None:
        return
    numbers, name = found.numbers, found.name
    if isinstance(numbers, GroupedAccuracy):
        yield from _accuracy(numbers, f"{name} accuracy", "benchmark")
    elif isinstance(numbers, AccuracyAndPlus):
        # By group it is the pair accuracy that stands above.
        yield Entry("benchmark", f"{name} ACC", numbers.accuracy.micro, note="over pairs")
        yield Entry("benchmark", f"{name} ACC+", numbers.plus.micro, note="all pairs of a question right")
    elif isinstance(numbers, RewardBench2Score):
        yield Entry("benchmark", f"{name} average", numbers.average, note="over subsets, each counts once")
        for subset, estimate in numbers.subsets.items():
            yield Entry("benchmark", f"{name}, {subset}", estimate)
    else:
        yield from style_entries(numbers, f"{name} ")
    if found.left_out:
        yield Entry("benchmark", f"{name}, items left out", _count(found.left_out), "number", "no full set of scores")


def _count(number: int) -> Estimate:
    return Estimate(float(number), number, float(number), float(number))


def style_entries(found: StyleMatrix, name: str = "") -> Iterator[Entry]:
    """Name the numbers of a style matrix, those of its cells left out."""
    notes = {
        "easy": "the right answer is in the richer style",
        "normal": "both are in one style",
        "hard": "the wrong answer is in the richer style",
        "average": "mean of the three",
    }
    for part, note in notes.items():
        yield Entry("benchmark", f"{name}{part} accuracy", getattr(found, part), note=note)
    for side, means in (("right", found.chosen), ("wrong", found.rejected)):
        for style, estimate in zip(found.styles, means, strict=True):
            yield Entry("benchmark", f"{name}mean score of {side} answers, {style}", estimate, "number")


def _rulers(pairs: PairReport | JudgedPairs) -> Iterator[Entry]:
    for name, estimate in pairs.rulers.rulers.items():
        yield Entry("rulers", f"{name} ruler", estimate, note="a coin" if name == "random" else f"the {name} answer")
    best = pairs.rulers.best
    yield Entry(
        "rulers", f"accuracy above the {best} ruler", pairs.rulers.gains[best], "difference", "the best of them here"
    )


def _view(name: str, view: ViewReport) -> Iterator[Entry]:
    left = sum(view.left_out.values())
    told = f"; {left:,} records cannot be shown so" if left else ""
    if view.change is None:
        return
    yield Entry("images", f"accuracy with {name}", view.change.after, note=f"{view.pairs:,} pairs{told}")
    yield Entry("images", f"accuracy drop with {name}", view.change.drop, "difference", "near 0: it does not look")
    yield Entry("images", f"verdicts changed by {name}", view.change.flipped)


def _position(pairs: PairReport | JudgedPairs) -> Iterator[Entry]:
    if isinstance(pairs, JudgedPairs):
        yield Entry("position", "accuracy, better answer first", pairs.position.shown_first)
        yield Entry("position", "accuracy, better answer second", pairs.position.shown_second)
        yield Entry("position", "position bias", pairs.position.bias, "difference", "above 0: it leans to the first")
        yield Entry("position", "same verdict in both orders", pairs.position.consistent)


def _length(pairs: PairReport | JudgedPairs) -> Iterator[Entry]:
    if isinstance(pairs, PairReport):
        name = "length correlation at fixed quality"
        yield Entry("length", name, pairs.length_correlation, "number", "partial correlation; 0: length does not pay")
        yield Entry("length", "score for a doubling of length", pairs.length_slope, "number", "at fixed quality")
    yield Entry("length", "accuracy at matched length", pairs.matched.matched, note="lengths within 10 %")
    note = "mean of better longer and better shorter; the longer ruler has 50 %"
    yield Entry("length", "accuracy balanced over length", pairs.matched.balanced, note=note)


def _calibration(pairs: PairReport | JudgedPairs) -> Iterator[Entry]:
    if isinstance(pairs, PairReport):
        found = pairs.calibration
        yield Entry("calibration", "expected calibration error", found.error, "number", "of sigmoid(margin)")
        yield Entry("calibration", "Brier score", found.brier, "number", "0.25: it does not know")
        yield Entry("calibration", "overconfidence", found.overconfidence, "difference")


def best_of_n_entries(curve: BestOfNCurve) -> Iterator[Entry]:
    """Name the first and the last point of a best-of-N curve, and what picking by the truth would give."""
    for place in (0, -1):
        note = f"bundled questions; {100 * curve.ceiling[place]:.1f} % at best"
        yield Entry("best of N", f"right picks at N = {curve.sizes[place]}", curve.quality[place], note=note)


def print_table(title: str, entries: Sequence[Entry], notes: Sequence[str], counts: Mapping[str, int]) -> None:
    """Print numbers by section on stdout, with what was not asked and what was left out below."""
    import sys

    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("value", "95 % interval", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    section = ""
    for entry in entries:
        if entry.section != section:
            if section:
                table.add_section()
            section = entry.section
        value, ends = entry.shown()
        clusters = entry.estimate.clusters
        n = f"{entry.estimate.n:,}" + ("" if clusters in (None, entry.estimate.n) else f" in {clusters:,}")
        table.add_row(entry.name, value, ends, n, entry.note)
    # Groups are texts of the data: one like "[/b]" would be read as a style, and end the run.
    console = Console(width=None if sys.stdout.isatty() else 140, markup=False, emoji=False)
    console.print(table)
    for line in notes:
        console.print(line, highlight=False)
    if counts:
        told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        console.print(f"Left out: {told}", highlight=False)
