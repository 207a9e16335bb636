"""The scoreboard in words: the table that a run prints, and the same one for documents. Formats entries; no torch."""

from collections.abc import Sequence
from typing import Any

from probes.instruments.names import SHOWN
from studies.auditing.entries import Entry, find
from studies.instruments.ranking import DIFFERENCE, SINGLE, ranked

HEADINGS = ("instrument", "rows", "chosen on dev", "agreement, %", "minus raw factor, points", "not image-to-image, %")


def print_ranks(entries: Sequence[Entry]) -> None:
    """Print the instruments, the best first, with intervals and paired differences to the raw factor."""
    from rich.console import Console
    from rich.table import Table

    best = ranked(entries)[0]
    table = Table(
        title=f"Image = largest knock-out effect, {best['estimate']['n']} test samples ({best['left_out']} more hang "
        f"on no image), chance {best['chance']:.1%}"
    )
    for heading in HEADINGS:
        table.add_column(heading)
    for row in rank_rows(entries):
        table.add_row(*row)
    Console(width=150).print(table)


def markdown_ranks(entries: Sequence[Entry]) -> str:
    """The same table in Markdown."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *rank_rows(entries)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rank_rows(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """A row of text for each instrument and row set, as under `HEADINGS`, the best first."""
    single = {_key(entry): entry["estimate"] for entry in ranked(entries, SINGLE)}
    gaps = {_key(entry): entry["estimate"] for entry in find(entries, DIFFERENCE)}
    return [
        (
            SHOWN[entry["instrument"]],
            entry["rows"],
            chosen_text(entry),
            _interval(entry["estimate"]),
            _interval(gaps.get(_key(entry)), signed=True),
            _interval(single.get(_key(entry))),
        )
        for entry in ranked(entries)
    ]


def chosen_text(entry: Entry) -> str:
    """What was chosen on dev, in words.

    >>> chosen_text({"rule": "LND", "layers": [4]})
    'layer 4'
    >>> chosen_text({"rule": "M-LND", "layers": [4, 5]})
    'M-LND, layers 4 to 5'
    >>> chosen_text({"rule": "LND", "layers": None, "heads": [[4, 1], [3, 0]]})
    'heads 4.1, 3.0'
    """
    if entry["layers"] is None:
        return "heads " + ", ".join(f"{layer}.{head}" for layer, head in entry["heads"])
    layers = entry["layers"]
    return f"layer {layers[0]}" if len(layers) == 1 else f"{entry['rule']}, layers {layers[0]} to {layers[-1]}"


def _key(entry: Entry) -> tuple[str, str]:
    return entry["instrument"], entry["rows"]


def _interval(estimate: dict[str, Any] | None, signed: bool = False) -> str:
    if estimate is None:
        return ""
    value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" if signed else f"{value:.1f} [{low:.1f}, {high:.1f}]"
