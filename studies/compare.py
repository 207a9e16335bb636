"""The comparison of two finished audits over the same questions, paired by sample: what changed, and by how much.

It reads run folders and nothing else; it audits nothing, and each run keeps its own focus rule. How a difference gets
its interval is `probes.paired`. Importing it loads no torch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import tyro

from probes.inputs import InputError
from probes.paired import POWER, RESAMPLES, ShareDifference, share_difference
from probes.scores import Rule
from studies.auditing.entries import Entry, find
from studies.auditing.summary import headline_split
from studies.options import refuse_below, refuse_file
from studies.run_folder.files import write_bytes, write_json
from studies.scaling import ROWS, Measured, check_comparable

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from studies.runs import RunFolder

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

BOTH, OWN, ALL = "right in both", "right in each", "all"
"""Which samples a share is of: those that both runs answer right, each run's own right answers, or all."""

_SLACK = 1e-9
"""Points by which a drop may pass the bar through rounding alone."""


@dataclass(frozen=True)
class CompareConfig:
    """Compare two finished audits over the same questions, A and B, paired by sample: A - B, with intervals.

    Attention accuracy is compared on the samples that both answer right, and on each run's own right answers; each run
    keeps its own focus rule. Intervals are a bootstrap over base samples. "Detectable" is the smallest true difference
    that so many base samples would show at 80 % power (two-sided 5 %, normal approximation: 2.8 standard errors).
    """

    candidate: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """The run folder in question."""
    baseline: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """The run folder that it is compared with."""
    out: Path | None = None
    """The folder to write compare.json and compare.png into; without it the table is printed and nothing written."""
    fail_under: float | None = None
    """Points, 0 or more. Exit with status 1 if A - B of attention accuracy, on the samples that both answer right, is
    below minus this. The difference itself decides, not its interval; whether the interval too lies wholly below is
    printed beside it."""
    rows: Literal["predicting", "paper"] = "predicting"
    """The row set that --fail-under looks at."""
    seed: int = 0
    """Seed of the bootstrap."""


class Focused(NamedTuple):
    """What one run's rule picked for one row set."""

    image: IntArray
    """(samples,) 0-based image in focus; -1 where the row set was not recorded."""
    rule: Rule
    source: str
    """Where the rule comes from."""


@dataclass(frozen=True)
class Audited:
    """The headline split of one finished audit, one place for each sample that went well, ids in order."""

    path: Path
    split: str
    manifest: dict[str, Any]
    ids: npt.NDArray[np.str_]
    cluster: npt.NDArray[np.str_]
    target: IntArray
    """(samples,) 0-based; -1 where a sample has none."""
    correct: npt.NDArray[np.float64]
    """(samples,) 1 or 0; NaN where the answer could not be scored."""
    focused: dict[str, Focused]
    """By row set."""

    @property
    def right(self) -> BoolArray:
        """(samples,) whether the answer was scored and is right."""
        return np.asarray(self.correct == 1)

    @property
    def scored(self) -> BoolArray:
        """(samples,) whether the answer could be scored."""
        return np.asarray(~np.isnan(self.correct))

    def scorable(self, rows: str) -> BoolArray:
        """(samples,) whether attention accuracy can be asked of a sample."""
        return np.asarray(self.scored & (self.target >= 0) & (self.focused[rows].image >= 0))

    def hits(self, rows: str) -> BoolArray:
        """(samples,) whether the focus is the target image."""
        return np.asarray((self.target >= 0) & (self.focused[rows].image == self.target))

    def only(self, ids: npt.NDArray[np.str_]) -> "Audited":
        """The same audit of some of its samples, in the order of ids."""
        kept = np.isin(self.ids, ids)
        focused = {rows: found._replace(image=found.image[kept]) for rows, found in self.focused.items()}
        return Audited(
            self.path,
            self.split,
            self.manifest,
            self.ids[kept],
            self.cluster[kept],
            self.target[kept],
            self.correct[kept],
            focused,
        )

    def as_json(self) -> dict[str, Any]:
        """Who was audited, by which rules, and the run's manifest."""
        rules = {
            rows: {"rule": found.rule.name, "last": found.rule.last, "rule_source": found.source}
            for rows, found in self.focused.items()
        }
        return {
            "run": str(self.path),
            "model": self.manifest["config"]["model"],
            "model_digest": self.manifest["model_digest"],
            "data_digest": self.manifest["data_digest"],
            "rules": rules,
            "manifest": self.manifest,
        }


