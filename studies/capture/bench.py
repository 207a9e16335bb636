"""What looking costs: time and peak memory of a forward that is looked into, against the plain forward.

Every cell runs in processes of its own. Memory is compared between processes that each ran one forward; time between
forwards that alternate inside one process, so that a busy machine slows both. Knows nothing of questions, processors
or trained models.
"""

import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from probes.inputs import InputError
from studies.bench_process import Run, processes_in_turn, shares
from studies.bench_results import check_out, in_order
from studies.capture.config import KINDS, CaptureBench, CellKey, label, plan, timed_pairs
from studies.capture.process import in_process
from studies.capture.results import (
    CaptureCell,
    CaptureResults,
    bench_machine,
    make_cell,
    measured_before,
    write_results,
)
from studies.capture.tables import print_capture

__all__ = ["run_capture"]

Plains = dict[tuple[str, int], list[Run]]
"""Processes that ran plain, by kind of plain forward and length: every cell of a length is compared with the same."""


def run_capture(config: CaptureBench | None = None, show: bool = True, **settings: Any) -> CaptureResults:
    """Measure every cell, in order of length.

    Args:
        config: What is measured.
        show: Print progress and a table.
        **settings: Override single settings of the configuration.

    Returns:
        The results, also written to `out` as JSON where one is given, anew after every cell.

    Raises:
        InputError: If lengths, rows, kinds or repeats are empty or do not fit; if a tool is not installed; if ``out``
            is there and neither replaced nor resumed; if there is nothing to resume, or it was measured with other
            settings or on another machine.
    """
    config = replace(config or CaptureBench(), **settings)
    _check(config)
    check_out(config)
    done = {cell.key: cell for cell in measured_before(config)} if config.resume else {}
    results = CaptureResults(config, (), bench_machine())
    plains: Plains = {}
    cells = plan(config)
    for number, key in enumerate(cells, start=1):
        if key not in done:
            if show:
                about = f"{KINDS[key.kind].tool}, {label(key)}, {key.length} tokens"
                print(f"cell {number} of {len(cells)}: {about}", file=sys.stderr, flush=True)
            done[key] = _measure(config, key, plains)
        results = replace(results, cells=in_order(done, cells))
        if config.out is not None:
            write_results(results, config.out)
    if show:
        print_capture(results)
    return results


def _check(config: CaptureBench) -> None:
    if not config.lengths or not config.rows or not config.kinds or config.repeats < 1 or config.processes < 1:
        raise InputError(
            "bench capture needs at least one length, one number of rows, one kind, one repeat and one process"
        )
    unknown = [kind for kind in config.kinds if kind not in KINDS]
    if unknown:
        raise InputError(f"--kinds {' '.join(unknown)}: there are {', '.join(KINDS)}")
    shortest = min(
        *config.lengths,
        config.padded_length - (config.padded_batch - 1) * config.padded_length // 8,
        config.decode_length,
    )
    if shortest < 8 * config.images or not 1 <= max(config.rows) <= shortest // 4 or min(config.rows) < 1:
        raise InputError(
            f"lengths must be at least {8 * config.images} tokens for {config.images} images, and rows between 1 and a "
            f"quarter of the shortest length, got lengths {config.lengths} and rows {config.rows}"
        )
    if config.padded_batch > 7:
        raise InputError(f"--padded-batch {config.padded_batch}: its sequences get shorter by eighths, so 7 at most")
    for kind in config.kinds:
        for package in KINDS[kind].packages:
            if find_spec(package.replace("-", "_")) is None:
                raise InputError(
                    f"kind {kind} needs {package}, which is not installed: pip install 'sightcheck[bridges]', or "
                    f"leave the kind out: --kinds {' '.join(name for name in KINDS if not KINDS[name].packages)}"
                )


def _measure(config: CaptureBench, key: CellKey, plains: Plains) -> CaptureCell:
    """Run plain and measured processes; plain ones that a length has already serve it again."""
    baseline = KINDS[key.kind].baseline
    known = plains.get((baseline, key.length))
    ours, plain = processes_in_turn(
        shares(timed_pairs(config, key), config.processes),
        lambda pairs: in_process(config, key, pairs),
        lambda: in_process(config, key, 0, baseline),
        known,
    )
    if known is None and len(plain) == config.processes:
        plains[baseline, key.length] = plain
    return make_cell(config, key, plain, ours)
