"""One process of the reward bench: two trainers that take their steps in turn, or one whose memory is read.

Knows nothing of cells, medians, bars or tables; imports torch only where a process runs.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from studies.bench_child import config_from
from studies.bench_process import Run, forget_peak, in_child, limit_memory, print_run, resident
from studies.reward_bench.config import KINDS, RewardBench, timed_pairs

__all__ = ["in_process", "main", "remember", "take_turns"]


def in_process(config: RewardBench, task: str, name: str) -> Run:
    """Run one task in a process of its own.

    Args:
        config: The bench.
        task: "time" a comparison, or read the "memory" of an arm.
        name: The comparison, or the arm.

    Returns:
        The run; one that failed carries its error instead of numbers.
    """
    given = {"config": {**asdict(config), "out": None}, "task": task, "name": name}
    return in_child(__name__, given, config.threads)


def main(task: str) -> None:
    """Run one process's task here, and print it as a line of JSON."""
    # Read when their libraries are imported: nothing is asked of a hub, and nobody is told.
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    given = json.loads(task)
    tasks: dict[str, Callable[[RewardBench, str, Path], Run]] = {"time": take_turns, "memory": remember}
    with TemporaryDirectory() as folder:
        run = tasks[given["task"]](config_from(RewardBench, given["config"]), given["name"], Path(folder))
    print_run(run)


def take_turns(config: RewardBench, kind: str, folder: Path) -> Run:
    """Time the steps of a comparison in pairs: ours and the plain one's on the same pairs of data, turn about.

    Which of the two goes first changes from pair to pair, so that a machine that gets slower favours neither.
    """
    import torch

    from studies.reward_bench.arms import build_trainer
    from studies.reward_bench.stepping import SteppedTrainer

    torch.set_num_threads(config.threads)
    count = timed_pairs(config, kind)
    steps = config.warmup + count + 1
    ours, plain = (build_trainer(config, arm, steps, folder) for arm in (kind, KINDS[kind].baseline))
    limit_training(config, times=2)
    clocks: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}
    with SteppedTrainer(ours) as one, SteppedTrainer(plain) as other:
        trainers = {"ours": one, "plain": other}
        for pair in range(config.warmup + count):
            for name in sorted(trainers, reverse=pair % 2 == 0):
                clocks[name].append(trainers[name].step())
    timed = {name: tuple(zip(*taken[config.warmup :], strict=True)) for name, taken in clocks.items()}
    (wall, cpu), (plain_wall, plain_cpu) = timed["ours"], timed["plain"]
    return Run(seconds=wall, plain_seconds=plain_wall, cpu_seconds=cpu, plain_cpu_seconds=plain_cpu)


def remember(config: RewardBench, arm: str, folder: Path) -> Run:
    """Train a few steps, and read how much memory that took: of this process, or allocated on the GPU."""
    import torch

    from studies.reward_bench.arms import build_trainer, on_gpu

    torch.set_num_threads(config.threads)
    trainer = build_trainer(config, arm, config.warmup + 1, folder)
    limit_training(config)
    gpu = on_gpu(config)
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    forget_peak()
    loaded = float(torch.cuda.memory_allocated()) if gpu else resident("VmRSS")
    trainer.train()
    return Run(peak=float(torch.cuda.max_memory_allocated()) if gpu else resident("VmHWM"), loaded=loaded)


def limit_training(config: RewardBench, times: int = 1) -> None:
    """Let this process take at most so many times the limit beyond what it has; of the GPU where it trains there."""
    from studies.reward_bench.arms import on_gpu

    if not on_gpu(config):
        limit_memory(times * config.memory_limit)
        return
    import torch

    bound = torch.cuda.memory_allocated() + times * config.memory_limit
    torch.cuda.set_per_process_memory_fraction(min(1.0, bound / torch.cuda.get_device_properties(0).total_memory))
