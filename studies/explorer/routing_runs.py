"""What the Inside view reads of routing runs: their names, their numbers, and their figures. No model is needed.

Run folders may come from elsewhere: nothing in them is run, and a broken one is named. Knows nothing of the page.
"""

from pathlib import Path
from typing import Any, NamedTuple

from probes.inputs import InputError
from studies.auditing.entries import Entry
from studies.explorer.guard import run_names, run_path
from studies.routing.command import STUDY
from studies.routing.figures import figures
from studies.routing.shards import MEASURES, read_shard
from studies.runs import RunFolder


class RoutingRun(NamedTuple):
    """A finished routing run, ready for the page."""

    config: dict[str, Any]
    entries: list[Entry]
    figures: list[tuple[str, Any]]
    """Captions and plotly figures."""


def routing_run_names(root: Path) -> list[str]:
    """The routing runs below a root, newest first; folders that cannot be read are passed over."""
    return [name for name in run_names(root) if _study(root, name) == STUDY]


def read_routing_run(root: Path, name: str | None) -> RoutingRun:
    """Read a run's numbers and draw its figures.

    Raises:
        InputError: If the name leads out of the root, the folder is no routing run, it is not finished, or its numbers
            are broken.
    """
    from viz import screens

    run = RunFolder.open(run_path(root, name))
    if run.manifest.config.get("study") != STUDY:
        raise InputError(f"{name} is no routing run: choose one that `sightcheck routing` wrote")
    entries, arrays = run.read_metrics(), read_shard(run.path / MEASURES)
    try:
        drawn = [(figure.caption, figure.drawing) for figure in figures(arrays, screens)]
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"{name}: its {MEASURES} is not what `sightcheck routing` writes ({error})") from error
    return RoutingRun(dict(run.manifest.config), entries, drawn)


def _study(root: Path, name: str) -> Any:
    try:
        return RunFolder.open(run_path(root, name)).manifest.config.get("study")
    except (InputError, OSError):
        return None
