"""`audit --dry-run`: what it plans against what the audit then does, what it refuses, and that it writes nothing."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probes.inputs import InputError
from studies.cli import main
from studies.multi_image import read_questions
from studies.runs import RunFolder
from tests.studies.small_audit import save_model, save_questions, write_rows

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_questions(tmp_path_factory.mktemp("data") / "data")


def audit(model: Path, data: Path, out: Path, *words: str) -> int:
    named = ["--model", str(model), "--data", str(data), "--out", str(out), "--max-new-tokens", "4"]
    return main(["audit", *named, "--batch-size", "4", *words])


def test_a_dry_run_writes_nothing_and_plans_what_the_audit_does(
    model: Path, data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--causal", "3", "--position-study", "--per-head")
    before = sorted(tmp_path.rglob("*"))
    assert audit(model, data, tmp_path / "run", *words, "--dry-run") == 0
    assert sorted(tmp_path.rglob("*")) == before
    text = capsys.readouterr().out
    monkeypatch.setattr("studies.auditing.figures.draw_figures", lambda *_: [])
    assert audit(model, data, tmp_path / "run", *words) == 0
    run = RunFolder.open(tmp_path / "run")
    found = re.search(r"(\d+) samples in (\d+) batches", text)
    assert found is not None and [int(each) for each in found.groups()] == [12, run.manifest.batches]
    inner = json.loads((tmp_path / "run" / "position" / "manifest.json").read_text())
    assert f"{inner['batches']} more batches" in text
    assert "of every head" in text and "causal check: 3 samples" in text and "key-value cache" in text


def test_a_dry_run_of_samples_that_would_fail_is_status_1(model: Path, data: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "4-0.png").write_text("no image")
    assert audit(model, tmp_path / "data", tmp_path / "run", "--dry-run") == 1
    assert "1 sample would have no trace; 'q4'" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_dry_run_is_refused_like_the_audit(model: Path, tmp_path: Path, capsys: Any) -> None:
    assert audit(model, tmp_path / "absent", tmp_path / "run", "--dry-run") == 2
    assert "absent" in capsys.readouterr().err


def test_a_dry_run_tells_what_is_left_of_a_run_to_go_on_with(
    model: Path, data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("studies.audit._compute", interrupt)
    assert audit(model, data, out) == 130
    capsys.readouterr()
    assert audit(model, data, out, "--resume", "--dry-run") == 0
    batches = RunFolder.open(out).manifest.batches
    text = capsys.readouterr().out
    assert f"0 of {batches} batches are there" in text and f"12 samples in {batches} batches" in text
    monkeypatch.undo()
    monkeypatch.setattr("studies.auditing.figures.draw_figures", lambda *_: [])
    assert audit(model, data, out, "--resume") == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    capsys.readouterr()
    assert audit(model, data, out, "--resume", "--dry-run") == 0
    text = capsys.readouterr().out
    assert f"{batches} of {batches} batches are there" in text and "0 samples in 0 batches" in text
    assert "time to expect" not in text
    assert audit(model, data, out, "--resume", "--dry-run", "--limit", "3") == 2
    assert "config.limit" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_dry_run_tells_what_is_left_of_a_position_study(
    model: Path, data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studies.auditing import run

    out, words = tmp_path / "run", ("--position-study",)
    real: Callable[..., list[Any]] = run.trace_records
    asked: list[int] = []

    def stop_in_the_position_study(traced: Any, records: list[Any], settings: Any) -> list[Any]:
        if sum(asked) >= 12 + 4:
            raise KeyboardInterrupt
        asked.append(len(records))
        return real(traced, records, settings)

    def told() -> tuple[list[int], str]:
        assert audit(model, data, out, *words, "--resume", "--dry-run") == 0
        text = capsys.readouterr().out
        found = re.search(r"position study: (\d+) more samples, (\d+) more batches; (\d+) of (\d+) are there", text)
        assert found is not None and "0 samples in 0 batches" in text
        return [int(each) for each in found.groups()], text

    monkeypatch.setattr(run, "trace_records", stop_in_the_position_study)
    assert audit(model, data, out, *words) == 130
    capsys.readouterr()
    inner = RunFolder.open(out / "position")
    done, planned = inner.done_batches(), inner.manifest.batches
    assert 0 < len(done) < planned
    monkeypatch.setattr(run, "trace_records", real)
    numbers, text = told()
    assert numbers[1:] == [planned - len(done), len(done), planned] and "time to expect" in text
    monkeypatch.setattr("studies.auditing.figures.draw_figures", lambda *_: [])
    assert audit(model, data, out, *words, "--resume") == 0
    assert numbers[0] == inner.count("samples") - sum(asked[-len(done) :]) > 0
    capsys.readouterr()
    numbers, text = told()
    assert numbers == [0, 0, planned, planned] and "time to expect" not in text


def test_a_dry_run_into_a_folder_of_something_else_is_refused(
    model: Path, data: Path, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert audit(model, data, tmp_path, "--dry-run") == 2
    assert "holds other files (thesis.tex)" in capsys.readouterr().err


def test_given_answers_take_no_room_for_new_ones(model: Path, data: Path, tmp_path: Path, capsys: Any) -> None:
    ids = [record.id for record in read_questions(data).records]
    write_rows(tmp_path / "answers.jsonl", [{"id": name, "answer": "a"} for name in ids])
    words = ("--answers", str(tmp_path / "answers.jsonl"), "--dry-run", "--max-new-tokens", "100000")
    assert audit(model, data, tmp_path / "run", *words) == 0
    text = capsys.readouterr().out
    assert "cannot be put to the model" not in text and "answers: given" in text


def test_the_memory_of_a_dry_run_is_that_of_the_largest_batch_planned(
    model: Path, data: Path, tmp_path: Path, capsys: Any
) -> None:
    assert audit(model, data, tmp_path / "run", "--dry-run", "--limit", "2", "--batch-size", "9") == 0
    assert re.search(r"memory to expect, [12] of the longest", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("no room"), "out of memory with 3 samples at once: take a smaller --batch-size"),
        (InputError("an odd question"), "fails in the model: an odd question"),
    ],
)
def test_a_dry_run_reports_questions_that_fail_while_timed_beside_the_plan(
    model: Path, data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("studies.auditing.run.trace_records", fail)
    assert audit(model, data, tmp_path / "run", "--dry-run") == 1
    text = capsys.readouterr().out
    assert said in text and "12 samples in" in text
