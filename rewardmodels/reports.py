"""What a scorer's scores say about it, in one record: accuracy beside rulers, what images change, known benchmarks.

Works on scores that are there already (`rewardmodels.questioning`, `rewardmodels.score_files`). Imports no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.inputs import InputError
from rewardmodels.benchmark_scores import BenchmarkResult, benchmark_result
from rewardmodels.degradation import ShortcutFailureDegradation, shortcut_failure_degradation
from rewardmodels.evaluation import GroupedAccuracy, accuracy_by_group
from rewardmodels.judged_pairs import JudgedPairs, judged_pairs
from rewardmodels.pair_report import PairReport, pair_report
from rewardmodels.pair_scores import PairColumns, PlacedPair, Sides, pair_columns, pair_sides, placed_pairs
from rewardmodels.perturbations import Perturbed, perturbation
from rewardmodels.preferences import Preferences
from rewardmodels.scores import AS_IS, Scores, count_reasons


@dataclass(frozen=True)
class Counts:
    """What the numbers of a report rest on, and what they leave out."""

    records: int
    bad: int
    """Rows of the data that could not be read."""
    pairs: int
    """Pairs of a better and a worse response."""
    scored: int
    """Pairs that both sides of have a score."""
    ties: int
    """Pairs of equally good responses, which no accuracy counts."""
    skipped_ratings: int
    """Responses that the data rate and that could not be ranked."""
    failed: Mapping[str, int]
    """Questions that got no score, by reason; over all views."""
    problems: Mapping[str, int] = field(default_factory=dict)
    """Rows of a file of scores that could not be used, by reason."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**self.__dict__, "failed": dict(self.failed), "problems": dict(self.problems)}


@dataclass(frozen=True)
class ViewReport:
    """The same pairs with their images replaced or taken away."""

    change: Perturbed | None
    """Accuracy before and after; None where no pair has scores of both."""
    pairs: int
    """Pairs that it rests on."""
    left_out: Mapping[str, int]
    """Records that cannot be shown so, by reason."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        change = None if self.change is None else self.change.to_dict()
        return {"change": change, "pairs": self.pairs, "left_out": dict(self.left_out)}


@dataclass(frozen=True)
class Report:
    """Everything that was asked of one scorer on one set of preferences."""

    scorer: str
    data: str
    """The format of the preferences, and why it was taken."""
    counts: Counts
    pairs: PairReport | JudgedPairs
    """Accuracy with the rulers beside it; of a judge of pairs with what the order of answers does."""
    views: Mapping[str, ViewReport]
    sources: GroupedAccuracy | None
    """Accuracy by data set, where there are several."""
    degradation: ShortcutFailureDegradation | None
    """How much worse pairs are ranked that a text-only model gets wrong, where its scores are given."""
    text_only: str
    """The name of that model."""
    benchmark: BenchmarkResult | None
    """The headline numbers of the benchmark whose format the data have, where it has its own."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "scorer": self.scorer,
            "data": self.data,
            "counts": self.counts.to_dict(),
            "pairs": self.pairs.to_dict(),
            "views": {view: found.to_dict() for view, found in self.views.items()},
            "sources": None if self.sources is None else self.sources.to_dict(),
            "degradation": None if self.degradation is None else self.degradation.to_dict(),
            "text_only": self.text_only,
            "benchmark": None if self.benchmark is None else self.benchmark.to_dict(),
        }

    def __repr__(self) -> str:
        micro = self.pairs.accuracy.micro
        best = self.pairs.rulers.best
        drops = {view: found.change.drop.value for view, found in self.views.items() if found.change is not None}
        shown = "".join(f", {view} {-drop:+.3f}" for view, drop in drops.items())
        ruler = self.pairs.rulers.rulers[best].value
        return f"Report({self.scorer}: accuracy {micro!r}, the ruler {best!r} {ruler:.3f}{shown})"


