"""The study's numbers as a file and as a table: every method in every place of the map whose runs are all there.

Computes nothing of its own; see `studies.shortcuts.summary`. No torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from probes.estimates import Estimate
from probes.files import without_nan, write_json
from studies.shortcuts.grid import Task, methods_of, missing, no_cue
from studies.shortcuts.settings import (
    GAIN_BAR,
    LARGEST_LOSS_CHOSEN,
    LARGEST_LOSS_PUBLISHED,
    NO_CUE,
    STOPS,
    TEXT_ONLY,
)
from studies.shortcuts.summary import Condition, Summary, summarise
from studies.shortcuts.verdict import Verdict, gain, verdict

METRICS = "metrics.json"


def complete(folder: Path, tasks: Sequence[Task]) -> dict[Condition, tuple[int, ...]]:
    """The places of the map, measured at the end of training, and the seeds of which every run is there."""
    whole = {task: not missing(folder, task) for task in tasks}
    seeds: dict[Condition, dict[int, bool]] = {}
    for task, there in whole.items():
        if task.environment != NO_CUE:
            found = seeds.setdefault(Condition(*task.place), {})
            ceiling = whole.get(no_cue(task.place, task.seed), False)
            found[task.seed] = found.get(task.seed, True) and there and ceiling
    done = {place: tuple(seed for seed, there in found.items() if there) for place, found in seeds.items()}
    return {place: found for place, found in done.items() if found}


def methods_in(condition: Condition) -> list[str]:
    """The proxy and the methods that a place of the map compares."""
    task = Task(*condition.place, "", 0)
    return [TEXT_ONLY, *(method.name for method in methods_of(task))]


def write_metrics(folder: Path, tasks: Sequence[Task]) -> tuple[list[Summary], Verdict | None]:
    """Write `metrics.json`, and return the summaries at the end of training and the verdict.

    Args:
        folder: The run folder.
        tasks: What was asked for; places without one complete seed are left out, and named in the file.
    """
    there = complete(folder, tasks)
    rows, last = [], []
    for condition, seeds in there.items():
        for name in methods_in(condition):
            for stop in STOPS:
                at = replace(condition, stop=stop)
                found, change = summarise(folder, at, name, seeds), gain(folder, at, name, seeds)
                gains = {"iid_gain": change.iid.to_dict(), "ood_gain": change.ood.to_dict()}
                rows.append({**_plain(found), **gains})
                if stop == 1.0:
                    last.append(found)
    judged = verdict(folder, there)
    unfinished = sorted({Condition(*task.place).label for task in tasks if task.environment != NO_CUE} - _labels(there))
    content = {"rows": rows, "headline": judged.to_dict() if judged else None, "unfinished": unfinished}
    write_json(folder / METRICS, without_nan(content))
    return last, judged


def _labels(conditions: Iterable[Condition]) -> set[str]:
    return {condition.label for condition in conditions}


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
    for change, bar in ((judged.published, LARGEST_LOSS_PUBLISHED), (judged.chosen, LARGEST_LOSS_CHOSEN)):
        reached = "reached" if change.reaches(bar) else "not reached"
        print(
            f"{change.method} against plain: o.o.d. {percent(change.ood)}, i.i.d. {percent(change.iid)} points; "
            f"bars (+{100 * GAIN_BAR:.0f} at the lower end, -{100 * bar:.0f}) {reached}"
        )
    print(
        f"SFD {judged.degradation_plain.value:.1f} plain, {judged.degradation_published.value:.1f} SFC. SFC helps in "
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
