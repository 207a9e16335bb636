"""The study's grid of training runs: which there are, in which order, by how many processes, and what is done already.

One task holds the runs of one backbone, learnability, strength, length, environment and seed: they share their pairs
and their proxy. Every run is written by itself, whole or not at all, so an interrupted grid loses one run a process.
"""

import io
import multiprocessing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from probes.files import write_bytes
from probes.inputs import InputError
from studies.shortcuts.settings import (
    BACKBONES,
    ENVIRONMENTS,
    LEARNABILITIES,
    LENGTHS,
    METHODS,
    SEEDS,
    STRENGTHS,
    TEXT_ONLY,
    Cell,
    Method,
    Sizes,
)

BLIND_METHODS = ("plain", "SFC", "SFC^0.5", "1 - p")
"""What the negative control from a backbone that does not see compares."""
BLIND_STRENGTHS = (0.98,)


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


class Stored(NamedTuple):
    """A finished run, as read back."""

    stops: tuple[float, ...]
    """Shares of the training after which it was measured."""
    tests: dict[str, npt.NDArray[np.float32]]
    """(stops, pairs) margins on each test set."""
    clusters: dict[str, npt.NDArray[np.str_]]
    """(pairs,) the picture of each test pair."""
    loss: npt.NDArray[np.float32]


def tasks(
    backbones: Sequence[str] = BACKBONES, seeds: Sequence[int] = SEEDS, strengths: Sequence[float] = STRENGTHS
) -> list[Task]:
    """Every task, seed by seed, so that a part of the grid is a whole grid of fewer seeds.

    >>> len(tasks()), tasks()[0]
    (315, Task(backbone='seeing', learnability='clearer', strength=0.95, steps=150, environment='length', seed=0))
    """
    return [
        Task(backbone, learnability.name, strength, steps, environment, seed)
        for seed in seeds
        for backbone in backbones
        for learnability in LEARNABILITIES
        for strength in strengths
        for steps in LENGTHS
        for environment in ENVIRONMENTS
        if backbone == "seeing" or (strength in BLIND_STRENGTHS and learnability is LEARNABILITIES[0])
    ]


def methods_of(task: Task) -> tuple[Method, ...]:
    """The methods that a task compares; its proxy comes on top."""
    return METHODS if task.backbone == "seeing" else tuple(each for each in METHODS if each.name in BLIND_METHODS)


def path_of(folder: Path, cell: Cell) -> Path:
    """Where a run is kept."""
    return folder / "cells" / f"{cell.key}.npz"


def missing(folder: Path, task: Task) -> list[str]:
    """Names of the methods of a task, and of its proxy, that are not there yet."""
    names = [TEXT_ONLY, *(method.name for method in methods_of(task))]
    return [name for name in names if not path_of(folder, task.cell(name)).is_file()]


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


def run_task(folder: Path, task: Task, sizes: Sizes) -> list[str]:
    """Make the missing runs of a task; returns the methods made."""
    import torch

    from rewardmodels.model import RewardModel
    from studies.shortcuts.runs import Data, RunResult, prepare, train_method, train_proxy

    left = missing(folder, task)
    if not left:
        return []
    torch.set_num_threads(1)
    noise = next(each.noise for each in LEARNABILITIES if each.name == task.learnability)
    start = RewardModel.from_pretrained(folder / "backbones" / task.backbone, device="cpu")
    data: Data = prepare(start, task.environment, task.strength, noise, task.seed, sizes)
    # The proxy's margins of each step are not kept: a resumed task trains it again, to the same.
    proxy: RunResult = train_proxy(start, data, task.seed, sizes, task.steps)
    if TEXT_ONLY in left:
        _write(folder, task.cell(TEXT_ONLY), proxy, data)
    for method in methods_of(task):
        if method.name in left:
            _write(
                folder,
                task.cell(method.name),
                train_method(start, data, method, task.seed, sizes, proxy, task.steps),
                data,
            )
    return left


def run_tasks(folder: Path, todo: Sequence[Task], sizes: Sizes, workers: int) -> Iterator[tuple[Task, list[str]]]:
    """Run tasks by several processes, and yield each when it is done."""
    if workers == 1:
        for task in todo:
            yield task, run_task(folder, task, sizes)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, maxtasksperchild=8) as pool:
        yield from pool.imap_unordered(_run_one, [(folder, task, sizes) for task in todo])


def _run_one(arguments: tuple[Path, Task, Sizes]) -> tuple[Task, list[str]]:
    folder, task, sizes = arguments
    return task, run_task(folder, task, sizes)


def _write(folder: Path, cell: Cell, result: Any, data: Any) -> None:
    arrays: dict[str, Any] = {"stops": np.array(result.stops), "loss": result.loss}
    for name, values in result.tests.items():
        arrays[f"margins.{name}"] = values
        arrays[f"clusters.{name}"] = np.array([pair.cluster for pair in data.tests[name].pairs])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path_of(folder, cell), buffer.getvalue())
