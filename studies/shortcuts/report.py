"""The study's numbers as a file and as a table: in every place of the map each method whose runs are all there.

Computes nothing of its own; see `studies.shortcuts.summary`. No torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from probes.estimates import Estimate
from probes.files import without_nan, write_json
from studies.shortcuts.grid import Task, missing, no_cue, runs_of
from studies.shortcuts.settings import (
    CONTRAST_ALONE,
    ENVIRONMENTS,
    FINER,
    GAIN_BAR,
    HEADLINE,
    LARGEST_LOSS_CHOSEN,
    LARGEST_LOSS_PUBLISHED,
    METHODS,
    NO_CUE,
    STOPS,
    TEXT_ONLY,
    Place,
)
from studies.shortcuts.summary import Condition, Summary, summarise
from studies.shortcuts.verdict import Verdict, gain, verdict

METRICS = "metrics.json"


def complete(folder: Path, tasks: Sequence[Task]) -> dict[Condition, dict[str, tuple[int, ...]]]:
    """The places of the map, measured at the end of training, and for each method the seeds that can be summed up.

    A seed can where the method's runs in every environment are there, and those of the text alone, of plain training
    and of the ceiling. Methods without one, and places without a method, are left out.
    """
    asked: dict[Place, dict[int, list[Task]]] = {}
    for task in tasks:
        if task.environment != NO_CUE:
            asked.setdefault(task.place, {}).setdefault(task.seed, []).append(task)
    found = {Condition(*place): _complete_methods(folder, seeds) for place, seeds in asked.items()}
    return {condition: methods for condition, methods in found.items() if methods}


def _complete_methods(folder: Path, tasks_of: Mapping[int, Sequence[Task]]) -> dict[str, tuple[int, ...]]:
    done: dict[str, list[int]] = {}
    names = tuple(method.name for method in (*METHODS, CONTRAST_ALONE, *FINER))
    for seed, tasks in tasks_of.items():
        left = {name for task in tasks for name in missing(folder, task, names)}
        if left & {TEXT_ONLY, "plain"} or missing(folder, no_cue(tasks[0].place, seed)):
            continue
        for name in runs_of(tasks[0], names):
            if name not in left:
                done.setdefault(name, []).append(seed)
    return {name: tuple(seeds) for name, seeds in done.items()}


def write_metrics(
    folder: Path, tasks: Sequence[Task], headline: Place = HEADLINE
) -> tuple[list[Summary], Verdict | None]:
    """Write `metrics.json`, and return the summaries at the end of training and the verdict.

    Args:
        folder: The run folder.
        tasks: What was asked for; what has not every seed of them is named in the file, by place.
        headline: The place that is judged.
    """
    there = complete(folder, tasks)
    rows, last = [], []
    for condition, methods in there.items():
        for name, seeds in methods.items():
            for stop in STOPS:
                at = replace(condition, stop=stop)
                found, change = summarise(folder, at, name, seeds), gain(folder, at, name, seeds)
                gains = {"iid_gain": change.iid.to_dict(), "ood_gain": change.ood.to_dict()}
                rows.append({**_plain(found), **gains})
                if stop == 1.0:
                    last.append(found)
    judged = verdict(folder, there, headline)
    content = {
        "rows": rows,
        "headline": judged.to_dict() if judged else None,
        "unfinished": unfinished(there, tasks),
    }
    write_json(folder / METRICS, without_nan(content))
    return last, judged


def unfinished(there: Mapping[Condition, Mapping[str, Sequence[int]]], tasks: Sequence[Task]) -> dict[str, list[str]]:
    """By place, the methods that the study compares there and that have not every seed of the tasks."""
    asked: dict[Condition, set[int]] = {}
    for task in tasks:
        if task.environment != NO_CUE:
            asked.setdefault(Condition(*task.place), set()).add(task.seed)
    left = {}
    for condition, seeds in asked.items():
        names = runs_of(Task(*condition.place, ENVIRONMENTS[0], 0))
        left[condition.label] = [name for name in names if seeds - set(there.get(condition, {}).get(name, ()))]
    return {label: names for label, names in left.items() if names}


def print_summaries(summaries: Sequence[Summary]) -> None:
    """Print a table for each place of the map; shares in percent, over seeds."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for condition in dict.fromkeys(each.condition for each in summaries):
        here = [each for each in summaries if each.condition == condition]
        title = f"{condition.label}; image-only ceiling {percent(here[0].ceiling)}"
        table = Table(title=title, title_justify="left")
        for heading in ("method", "i.i.d.", "o.o.d.", "cue reversed", "lost when blank", "SFD", "below frontier"):
            table.add_column(heading, justify="left" if heading == "method" else "right")
        for each in here:
            shares = (each.iid, each.ood, each.reversed, each.blank)
            table.add_row(
                each.method,
                *(percent(share) for share in shares),
                f"{each.degradation.value:.1f}",
                "-" if each.below_frontier is None else percent(each.below_frontier),
            )
        console.print(table)


def print_verdict(judged: Verdict) -> None:
    """Print the headline, and the share of the map's places where it holds."""
    here = judged.headline
    judged_by = (
        (here.published, LARGEST_LOSS_PUBLISHED),
        (here.chosen, LARGEST_LOSS_CHOSEN),
        (here.chosen_finer, LARGEST_LOSS_CHOSEN),
    )
    for change, bar in judged_by:
        if change is not None:
            reached = "reached" if change.reaches(bar) else "not reached"
            print(
                f"{change.method} against plain: o.o.d. {percent(change.ood)}, i.i.d. {percent(change.iid)} points; "
                f"bars (+{100 * GAIN_BAR:.0f} at the lower end, -{100 * bar:.0f}) {reached}"
            )
    print(
        f"SFD {here.degradation_plain.value:.1f} plain, {here.degradation_published.value:.1f} SFC. SFC helps in "
        f"{sum(judged.helping.values())} of {len(judged.helping)} places measured, and reaches the bars in "
        f"{sum(judged.reaching.values())}"
    )


def percent(estimate: Estimate) -> str:
    """A share in percent, with its interval."""
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _plain(summary: Summary) -> dict[str, Any]:
    values = {entry.name: getattr(summary, entry.name) for entry in fields(summary)}
    condition = {**asdict(values.pop("condition")), "seeds": list(values.pop("seeds"))}
    return {**condition, **{name: getattr(value, "to_dict", lambda v=value: v)() for name, value in values.items()}}
