"""Kills audits at random moments and resumes them. Run as a script, so that no test process is forked or killed.

    python -m tests.studies.killed_audit MODEL DATA FOLDER KILLS SEED

Imports are done once; each audit runs in a forked child. Prints how many batches each kill left.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch


def audit(model: Path, data: Path, out: Path, resume: bool) -> int:
    from studies.cli import main

    words = [
        "--model",
        str(model),
        "--data",
        str(data),
        "--out",
        str(out),
        "--batch-size",
        "1",
        "--max-new-tokens",
        "3",
    ]
    words += ["--maps", "all", "--causal", "2", "--position-study", *(["--resume"] if resume else [])]
    return main(["audit", *words])


def no_figures(*_: object) -> list[Any]:
    return []


def in_child(model: Path, data: Path, out: Path, resume: bool) -> int:
    child = os.fork()
    if child == 0:
        status = 70
        try:
            status = audit(model, data, out, resume)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return child


def batches(out: Path) -> int:
    """How many batches a run and its position study have."""
    from studies.runs import RunFolder

    runs = [path for path in (out, out / "position") if (path / "manifest.json").is_file()]
    return sum(len(RunFolder.open(path).done_batches()) for path in runs)


def has_batches(out: Path, wanted: float) -> bool:
    return batches(out) >= wanted


def killed(child: int, ready: Callable[[], bool]) -> bool:
    """Kill a child a random moment after it is ready; false if it ended by itself first."""
    while not ready():
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.002)
    time.sleep(random.uniform(0.0, 0.1))
    # Until it is waited for, its number is nobody else's, whether or not it has ended.
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def main() -> None:
    """Make `FOLDER/whole` in one go and `FOLDER/broken` with kills."""
    model, data, folder = map(Path, sys.argv[1:4])
    kills, seed = map(int, sys.argv[4:6])
    import torch

    torch.set_num_threads(1)
    patch("studies.auditing.figures.draw_figures", no_figures).start()
    random.seed(seed)
    audit(model, data, folder / "warm", resume=False)
    child = in_child(model, data, folder / "whole", resume=False)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit("the unbroken audit failed")
    out, planned = folder / "broken", batches(folder / "whole")
    for kill in range(kills):
        # Spread over the whole work, so that each kill finds another half-done run; the moment itself is random.
        wanted = (kill + random.random()) / kills * (planned - 1)
        child = in_child(model, data, out, resume=(out / "manifest.json").is_file())
        if not killed(child, partial(has_batches, out, wanted)):
            sys.exit(f"the audit ended by itself before kill {kill + 1} of {kills}, so nothing was tested")
        print(f"killed with {batches(out)} of {planned} batches", flush=True)
    child = in_child(model, data, out, resume=True)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit("the resumed audit failed")


if __name__ == "__main__":
    main()
