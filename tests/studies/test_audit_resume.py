"""An audit killed at random moments and resumed equals one that was not, bit for bit, in everything but time."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from studies.run_folder.tables import TABLES
from studies.runs import RunFolder
from tests.studies.small_audit import save_model, save_questions

ROOT = Path(__file__).parents[2]
TIMED = {"seconds"}


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_and_resumed_is_bit_equal(tmp_path: Path, kills: int) -> None:
    model, data = save_model(tmp_path / "model"), save_questions(tmp_path / "data", count=8)
    words = [str(model), str(data), str(tmp_path), str(kills), "7"]
    command = [sys.executable, "-m", "tests.studies.killed_audit", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("killed with") == kills
    assert_equal(tmp_path / "whole", tmp_path / "broken")
    assert_equal(tmp_path / "whole" / "position", tmp_path / "broken" / "position")
    assert not [path for path in (tmp_path / "broken").rglob("*") if ".tmp-" in path.name]
    resumed = json.loads((tmp_path / "broken" / "manifest.json").read_text())["resumed"]
    assert len(resumed) >= 1


def test_only_a_child_that_still_runs_counts_as_killed() -> None:
    code = (
        "import os, sys, time; from tests.studies.killed_audit import killed\n"
        "def child(seconds):\n"
        "    number = os.fork()\n"
        "    if number == 0: time.sleep(seconds); os._exit(0)\n"
        "    return number\n"
        "def late(): time.sleep(1); return True\n"
        "print(killed(child(60), lambda: True), killed(child(0), late), killed(child(0), lambda: False))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["True", "False", "False"], done.stderr


def assert_equal(whole: Path, broken: Path) -> None:
    left, right = RunFolder.open(whole), RunFolder.open(broken)
    assert left.done_batches() == right.done_batches()
    for table in TABLES:
        kept = [name for name in left.dataset(table).schema.names if name not in TIMED]
        assert left.read(table, columns=kept).equals(right.read(table, columns=kept)), table
    for name in ("metrics.json", "focus.parquet", "focus_by_kind.parquet"):
        if (whole / name).exists():
            assert (whole / name).read_bytes() == (broken / name).read_bytes()
    images = sorted(path.name for path in (whole / "images").glob("*"))
    assert images == sorted(path.name for path in (broken / "images").glob("*"))
    for table in ("layers", "maps"):
        for path in (whole / table).glob("*.parquet"):
            assert pq.read_table(path).equals(pq.read_table(broken / table / path.name))
