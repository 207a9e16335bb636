"""The capture bench as words: a table for the terminal, and the block of Markdown that the README shows.

Numbers in, text out: measures nothing. No torch.
"""

from collections.abc import Sequence

from studies.bench_tables import GIGABYTE, MEGABYTE, markdown_table
from studies.capture.config import KINDS, MEMORY_BAR, OURS, CellKey, label
from studies.capture.results import CaptureCell, CaptureResults, closest_peer

__all__ = ["claim", "markdown", "print_capture", "series_of"]


def print_capture(results: CaptureResults) -> None:
    """Print the results as a table."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    # Seconds and megabytes only where a line has room for them: ratios are what is asked.
    roomy = console.width >= 110
    table = Table(title="Time and memory over the plain sdpa forward's")
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("forward")
    names = ("time", "cpu", "peak", "own peak", *(("seconds (plain)", "peak MB (plain)") if roomy else ()))
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bars")
    for cell in results.cells:
        absolute = (
            f"{cell.seconds:.2f} ({cell.plain_seconds:.2f})",
            f"{cell.peak / MEGABYTE:.0f} ({cell.plain_peak / MEGABYTE:.0f})",
        )
        table.add_row(
            str(cell.length),
            f"{KINDS[cell.kind].tool}: {label(cell.key)}",
            *(f"{ratio:.3f}" for ratio in (cell.time_ratio, cell.cpu_ratio, cell.peak_ratio, cell.increment_ratio)),
            *(absolute if roomy else ()),
            _outcome(cell),
        )
    console.print(table)


def _outcome(cell: CaptureCell) -> str:
    if cell.out_of_memory:
        return f"out of memory: attention alone takes {_size(cell)}"
    return cell.error or {True: "hold", False: "missed", None: ""}[cell.passes]


def _size(cell: CaptureCell) -> str:
    return f"{cell.predicted / GIGABYTE:.1f} GiB"


def markdown(results: CaptureResults) -> str:
    """The README's block: one row for each kind, a column for each length, then what was measured on."""
    config = results.config
    lengths = list(config.lengths)
    head = ["", *(f"{length:,} tokens" for length in lengths)]
    by_key = {cell.key: cell for cell in results.cells}
    table = []
    for kind, rows in series_of(results.cells):
        found = [by_key.get(CellKey(kind, length, rows)) for length in lengths]
        if any(found):
            table.append([_name(kind, rows), *(_ratios(cell) for cell in found)])
    apart = [cell for cell in results.cells if cell.kind in ("padded", "decode")]
    lines = [*markdown_table(head, table), "", *(_apart(results, cell) for cell in apart)]
    return "\n".join([*lines, "", _measured(results)])


def claim(results: CaptureResults) -> str:
    """What the table says in a sentence or two: the cost of our rows, and the peer nearest to them at 4,096 tokens."""
    rows = [cell for cell in results.cells if cell.kind == "rows" and not cell.error]
    most = max(cell.rows for cell in rows)
    ours = [cell for cell in rows if cell.rows == most]
    more = [100 * (cell.time_ratio - 1) for cell in ours]
    memory = [100 * (cell.peak_ratio - 1) for cell in ours]
    lengths = [cell.length for cell in ours]
    said = (
        f"With {most} recorded rows a forward takes {_spread(more)} time and {_spread(memory)} memory than the plain "
        f"one at {min(lengths):,} to {max(lengths):,} tokens."
    )
    nearest = closest_peer(results.cells, 4096)
    if not nearest:
        return said
    (slow, time), (large, space) = nearest["time"], nearest["memory"]
    said = (
        f"{said} At 4,096 tokens the tool nearest in time, {_whose(slow)}, takes {time:.1f} times as long as that, and "
        f"the one nearest in memory, {_whose(large)}, {space:.1f} times as much"
    )
    if space >= 2:
        return f"{said}."
    held = (large.peak - large.increment) / MEGABYTE
    added = large.increment / next(cell.increment for cell in ours if cell.length == 4096)
    return (
        f"{said}: it holds one layer's attention at a time, beside {held:,.0f} MB of libraries and weights that every "
        f"process holds; what its forward adds to them is {added:.1f} times what ours adds."
    )


