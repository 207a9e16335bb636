"""What the Inside view reads of routing runs: their names, their numbers, and their figures. No model is needed.

Run folders may come from elsewhere: nothing in them is run, and a broken one is named. Knows nothing of the page.
"""

from pathlib import Path
from typing import Any, NamedTuple

from probes.inputs import InputError
from studies.explorer.guard import run_names, run_path
from studies.routing.command import STUDY
from studies.routing.figures import MOST_LAYERS, PAIRS, figures
from studies.routing.shards import MEASURES, Arrays, read_shard
from studies.routing.table import rows, saturation
from studies.runs import RunFolder

MOST_NAMES = 2**12
"""Most layers, checkpoints or labels of a run that is drawn."""
MOST_NUMBERS = 2**22
"""Most numbers of one array that is drawn."""
_STRANGE = (KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError)
"""What arithmetic raises of numbers in another form."""


class RoutingRun(NamedTuple):
    """A finished routing run, ready for the page."""

    config: dict[str, Any]
    rows: list[tuple[str, ...]]
    """One line a layer, as under `studies.routing.table.HEADINGS`."""
    saturation: list[str]
    """One line a checkpoint."""
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
        lines = rows(entries), saturation(entries)
    except _STRANGE as error:
        raise InputError(f"{name}: its metrics.json is not what `sightcheck routing` writes ({error!r})") from error
    try:
        _require_modest(arrays)
        drawn = [(figure.caption, figure.drawing) for figure in figures(arrays, screens)]
    except _STRANGE as error:
        raise InputError(f"{name}: its {MEASURES} is not what `sightcheck routing` writes ({error!r})") from error
    return RoutingRun(dict(run.manifest.config), *lines, drawn)


def _require_modest(arrays: Arrays) -> None:
    """Refuse what would fill a page, or the memory, before it is drawn.

    Raises:
        ValueError: If an array is larger than those of any model.
    """
    for name, array in arrays.items():
        most = MOST_NAMES if array.ndim == 1 else MOST_NUMBERS
        size = array[:MOST_LAYERS].size if name in PAIRS else array.size
        if size > most:
            raise ValueError(f"{name} holds {size} numbers or names, more than the {most} of any model")


def _study(root: Path, name: str) -> Any:
    try:
        return RunFolder.open(run_path(root, name)).manifest.config.get("study")
    except (InputError, OSError):
        return None
