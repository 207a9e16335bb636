"""What training a reward model costs: time and peak memory of a step, ours over TRL's, and with a proxy over without.

Time is compared between steps that alternate inside one process, ours and the other on the same data, so that a busy
machine slows both; what is published is the median of the pairs' ratios, with the exact interval of a median, which
no outlier moves. Memory is compared between processes that each trained one way. Knows nothing of data of users.
"""

import sys
from dataclasses import replace
from typing import Any

from probes.inputs import InputError
from studies.bench_process import Run
from studies.bench_results import check_out, in_order
from studies.options import refuse_below
from studies.reward_bench.config import KINDS, RewardBench
from studies.reward_bench.process import in_process
from studies.reward_bench.results import (
    RewardCell,
    RewardResults,
    bench_machine,
    make_cell,
    measured_before,
    write_results,
)
from studies.reward_bench.tables import print_reward

__all__ = ["run_reward"]

Remembered = dict[str, list[Run]]
"""Processes whose memory was read, by arm: comparisons share what they are measured against."""


def run_reward(config: RewardBench | None = None, show: bool = True, **settings: Any) -> RewardResults:
    """Measure every comparison.

    Args:
        config: What is measured.
        show: Print progress and a table.
        **settings: Override single settings of the configuration.

    Returns:
        The results, also written to `out` as JSON where one is given, anew after every cell. Of a bench that is gone
        on with, they hold every cell that it left, also those that are not asked for now.

    Raises:
        InputError: If there is no comparison, or one is unknown; if a number is too small; if `out` is there and
            neither replaced nor resumed; if there is nothing to resume, or it was measured with other settings or on
            another machine.
    """
    config = replace(config or RewardBench(), **settings)
    _check(config)
    check_out(config)
    done = {cell.kind: cell for cell in measured_before(config)} if config.resume else {}
    results = RewardResults(config, (), bench_machine())
    remembered: Remembered = {}
    for number, kind in enumerate(config.kinds, start=1):
        if kind not in done:
            if show:
                print(f"cell {number} of {len(config.kinds)}: {KINDS[kind].label}", file=sys.stderr, flush=True)
            done[kind] = _measure(config, kind, remembered)
        results = replace(results, cells=in_order(done, KINDS))
        if config.out is not None:
            write_results(results, config.out)
    if show:
        print_reward(results)
    return results


def _check(config: RewardBench) -> None:
    unknown = [kind for kind in config.kinds if kind not in KINDS]
    if unknown or not config.kinds or len(set(config.kinds)) < len(config.kinds):
        raise InputError(f"--kinds {' '.join(config.kinds)}: give some of {', '.join(KINDS)}, each once")
    least = {"pairs": 1, "warmup": 1, "processes": 1, "memory_limit": 1, "threads": 1, "seed": 0}
    sizes = {"text_layers": 1, "text_tokens": 8, "text_batch": 1, "layers": 1, "grid": 4, "batch": 1, "lora": 1}
    refuse_below(config, {**least, **sizes})
    for name in ("text_hidden", "hidden"):
        if getattr(config, name) < 64 or getattr(config, name) % 64:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}: give a multiple of 64")


def _measure(config: RewardBench, kind: str, remembered: Remembered) -> RewardCell:
    """Read the memory of both sides, then time them beside each other; what has failed is not timed."""
    for arm in (KINDS[kind].baseline, kind):
        if arm not in remembered:
            remembered[arm] = [in_process(config, "memory", arm) for _ in range(config.processes)]
    ours, plain = remembered[kind], remembered[KINDS[kind].baseline]
    failed = any(run.error for run in (*ours, *plain))
    return make_cell(kind, Run() if failed else in_process(config, "time", kind), ours, plain)
