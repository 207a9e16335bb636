"""One process of the capture bench: a forward under a memory limit, and timed pairs.

Knows nothing of cells, medians, bars or tables; imports torch only where a process runs.
"""

import json
from dataclasses import asdict

from studies.bench_child import config_from
from studies.bench_process import Run, clocked, in_child, limit_memory, peak_of, print_run, taking_turns
from studies.capture.config import KINDS, CaptureBench, CellKey

__all__ = ["in_process", "run_here"]


def in_process(config: CaptureBench, key: CellKey, pairs: int, kind: str | None = None) -> Run:
    """Run one kind of forward in a process of its own.

    Args:
        config: The decoder and the limits.
        key: The cell whose prompt is run.
        pairs: Timed pairs of this kind and its plain forward, after the forward whose memory is measured.
        kind: The kind; None takes the cell's. A plain kind runs what it is compared with.

    Returns:
        The run; one that failed carries its error instead of numbers.
    """
    task = {"config": {**asdict(config), "out": None}, "key": list(key), "pairs": pairs, "kind": kind or key.kind}
    return in_child(__name__, task, config.threads)


def main(task: str) -> None:
    """Run one process's share of a cell here, and print it as a line of JSON."""
    given = json.loads(task)
    config = config_from(CaptureBench, given["config"])
    print_run(run_here(config, CellKey(*given["key"]), given["pairs"], given["kind"]))


def run_here(config: CaptureBench, key: CellKey, pairs: int, kind: str) -> Run:
    """What `in_process` runs; limits this process's memory for good."""
    import torch

    from studies.capture.forwards import prepared, prompt, ready

    torch.set_num_threads(config.threads)
    given = prompt(config, key)
    model = prepared(kind, config)
    short = prompt(config, CellKey(key.kind, 8 * config.images, min(key.rows, 4)))
    run = peak_of(ready(kind, model, short, 1), ready(kind, model, given, config.decode_steps), config.memory_limit)
    if not pairs:
        return run
    baseline = KINDS[kind].baseline
    plain = prepared(baseline, config)
    limit_memory(config.memory_limit)  # The second model is no part of the limit.
    clocked(ready(baseline, plain, short, 1))
    # The measured kind has run at full length; so must plain, or its first timed forward would pay for both.
    clocked(ready(baseline, plain, given, config.decode_steps))
    return taking_turns(
        run,
        lambda: ready(kind, model, given, config.decode_steps),
        lambda: ready(baseline, plain, given, config.decode_steps),
        pairs,
    )
