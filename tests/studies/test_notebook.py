"""The notebooks run from top to bottom, are committed with their outputs, and name options that exist."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from studies.audit import AuditConfig
from studies.bundled import BUNDLED_DECODERS, BUNDLED_MODEL
from studies.cli_app import AppConfig
from studies.reward.train import TrainConfig
from studies.routing.command import RoutingConfig
from tests.studies.notebook_runner import NOTEBOOKS, code_cells, execute, written

FIRST_AUDIT = NOTEBOOKS / "first_audit.ipynb"
REWARD_CURE = NOTEBOOKS / "reward_shortcut.ipynb"
INSIDE = NOTEBOOKS / "inside_hybrids.ipynb"
needs_model = pytest.mark.skipif(not BUNDLED_MODEL.is_dir(), reason=f"needs the bundled model in {BUNDLED_MODEL}")
DECODERS = (BUNDLED_DECODERS["nemotron-h"], *(BUNDLED_DECODERS["dots1"] / name for name in ("checkpoints", "routing")))
needs_decoders = pytest.mark.skipif(
    not all(folder.is_dir() for folder in DECODERS),
    reason=f"needs the bundled decoders in {', '.join(map(str, DECODERS))}",
)
EVERY = pytest.mark.parametrize("path", [FIRST_AUDIT, REWARD_CURE, INSIDE], ids=lambda path: path.stem)
EXECUTED = pytest.mark.parametrize(
    "path", [FIRST_AUDIT, REWARD_CURE, pytest.param(INSIDE, marks=needs_decoders)], ids=lambda path: path.stem
)


@pytest.mark.slow
@needs_model
def test_it_runs_from_top_to_bottom() -> None:
    notebook = execute(FIRST_AUDIT)
    text = written(notebook)
    assert "exit status 0" in text and "in focus" in text and "95 % intervals" in text
    shown = [kind for cell in code_cells(notebook) for output in cell.outputs for kind in output.get("data", {})]
    assert shown.count("image/png") >= 3 and shown.count("text/html") >= 3


@pytest.mark.slow
@needs_model
def test_the_reward_notebook_runs_from_top_to_bottom() -> None:
    notebook = execute(REWARD_CURE)
    _check_story(notebook)
    shown = [kind for cell in code_cells(notebook) for output in cell.outputs for kind in output.get("data", {})]
    assert shown.count("image/png") >= 4


@needs_model
def test_the_reward_notebooks_committed_numbers_tell_its_story() -> None:
    _check_story(nbformat.read(REWARD_CURE, as_version=4))


def _check_story(notebook: Any) -> None:
    pattern = r"^(.+?) +plain ([\d.]+) .*? aware ([\d.]+) "
    found = {name: (float(plain), float(aware)) for name, plain, aware in re.findall(pattern, written(notebook), re.M)}
    assert found["the same, images blank"][0] > 0.85 and found["cue reversed"][0] < 0.5, "the plain model does not look"


@pytest.mark.slow
@needs_decoders
def test_the_notebook_of_hybrids_runs_from_top_to_bottom() -> None:
    notebook = execute(INSIDE)
    text = written(notebook)
    assert "softmax attention looks at image" in text and "hidden attention (value) looks at image" in text
    along = [float(share) for share in re.findall(r"^step-\d+ +([\d.]+)% +\d+%$", text, re.M)]
    assert len(along) == len(list(DECODERS[1].iterdir()))
    assert min(along) > 99, "files hold what the checkpoints route, but for what another machine's rounding turns"
    shown = [kind for cell in code_cells(notebook) for output in cell.outputs for kind in output.get("data", {})]
    assert shown.count("image/png") == 7 and shown.count("text/html") == 5


@EXECUTED
@needs_model
def test_it_is_committed_with_its_outputs(path: Path) -> None:
    cells = code_cells(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs and not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)


def test_overlays_of_suspects_mark_what_the_run_picked() -> None:
    cells = code_cells(nbformat.read(FIRST_AUDIT, as_version=4))
    asked = next(cell.source for cell in cells if cell.source.startswith("suspects = "))
    shown = next(cell.source for cell in cells if "suspects.head" in cell.source)
    assert "rule, last" in asked and "rule=row.rule, last=row.last" in shown
    assert not any("focus(last=" in cell.source for cell in cells if "def overlay" in cell.source)


@EVERY
def test_the_options_that_it_names_exist(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    named = set(re.findall(r"--([a-z][a-z-]*)", text))
    known = {
        field.name.replace("_", "-")
        for config in (AuditConfig, AppConfig, TrainConfig, RoutingConfig)
        for field in dataclasses.fields(config)
    }
    assert named and named <= known