@dataclass(frozen=True)
class Compared:
    """One metric of both runs, and A - B."""

    name: str
    """As in metrics.json."""
    rows: str | None
    subset: str
    """One of `BOTH`, `OWN` and `ALL`."""
    found: ShareDifference

    @property
    def label(self) -> str:
        """The metric as a person would say it."""
        if self.rows is None:
            return "answers right"
        quantity = "P(focus = target)" if self.name == "attention_overall" else f"attention accuracy, {self.subset}"
        return f"{quantity}, {self.rows}"

    def as_json(self) -> Entry:
        """Shares, difference with interval, and what could have been detected; NaN becomes null."""
        numbers = {
            "candidate": self.found.first,
            "baseline": self.found.second,
            "standard_error": self.found.standard_error,
            "detectable": self.found.detectable,
        }
        return {
            "name": self.name,
            "rows": self.rows,
            "subset": self.subset,
            "label": self.label,
            "estimate": self.found.estimate.to_dict(),
            **{name: None if math.isnan(number) else number for name, number in numbers.items()},
            "candidate_n": self.found.first_n,
            "baseline_n": self.found.second_n,
        }


class Verdict(NamedTuple):
    """What --fail-under says."""

    failed: bool
    line: str


def run(config: CompareConfig) -> int:
    """Read both audits, print and write what differs; returns 1 if the bar of --fail-under was missed, else 0.

    Raises:
        InputError: If a run is not finished, is no audit or has no target, or the two asked differently or share no
            sample; nothing has been written then.
    """
    from studies.auditing.figures import png
    from studies.runs import RunFolder

    refuse_below(config, {"seed": 0})
    if config.fail_under is not None and not 0.0 <= config.fail_under < math.inf:
        raise InputError(f"--fail-under is a number of points, 0 or more, not {config.fail_under}")
    if config.out is not None:
        refuse_file(config.out)
    candidate, baseline = paired(*(audited(RunFolder.open(path)) for path in (config.candidate, config.baseline)))
    compared = list(compare(candidate, baseline, config.seed))
    verdict = None if config.fail_under is None else judge(compared, config.rows, config.fail_under)
    print_comparison(candidate, baseline, compared)
    if config.out is not None:
        record = {
            "candidate": candidate.as_json(),
            "baseline": baseline.as_json(),
            "split": candidate.split,
            "samples": len(candidate.ids),
            "bootstrap": {"resamples": RESAMPLES, "seed": config.seed, "level": 0.95, "power": POWER},
            "entries": [each.as_json() for each in compared],
            "fail_under": None
            if verdict is None
            else {"points": config.fail_under, "rows": config.rows, "failed": verdict.failed, "said": verdict.line},
        }
        figure = png(compare_figure(compared))
        write_json(config.out / "compare.json", record)
        write_bytes(config.out / "compare.png", figure)
        print(f"Written: {config.out / 'compare.json'}, {config.out / 'compare.png'}")
    if verdict is not None:
        print(verdict.line)
    return 1 if verdict is not None and verdict.failed else 0


