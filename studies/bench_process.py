"""One process of a bench: its memory, its limit, and forwards timed in turn, so that a busy machine slows both.

Knows nothing of what a forward is, nor of cells, medians, bars or tables. No torch.
"""

import contextlib
import gc
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from studies.bench_child import result_of, run_child

__all__ = [
    "OUT_OF_MEMORY",
    "Ready",
    "Run",
    "clocked",
    "forget_peak",
    "in_child",
    "limit_memory",
    "peak_of",
    "print_run",
    "processes_in_turn",
    "resident",
    "shares",
    "taking_turns",
    "why",
]

Ready = contextlib.AbstractContextManager[Callable[[], Any]]
"""Enters what must stand before the clock starts, gives what is timed, and leaves it."""

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


def in_child(module: str, task: Mapping[str, Any], threads: int) -> Run:
    """Have a module's `main` make a run of a task in a process of its own.

    Args:
        module: Its name; its `main` prints the run by `print_run`.
        task: What JSON can hold.
        threads: torch threads.

    Returns:
        The run; one that failed carries its error instead of numbers.
    """
    done = run_child(module, task, threads, subprocess.PIPE)
    if done.returncode:
        return Run(error=why(done.returncode, done.stderr))
    return Run(**result_of(done))


def print_run(run: Run) -> None:
    """Print a run as the line of JSON that `in_child` reads."""
    print(json.dumps(asdict(run)))


def why(status: int, complaint: str) -> str:
    """The error of a failed process; tools wrap what torch raises, so all of its complaint is searched."""
    if status == -signal.SIGKILL or any(sign in complaint for sign in _ALLOCATION_FAILED):
        return OUT_OF_MEMORY
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return (complaint.strip().splitlines() or [f"exit status {status}"])[-1]


def shares(count: int, processes: int) -> list[int]:
    """Share timed pairs out among processes, of which none is without a pair.

    >>> shares(5, 2), shares(1, 2)
    ([3, 2], [1])
    """
    used = min(processes, count)
    return [count // used + (turn < count % used) for turn in range(used)]


def processes_in_turn(
    pairs: Sequence[int], ours: Callable[[int], Run], plain: Callable[[], Run], known: Sequence[Run] | None = None
) -> tuple[list[Run], list[Run]]:
    """Run plain and measured processes in turn, in an order that turns round every time.

    Args:
        pairs: Timed pairs of each measured process.
        ours: Runs one of these.
        plain: Runs one that it is compared with.
        known: Plain processes that ran before; None runs as many as measured ones.

    Returns:
        Measured and plain runs, up to the first turn in which one failed.
    """
    measured: list[Run] = []
    beside = list(known or ())
    for turn, count in enumerate(pairs):
        if known is None and turn % 2 == 0:
            beside.append(plain())
        measured.append(ours(count))
        if known is None and turn % 2 == 1:
            beside.append(plain())
        if beside[-1].error or measured[-1].error:
            break
    return measured, beside


def peak_of(short: Ready, forward: Ready, limit: int) -> Run:
    """The memory of one forward of this process; limits the process for good.

    Args:
        short: A short forward of the same kind, run before: one-off allocations of libraries are in neither figure.
        forward: The forward.
        limit: Bytes that it may take beyond what is there after the short one.
    """
    clocked(short)
    limit_memory(limit)
    forget_peak()
    loaded = resident("VmRSS")
    clocked(forward)
    return Run(resident("VmHWM"), loaded)


def taking_turns(run: Run, ours: Callable[[], Ready], plain: Callable[[], Ready], pairs: int) -> Run:
    """Time two forwards in turn, in an order that turns round every time.

    Args:
        run: What is known of the process.
        ours: Makes the measured forward ready.
        plain: Makes the other.
        pairs: How often; one at least.

    Returns:
        The run with its clocks.
    """
    clocks: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for pair in range(pairs):
        for measured in (False, True) if pair % 2 == 0 else (True, False):
            gc.collect()
            clocks[measured].append(clocked(ours() if measured else plain()))
    wall, cpu = zip(*clocks[True], strict=True)
    plain_wall, plain_cpu = zip(*clocks[False], strict=True)
    return replace(run, seconds=wall, plain_seconds=plain_wall, cpu_seconds=cpu, plain_cpu_seconds=plain_cpu)


def clocked(forward: Ready) -> tuple[float, float]:
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
