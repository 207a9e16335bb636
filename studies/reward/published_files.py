"""What a published file tells without a model: which kind it is, its numbers, and what to print and draw of them.

Three kinds: scores by style without texts (RM-Bench), preferences in any known format, and tables of group scores.
Writes nothing. No torch.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from probes.estimates import Estimate
from probes.files import digest_of_file, digest_of_folder
from probes.inputs import InputError
from probes.reading.sources import read_source
from rewardmodels.benchmarks import AccuracyAndPlus
from rewardmodels.evaluation import GroupedAccuracy
from rewardmodels.lengths import length_correlations
from rewardmodels.pair_scores import pair_columns, pair_sides, placed_pairs
from rewardmodels.preferences import Preferences, read_preferences
from rewardmodels.published import SIZE_ROW, VL_REWARD_BENCH_SIZES, load_published_table
from rewardmodels.questioning import score_preferences
from rewardmodels.readers.rm_bench import holds_scores_only, read_style_scores
from rewardmodels.records import Response
from rewardmodels.reports import Report, reward_report
from rewardmodels.scorers import CallableScorer
from rewardmodels.scores import AS_IS
from rewardmodels.style_scores import StyleReport, style_report
from rewardmodels.text_cues import text_cues
from studies.reward import published_figures as figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Told = dict[str, Estimate]


class Answers(NamedTuple):
    """What a file told.

    Attributes:
        kind: "scores by style", "preferences" or "table".
        why: Where the rows come from, how they were recognised, and what was left out.
        numbers: Everything, as plain JSON values.
        told: What to print: by heading, estimates by name.
        figures: By the end of their file names.
        problems: What is wrong with the file, in words: unusable rows, and means that do not fit.
    """

    kind: str
    why: str
    numbers: Mapping[str, Any]
    told: Mapping[str, Told]
    figures: Mapping[str, "Figure"]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """One file, and what it told."""

    file: str
    digest: str
    answers: Answers

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        kind, why, numbers, _, _, problems = self.answers
        told = {"kind": kind, "why": why, "numbers": dict(numbers), "problems": list(problems)}
        return {"file": self.file, "digest": self.digest, **told}


def ask(path: Path, *, format: str | None = None, seed: int = 0) -> Asked:
    """Read one file, and ask it everything that it can answer.

    Args:
        path: A file, or a folder of them.
        format: Format of preferences; recognised by the columns if not given.
        seed: Of bootstraps, coins and folds.

    Raises:
        InputError: If there is no such file, it is of none of the kinds, or nothing in it can be used.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: give a file of scores, preferences or a table")
    digest = digest_of_folder(path) if path.is_dir() else digest_of_file(path)
    return Asked(path.name, digest, _answers(path, format, seed))


def _answers(path: Path, format: str | None, seed: int) -> Answers:
    if path.suffix.lower() in (".csv", ".tsv"):
        rows = _cells(path)
        if rows and (_has_sizes(rows) or _has_known_groups(rows)):
            return _table(path, rows)
    first = next((row.values for row in read_source(path).rows if row.error is None), {})
    if holds_scores_only(first):
        return _style_scores(path, seed)
    return _preferences(path, format, seed)


