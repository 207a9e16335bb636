"""Kills audits at random moments and resumes them. Run as a script, so that no test process is forked or killed.

    python -m tests.studies.killed_audit MODEL DATA FOLDER KILLS SEED

Imports are done once; each audit runs in a forked child. Prints how many batches each kill left.
"""

import contextlib
import os
import random
import signal
import sys
import time
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
        wanted = (kill + random.random()) / kills * planned
        child = in_child(model, data, out, resume=True)
        while batches(out) < wanted and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.002)
        time.sleep(random.uniform(0.0, 0.1))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        print(f"killed with {batches(out)} of {planned} batches", flush=True)
    child = in_child(model, data, out, resume=True)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit("the resumed audit failed")


if __name__ == "__main__":
    main()
