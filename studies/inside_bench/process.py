"""One process of the inside bench: a forward under a memory limit and timed pairs, or a check of what is recorded.

Knows nothing of medians, bars or tables; imports torch only where a process runs.
"""

import json
import subprocess
from dataclasses import asdict
from typing import Any

from studies.bench_child import config_from, result_of, run_child
from studies.bench_process import Run, clocked, in_child, peak_of, print_run, taking_turns, why
from studies.inside_bench.config import KINDS, CellKey, InsideBench
from studies.inside_bench.results import Equality

__all__ = ["check_in_process", "in_process", "run_here"]

PLAIN = "plain"
"""The forward that everything is measured against."""


def in_process(config: InsideBench, key: CellKey, pairs: int, kind: str | None = None) -> Run:
    """Run a forward in a process of its own.

    Args:
        config: The decoders and the limits.
        key: The cell whose decoder and prompt are run.
        pairs: Timed pairs of this kind and the plain forward, after the forward whose memory is measured.
        kind: The kind, or `PLAIN`; None takes the cell's.

    Returns:
        The run; one that failed carries its error instead of numbers.
    """
    return in_child(__name__, _task(config, key=list(key), pairs=pairs, kind=kind or key.kind), config.threads)


def check_in_process(config: InsideBench, question: str, model: str) -> Equality:
    """Hold what is recorded against the full computation, in a process of its own; a failure is a result."""
    done = run_child(__name__, _task(config, question=question, model=model), config.threads, subprocess.PIPE)
    if done.returncode:
        return Equality(question, model, config.checked_length, error=why(done.returncode, done.stderr))
    return Equality.from_dict(result_of(done))


def _task(config: InsideBench, **task: Any) -> dict[str, Any]:
    return {"config": {**asdict(config), "out": None}, **task}


def main(task: str) -> None:
    """Do one process's task here, and print its result as a line of JSON."""
    given = json.loads(task)
    config = config_from(InsideBench, given["config"])
    if "question" in given:
        from studies.inside_bench.equality import check

        print(json.dumps(check(config, given["question"], given["model"]).to_dict()))
        return
    print_run(run_here(config, CellKey(*given["key"]), given["pairs"], given["kind"]))


def run_here(config: InsideBench, key: CellKey, pairs: int, kind: str) -> Run:
    """What `in_process` runs; limits this process's memory for good."""
    import torch

    from studies.inside_bench.forwards import prompt, ready
    from studies.inside_bench.models import decoder

    torch.set_num_threads(config.threads)
    model = decoder(config, KINDS[key.kind].model)
    given, short = prompt(config, key.length), prompt(config, 8 * config.images, rows=4)
    run = peak_of(ready(kind, model, short), ready(kind, model, given), config.memory_limit)
    if not pairs:
        return run
    # The measured kind has run at full length; so must plain, or its first timed forward would pay for both.
    clocked(ready(PLAIN, model, given))
    return taking_turns(run, lambda: ready(kind, model, given), lambda: ready(PLAIN, model, given), pairs)