def _cells(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        return [[cell.strip() for cell in row] for row in lines if row]


def _has_sizes(rows: list[list[str]]) -> bool:
    return any(row[0] == SIZE_ROW for row in rows[1:])


def _has_known_groups(rows: list[list[str]]) -> bool:
    return set(VL_REWARD_BENCH_SIZES) <= set(rows[0][1:])


def _table(path: Path, rows: list[list[str]]) -> Answers:
    try:
        table = load_published_table(path, None if _has_sizes(rows) else VL_REWARD_BENCH_SIZES)
    except ValueError as error:
        raise InputError(str(error)) from error
    problems = tuple(f"{name}: {line}" for name, lines in table.problems.items() for line in lines)
    why = f"{len(table.rows)} rows over {len(table.sizes)} groups of {sum(table.sizes.values())} items"
    return Answers("table", why, table.to_dict(), {}, {}, problems)


def _style_scores(path: Path, seed: int) -> Answers:
    scores = read_style_scores(path)
    try:
        found = style_report(scores.chosen, scores.rejected, scores.domains or None, seed=seed)
    except ValueError as error:
        raise InputError(f"{path.name}: {error}") from error
    average = f"macro means over {len(found.domains)} domains" if found.domains else "means over items"
    return Answers(
        "scores by style",
        f"{len(scores.chosen)} items without texts; {average}",
        {"styles": found.to_dict()},
        _told_styles(found),
        {"styles": figures.styles(found), "styles-centred": figures.centred(found)},
    )


def _told_styles(found: StyleReport) -> dict[str, Told]:
    shown = {}
    for name, matrix in (("as it scores", found.matrix), ("each style's mean taken off", found.centred)):
        shown[f"accuracy, {name}"] = {part: getattr(matrix, part) for part in ("easy", "normal", "hard", "average")}
    plain, rich = found.matrix.styles[0], found.matrix.styles[-1]
    return {
        **shown,
        "points of score": {"right over wrong": found.right_is_worth, f"{rich} over {plain}": found.rich_is_worth},
        "correlation of score and style": found.correlations._asdict(),
        **{
            f"domain {name}": {"hard": matrix.hard, "average": matrix.average} for name, matrix in found.domains.items()
        },
    }


def _preferences(path: Path, format: str | None, seed: int) -> Answers:
    data = read_preferences(path, format, allow_missing_images=True)
    problems = tuple(f"{bad.id}: {bad.error}" for bad in data.bad)
    pairs = data.pairs()
    if not pairs:
        raise InputError(f"{path.name}: none of its {len(data.bad)} rows makes a pair" + "; ".join(("", *problems[:1])))
    by_length = score_preferences(CallableScorer(_length, "longer answer"), data, [AS_IS])
    ruler = reward_report(data, by_length, seed=seed)
    groups, clusters = [pair.group or "all" for pair in pairs], [pair.cluster for pair in pairs]
    try:
        cues = text_cues(
            [pair.chosen.text for pair in pairs], [pair.rejected.text for pair in pairs], groups, clusters, seed=seed
        )
    except ValueError as error:
        raise InputError(f"{path.name}: {error}") from error
    numbers: dict[str, Any] = {
        "counts": ruler.counts.to_dict(),
        "rulers": {name: found.to_dict() for name, found in ruler.pairs.rulers.rulers.items()},
        "longer_by_group": ruler.pairs.accuracy.to_dict(),
        "longer_in_benchmark": None if ruler.benchmark is None else ruler.benchmark.to_dict(),
        "alike_in_length": ruler.pairs.matched.matched.to_dict(),
        "cues": cues.to_dict(),
    }
    told: dict[str, Told] = {
        "rulers": dict(ruler.pairs.rulers.rulers),
        "the longer answer wins": _by_group(ruler.pairs.accuracy) | _plus(ruler),
        "cues of the surface": {name: found for name, found in cues.cues.items() if name != "longer"},
        "all cues together, held out": _by_group(cues.together),
    }
    drawn = {"rulers": figures.rulers(ruler.pairs.rulers, cues), "groups": figures.groups(ruler.pairs.accuracy, cues)}
    if data.format == "rm-bench" and all(
        response.score is not None for record in data for response in record.responses
    ):
        more = _scored(path, data, seed)
        numbers |= more.numbers
        told |= more.told
        drawn |= more.figures
    return Answers("preferences", data.why, numbers, told, drawn, problems)


def _scored(path: Path, data: Preferences, seed: int) -> Answers:
    """What a model's scores beside the texts tell: everything of the style scores, with true lengths."""
    styles = _style_scores(path, seed)
    scores = score_preferences(CallableScorer(_carried, "the file's scores"), data, [AS_IS])
    report = reward_report(data, scores, seed=seed)
    responses = [(record, place, response) for record in data for place, response in enumerate(record.responses)]
    correlations = length_correlations(
        [_carried(None, response) for _, _, response in responses],
        np.log2([len(response.text) for _, _, response in responses]),
        [float(record.ranks[place] == 0) for record, place, _ in responses],
        [record.id for record, _, _ in responses],
        [record.cluster for record, _, _ in responses],
        seed=seed,
    )
    pairs = placed_pairs(data)
    columns = pair_columns(pairs, pair_sides(pairs, scores))
    own: Told = {"the file's scores": report.pairs.accuracy.micro, **report.pairs.rulers.rulers}
    return styles._replace(
        numbers={**styles.numbers, "scores": report.pairs.to_dict(), "length_correlations": correlations.to_dict()},
        told={
            **styles.told,
            "score beside the rulers": own,
            "accuracy where lengths match": {"within a tenth": report.pairs.matched.matched},
            "correlation of score and length": correlations._asdict(),
        },
        figures={**styles.figures, "length": figures.length(columns, correlations.at_fixed_quality)},
    )


def _by_group(found: GroupedAccuracy) -> Told:
    return {**found.groups, "all pairs": found.micro, "mean of groups": found.macro}


def _plus(ruler: Report) -> Told:
    """How often a ruler has all pairs of a question right, in a benchmark that asks so."""
    numbers = None if ruler.benchmark is None else ruler.benchmark.numbers
    return {"all of a question's pairs": numbers.plus.micro} if isinstance(numbers, AccuracyAndPlus) else {}


def _length(_: Any, response: Response) -> float:
    return float(len(response.text))


def _carried(_: Any, response: Response) -> float:
    assert response.score is not None
    return response.score