def audited(folder: "RunFolder") -> Audited:
    """Read the headline split of a finished audit.

    Raises:
        InputError: If the run is no audit, was not finished, or has no scored answer, no attention or no target.
    """
    manifest = folder.manifest.as_json()
    if manifest["config"].get("study") != "audit":
        raise InputError(f"{folder.path} is no audit: give a folder that `sightcheck audit` wrote")
    if manifest["finished"] is None:
        raise InputError(f"{folder.path} is not finished: finish it with sightcheck audit ... --resume")
    entries = folder.read_metrics()
    split = headline_split(entries)
    if split is None:
        raise InputError(f"{folder.path} has no scored answers: there is nothing to compare")
    columns = ["sample_id", "cluster", "target", "correct", "split"]
    table = folder.read("samples", columns=columns, filter=pc.field("error").is_null()).to_pylist()
    samples = sorted((row for row in table if (row["split"] or "") == split), key=lambda row: row["sample_id"])
    ids = [row["sample_id"] for row in samples]
    found = Audited(
        path=folder.path,
        split=split,
        manifest=manifest,
        ids=np.asarray(ids, dtype=np.str_),
        cluster=np.asarray([row["cluster"] for row in samples], dtype=np.str_),
        target=np.asarray([-1 if row["target"] is None else row["target"] for row in samples], dtype=np.int64),
        correct=np.asarray([np.nan if row["correct"] is None else row["correct"] for row in samples], np.float64),
        focused=dict(_focused(folder, ids, entries, split)),
    )
    if (found.target < 0).all():
        raise InputError(
            f"{folder.path} has no sample with a target image in the split {split!r}, so no focus can be right: "
            "audit questions that name their target"
        )
    for rows in ROWS:
        if rows not in found.focused or not found.scorable(rows).any():
            raise InputError(
                f"{folder.path} has no scored answer with a target and recorded attention ({rows} rows) in the split "
                f"{split!r}: audit the questions with --model"
            )
    return found


def paired(candidate: Audited, baseline: Audited) -> tuple[Audited, Audited]:
    """Both audits of the samples that went well in both, in the same order.

    Raises:
        InputError: If they asked differently, or no sample went well in both.
    """
    check_comparable([Measured(each.split, (), each.manifest) for each in (candidate, baseline)])
    ids = np.intersect1d(candidate.ids, baseline.ids)
    if not any((candidate.only(ids).scorable(rows) & baseline.only(ids).scorable(rows)).any() for rows in ROWS):
        raise InputError(
            f"{candidate.path} and {baseline.path} have no sample in common that went well and was scored in both: "
            "see their reports for what failed, and audit again"
        )
    return candidate.only(ids), baseline.only(ids)


def compare(candidate: Audited, baseline: Audited, seed: int = 0) -> Iterator[Compared]:
    """Every difference A - B of two audits whose samples are paired, over the samples that both could score."""
    cluster = candidate.cluster
    kept = candidate.scored & baseline.scored
    answers = share_difference(candidate.right[kept], baseline.right[kept], cluster[kept], seed=seed)
    yield Compared("answer_accuracy", None, ALL, answers)
    for rows in ROWS:
        kept = candidate.scorable(rows) & baseline.scorable(rows)
        hits = [each.hits(rows)[kept] for each in (candidate, baseline)]
        right = [each.right[kept] for each in (candidate, baseline)]
        both = right[0] & right[1]
        groups = cluster[kept]
        yield Compared(
            "attention_accuracy",
            rows,
            BOTH,
            share_difference(hits[0][both], hits[1][both], groups[both], seed=seed),
        )
        yield Compared(
            "attention_accuracy",
            rows,
            OWN,
            share_difference(*hits, groups, first_counted=right[0], second_counted=right[1], seed=seed),
        )
        yield Compared("attention_overall", rows, ALL, share_difference(*hits, groups, seed=seed))


