"""The inside bench as words: a table for the terminal, and the blocks of Markdown that the documentation shows.

Numbers in, text out: measures nothing. No torch.
"""

from collections.abc import Collection

from probes.errors import counted
from probes.estimates import Estimate
from studies.bench_cells import verdict
from studies.bench_tables import GIGABYTE, MEGABYTE, failure, least_to_most, markdown_table, with_interval
from studies.inside_bench.config import DIFFERENCE_BAR, KINDS, InsideBench, bars, label
from studies.inside_bench.results import Equality, InsideCell, InsideResults

__all__ = ["markdown", "print_inside"]

QUESTIONS = {"hidden attention": "Hidden attention", "routing": "Routing"}
MODELS = {"hybrid": "Nemotron-H", "dots1": "dots.llm1"}


def print_inside(results: InsideResults) -> None:
    """Print the results as a table, and what is equal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    # Seconds and megabytes only where a line has room for them: ratios are what is asked.
    roomy = console.width >= 120
    table = Table(title="Time and memory over the plain forward's")
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("recorded")
    absolute_names = ("seconds (plain)", "peak MB (plain)") if roomy else ()
    for name in ("time [95 %]", "cpu", "memory [95 %]", "own peak", *absolute_names):
        table.add_column(name, justify="right")
    table.add_column("bars")
    for cell in results.cells:
        absolute = (
            f"{cell.seconds:.2f} ({cell.plain_seconds:.2f})",
            f"{cell.peak / MEGABYTE:.0f} ({cell.plain_peak / MEGABYTE:.0f})",
        )
        table.add_row(
            str(cell.length),
            label(results.config, cell.kind),
            with_interval(cell.time),
            f"{cell.cpu_ratio:.2f}",
            with_interval(cell.memory),
            f"{cell.increment_ratio:.2f}",
            *(absolute if roomy else ()),
            "\n".join(f"{name} {found}" for name, (_, found) in _verdicts(cell).items()),
        )
    console.print(table)
    for check in results.equality:
        console.print(_equality(check), soft_wrap=True)
    for cell in results.cells:
        if cell.error:
            console.print(
                f"{label(results.config, cell.kind)}: {failure(cell, results.config.memory_limit)}", soft_wrap=True
            )


def markdown(results: InsideResults, question: str) -> str:
    """A block of the documentation: a row for each cell of a question, what is equal, and what was measured on."""
    config = results.config
    cells = [cell for cell in results.cells if KINDS[cell.kind].question == question]
    ratios = ["time [95 %]", "processor time", "peak memory [95 %]", "beyond the loaded model"]
    head = ["Recorded", "tokens", *ratios, "bars"]
    lines = markdown_table(head, [_columns(config, cell) for cell in cells])
    equal = [_equality(check) for check in results.equality if check.question == question]
    return "\n".join([*lines, "", " ".join([*equal, _measured(results, cells)])])


def _columns(config: InsideBench, cell: InsideCell) -> list[str]:
    name = label(config, cell.kind)
    start = [f"{name[0].upper()}{name[1:]}", f"{cell.length:,}"]
    if cell.error:
        return [*start, failure(cell, config.memory_limit).replace("|", "/"), "–", "–", "–", _bars(cell)]
    ratios = [with_interval(cell.time), f"{cell.cpu_ratio:.2f}", with_interval(cell.memory)]
    return [*start, *ratios, f"{cell.increment_ratio:.2f}", _bars(cell)]


def _bars(cell: InsideCell) -> str:
    return "; ".join(f"{name} {bar:.2f}: {found}" for name, (bar, found) in _verdicts(cell).items()) or "none"


def _verdicts(cell: InsideCell) -> dict[str, tuple[float, str]]:
    """Each bar and what became of it, by its interval."""
    found: dict[str, tuple[float, str]] = {}
    ratios: dict[str, Estimate] = {"time": cell.time, "memory": cell.memory}
    for name, bar in bars(cell.key)._asdict().items():
        if bar is not None:
            found[name] = (bar, "not measured" if cell.error else verdict(ratios[name], bar))
    return found


def _equality(check: Equality) -> str:
    """One check as a sentence."""
    about = f"{QUESTIONS[check.question]} of {MODELS[check.model]} at {check.length:,} tokens"
    if check.error:
        return f"{about} could not be checked: {check.error}."
    held = "holds" if check.passes else "missed"
    if check.equal is not None:
        return (
            f"{about}: {100 * check.equal:.4g} % of choices equal those worked out from sigmoid and bias, weights and "
            f"scores within {check.difference:.1g} of their largest (bar {DIFFERENCE_BAR:.0e} and every choice: "
            f"{held}); the highest logits give {100 * check.control:.4g} % of them."
        )
    return (
        f"{about} is that of the whole matrix within {check.difference:.1g} of its largest number (bar "
        f"{DIFFERENCE_BAR:.0e}: {held}), which gives the layer's own scan within {check.own_difference:.1g}; without "
        f"the time step it would be {check.control:.2g} away."
    )


def _measured(results: InsideResults, cells: Collection[InsideCell]) -> str:
    config, machine = results.config, results.machine
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "transformers") if machine.get(name))
    ran = [cell for cell in cells if not cell.error]
    pairs, seconds = [cell.time.n for cell in ran] or [0], [cell.plain_seconds for cell in ran] or [0.0]
    peaks = [cell.plain_peak / GIGABYTE for cell in ran] or [0.0]
    widths = f"{config.hidden} wide, {config.experts} experts a layer"
    used = {KINDS[cell.kind].model for cell in cells}
    decoders = {"hybrid": f"Nemotron-H ({config.pattern})", "dots1": f"dots.llm1 ({config.layers} layers)"}
    named = " and ".join(name for model, name in decoders.items() if model in used)
    return (
        f"Ratios over the plain forward of the same decoder: of time, medians of {least_to_most(pairs, 'd')} "
        "alternating pairs of forwards; of the peak memory of the process, of "
        f"{counted(config.processes, 'pair')} of processes; both with the "
        "exact interval of a median, pairs taken as independent, which decides whether a bar holds, is missed, or is "
        "undecided. Processor time is "
        f"disturbed less by other work. Plain forwards took {least_to_most(seconds, '.2g')} s and at most "
        f"{max(peaks):.1f} GiB. Random {named}, {widths}, float32, on {machine.get('cores')} cores, "
        f"{counted(config.threads, 'thread')} ({versions})."
    )
