"""Writes what the README shows of the capture bench: its table, its claim and its figure, from the committed results.

Run it after a bench: `python -m studies.capture.page`. It measures nothing.
"""

from pathlib import Path
from typing import Any

import numpy as np

from probes.files import digest_of_file, write_bytes
from studies.bench_page import with_blocks
from studies.capture.config import KINDS, CellKey, label
from studies.capture.results import CaptureResults, read_results
from studies.capture.tables import claim, markdown, series_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "bench" / "capture.json"
FIGURE = ROOT / "docs" / "bench" / "capture.png"
README = ROOT / "README.md"
DRAWN = ("rows", "anchor", "eager", "eager_hooks", "lens_cache", "lens_hooks", "nnsight")
"""Kinds in the figure: of ours those that differ most."""
BLOCKS = {"claim": claim, "table": markdown}
"""What stands between `<!-- capture NAME -->` and `<!-- end -->`, by NAME."""


def filled(text: str, results: CaptureResults) -> str:
    """A page with every generated block made anew.

    Raises:
        InputError: If the page lacks a block.
    """
    return with_blocks(text, {f"capture {name}": make(results) for name, make in BLOCKS.items()})


def drawn(results: CaptureResults) -> dict[str, Any]:
    """The arrays of the figure: what `viz.papers.costs` takes."""
    lengths = list(results.config.lengths)
    by_key = {cell.key: cell for cell in results.cells}
    series = [(kind, rows) for kind, rows in series_of(results.cells) if kind in DRAWN and rows != 1]
    shape = (len(series), len(lengths))
    time, memory, foreseen = (np.full(shape, np.nan) for _ in range(3))
    for row, (kind, rows) in enumerate(series):
        for column, length in enumerate(lengths):
            cell = by_key.get(CellKey(kind, length, rows))
            if cell is None:
                continue
            time[row, column], memory[row, column] = cell.time_ratio, cell.peak_ratio
            if cell.out_of_memory:
                foreseen[row, column] = (cell.predicted + cell.plain_peak) / cell.plain_peak
    names = [f"{KINDS[kind].tool}: {label(CellKey(kind, 0, rows))}" for kind, rows in series]
    return {"lengths": lengths, "time": time, "memory": memory, "foreseen": foreseen, "labels": names}


def main() -> None:
    """Fill the README and draw the figure."""
    from viz import papers

    results = read_results(RESULTS)
    write_bytes(README, filled(README.read_text(), results).encode())
    papers.save(papers.costs(**drawn(results)), FIGURE, source=digest_of_file(RESULTS))


if __name__ == "__main__":
    main()