def reward_report(
    preferences: Preferences,
    scores: Scores,
    text_only: Scores | None = None,
    *,
    seed: int = 0,
    level: float = 0.95,
) -> Report:
    """Ask every question that the scores can answer.

    Args:
        preferences: What was scored.
        scores: Of its responses, or comparisons of its pairs.
        text_only: Scores of the same responses by a model that sees no image, trained on the same source; gives the
            shortcut-failure degradation. A tie counts as wrong there, for either model.
        seed: Of coins and bootstraps.
        level: Confidence level in (0, 1).

    Raises:
        InputError: No pair has scores of both sides.
    """
    pairs = placed_pairs(preferences)
    plain = pair_sides(pairs, scores)
    kept = [pair for pair in pairs if pair.pair.id in plain]
    if not kept:
        reasons = count_reasons(row.error for row in scores.failed)
        told = f": {next(iter(reasons))}" if reasons else ""
        raise InputError(f"none of {len(pairs)} pairs has a score on both sides{told}")
    table = pair_columns(kept, plain)
    return Report(
        scorer=scores.scorer,
        data=f"{preferences.format}: {preferences.why}",
        counts=_counts(preferences, scores, len(pairs), len(kept)),
        pairs=_pair_numbers(kept, scores, table, seed, level),
        views={
            view: _view(kept, scores, plain, view, seed, level)
            for view in dict.fromkeys((*scores.views, *scores.left_out))
            if view != AS_IS
        },
        sources=_by_source(kept, table, level),
        degradation=None if text_only is None else _degradation(kept, plain, text_only, level),
        text_only="" if text_only is None else text_only.scorer,
        benchmark=benchmark_result(preferences, scores, plain, level=level),
    )


def _pair_numbers(
    pairs: Sequence[PlacedPair], scores: Scores, table: PairColumns, seed: int, level: float
) -> PairReport | JudgedPairs:
    if not scores.compared:
        return pair_report(*table, seed=seed, level=level)
    known = scores.under(AS_IS)
    orders = np.array([[known[each.pair.id, order] for order in (0, 1)] for each in pairs])
    return judged_pairs(
        orders[:, 0],
        orders[:, 1],
        table.chosen_lengths,
        table.rejected_lengths,
        table.groups,
        table.clusters,
        seed=seed,
        level=level,
    )


def _view(
    pairs: Sequence[PlacedPair],
    scores: Scores,
    plain: Sides,
    view: str,
    seed: int,
    level: float,
) -> ViewReport:
    changed = pair_sides(pairs, scores, view)
    both = [pair for pair in pairs if pair.pair.id in changed]
    left_out = count_reasons(record.error for record in scores.left_out.get(view, ()))
    if not both:
        return ViewReport(None, 0, left_out)
    before, after = pair_columns(both, plain), pair_columns(both, changed)
    found = perturbation(
        before.chosen, before.rejected, after.chosen, after.rejected, before.clusters, seed=seed, level=level
    )
    return ViewReport(found, len(both), left_out)


def _by_source(pairs: Sequence[PlacedPair], table: PairColumns, level: float) -> GroupedAccuracy | None:
    sources = [each.pair.source for each in pairs]
    if len(set(sources)) < 2:
        return None
    named = [source or "source unknown" for source in sources]
    return accuracy_by_group(table.chosen, table.rejected, named, table.clusters, level=level)


def _degradation(
    pairs: Sequence[PlacedPair], plain: Sides, text_only: Scores, level: float
) -> ShortcutFailureDegradation:
    by_text = pair_sides(pairs, text_only)
    both = [pair for pair in pairs if pair.pair.id in by_text]
    if not both:
        raise InputError(f"{text_only.scorer or 'the text-only model'} has scores of none of these {len(pairs)} pairs")
    clusters = [each.pair.cluster for each in both]
    own, others = (_right(pair_columns(both, sides)) for sides in (plain, by_text))
    return shortcut_failure_degradation(own, others, clusters, level=level)


def _right(table: PairColumns) -> NDArray[np.bool_]:
    return table.chosen > table.rejected


def _counts(preferences: Preferences, scores: Scores, pairs: int, scored: int) -> Counts:
    return Counts(
        records=len(preferences),
        bad=len(preferences.bad),
        pairs=pairs,
        scored=scored,
        ties=preferences.ties,
        skipped_ratings=len(preferences.skipped),
        failed=count_reasons(row.error for row in scores.failed),
        problems=count_reasons(problem.error for problem in scores.problems),
    )
