"""Writes what the documentation shows of the inside bench: two tables and a figure, from the committed results.

Run it after a bench: `python -m studies.inside_bench.page`. It measures nothing.
"""

from pathlib import Path
from typing import Any

import numpy as np

from probes.files import digest_of_file, write_bytes
from studies.bench_page import with_blocks
from studies.inside_bench.config import KINDS, label
from studies.inside_bench.results import InsideResults, read_results
from studies.inside_bench.tables import markdown

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "bench" / "inside.json"
FIGURE = ROOT / "docs" / "bench" / "inside.png"
PAGES = {"hidden attention": ROOT / "docs" / "hybrids.md", "routing": ROOT / "docs" / "experts.md"}
"""Where each question's table stands, between `<!-- inside QUESTION -->` and `<!-- end -->`."""
BEHIND = "![Time and memory against tokens](bench/inside.png)\n\n[All numbers](bench/inside.json)"
"""What follows each table."""


def filled(text: str, question: str, results: InsideResults) -> str:
    """A page with the generated block of a question made anew.

    Raises:
        InputError: If the page lacks it.
    """
    return with_blocks(text, {f"inside {question}": f"{markdown(results, question)}\n\n{BEHIND}"})


def drawn(results: InsideResults) -> dict[str, Any]:
    """The arrays of the figure: what `viz.papers.costs` takes."""
    lengths = sorted({cell.length for cell in results.cells})
    kinds = [kind for kind in KINDS if any(cell.kind == kind for cell in results.cells)]
    time, memory = (np.full((len(kinds), len(lengths)), np.nan) for _ in range(2))
    for cell in results.cells:
        place = kinds.index(cell.kind), lengths.index(cell.length)
        time[place], memory[place] = cell.time.value, cell.memory.value
    labels = [label(results.config, kind) for kind in kinds]
    return {"lengths": lengths, "time": time, "memory": memory, "labels": labels}


def main() -> None:
    """Fill the pages and draw the figure."""
    from viz import papers

    results = read_results(RESULTS)
    for question, page in PAGES.items():
        write_bytes(page, filled(page.read_text(encoding="utf-8"), question, results).encode())
    papers.save(papers.costs(**drawn(results)), FIGURE, source=digest_of_file(RESULTS))


if __name__ == "__main__":
    main()
