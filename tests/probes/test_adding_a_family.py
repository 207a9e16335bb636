"""The how-to page shows the files as they are, and the family that it shows is held by what it names."""

import re
from pathlib import Path

import pytest

from probes.families import FAMILIES
from probes.families.support import VERIFIED
from tests.probes.hooked import FURTHER
from tests.probes.span_cases import CASES
from tests.probes.test_spans_model import RAGGED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding-a-family.md").read_text()
EXCERPTS = re.findall(r"<!-- (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("path, code", EXCERPTS, ids=[path for path, _ in EXCERPTS])
def test_excerpts_are_the_files_own(path: str, code: str) -> None:
    assert code in (ROOT / path).read_text()


def test_the_page_leaves_nothing_out() -> None:
    assert len(EXCERPTS) == 5
    for path in re.findall(r"`((?:probes|tests)/[\w/]+\.py)`", PAGE):
        assert (ROOT / path).is_file(), path
    for name in re.findall(r"`(\w+\.py)`", PAGE):
        assert list(ROOT.glob(f"*/**/{name}")), name
    assert "adding-a-family.md" in (ROOT / "docs" / "families.md").read_text()


@pytest.mark.parametrize("family", ["gemma4", "muse_glimmer"])
def test_the_families_of_the_page_are_held_by_what_it_names(family: str) -> None:
    assert FAMILIES[family] == family and f"{family}.py`" in PAGE
    assert family in FURTHER and family in CASES and family in RAGGED


def test_the_readme_counts_what_the_table_of_the_docs_counts() -> None:
    assert f"image tokens are known, {len(VERIFIED & set(FAMILIES))} of them" in (ROOT / "README.md").read_text()
