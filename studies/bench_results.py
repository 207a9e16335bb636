"""The JSON file that a bench writes anew after every cell, whether a later call may go on with it, and its ratios.

Knows settings, the machine and failures; nothing else of what a cell holds. No torch.
"""

import json
import math
import os
import statistics
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

from probes.files import read_json
from probes.inputs import InputError
from studies.options import say_interrupted

_NOT_SETTINGS = ("out", "resume", "overwrite")


def this_machine(packages: Sequence[str] = ("torch", "transformers")) -> dict[str, Any]:
    """What the figures were measured on.

    Args:
        packages: Distributions that the bench runs, whose versions are noted; None where one is not installed.
    """
    import platform
    from importlib.metadata import PackageNotFoundError, version

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return {
        "machine": platform.machine(),
        "processor": platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: installed(name) for name in packages},
    }


def settings_of(config: Any, apart: Collection[str] = ()) -> dict[str, Any]:
    """What was asked for, as plain data.

    Args:
        config: The bench's config, a dataclass with `out`, `resume` and `overwrite`.
        apart: Options in which a bench that goes on may differ.
    """
    return {name: value for name, value in asdict(config).items() if name not in (*_NOT_SETTINGS, *apart)}


def check_out(config: Any) -> None:
    """Refuse an ``--out`` that the options do not allow to write. Changes nothing.

    Raises:
        InputError: If it is a folder, a file that is neither gone on with nor replaced, or both are asked for.
    """
    out: Path | None = config.out
    if config.resume and config.overwrite:
        raise InputError("--resume goes on with a bench and --overwrite replaces it: leave one out")
    if out is not None and out.is_dir():
        raise InputError(f"--out {out} is a folder: give a file to write, such as {out / 'bench.json'}")
    if out is not None and out.exists() and not (config.resume or config.overwrite):
        raise InputError(f"--out {out} is there: give --overwrite to replace it, --resume to go on, or another")


def cells_before(
    bench: str, out: Path | None, settings: Mapping[str, Any], machine: Mapping[str, Any]
) -> Sequence[Mapping[str, Any]]:
    """The cells that an interrupted bench left, as it wrote them.

    Args:
        bench: Its verb.
        out: The file that it wrote.
        settings: `settings_of` the bench that wants to go on.
        machine: `this_machine`, as that bench notes it.

    Raises:
        InputError: If there is nothing, it is another file, or it was measured with other settings or on another
            machine; names what differs.
    """
    if out is None or not out.is_file():
        raise InputError(f"there is nothing to resume at {out}: give --out of the bench that was interrupted")
    before, wanted = (
        read_json(out),
        {"config": json.loads(json.dumps(settings, default=str)), "machine": dict(machine)},
    )
    try:
        cells, found = list(before["cells"]), {name: dict(before[name]) for name in wanted}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{out} is no result of {bench} ({error}): choose another --out") from None
    for name, ours in wanted.items():
        theirs = found[name]
        differing = [key for key in dict.fromkeys([*ours, *theirs]) if theirs.get(key) != ours.get(key)]
        if differing:
            raise InputError(
                f"{out} was measured with another {name} ({', '.join(differing)}): start again with --overwrite"
            )
    return cells


class Measured(Protocol):
    """What every bench's cell tells of its failure."""

    @property
    def error(self) -> str | None:
        """The first failure; None when all ran."""

    @property
    def out_of_memory(self) -> bool:
        """Whether it met its memory limit, which is a result."""


Cell = TypeVar("Cell", bound=Measured)


def kept_cells(
    bench: str,
    out: Path | None,
    rows: Sequence[Mapping[str, Any]],
    read: Callable[[dict[str, Any]], Cell],
    asked: Callable[[Cell], bool] = lambda _: True,
) -> list[Cell]:
    """The cells of `cells_before` as the bench reads them, without those that are to be measured again.

    Args:
        bench: Its verb.
        out: The file that it wrote.
        rows: Of `cells_before`.
        read: Makes a cell of one.
        asked: Whether the bench that goes on measures this cell: it then does so again if the cell failed for another
            reason than memory.

    Raises:
        InputError: If the file holds other cells.
    """
    with refusing_others(bench, out):
        cells = [read(dict(row)) for row in rows]
    return [cell for cell in cells if cell.error is None or cell.out_of_memory or not asked(cell)]


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def in_order(cells: Mapping[Key, Value], order: Iterable[Key]) -> tuple[Value, ...]:
    """The cells that are there, each once, in an order of their keys.

    >>> in_order({"blank": 1, "text": 2}, ["text", "removed", "blank"])
    (2, 1)
    """
    return tuple(cells[key] for key in dict.fromkeys(order) if key in cells)


@contextmanager
def refusing_others(bench: str, path: Path | None) -> Iterator[None]:
    """Refuse a file that is no result of a bench, where reading it in the block fails.

    Raises:
        InputError: Naming file and bench.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no result of {bench} ({error}): choose another file") from None


def with_nan(row: Mapping[str, Any], words: Collection[str] = ("error", "passes")) -> dict[str, Any]:
    """A cell as JSON holds it, with NaN for null again, but for `words`, where null is nothing."""
    return {name: math.nan if value is None and name not in words else value for name, value in row.items()}


def quotient(ours: float, plain: float) -> float:
    """One number over another; NaN where that is not positive."""
    return ours / plain if plain > 0 else math.nan


def pairwise(ours: Sequence[float], plain: Sequence[float]) -> list[float]:
    """Each number over its partner; pairs without time are left out."""
    return [mine / theirs for mine, theirs in zip(ours, plain, strict=True) if theirs > 0]


def median(values: Sequence[float]) -> float:
    """The median; NaN of nothing."""
    return statistics.median(values) if values else math.nan


@contextmanager
def telling_how_to_go_on(bench: str, config: Any) -> Iterator[None]:
    """Where the block is interrupted, say how to go on, if it has written anything; the interruption goes on up."""
    try:
        yield
    except KeyboardInterrupt:
        if config.out is not None and config.out.is_file():
            say_interrupted(bench, config)
        raise
