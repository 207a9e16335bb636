"""The scale bench: its questions, one small cell through real processes, its arithmetic, and how it is resumed."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probes.inputs import InputError
from studies import bench_scale
from studies.bench_results import settings_of, this_machine
from studies.bench_scale import ScaleBench, ScaleCell, bytes_per_row, print_scale, run_scale
from studies.bench_scale_process import GIVEN, in_process, save_model, write_questions
from studies.multi_image import read_answers, read_questions
from studies.runs import RunFolder


def small(root: Path) -> ScaleBench:
    return ScaleBench(rows=(20, 40), kinds=(GIVEN,), pictures=6, batch_size=8, folder=root / "cells")


def test_questions_are_of_one_and_two_images_and_half_answered_right(tmp_path: Path) -> None:
    data = write_questions(small(tmp_path), 80, tmp_path / "data")
    questions = read_questions(data)
    answers = read_answers(tmp_path / "data.jsonl")
    assert len(questions.records) == 80 and not questions.bad
    assert Counter(len(record.images) for record in questions.records) == {1: 40, 2: 40}
    assert Counter(record.split for record in questions.records) == {"dev": 8, "test": 72}
    right = sum(answers[record.id] == record.answer for record in questions.records)
    assert 40 <= right <= 55
    again = write_questions(small(tmp_path), 80, tmp_path / "again")
    assert (again / "questions.jsonl").read_bytes() == (data / "questions.jsonl").read_bytes()


@pytest.mark.slow
def test_a_cell_audits_and_opens_in_processes_of_its_own(tmp_path: Path) -> None:
    config = small(tmp_path)
    save_model(config, tmp_path / "model")
    write_questions(config, 40, tmp_path / "data")
    measured = in_process(config, "audit", tmp_path, GIVEN)
    assert measured["peak"] > measured["loaded"] > 2**20 and measured["seconds"] > 0
    run = RunFolder.open(tmp_path / "run")
    assert run.count("samples") == 40 and run.manifest.finished is not None and run.verify().ok
    assert {entry["name"] for entry in run.read_metrics()} >= {"attention_accuracy", "ivm_rate", "focus_share"}
    opened = in_process(config, "open", tmp_path, GIVEN)
    assert opened["opened"] > 0 and 0 < opened["open_loaded"] <= opened["open_peak"]
    assert in_process(config, "open", tmp_path / "nowhere", GIVEN) == {"error": "open ended with exit status 1"}


def fake(cells: list[tuple[str, int]]) -> object:
    def measure(_: ScaleBench, kind: str, rows: int) -> ScaleCell:
        cells.append((kind, rows))
        return ScaleCell(kind, rows, 2.0, 100.0, 1000.0 + rows, 0.1, 0.1, 10.0, 20.0, 5, 3)

    return measure


def test_results_are_written_cell_by_cell_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(bench_scale, "measure", fake(asked))
    config = replace(small(tmp_path), out=tmp_path / "new" / "scale.json")
    run_scale(replace(config, rows=(40,)), show=False)
    cells = run_scale(replace(config, resume=True), show=False)
    assert asked == [(GIVEN, 40), (GIVEN, 20)]
    assert [cell.rows for cell in cells] == [20, 40] and bytes_per_row(cells) == 1.0
    written = json.loads((tmp_path / "new" / "scale.json").read_text())
    assert [cell["rows"] for cell in written["cells"]] == [20, 40]
    with pytest.raises(InputError, match="is there: give --overwrite"):
        run_scale(config, show=False)
    with pytest.raises(InputError, match="measured with another config"):
        run_scale(replace(config, resume=True, batch_size=9), show=False)
    with pytest.raises(InputError, match="nothing to resume"):
        run_scale(replace(config, resume=True, out=tmp_path / "none.json"), show=False)


def test_a_failed_cell_is_shown_and_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = ScaleCell(GIVEN, 20, error="audit ended with exit status 2")
    monkeypatch.setattr(bench_scale, "measure", lambda *_: failed)
    config = replace(small(tmp_path), rows=(20,), out=tmp_path / "scale.json")
    assert bench_scale.run(config) == 1
    assert "exit status 2" in capsys.readouterr().out
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(bench_scale, "measure", fake(asked))
    assert bench_scale.run(replace(config, resume=True)) == 0 and asked == [(GIVEN, 20)]
    shown = capsys.readouterr().out
    assert "20" in shown and "memory for each" not in shown
    print_scale([ScaleCell(GIVEN, rows, 2.0, 1.0, 2048.0 * rows) for rows in (10, 20)])
    assert "2.0 kB of memory for each further question" in capsys.readouterr().out


def test_a_bench_that_goes_on_loses_no_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    config = replace(small(tmp_path), rows=(20, 30, 40), out=tmp_path / "scale.json")
    measure: Any = fake(asked)
    failing = {20, 30}

    def failing_at_first(config: ScaleBench, kind: str, rows: int) -> ScaleCell:
        if not failing and asked:
            raise KeyboardInterrupt
        cell: ScaleCell = measure(config, kind, rows)
        return replace(cell, error="boom") if rows in failing else cell

    def written() -> list[tuple[int, str | None]]:
        return [(cell["rows"], cell["error"]) for cell in json.loads((tmp_path / "scale.json").read_text())["cells"]]

    monkeypatch.setattr(bench_scale, "measure", failing_at_first)
    run_scale(config, show=False)
    whole = [(20, "boom"), (30, "boom"), (40, None)]
    assert written() == whole
    failing.clear()
    run_scale(replace(config, rows=(40,), resume=True), show=False)
    assert written() == whole
    asked.clear()
    with pytest.raises(KeyboardInterrupt):
        run_scale(replace(config, resume=True), show=False)
    assert asked == [(GIVEN, 20)] and written() == [(20, None), (40, None)]


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    config = small(tmp_path)
    for wrong in (replace(config, rows=()), replace(config, rows=(5,)), replace(config, kinds=("guessed",))):
        with pytest.raises(InputError, match="needs --rows from 10 on"):
            run_scale(wrong, show=False)
    with pytest.raises(InputError, match="--pictures must be at least 1"):
        run_scale(replace(config, pictures=0), show=False)


def test_the_committed_results_are_whole() -> None:
    path = Path(__file__).parents[2] / "docs" / "bench" / "scale.json"
    found = json.loads(path.read_text())
    cells = [ScaleCell(**cell) for cell in found["cells"]]
    assert {cell.kind for cell in cells} == {"generated", "given"} and not any(cell.error for cell in cells)
    assert max(cell.rows for cell in cells) == 100_000
    assert found["machine"].keys() == this_machine().keys()
    assert found["config"].keys() == settings_of(ScaleBench(), bench_scale._APART).keys()
