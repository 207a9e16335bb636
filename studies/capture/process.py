"""One process of the capture bench: a forward under a memory limit, and timed pairs.

Knows nothing of cells, medians, bars or tables; imports torch only where a process runs.
"""

import contextlib
import gc
import json
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from studies.bench_child import config_from, result_of, run_child
from studies.capture.config import KINDS, CaptureBench, CellKey

__all__ = ["OUT_OF_MEMORY", "Run", "forget_peak", "in_process", "limit_memory", "resident", "run_here", "why"]

OUT_OF_MEMORY = "out of memory"
_ALLOCATION_FAILED = ("MemoryError", "can't allocate memory", "Cannot allocate memory", "out of memory", "bad_alloc")


@dataclass(frozen=True)
class Run:
    """One process: its memory, and the pairs of forwards timed in it afterwards.

    Args:
        peak: Peak resident bytes after the first forward.
        loaded: Resident bytes before it, model and inputs loaded.
        seconds: Wall clock of each timed forward of this kind.
        plain_seconds: Of the plain forward beside each.
        cpu_seconds: Processor time of each timed forward, over all threads.
        plain_cpu_seconds: Of the plain forward beside each.
        error: Why the process failed; `OUT_OF_MEMORY` where it met its limit.
    """

    peak: float = float("nan")
    loaded: float = float("nan")
    seconds: tuple[float, ...] = ()
    plain_seconds: tuple[float, ...] = ()
    cpu_seconds: tuple[float, ...] = ()
    plain_cpu_seconds: tuple[float, ...] = ()
    error: str | None = None


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
    done = run_child(__name__, task, config.threads, subprocess.PIPE)
    if done.returncode:
        return Run(error=why(done.returncode, done.stderr))
    return Run(**result_of(done))


def why(status: int, complaint: str) -> str:
    """The error of a failed process; tools wrap what torch raises, so all of its complaint is searched."""
    if status == -signal.SIGKILL or any(sign in complaint for sign in _ALLOCATION_FAILED):
        return OUT_OF_MEMORY
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return (complaint.strip().splitlines() or [f"exit status {status}"])[-1]


def main(task: str) -> None:
    """Run one process's share of a cell here, and print it as a line of JSON."""
    given = json.loads(task)
    run = run_here(config_from(CaptureBench, given["config"]), CellKey(*given["key"]), given["pairs"], given["kind"])
    print(json.dumps(asdict(run)))


def run_here(config: CaptureBench, key: CellKey, pairs: int, kind: str) -> Run:
    """What `in_process` runs; limits this process's memory for good."""
    import torch

    from studies.capture.forwards import prepared, prompt, ready

    torch.set_num_threads(config.threads)
    given = prompt(config, key)
    model = prepared(kind, config)
    # A short forward first, so that one-off allocations of torch and of the tools are in neither figure.
    short = prompt(config, CellKey(key.kind, 8 * config.images, min(key.rows, 4)))
    _clocked(ready(kind, model, short, 1))
    limit_memory(config.memory_limit)
    forget_peak()
    loaded = resident("VmRSS")
    _clocked(ready(kind, model, given, config.decode_steps))
    peak = resident("VmHWM")
    if not pairs:
        return Run(peak, loaded)
    baseline = KINDS[kind].baseline
    plain = prepared(baseline, config)
    limit_memory(config.memory_limit)  # The second model is no part of the limit.
    _clocked(ready(baseline, plain, short, 1))
    # The measured kind has run at full length; so must plain, or its first timed forward would pay for both.
    _clocked(ready(baseline, plain, given, config.decode_steps))
    clocks: dict[str, list[tuple[float, float]]] = {baseline: [], kind: []}
    for pair in range(pairs):
        for name in (baseline, kind) if pair % 2 == 0 else (kind, baseline):
            gc.collect()
            clocks[name].append(_clocked(ready(name, model if name == kind else plain, given, config.decode_steps)))
    wall, cpu = zip(*clocks[kind], strict=True)
    plain_wall, plain_cpu = zip(*clocks[baseline], strict=True)
    return Run(peak, loaded, wall, plain_wall, cpu, plain_cpu)


def _clocked(forward: Any) -> tuple[float, float]:
    """Wall clock and processor seconds of what a forward times."""
    with forward as run:
        start, start_cpu = time.perf_counter(), time.process_time()
        run()
        return time.perf_counter() - start, time.process_time() - start_cpu


def resident(name: str) -> float:
    """Bytes of a line of /proc/self/status (VmRSS, VmHWM, VmSize); elsewhere the peak that getrusage knows."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Start the peak of this process's memory anew, where the kernel allows it: loading is not to count."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def limit_memory(limit: int) -> None:
    """Let this process map at most `limit` bytes more than it has; macOS knows no such limit."""
    if Path("/proc/self/status").exists():
        bound = int(resident("VmSize")) + limit
        resource.setrlimit(resource.RLIMIT_AS, (bound, resource.RLIM_INFINITY))
