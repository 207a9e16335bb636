"""Processes of the benches: a task goes in as JSON, one line of JSON comes out. Knows nothing of what is measured."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

Config = TypeVar("Config")


def run_child(
    module: str, task: Mapping[str, Any], threads: int, errors: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `main(task)` of a module in a Python process of its own.

    Args:
        module: Its name; its `main` takes the task as a line of JSON, and prints its result as one.
        task: What JSON can hold.
        threads: torch threads.
        errors: Where its stderr goes, as `subprocess` names it; None leaves it on the terminal.
    """
    return subprocess.run(
        [sys.executable, "-c", f"import sys; from {module} import main; main(sys.argv[1])", json.dumps(task)],
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        check=False,
    )


def result_of(done: subprocess.CompletedProcess[str]) -> Any:
    """What a finished process printed last."""
    return json.loads(done.stdout.strip().splitlines()[-1])


def config_from(kind: type[Config], settings: Mapping[str, Any]) -> Config:
    """A bench's config from what JSON made of it: its lists were tuples."""
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()})
