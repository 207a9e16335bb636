"""The study's numbers as a file: in every place of the map each method whose runs are all there.

Computes nothing of its own; see `studies.shortcuts.summary`. No torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from probes.files import without_nan, write_json
from studies.shortcuts.grid import EVERY_METHOD, Task, missing, no_cue, runs_of
from studies.shortcuts.settings import (
    ENVIRONMENTS,
    HEADLINE,
    NO_CUE,
    STOPS,
    TEXT_ONLY,
    Place,
)
from studies.shortcuts.summary import Condition, Summary, summarise
from studies.shortcuts.verdict import Gain, Verdict, controls, gain, gain_of_stopping, verdict

METRICS = "metrics.json"


class Report(NamedTuple):
    """What a run folder's cells say.

    Attributes:
        summaries: Every method in every place, at the end of training.
        verdict: Of the headline; None where it has too few seeds.
        controls: What methods change where none can help, by place.
        unfinished: Methods without every seed, by place; see `unfinished`.
    """

    summaries: list[Summary]
    verdict: Verdict | None
    controls: dict[Condition, tuple[Gain, ...]]
    unfinished: dict[str, list[str]]


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
    names = tuple(method.name for method in EVERY_METHOD)
    for seed, tasks in tasks_of.items():
        left = {name for task in tasks for name in missing(folder, task, names)}
        if left & {TEXT_ONLY, "plain"} or missing(folder, no_cue(tasks[0].place, seed)):
            continue
        for name in runs_of(tasks[0], names):
            if name not in left:
                done.setdefault(name, []).append(seed)
    return {name: tuple(seeds) for name, seeds in done.items()}


def write_metrics(
    folder: Path, tasks: Sequence[Task], headline: Place = HEADLINE, attempt: Mapping[str, Any] | None = None
) -> Report:
    """Write `metrics.json`, and return what was found.

    Args:
        folder: The run folder.
        tasks: Those that the folder may hold; what has not every seed of them is named in the file, by place.
        headline: The place that is judged.
        attempt: What the file says of it where it is no headline, but an attempt that was not fixed beforehand.
    """
    there = complete(folder, tasks)
    rows, last = [], []
    for condition, methods in there.items():
        for name, seeds in methods.items():
            for stop in STOPS:
                at = replace(condition, stop=stop)
                found = summarise(folder, at, name, seeds)
                change = (gain if stop == 1.0 else gain_of_stopping)(folder, condition, name, seeds)
                gains = {"iid_gain": change.iid.to_dict(), "ood_gain": change.ood.to_dict()}
                rows.append({**_plain(found), **gains})
                if stop == 1.0:
                    last.append(found)
    report = Report(last, verdict(folder, there, headline), controls(folder, there), unfinished(there, tasks))
    judged = report.verdict
    content: dict[str, Any] = {
        "rows": rows,
        "headline" if attempt is None else "attempt": {**(attempt or {}), **judged.to_dict()} if judged else None,
        "controls": {
            each.label: [{**change.to_dict(), "small": change.is_small} for change in changes]
            for each, changes in report.controls.items()
        },
        "unfinished": report.unfinished,
    }
    write_json(folder / METRICS, without_nan(content))
    return report


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


def _plain(summary: Summary) -> dict[str, Any]:
    values = {entry.name: getattr(summary, entry.name) for entry in fields(summary)}
    condition = {**asdict(values.pop("condition")), "seeds": list(values.pop("seeds"))}
    return {**condition, **{name: getattr(value, "to_dict", lambda v=value: v)() for name, value in values.items()}}
