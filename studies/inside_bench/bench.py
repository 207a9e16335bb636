"""What looking inside hybrid and mixture-of-experts decoders costs, beside their plain forward.

What is recorded is first held against the full computation. Memory is compared between processes that each ran one
forward; time between forwards that alternate inside one process, so that a busy machine slows both. Knows nothing of
questions, processors or trained models.
"""

import sys
from dataclasses import replace
from typing import Any

from probes.inputs import InputError
from studies.bench_process import Run, processes_in_turn, shares
from studies.bench_results import check_out, in_order, this_machine
from studies.inside_bench.config import KINDS, CellKey, InsideBench, checks, label, plan, timed_pairs
from studies.inside_bench.process import PLAIN, check_in_process, in_process
from studies.inside_bench.results import (
    Equality,
    InsideCell,
    InsideResults,
    make_cell,
    measured_before,
    write_results,
)
from studies.inside_bench.tables import print_inside
from studies.options import refuse_below

__all__ = ["run_inside"]

Plains = dict[tuple[str, int], list[Run]]
"""Processes that ran plain, by decoder and length: every cell of both is compared with the same."""


def run_inside(config: InsideBench | None = None, show: bool = True, **settings: Any) -> InsideResults:
    """Check what is recorded, then measure every cell, in order of length.

    Args:
        config: What is measured.
        show: Print progress and a table.
        **settings: Override single settings of the configuration.

    Returns:
        The results, also written to `out` as JSON where one is given, anew after every cell.

    Raises:
        InputError: If there is nothing to measure, or a setting does not fit; if `out` is there and neither replaced
            nor resumed; if there is nothing to resume, or it was measured with other settings or on another machine.
    """
    config = replace(config or InsideBench(), **settings)
    _check(config)
    check_out(config)
    done = {cell.key: cell for cell in measured_before(config)} if config.resume else {}
    results = InsideResults(config, tuple(_equality(config, show)), (), this_machine())
    plains: Plains = {}
    cells = plan(config)
    for number, key in enumerate(cells, start=1):
        if key not in done:
            _say(show, f"cell {number} of {len(cells)}: {label(config, key.kind)}, {key.length} tokens")
            done[key] = _measure(config, key, plains)
        results = replace(results, cells=in_order(done, cells))
        if config.out is not None:
            write_results(results, config.out)
    if show:
        print_inside(results)
    return results


def _check(config: InsideBench) -> None:
    unknown = [kind for kind in config.kinds if kind not in KINDS]
    if unknown or not config.kinds or len(set(config.kinds)) < len(config.kinds):
        raise InputError(f"--kinds {' '.join(config.kinds)}: give some of {', '.join(KINDS)}, each once")
    least = {"rows": 1, "pairs": 1, "processes": 1, "memory_limit": 1, "images": 1, "threads": 1, "seed": 0}
    refuse_below(config, {**least, "layers": 2, "experts": 8})
    if config.hidden < 128 or config.hidden % 128:
        raise InputError(f"--hidden {config.hidden}: give a multiple of 128")
    shortest = min(*config.lengths, config.checked_length) if config.lengths else 0
    if len(set(config.lengths)) < len(config.lengths) or shortest < max(8 * config.images, 4 * config.rows):
        raise InputError(
            f"--lengths and --checked-length must be at least {8 * config.images} tokens for {config.images} images, "
            f"and four times the {config.rows} rows; each length once"
        )
    if set(config.pattern) - set("ME*-") or not {"M", "E"} <= set(config.pattern):
        raise InputError(f"--pattern {config.pattern}: give a letter for each layer, M, E, * or -, with M and E in it")


def _equality(config: InsideBench, show: bool) -> list[Equality]:
    found = []
    for question, model in checks(config):
        _say(show, f"checking {question} of {model} at {config.checked_length} tokens")
        found.append(check_in_process(config, question, model))
    return found


def _measure(config: InsideBench, key: CellKey, plains: Plains) -> InsideCell:
    """Run plain and measured processes; plain ones that a decoder and length have already serve it again."""
    beside = KINDS[key.kind].model, key.length
    known = plains.get(beside)
    ours, plain = processes_in_turn(
        shares(timed_pairs(config, key.length), config.processes),
        lambda pairs: in_process(config, key, pairs),
        lambda: in_process(config, key, 0, PLAIN),
        known,
    )
    if not any(run.error for run in (*ours, *plain)):
        plains[beside] = plain
    return make_cell(key, ours, plain)


def _say(show: bool, progress: str) -> None:
    if show:
        print(progress, file=sys.stderr, flush=True)
