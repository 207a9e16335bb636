"""The table that an audit prints when it is done. It reads entries of `metrics.json` and formats them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow.compute as pc

from probes.errors import counted
from probes.scores import Rule
from studies.auditing.causal_metrics import KNOCKOUT, MIN_EFFECT, MIXERS_TOO, right_without_image
from studies.auditing.choices import DEV
from studies.auditing.entries import Entry, find
from studies.auditing.kinds import KIND_COLUMNS, kind_rows, measures_of

if TYPE_CHECKING:
    from rich.console import Console

    from studies.runs import RunFolder


class Failure(NamedTuple):
    """A sample of which something could not be measured, and why."""

    sample: str
    error: str
    answered: bool = False
    """Whether it has an answer, and only its causal check or its hidden attention failed."""
    part: str = ""
    """What of it failed, where that is neither the sample nor its causal check."""


COLUMNS = (
    ("P(right)", "answer_accuracy"),
    ("P(target | right)", "attention_accuracy"),
    ("IVM rate", "ivm_rate"),
    ("P(target | wrong)", "attention_when_wrong"),
    ("P(target)", "attention_overall"),
    ("chance", "chance"),
)
"""Headings of the summary and the metrics below them; "target" is short for: the focus is the target image."""


def failures(folder: "RunFolder") -> list[Failure]:
    """The samples of a run that failed, with their errors, those of its position study, causal check and hidden
    attention included."""
    from studies.auditing.finalise import POSITION_FOLDER
    from studies.runs import RunFolder

    inner = folder.path / POSITION_FOLDER
    runs = [folder, *([RunFolder.open(inner)] if (inner / "manifest.json").is_file() else [])]
    found: list[Failure] = []
    for run in runs:
        some = ~(pc.field("error").is_null() & pc.field("effects_error").is_null())
        for row in run.read("samples", columns=["sample_id", "error", "effects_error"], filter=some).to_pylist():
            answered = row["error"] is None
            found.append(Failure(row["sample_id"], row["effects_error"] if answered else row["error"], answered))
        found += [Failure(row["sample_id"], row["error"], True, row["part"]) for row in run.read("unread").to_pylist()]
    return found


def headline_split(entries: Sequence[Entry]) -> str | None:
    """The split that headlines come from: test if there is one, else the first that is not dev, else dev."""
    splits = dict.fromkeys(entry["split"] for entry in entries if entry["name"] == "answer_accuracy")
    splits.pop("position study", None)
    order = sorted(splits, key=lambda split: (split == DEV, split != "test"))
    return order[0] if order else None


def table_rows(entries: Sequence[Entry], split: str | None) -> list[dict[str, Any]]:
    """One row per row set and task: the entries that stand side by side, keyed by metric name."""
    rows = []
    for rows_name in ("paper", "predicting", "anchor"):
        tasks = dict.fromkeys(
            entry["task"] for entry in find(entries, "attention_overall", task=..., split=split, rows=rows_name)
        )
        for task in tasks:
            row: dict[str, Any] = {"rows": rows_name, "task": task}
            for _, name in COLUMNS:
                row[name] = next(iter(find(entries, name, task=task, split=split, rows=rows_name)), None)
            rows.append(row)
    return rows


def percent(entry: Entry | None, interval: bool = True) -> str:
    """An entry as "87.3 % [85.1, 89.3]"; "–" where there is none, or no sample behind it.

    >>> percent({"estimate": {"value": 0.873, "low": 0.851, "high": 0.893, "n": 9}})
    '87.3 % [85.1, 89.3]'
    """
    value = None if entry is None else entry["estimate"]["value"]
    if entry is None or value is None:
        return "–"
    low, high = entry["estimate"]["low"], entry["estimate"]["high"]
    if not interval or low == high:
        return f"{100 * value:.1f} %"
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def print_summary(path: Path, entries: Sequence[Entry], failed: Sequence[Failure]) -> None:
    """Print the headline table on stdout, and failed samples on stderr."""
    from rich.console import Console
    from rich.table import Table

    split = headline_split(entries)
    table = Table(
        title=f"Does the focus hit the target image? Split {split!r}, 95 % intervals clustered by base sample"
    )
    for heading in ("rows", "task", "n"):
        table.add_column(heading, justify="right" if heading == "n" else "left")
    for heading, _ in COLUMNS:
        table.add_column(heading, justify="right")
    for row in table_rows(entries, split):
        n = row["attention_overall"]["estimate"]["n"]
        cells = [percent(row[name], interval=row["task"] is None).replace(" [", "\n[") for _, name in COLUMNS]
        table.add_row(row["rows"], row["task"] or "all", str(n), *cells, style="bold" if row["task"] is None else None)
    # Tasks are texts of the data: one like "[/b]" would be read as a style, and end the run.
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False, emoji=False)
    console.print(table if table.row_count else "No sample with a target image could be scored.")
    _print_kinds(console, entries, split)
    for line in [*rule_lines(entries, split), *without_image_lines(entries, split)]:
        console.print(line, highlight=False)
    if failed:
        print(
            f"{counted(len(failed), 'sample')} failed; the first: {failed[0].sample}: {failed[0].error}",
            file=sys.stderr,
        )
    console.print(f"Report: {path / 'report.html'}", highlight=False, soft_wrap=True)


def _print_kinds(console: "Console", entries: Sequence[Entry], split: str | None) -> None:
    from rich.table import Table

    rows = kind_rows(entries, split)
    if not rows:
        return
    table = Table(title="By kind of layer: each measure has units of its own, and none is averaged with another")
    for heading in ("layers", "measure", "rows", "rule"):
        table.add_column(heading)
    for heading, _ in KIND_COLUMNS:
        table.add_column(heading, justify="right")
    for row in rows:
        cells = [percent(row.entries[name]).replace(" [", "\n[") for _, name in KIND_COLUMNS]
        table.add_row(row.layer_kind, row.measure, row.rows, row.rule, *cells)
    console.print(table)


def without_image_lines(entries: Sequence[Entry], split: str | None) -> list[str]:
    """Where images were knocked out: how many right answers no single image mattered to, and in which tasks."""
    alone = _without_image(entries, split, KNOCKOUT, "knock-out")
    both = _without_image(entries, split, MIXERS_TOO, "knock-out of attention and mixers at once")
    if not alone or len(measures_of(entries)) == 1:
        return alone
    said = "that knock-out cuts softmax attention alone: layers without it still carried every image"
    return [*alone, said, *both]


def _without_image(entries: Sequence[Entry], split: str | None, intervention: str, words: str) -> list[str]:
    found = right_without_image(entries, split, intervention=intervention)
    whole = next((entry for entry in found if entry["task"] is None), None)
    if whole is None:
        return []
    tasks = [f"{entry['task']} {percent(entry, interval=False)}" for entry in found if entry["task"] is not None]
    checked = f"no single image mattered ({words}, {MIN_EFFECT} nat) to {percent(whole)} of "
    return [f"{checked}{whole['estimate']['n']} right answers checked{': ' if tasks else ''}{', '.join(tasks)}"]


def rule_lines(entries: Sequence[Entry], split: str | None) -> list[str]:
    """Which rule each row set was read by, where the rule comes from, and the oracle maximum beside it."""
    lines = []
    for rows in ("paper", "predicting", "anchor"):
        found = find(entries, "attention_accuracy", split=split, rows=rows)
        oracle = find(entries, "oracle_maximum", split=split, rows=rows)
        if found:
            entry = found[0]
            beside = f"; oracle maximum, chosen on the scored samples: {percent(oracle[0])}" if oracle else ""
            lines.append(f"{rows}: {Rule(entry['rule'], entry['last'])} ({entry['rule_source']}){beside}")
    return lines
