"""The headline numbers of a known benchmark, from scores of its responses, by the format that its records were read in.

Which response belongs where is the readers' order; the numbers are in `rewardmodels.benchmarks`, `styles` and
`reward_bench_2`. Imports no torch.
"""

from dataclasses import dataclass
from typing import Any

from rewardmodels.benchmarks import AccuracyAndPlus, mm_rlhf_reward_bench, vl_reward_bench
from rewardmodels.evaluation import GroupedAccuracy, accuracy_by_group
from rewardmodels.pair_scores import Sides
from rewardmodels.preferences import Preferences
from rewardmodels.records import Preference
from rewardmodels.reward_bench_2 import RewardBench2Score, reward_bench_2
from rewardmodels.scores import AS_IS, Scores
from rewardmodels.styles import StyleMatrix, style_matrix

Numbers = GroupedAccuracy | AccuracyAndPlus | StyleMatrix | RewardBench2Score


@dataclass(frozen=True)
class BenchmarkResult:
    """A benchmark's own numbers, ties as the benchmark takes them."""

    name: str
    numbers: Numbers
    left_out: int
    """Items without all the scores that they need."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"name": self.name, "numbers": self.numbers.to_dict(), "left_out": self.left_out}


def benchmark_result(
    preferences: Preferences, scores: Scores, sides: Sides, *, level: float = 0.95
) -> BenchmarkResult | None:
    """Return the numbers of the benchmark whose format the records have; None where it has none of its own.

    Args:
        preferences: The records.
        scores: Of their responses; comparisons of pairs do for the benchmarks that rest on pairs.
        sides: By pair id, the scores of the better and the worse response.
        level: Confidence level in (0, 1).
    """
    known = preferences.format
    if known in ("vl-rewardbench", "vl-rewardbench-tsv"):
        return _on_pairs("VL-RewardBench", preferences, sides, level)
    if known == "mm-rlhf-rewardbench":
        return _on_pairs("MM-RLHF-RewardBench", preferences, sides, level)
    if scores.compared or known not in ("rm-bench", "rewardbench-2"):
        return None
    by_place = scores.under(AS_IS)
    whole: list[tuple[Preference, list[float]]] = []
    for record in preferences:
        found = [by_place.get((record.id, place)) for place in range(len(record.responses))]
        if None not in found:
            whole.append((record, [score for score in found if score is not None]))
    if known == "rewardbench-2":
        # Half of a pair of tied prompts cannot be scored.
        twins = {record.id for record, _ in whole}
        whole = [(record, given) for record, given in whole if _twin(record.id) in twins or not _twin(record.id)]
    if not whole:
        return None
    numbers = _styles(whole, level) if known == "rm-bench" else _best_of_four(whole, level)
    name = "RM-Bench" if known == "rm-bench" else "RewardBench 2"
    return BenchmarkResult(name, numbers, len(preferences) - len(whole))


def _on_pairs(name: str, preferences: Preferences, sides: Sides, level: float) -> BenchmarkResult | None:
    everything = [pair for record in preferences for pair in record.pairs()]
    pairs = [pair for pair in everything if pair.id in sides]
    if preferences.format == "mm-rlhf-rewardbench":
        # A question with a pair that has no score cannot be told to be right as a whole.
        unknown = {pair.cluster for pair in everything if pair.id not in sides}
        pairs = [pair for pair in pairs if pair.cluster not in unknown]
    if not pairs:
        return None
    chosen, rejected = ([sides[pair.id][side] for pair in pairs] for side in (0, 1))
    clusters = [pair.cluster for pair in pairs]
    left_out = len(everything) - len(pairs)
    groups = [pair.group or "all" for pair in pairs]
    if preferences.format == "vl-rewardbench":
        numbers: Numbers = vl_reward_bench([pair.record for pair in pairs], chosen, rejected, clusters, level=level)
    elif preferences.format == "vl-rewardbench-tsv":
        # Its ids may be numbers of lines, which tell no group.
        numbers = accuracy_by_group(chosen, rejected, groups, clusters, level=level)
    else:
        numbers = mm_rlhf_reward_bench(clusters, groups, chosen, rejected, level=level)
    return BenchmarkResult(name, numbers, left_out)


def _styles(whole: list[tuple[Preference, list[float]]], level: float) -> StyleMatrix:
    half = len(whole[0][1]) // 2
    return style_matrix(
        [given[:half] for _, given in whole],
        [given[half:] for _, given in whole],
        [record.group.split("/")[0] for record, _ in whole],
        [record.cluster for record, _ in whole],
        ties=0.0,
        level=level,
    )


def _best_of_four(whole: list[tuple[Preference, list[float]]], level: float) -> RewardBench2Score:
    return reward_bench_2(
        [record.id for record, _ in whole],
        [record.group for record, _ in whole],
        [given for _, given in whole],
        [record.ranks.count(0) for record, _ in whole],
        level=level,
    )


def _twin(name: str) -> str:
    """The other prompt of a pair of tied prompts; empty where there is none."""
    kind, _, number = name.partition(":")
    other = {"tied": "ref", "ref": "tied"}.get(kind)
    return f"{other}:{number}" if other and number else ""
