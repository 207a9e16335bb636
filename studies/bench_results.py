"""The JSON file that a bench writes anew after every cell, and whether a later call may go on with it.

Knows settings and the machine; nothing of what a cell holds. No torch.
"""

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from probes.inputs import InputError
from studies.options import say_interrupted
from studies.run_folder.files import read_json

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


@contextmanager
def telling_how_to_go_on(bench: str, config: Any) -> Iterator[None]:
    """Where the block is interrupted, say how to go on, if it has written anything; the interruption goes on up."""
    try:
        yield
    except KeyboardInterrupt:
        if config.out is not None and config.out.is_file():
            say_interrupted(bench, config)
        raise
