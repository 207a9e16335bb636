"""The study's grid of training runs: which there are, in which order, by how many processes, and what is done already.

One task holds the runs of one backbone, learnability, strength, length, environment and seed: they share their pairs
and their proxy. Every run is written by itself, whole or not at all, so an interrupted grid loses one run a process.
"""

import hashlib
import multiprocessing
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from probes.files import write_arrays
from probes.inputs import InputError
from studies.shortcuts.settings import (
    CONTRAST_ALONE,
    CONTROL_METHODS,
    ENVIRONMENTS,
    FINER,
    METHODS,
    NO_CUE,
    PLACES,
    SEEDS,
    STARTING_METHODS,
    SUBSETS,
    TEXT_ONLY,
    Cell,
    Method,
    Place,
    Sizes,
    noise_of,
)

SOURCE = Path(__file__).parents[2]
EVERY_METHOD = (*METHODS, CONTRAST_ALONE, *FINER)


class Task(NamedTuple):
    """Runs that share pairs and proxy."""

    backbone: str
    learnability: str
    strength: float
    steps: int
    environment: str
    seed: int

    def cell(self, method: str) -> Cell:
        """The run of a method."""
        return Cell(*self, method)

    @property
    def place(self) -> Place:
        """Where on the map it belongs."""
        return Place(*self[:4])


class Stored(NamedTuple):
    """A finished run, as read back."""

    stops: tuple[float, ...]
    """Shares of the training after which it was measured."""
    tests: dict[str, npt.NDArray[np.float32]]
    """(stops, pairs) margins on each test set."""
    clusters: dict[str, npt.NDArray[np.str_]]
    """(pairs,) the picture of each test pair."""
    loss: npt.NDArray[np.float32]


def tasks(parts: Sequence[str] = tuple(PLACES), seeds: Sequence[int] = SEEDS) -> list[Task]:
    """The tasks of parts of the study, each once: part by part, and seed by seed, so that few seeds make a whole map.

    >>> len(tasks()), tasks(("headline",))[1]
    (340, Task(backbone='seeing', learnability='noisier', strength=0.98, steps=400, environment='length', seed=1))
    """
    known = PLACES | SUBSETS
    return list(dict.fromkeys(task for part in parts for task in tasks_at(known[part], seeds)))


def tasks_at(places: Sequence[Place], seeds: Sequence[int]) -> list[Task]:
    """The tasks of places and of their ceilings, each once, seed by seed."""
    found: dict[Task, None] = {}
    for seed in seeds:
        for place in places:
            found[no_cue(place, seed)] = None
            for environment in ENVIRONMENTS:
                found[Task(*place, environment, seed)] = None
    return list(found)


def no_cue(place: Place, seed: int) -> Task:
    """The task that gives a place its image-only ceiling: the same training where no cue tells anything."""
    return Task(place.backbone, place.learnability, 0.5, place.steps, NO_CUE, seed)


def methods_of(task: Task, only: Sequence[str] = ()) -> tuple[Method, ...]:
    """The methods that a task compares; its proxy comes on top, but where no cue tells anything.

    Args:
        task: The task.
        only: These, also where they were not fixed beforehand, and plain training, which every one is compared with.
            Empty is what was fixed for the place.
    """
    if not only or task.environment == NO_CUE:
        return _fixed_methods(task)
    return tuple(method for method in EVERY_METHOD if method.name in ("plain", *only))


def _fixed_methods(task: Task) -> tuple[Method, ...]:
    if task.environment == NO_CUE:
        names: Sequence[str] = ("plain",)
    elif task.backbone == "unaligned":
        names = STARTING_METHODS
    elif task.backbone == "blind" or task.strength == 1.0:
        names = CONTROL_METHODS
    else:
        return METHODS
    return tuple(method for method in EVERY_METHOD if method.name in names)


def path_of(folder: Path, cell: Cell) -> Path:
    """Where a run is kept."""
    return folder / "cells" / f"{cell.key}.npz"


def runs_of(task: Task, only: Sequence[str] = ()) -> list[str]:
    """Names of a task's runs: its proxy and its methods; `only` as in `methods_of`."""
    names = [method.name for method in methods_of(task, only)]
    return names if task.environment == NO_CUE else [TEXT_ONLY, *names]