def _whose(cell: CaptureCell) -> str:
    return f"{KINDS[cell.kind].tool} ({label(cell.key)})"


def _spread(percents: Sequence[float]) -> str:
    """How much more, from the least to the most.

    >>> _spread([0.7, 6.2]), _spread([-1.2, 2.0])
    ('1 to 6 % more', '1 % less to 2 % more')
    """
    low, high = round(min(percents)), round(max(percents))
    if low < 0:
        return f"{-low} % less to {abs(high)} % {'more' if high >= 0 else 'less'}"
    return f"{low} % more" if low == high else f"{low} to {high} % more"


def series_of(cells: Sequence[CaptureCell]) -> list[tuple[str, int]]:
    """Kind and rows of every line of the table, in the order of `KINDS`."""
    found: list[tuple[str, int]] = []
    for cell in cells:
        if cell.kind not in ("padded", "decode") and (cell.kind, cell.rows) not in found:
            found.append((cell.kind, cell.rows))
    return sorted(found, key=lambda pair: (list(KINDS).index(pair[0]), -pair[1]))


def _name(kind: str, rows: int) -> str:
    tool = KINDS[kind].tool
    return f"{'**Sightcheck**' if tool == OURS else tool}: {label(CellKey(kind, 0, rows))}"


def _ratios(cell: CaptureCell | None) -> str:
    if cell is None:
        return "–"
    if cell.out_of_memory:
        return f"out of memory ({_size(cell)})"
    if cell.error:
        return f"failed: {cell.error}".replace("|", "/")
    return f"{_ratio(cell.time_ratio)} / {_ratio(cell.peak_ratio)}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _apart(results: CaptureResults, cell: CaptureCell) -> str:
    config = results.config
    where = (
        f"{config.padded_batch} sequences of {config.padded_length:,} tokens and fewer"
        if cell.kind == "padded"
        else f"{config.decode_steps} steps after {config.decode_length:,} tokens"
    )
    return f"Sightcheck, {label(cell.key)} ({where}): {_ratios(cell)}."


def _measured(results: CaptureResults) -> str:
    config, machine = results.config, results.machine
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "transformers") if machine.get(name))
    peers = ", ".join(f"{name} {machine[name]}" for name in ("transformer-lens", "nnsight") if machine.get(name))
    pairs = sorted({cell.pairs for cell in results.cells if not cell.error})
    return (
        f"Time / peak memory of the process, over the plain sdpa forward's: medians of {pairs[0]} to {pairs[-1]} "
        f"alternating pairs and {config.processes} processes a cell. A random Llama decoder (hidden {config.hidden}, "
        f"{config.layers} layers, {config.heads} heads, {config.key_value_heads} key-value heads, float32) on "
        f"{machine['cores']} cores ({versions}; {peers}), at most {config.memory_limit / GIGABYTE:.0f} GiB a process "
        "beyond the loaded model; where that did not do, in brackets the least that its attention takes. Kinds of the "
        f"same rows and prompt return the same factors. {_bars(results)}"
    )


def _bars(results: CaptureResults) -> str:
    """How many bars hold, and by name those that do not."""
    barred = [cell for cell in results.cells if cell.passes is not None]
    missed = [f"{label(cell.key)} at {cell.length:,} tokens" for cell in barred if not cell.passes]
    which = f" (missed: {', '.join(missed)})" if missed else ""
    return (
        "Bars: time 1.15 from 1,024 tokens and 1.05 from 4,096, per head 1.10, decode steps 1.25; memory "
        f"{MEMORY_BAR:.2f}. {len(barred) - len(missed)} of {len(barred)} cells that have one hold it{which}."
    )
