"""The study's numbers as a file and as a table: every method in every place of the map whose runs are all there.

Computes nothing of its own; see `studies.shortcuts.summary`. No torch.
"""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from probes.estimates import Estimate
from probes.files import without_nan, write_json
from studies.shortcuts.grid import Task, methods_of, missing
from studies.shortcuts.settings import STOPS, TEXT_ONLY
from studies.shortcuts.summary import Condition, Summary, compare, summarise

METRICS = "metrics.json"


def complete(folder: Path, tasks: Sequence[Task]) -> dict[Condition, tuple[int, ...]]:
    """The places of the map, measured at the end of training, and the seeds of which every run is there."""
    seeds: dict[Condition, dict[int, bool]] = {}
    for task in tasks:
        condition = Condition(task.backbone, task.learnability, task.strength, task.steps)
        there = seeds.setdefault(condition, {})
        there[task.seed] = there.get(task.seed, True) and not missing(folder, task)
    found = {condition: tuple(seed for seed, whole in there.items() if whole) for condition, there in seeds.items()}
    return {condition: whole for condition, whole in found.items() if whole}


def methods_in(condition: Condition) -> list[str]:
    """The proxy and the methods that a place of the map compares."""
    task = Task(condition.backbone, condition.learnability, condition.strength, condition.steps, "", 0)
    return [TEXT_ONLY, *(method.name for method in methods_of(task))]


def write_metrics(folder: Path, tasks: Sequence[Task]) -> list[Summary]:
    """Write `metrics.json`, and return the summaries at the end of training.

    Args:
        folder: The run folder.
        tasks: What was asked for; places without one complete seed are left out, and named in the file.
    """
    there = complete(folder, tasks)
    wanted = {Condition(task.backbone, task.learnability, task.strength, task.steps) for task in tasks}
    rows, last = [], []
    for condition, seeds in there.items():
        for name in methods_in(condition):
            for stop in STOPS:
                at = Condition(condition.backbone, condition.learnability, condition.strength, condition.steps, stop)
                found = summarise(folder, at, name, seeds)
                home, away = compare(folder, at, name, "plain", seeds)
                rows.append(
                    {**_plain(found), "seeds": list(seeds), "iid_gain": home.to_dict(), "ood_gain": away.to_dict()}
                )
                if stop == 1.0:
                    last.append(found)
    unfinished = [asdict(condition) for condition in sorted(wanted - set(there), key=str)]
    write_json(folder / METRICS, without_nan({"rows": rows, "unfinished": unfinished}))
    return last


def print_summaries(summaries: Sequence[Summary]) -> None:
    """Print a table for each place of the map; shares in percent, over seeds."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for condition in dict.fromkeys(each.condition for each in summaries):
        title = (
            f"{condition.backbone} backbone, {condition.learnability} pictures, cue right on {condition.strength:.0%}, "
            f"{condition.steps} steps"
        )
        table = Table(title=title, title_justify="left")
        for heading in ("method", "i.i.d.", "o.o.d.", "cue reversed", "lost when blank", "SFD", "below frontier"):
            table.add_column(heading, justify="left" if heading == "method" else "right")
        for each in summaries:
            if each.condition == condition:
                shares = (each.iid, each.ood, each.reversed, each.blank)
                table.add_row(
                    each.method,
                    *(_percent(share) for share in shares),
                    f"{each.degradation.value:.1f}",
                    _percent(each.below_frontier),
                )
        console.print(table)


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _plain(summary: Summary) -> dict[str, Any]:
    values = {entry.name: getattr(summary, entry.name) for entry in fields(summary)}
    condition = asdict(values.pop("condition"))
    return {**condition, **{name: getattr(value, "to_dict", lambda v=value: v)() for name, value in values.items()}}