def missing(folder: Path, task: Task, only: Sequence[str] = ()) -> list[str]:
    """Names of a task's runs that are not there yet; `only` as in `methods_of`."""
    return [name for name in runs_of(task, only) if not path_of(folder, task.cell(name)).is_file()]


def read_cell(folder: Path, cell: Cell) -> Stored:
    """Read a finished run.

    Raises:
        InputError: If it is not there or cannot be read.
    """
    path = path_of(folder, cell)
    try:
        with np.load(path, allow_pickle=False) as found:
            names = [key.removeprefix("margins.") for key in found.files if key.startswith("margins.")]
            return Stored(
                tuple(float(stop) for stop in found["stops"]),
                {name: found[f"margins.{name}"] for name in names},
                {name: found[f"clusters.{name}"] for name in names},
                found["loss"],
            )
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): run the study again with --resume") from error


def run_task(folder: Path, task: Task, sizes: Sizes, only: Sequence[str] = ()) -> list[str]:
    """Make the missing runs of a task; returns the methods made. `only` as in `methods_of`."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    from rewardmodels.model import RewardModel
    from studies.shortcuts.runs import RunResult, prepare, prepare_without_cue, train_method, train_proxy

    left = missing(folder, task, only)
    if not left:
        return []
    disable_progress_bar()
    torch.set_num_threads(1)
    noise = noise_of(task.learnability)
    start = RewardModel.from_pretrained(folder / "backbones" / task.backbone, device="cpu")
    if task.environment == NO_CUE:
        data = prepare_without_cue(start, noise, task.seed, sizes)
        alone = train_method(start, data, methods_of(task)[0], task.seed, sizes, None, task.steps)
        _write(folder, task.cell(left[0]), alone, data)
        return left
    data = prepare(start, task.environment, task.strength, noise, task.seed, sizes)
    # The proxy's margins of each step are not kept: a resumed task trains it again, to the same.
    proxy: RunResult = train_proxy(start, data, task.seed, sizes, task.steps)
    if TEXT_ONLY in left:
        _write(folder, task.cell(TEXT_ONLY), proxy, data)
    for method in methods_of(task, only):
        if method.name in left:
            _write(
                folder,
                task.cell(method.name),
                train_method(start, data, method, task.seed, sizes, proxy, task.steps),
                data,
            )
    return left


def run_tasks(
    folder: Path, todo: Sequence[Task], sizes: Sizes, workers: int, only: Sequence[str] = ()
) -> Iterator[tuple[Task, list[str]]]:
    """Run tasks by several processes, and yield each when it is done. `only` as in `methods_of`.

    Raises:
        InputError: If the code has changed since the start: new processes would run other code than old ones.
    """
    if workers == 1:
        for task in todo:
            yield task, run_task(folder, task, sizes, only)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, maxtasksperchild=8) as pool:
        code = code_digest()
        yield from pool.imap_unordered(_run_one, [(code, folder, task, sizes, only) for task in todo])


def _run_one(arguments: tuple[str, Path, Task, Sizes, Sequence[str]]) -> tuple[Task, list[str]]:
    code, folder, task, sizes, only = arguments
    if code != code_digest():
        raise InputError("the study's code has changed while it ran: go on with --resume, and leave the code alone")
    return task, run_task(folder, task, sizes, only)


@cache
def code_digest() -> str:
    """SHA-256 of the source that decides a run, as it was when this process first asked."""
    total = hashlib.sha256()
    files = [*SOURCE.glob("rewardmodels/**/*.py"), *SOURCE.glob("studies/shortcuts/*.py")]
    for path in (*sorted(files), SOURCE / "studies" / "short_training.py"):
        total.update(path.read_bytes())
    return total.hexdigest()


def _write(folder: Path, cell: Cell, result: Any, data: Any) -> None:
    arrays: dict[str, Any] = {"stops": np.array(result.stops), "loss": result.loss}
    for name, values in result.tests.items():
        arrays[f"margins.{name}"] = values
        arrays[f"clusters.{name}"] = np.array([pair.cluster for pair in data.tests[name].pairs])
    write_arrays(path_of(folder, cell), arrays)
