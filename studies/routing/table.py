"""The short table of a routing study, for the terminal and for its report. It formats entries. No torch."""

from collections.abc import Sequence
from typing import Any

from studies.auditing.entries import Entry
from studies.routing.command import LAST
from studies.routing.measured import Measured
from studies.routing.specialising import IMAGE, MODALITY, TASK

HEADINGS = ("layer", "entropy", "max/mean", "bias, %", "modality", "image no.", "task", "dearest")
EXPLAINED = (
    "entropy: 1 where all experts are called alike; bias: tokens that the router's bias sends elsewhere; then bits "
    "that an expert tells of its tokens (modality: image or text), * where shuffled labels tell as much in at most "
    "5 % of shuffles, in this layer by itself; dearest: the expert whose loss costs answers most, in nats: the largest "
    "of all experts, and thus rather too large"
)
WIDTH = 80


def print_table(found: Measured, model: str) -> None:
    """Print one line a layer, and what was not measured."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    arrays = found.arrays
    table = Table(
        title=f"{model}: {arrays['questions']} questions, {arrays['k']} of {arrays['experts']} experts a token",
        caption=EXPLAINED,
        box=SIMPLE,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows(found.entries):
        table.add_row(*row)
    # Paths and checkpoints are texts of others: one like "[/b]" would be read as a style, and end the run.
    console = Console(width=WIDTH, markup=False, emoji=False, highlight=False)
    console.print(table)
    for line in [*saturation(found.entries), *(f"Not measured: {each}" for each in found.left_out)]:
        console.print(line)


def rows(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """One line of texts for each layer, as under `HEADINGS`."""
    layers = dict.fromkeys(entry["layer"] for entry in entries if entry["name"] == "load_entropy")
    return [
        (
            str(layer),
            _decimal(_one(entries, "load_entropy", layer)),
            _decimal(_one(entries, "largest_over_mean", layer), 2),
            _percent(_one(entries, "moved_by_bias", layer)),
            *(_bits(_one(entries, "specialisation", layer, label=kind)) for kind in (MODALITY, IMAGE, TASK)),
            _dearest([each for each in entries if each["name"] == "knockout_effect" and each["layer"] == layer]),
        )
        for layer in layers
    ]


def saturation(entries: Sequence[Entry]) -> list[str]:
    """One line for each checkpoint: how much of its routing the model kept, over its layers from least to most."""
    overlaps = [
        each for each in entries if each["name"] == "overlap" and each["against"] == LAST and each["checkpoint"] != LAST
    ]
    lines = []
    for name in dict.fromkeys(each["checkpoint"] for each in overlaps):
        own = [each for each in overlaps if each["checkpoint"] == name]
        values = sorted(each["estimate"]["value"] for each in own)
        lines.append(
            f"{name}: {100 * values[0]:.1f} to {100 * values[-1]:.1f} % of a token's experts are the model's "
            f"(by layer; at random {100 * own[0]['floor']:.1f} %)"
        )
    return lines


def _one(entries: Sequence[Entry], name: str, layer: int, **keys: Any) -> Entry | None:
    return next(
        (
            each
            for each in entries
            if each["name"] == name
            and each["layer"] == layer
            and all(each.get(key) == value for key, value in keys.items())
        ),
        None,
    )


def _decimal(entry: Entry | None, places: int = 3) -> str:
    return "–" if entry is None else f"{entry['estimate']['value']:.{places}f}"


def _percent(entry: Entry | None) -> str:
    return "–" if entry is None else f"{100 * entry['estimate']['value']:.1f}"


def _bits(entry: Entry | None) -> str:
    if entry is None:
        return "–"
    return f"{entry['estimate']['value']:.3f}{'*' if entry['p_value'] <= 0.05 else ' '}"


def _dearest(entries: Sequence[Entry]) -> str:
    if not entries:
        return "–"
    entry = max(entries, key=lambda each: each["estimate"]["value"])
    return f"{entry['expert']}: {entry['estimate']['value']:.2f}"
