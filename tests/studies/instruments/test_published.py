"""The scoreboard that the documents show is the one that was measured."""

import json
from pathlib import Path

from studies.instruments.report import HEADINGS, markdown_ranks

DOCS = Path(__file__).parents[3] / "docs"


def test_the_table_in_the_documents_is_that_of_the_committed_run() -> None:
    entries = json.loads((DOCS / "study" / "scoreboard" / "metrics.json").read_text())
    table = markdown_ranks(entries)
    assert table in (DOCS / "README.md").read_text()
    assert table.count("\n") == 18 and table.startswith(f"| {HEADINGS[0]} |")
    entries[0]["estimate"]["value"] += 0.1
    assert markdown_ranks(entries) not in (DOCS / "README.md").read_text()
