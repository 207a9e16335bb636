"""What goes wrong inside an audit costs one sample its numbers, never the run, unless the model itself cannot work."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch

from probes.attention import UnsupportedAttention
from probes.errors import counted
from probes.inputs import ImageRef, InputError
from probes.model import HookedModel
from studies.auditing.entries import find
from studies.auditing.run import Settings, keeps_maps
from studies.multi_image import MultiImageQuestion
from studies.runs import RunFolder
from tests.studies.small_audit import Small, make_answerable, read_rows, save_model, save_questions, write_rows

pytestmark = pytest.mark.filterwarnings("ignore")


class Plain(Small):
    """Model and questions without a finished audit."""

    def __init__(self, root: Path) -> None:
        self.model, self.data = root / "model", root / "data"
        save_model(self.model)
        save_questions(self.data, count=8, dev=2)
        make_answerable(self.model, self.data)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Plain(tmp_path_factory.mktemp("small"))


def test_a_sample_that_fails_late_has_one_row_and_nothing_else(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studies.auditing import tables

    real = tables.region_rows

    def failing(record: Any, trace: Any) -> Any:
        if record.id == "q4":
            raise InputError("the box lies outside")
        return real(record, trace)

    monkeypatch.setattr(tables, "region_rows", failing)
    assert small.audit(tmp_path / "run", "--limit", "6") == 1
    run = RunFolder.open(tmp_path / "run")
    names = run.read("samples").column("sample_id").to_pylist()
    assert len(names) == len(set(names)) == 6 and run.verify().ok
    assert "outside" in run.sample("q4")["error"]
    for table in ("layers", "pairwise", "maps", "cells"):
        assert run.count(table, pc.field("sample_id") == "q4") == 0


def test_bad_samples_at_the_start_keep_no_good_one_from_being_asked(small: Small, tmp_path: Path) -> None:
    from studies.explorer.run_pages import sample_card
    from studies.explorer.run_samples import read_sample

    data = save_questions(tmp_path / "data", count=14)
    for index in range(10):
        image = data / f"{index}-0.png"
        image.write_bytes(b"" if index == 9 else image.read_bytes()[:200])
    assert small.audit(tmp_path / "run", "--position-study", data=data) == 1
    run = RunFolder.open(tmp_path / "run")
    rows = {row["sample_id"]: row for row in run.read("samples").to_pylist()}
    assert {name for name, row in rows.items() if row["error"]} == {f"q{index}" for index in range(10)}
    found = run.verify()
    assert found.ok and found.images_missing == 9
    assert all(run.image_path(row["image_digests"][1]).is_file() for row in rows.values())
    assert rows["q9"]["image_digests"][0] is None
    assert "no bytes" in sample_card(read_sample(run, "q9"), None)

    spread = find(run.read_metrics(), "answer_spread", rows="paper", places=2)[0]
    assert (spread["estimate"]["n"], spread["left_out"]) == (2 * 4, 5)
    report = (tmp_path / "run" / "report.html").read_text()
    assert '<td class="n">8</td><td class="n">5</td>' in report and "Every sample was asked" not in report


@pytest.mark.parametrize("supported", [True, False])
def test_a_model_that_cannot_work_is_refused_soon(
    small: Small, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    calls: list[int] = []

    def failing(*_: Any, **named: Any) -> Any:
        calls.append(1)
        raise InputError("the logits are not numbers") if supported else UnsupportedAttention("layer 3")

    monkeypatch.setattr(HookedModel, "trace_batch", failing)
    monkeypatch.setattr("studies.auditing.run.PREFLIGHT_MODEL_ERRORS", 3)
    assert small.audit(tmp_path / "run") == 2
    assert ("not numbers" if supported else "layer 3") in capsys.readouterr().err
    assert len(calls) == (3 if supported else 1) and not (tmp_path / "run").exists()


def test_a_family_without_spans_is_refused_before_any_image_is_read(
    small: Small, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probes.families import FAMILIES

    monkeypatch.delitem(FAMILIES, "llava")
    monkeypatch.setattr("studies.auditing.inputs.check_samples", lambda *_: pytest.fail("images were read"))
    assert small.audit(tmp_path / "run") == 2
    assert "attention_factors(image_spans=" in capsys.readouterr().err and not (tmp_path / "run").exists()


OUT_OF_MEMORY = "[enforce fail at alloc_cpu.cpp:1] data. DefaultCPUAllocator: not enough memory: you tried to allocate"


@pytest.mark.parametrize("error", [RuntimeError(OUT_OF_MEMORY), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_batch_that_needs_too_much_memory_is_refused_in_one_line(
    small: Small, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real = HookedModel.trace_batch

    def failing(self: Any, questions: Any, *arguments: Any, **named: Any) -> Any:
        if len(questions) > 1:
            raise error
        return real(self, questions, *arguments, **named)

    monkeypatch.setattr(HookedModel, "trace_batch", failing)
    assert small.audit(tmp_path / "run") == 2
    message = capsys.readouterr().err
    assert "samples at once: take a smaller --batch-size" in message and "Traceback" not in message


def test_a_failed_causal_check_costs_the_sample_its_effects_only(
    small: Small, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studies.auditing import causal

    real = causal.measure_effects
    errors = {"q2": InputError("the partner's image is broken"), "q3": RuntimeError(OUT_OF_MEMORY)}

    def failing(model: Any, record: Any, *arguments: Any) -> Any:
        if record.id in errors:
            raise errors[record.id]
        return real(model, record, *arguments)

    monkeypatch.setattr(causal, "measure_effects", failing)
    assert small.audit(tmp_path / "run", "--causal", "4", "--split", "test", "--seed", "1") == 1
    run = RunFolder.open(tmp_path / "run")
    rows = {row["sample_id"]: row for row in run.read("samples").to_pylist()}
    failed = {name: row["effects_error"] for name, row in rows.items() if row["effects_error"]}
    assert failed and set(failed) <= set(errors) and not any(row["error"] for row in rows.values())
    assert "partner" in failed.get("q2", "partner") and "out of memory" in failed.get("q3", "out of memory")
    measured = set(run.read("effects").column("sample_id").to_pylist())
    assert len(measured) == 4 - len(failed) and not measured & set(failed)
    assert find(run.read_metrics(), "attention_overall", rows="paper", split="test")[0]["estimate"]["n"] == 6
    report = (tmp_path / "run" / "report.html").read_text()
    assert f"The check of {counted(len(failed), 'sample')} failed" in report
    assert f"{counted(len(failed), 'sample')} failed" in capsys.readouterr().err


def test_an_error_of_ours_in_the_causal_check_is_not_hidden(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("studies.auditing.causal.measure_effects", failing)
    with pytest.raises(RuntimeError, match="shapes"):
        small.audit(tmp_path / "run", "--causal", "1")


@pytest.mark.parametrize(
    ("factors", "kept"),
    [
        ({"paper": [[0.9, 0.1], [0.8, 0.2]], "predicting": [[0.9, 0.1], [0.8, 0.2]]}, False),
        ({"paper": [[0.9, 0.1], [0.8, 0.2]], "predicting": [[0.9, 0.1], [0.2, 0.8]]}, True),
        ({"paper": [[0.1, 0.3], [0.8, 0.2]], "predicting": [[0.9, 0.1], [0.8, 0.2]]}, False),
        ({"paper": [[0.1, 0.9], [0.8, 0.2]], "predicting": [[0.9, 0.1], [0.8, 0.2]]}, True),
    ],
)
def test_maps_are_kept_wherever_a_rule_could_find_an_error(factors: dict[str, Any], kept: bool) -> None:
    image = ImageRef(data=b"x")
    record = MultiImageQuestion(id="a", question="What?", images=(image, image), answer="cat", target=0)
    tables = {rows: np.array(table) for rows, table in factors.items()}
    trace: Any = SimpleNamespace(answer="cat", factors_by_rows=tables)
    assert keeps_maps(record, trace, Settings()) is kept
    trace.answer = "dog"
    assert keeps_maps(record, trace, Settings())


def test_task_names_are_text_wherever_they_are_shown(small: Small, tmp_path: Path, capsys: Any) -> None:
    data = tmp_path / "data"
    save_questions(data, count=8, dev=2)
    rows = read_rows(data / "questions.jsonl")
    answers = {row["id"]: row["answer"] for row in read_rows(small.data / "questions.jsonl")}
    for row in rows:
        name = "a[/b]" if row["task"] == "content" else r"a $\frac$ b :smile:"
        row |= {"answer": answers[row["id"]], "task": name, "meta": {"last_fixed": row["task"] == "retrieval"}}
    write_rows(data / "questions.jsonl", rows)
    assert small.audit(tmp_path / "run", data=data, figures=True) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("a[/b]", r"$\frac$", ":smile:"))
    assert (tmp_path / "run" / "figures" / "tasks.png").is_file()