def judge(compared: Sequence[Compared], rows: str, points: float) -> Verdict:
    """Hold attention accuracy on the samples that both answer right against a bar, in points.

    It fails when the difference A - B is below minus the bar; the interval does not decide, and is told beside it.

    Raises:
        InputError: If no sample was answered right by both.
    """
    entry = next(each for each in compared if each.name == "attention_accuracy" and each.rows == rows)
    estimate = entry.found.estimate
    if math.isnan(estimate.value):
        raise InputError(
            f"--fail-under {points:g}: no sample with {rows} rows was answered right in both runs, so there is no "
            "difference to hold against it: leave --fail-under out, or audit more questions"
        )
    failed = 100 * estimate.value < -points - _SLACK
    beyond = 100 * estimate.high < -points - _SLACK
    said = f"A - B of {entry.label}: {_points(entry)} points, n = {estimate.n}"
    if failed:
        interval = "lies wholly below it" if beyond else "reaches up to it, so chance alone could have done this"
        return Verdict(True, f"FAILED --fail-under {points:g}: {said}, is below -{points:g}; the interval {interval}")
    reaches = 100 * estimate.low < -points - _SLACK
    interval = "a drop that large is not excluded" if reaches else "and the interval excludes a drop that large"
    return Verdict(False, f"passed --fail-under {points:g}: {said}, is not below -{points:g}; {interval}")


def print_comparison(candidate: Audited, baseline: Audited, compared: Sequence[Compared]) -> None:
    """Print the table of differences on stdout, and below it who A and B are and by which rules they were read."""
    import sys

    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"A - B in points, split {candidate.split!r}, {len(candidate.ids)} samples in both; "
        "95 % intervals, bootstrap over base samples"
    )
    table.add_column("metric")
    for heading in ("A", "B", "A - B", "detectable", "n", "clusters"):
        table.add_column(heading, justify="right")
    for each in compared:
        found = each.found
        counted = f"{found.first_n}, {found.second_n}" if each.subset == OWN else str(found.estimate.n)
        table.add_row(
            each.label,
            _share(found.first),
            _share(found.second),
            _points(each),
            "–" if math.isnan(found.detectable) else f"{100 * found.detectable:.1f}",
            counted,
            str(found.estimate.clusters),
        )
    # Model names are texts of the user: one like "[/b]" would be read as a style, and end the run.
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False, emoji=False)
    console.print(table)
    for name, each in (("A", candidate), ("B", baseline)):
        rules = "; ".join(f"{rows}: {found.rule} ({found.source})" for rows, found in each.focused.items())
        console.print(f"{name}: {each.path}, {each.manifest['config']['model']}", highlight=False, soft_wrap=True)
        console.print(f"   {rules}", highlight=False, soft_wrap=True)
    console.print(
        f"detectable: smallest true difference that so many clusters would show at {100 * POWER:.0f} % power, "
        "two-sided 5 %, (1.96 + 0.84) standard errors",
        highlight=False,
        soft_wrap=True,
    )


def compare_figure(compared: Sequence[Compared]) -> "Drawing":
    """Each difference with its interval, in points, around a line at zero."""
    from viz import papers

    estimates = [each.found.estimate for each in compared]
    return papers.differences(
        [each.label for each in compared],
        [100 * estimate.value for estimate in estimates],
        [100 * estimate.low for estimate in estimates],
        [100 * estimate.high for estimate in estimates],
        quantity="A − B, points",
    )


def _focused(
    folder: "RunFolder", ids: Sequence[str], entries: Sequence[Entry], split: str
) -> Iterator[tuple[str, Focused]]:
    place = {sample: index for index, sample in enumerate(ids)}
    for rows in ROWS:
        picked = folder.read("focus", filter=pc.field("rows") == rows).to_pylist()
        if not picked:
            continue
        image = np.full(len(ids), -1, dtype=np.int64)
        for row in picked:
            if row["sample_id"] in place and row["focus"] is not None:
                image[place[row["sample_id"]]] = row["focus"]
        ruled = find(entries, "attention_accuracy", split=split, rows=rows)
        source = ruled[0]["rule_source"] if ruled else "not said"
        yield rows, Focused(image, Rule(picked[0]["rule"], picked[0]["last"]), source)


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def _points(entry: Compared) -> str:
    estimate = entry.found.estimate
    if math.isnan(estimate.value):
        return "–"
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
