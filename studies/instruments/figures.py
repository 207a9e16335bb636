"""The figures of a scoreboard, drawn from its entries. It chooses what is drawn; how is `viz.papers`. No torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from probes.instruments.names import HEADS, IMAGE_ROWS, ROWS, SHOWN
from studies.auditing.entries import Entry
from studies.auditing.figures import chance_of, numbers_of, png
from studies.instruments.evidence import FloatArray
from studies.instruments.ranking import AGREEMENT, HEAD_AGREEMENT, PROBE_ROWS, ranked

if TYPE_CHECKING:
    from studies.runs import RunFolder

QUANTITY = "image = largest knock-out effect"


def draw_figures(folder: "RunFolder", entries: Sequence[Entry]) -> list[str]:
    """Draw and write the ranking, the curves by layer and the head maps; returns the files' names."""
    drawn = {"figures/ranking.png": ranking_figure(entries)}
    for rows in ROWS:
        drawn[f"figures/layers-{rows}.png"] = layers_figure(entries, rows)
        drawn[f"figures/heads-{rows}.png"] = heads_figure(entries, rows)
    for name, content in drawn.items():
        folder.write_file(name, content)
    return list(drawn)


def ranking_figure(entries: Sequence[Entry]) -> bytes:
    """Each instrument's agreement with its interval, one series for each row set, the best on top, as PNG."""
    from viz import papers

    best = ranked(entries)
    names = list(dict.fromkeys(entry["instrument"] for entry in best))
    series = [rows for rows in (*ROWS, IMAGE_ROWS) if any(entry["rows"] == rows for entry in best)]
    table = np.full((len(series), len(names), 3), np.nan)
    for entry in best:
        table[series.index(entry["rows"]), names.index(entry["instrument"])] = numbers_of([entry])[0]
    labels = ["the images' own tokens" if rows == IMAGE_ROWS else f"{rows} rows" for rows in series]
    value, low, high = table[..., 0], table[..., 1], table[..., 2]
    shown = [SHOWN[name] for name in names]
    return png(papers.ranking(shown, value, low, high, chance_of(best[0]), labels, quantity=QUANTITY))


def layers_figure(entries: Sequence[Entry], rows: str) -> bytes:
    """Agreement of every instrument by single layer, as PNG; the probe beside the rows that it reads, the lens beside
    the others.
    """
    from viz import papers

    beside = (rows,) if rows == PROBE_ROWS else (rows, IMAGE_ROWS)
    found = [entry for entry in entries if entry["name"] == AGREEMENT and entry["layer"] is not None]
    series: dict[str, list[Entry]] = {}
    for entry in found:
        if entry["rows"] in beside and entry["instrument"] != HEADS:
            series.setdefault(entry["instrument"], []).append(entry)
    layers = sorted({entry["layer"] for own in series.values() for entry in own})
    values = np.full((len(series), len(layers)), np.nan)
    for index, own in enumerate(series.values()):
        for entry in own:
            values[index, layers.index(entry["layer"])] = entry["estimate"]["value"]
    labels = [SHOWN[name] for name in series]
    return png(papers.layer_accuracy(layers, values, chance=chance_of(found[0]), labels=labels, quantity=QUANTITY))


def heads_figure(entries: Sequence[Entry], rows: str) -> bytes:
    """Agreement of every head, the chosen ones framed, as PNG."""
    from viz import papers

    found = [entry for entry in entries if entry["name"] == HEAD_AGREEMENT and entry["rows"] == rows]
    layers = sorted({entry["layer"] for entry in found})
    table: FloatArray = np.full((len(layers), 1 + max(entry["head"] for entry in found)), np.nan)
    for entry in found:
        table[layers.index(entry["layer"]), entry["head"]] = entry["estimate"]["value"]
    chosen = [(entry["layer"], entry["head"]) for entry in found if entry["chosen"]]
    return png(papers.head_map(table, layers, chosen=chosen, limits=(0.0, 1.0), quantity=QUANTITY))
