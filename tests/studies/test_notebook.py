"""The first-audit notebook runs from top to bottom, is committed with its outputs, and names options that exist."""

import dataclasses
import re

import nbformat
import pytest

from studies.audit import AuditConfig
from studies.bundled import BUNDLED_MODEL
from studies.cli_app import AppConfig
from tests.studies.notebook_runner import NOTEBOOKS, code_cells, execute, written

FIRST_AUDIT = NOTEBOOKS / "first_audit.ipynb"
needs_model = pytest.mark.skipif(not BUNDLED_MODEL.is_dir(), reason=f"needs the bundled model in {BUNDLED_MODEL}")


@pytest.mark.slow
@needs_model
def test_it_runs_from_top_to_bottom() -> None:
    notebook = execute(FIRST_AUDIT)
    text = written(notebook)
    assert "exit status 0" in text and "in focus" in text and "95 % intervals" in text
    shown = [kind for cell in code_cells(notebook) for output in cell.outputs for kind in output.get("data", {})]
    assert shown.count("image/png") >= 3 and shown.count("text/html") >= 3


@needs_model
def test_it_is_committed_with_its_outputs() -> None:
    cells = code_cells(nbformat.read(FIRST_AUDIT, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs and not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)


def test_overlays_of_suspects_mark_what_the_run_picked() -> None:
    cells = code_cells(nbformat.read(FIRST_AUDIT, as_version=4))
    asked = next(cell.source for cell in cells if cell.source.startswith("suspects = "))
    shown = next(cell.source for cell in cells if "suspects.head" in cell.source)
    assert "rule, last" in asked and "rule=row.rule, last=row.last" in shown
    assert not any("focus(last=" in cell.source for cell in cells if "def overlay" in cell.source)


def test_the_options_that_it_names_exist() -> None:
    notebook = nbformat.read(FIRST_AUDIT, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    named = set(re.findall(r"--([a-z][a-z-]*)", text))
    known = {
        field.name.replace("_", "-") for config in (AuditConfig, AppConfig) for field in dataclasses.fields(config)
    }
    assert named and named <= known
