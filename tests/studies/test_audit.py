"""Audits end to end on a tiny random model: tables against the model itself, bad samples, given answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from studies.audit import AuditConfig
from studies.bundled import BUNDLED_DATA, BUNDLED_MODEL, data_source, model_source
from studies.capture.config import CaptureBench
from studies.options import resume_command
from studies.runs import RunFolder
from tests.studies.small_audit import Small, changed

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("small"))


def test_all_samples_are_in_the_tables(small: Small) -> None:
    assert small.status == 0
    samples = small.run.read("samples").to_pylist()
    assert {row["sample_id"] for row in samples} == {f"q{index}" for index in range(12)}
    assert all(row["error"] is None and row["correct"] is not None for row in samples)
    assert 0 < sum(row["correct"] for row in samples) < 12
    assert not small.run.missing_batches()
    assert (small.out / "report.html").is_file() and (small.out / "metrics.json").is_file()


@pytest.mark.parametrize("name", ["q2", "q3"])
def test_tables_hold_what_the_model_gives(small: Small, name: str) -> None:
    from probes.model import HookedModel
    from studies.multi_image import read_questions

    record = next(record for record in read_questions(small.data).records if record.id == name)
    model = HookedModel.from_pretrained(small.model)
    trace = model.trace(record.images, record.question, max_new_tokens=4)
    row = small.run.sample(name)
    assert row["answer"] == trace.answer
    assert row["log_probability"] == pytest.approx(trace.log_probability, abs=1e-3)
    wanted = (pc.field("rows") == "paper") & (pc.field("measure") == "factor") & (pc.field("head") == -1)
    table = small.run.rows_of("layers", name).filter(wanted).to_pylist()
    factors = np.full(trace.factors.shape, np.nan)
    for entry in table:
        factors[trace.layers.index(entry["layer"]), entry["image"]] = entry["factor"]
    assert np.allclose(factors, trace.factors, rtol=1e-3, atol=1e-6)
    assert not np.allclose(factors[:, ::-1], trace.factors, rtol=1e-3)
    heads = small.run.rows_of("layers", name).filter(pc.field("head") >= 0)
    assert (
        heads.num_rows
        == 4
        * small.run.rows_of("layers", name)
        .filter((pc.field("head") == -1) & (pc.field("measure") == "factor"))
        .num_rows
    )
    stored = small.run.rows_of("maps", name).filter((pc.field("rows") == "paper") & (pc.field("layer") == 1))
    for entry in stored.to_pylist():
        assert np.allclose(entry["map"], trace.scores(entry["image"], 1), rtol=2e-3, atol=1e-4)
    assert small.run.rows_of("cells", name).num_rows == 16 * len(record.images)
    assert all(small.run.image_path(digest).is_file() for digest in row["image_digests"])


def test_image_to_image_tasks_have_anchor_rows_and_pairs(small: Small) -> None:
    anchored = small.run.read("layers", filter=pc.field("rows") == "anchor").to_pylist()
    retrieval = {
        row["sample_id"] for row in small.run.read("samples", filter=pc.field("task") == "retrieval").to_pylist()
    }
    assert {row["sample_id"] for row in anchored} == retrieval
    assert {row["image"] for row in anchored} == {0, 1}
    pairs = small.run.rows_of("pairwise", "q1").to_pylist()
    assert len(pairs) == 3 * 4 * 4
    assert {row["factor"] for row in pairs if row["from_image"] < row["to_image"] < 3} == {0.0}
    assert all(row["factor"] > 0 for row in pairs if row["from_image"] >= row["to_image"])


def test_effects_are_the_drop_in_the_answers_log_probability(small: Small) -> None:
    from PIL import Image

    from probes.model import HookedModel, Question
    from studies.multi_image import read_questions

    effects = small.run.read("effects").to_pylist()
    assert len({row["sample_id"] for row in effects}) == 3
    assert {(row["intervention"], row["window"]) for row in effects} == {
        ("blank", "all"), ("swap", "all"), ("knockout", "all"), ("knockout", "0"), ("knockout", "1"), ("knockout", "2")
    }  # fmt: skip
    name = effects[0]["sample_id"]
    record = next(record for record in read_questions(small.data).records if record.id == name)
    model = HookedModel.from_pretrained(small.model)
    trace = model.trace(record.images, record.question, max_new_tokens=4)
    blanked = [Image.new("RGB", (32, 32), (128, 128, 128)), *record.images[1:]]
    scored = model.log_probability([Question(blanked, record.question)], [trace.answer_ids]).log_probability[0]
    stored = next(
        row["effect"]
        for row in effects
        if row["sample_id"] == name and row["intervention"] == "blank" and not row["image"]
    )
    assert stored == pytest.approx(trace.log_probability - scored, abs=1e-3)


def test_position_study_lies_beside_its_run(small: Small) -> None:
    inner = RunFolder.open(small.out / "position")
    rows = inner.read("samples").to_pylist()
    assert {row["split"] for row in rows} == {"test"}
    assert all(row["sample_id"] == f"{row['cluster']}@{row['target'] + 1}" for row in rows)
    assert len(rows) == 16


def test_bad_samples_become_rows_and_the_rest_go_on(small: Small, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    whole = (small.data / "4-0.png").read_bytes()
    (tmp_path / "truncated.png").write_bytes(whole[: len(whole) // 2])
    data = changed(
        small,
        tmp_path / "data",
        {
            "q0": {"images": [str(tmp_path / "missing.png"), str(small.data / "0-1.png")]},
            "q2": {"images": [str(tmp_path / "broken.png"), str(small.data / "2-1.png")]},
            "q4": {"images": [str(tmp_path / "truncated.png"), str(small.data / "4-1.png")]},
            "q5": {"question": "<image> one mark for three images"},
            "q6": {"question": "   "},
        },
    )
    assert small.audit(tmp_path / "run", data=data) == 1
    run = RunFolder.open(tmp_path / "run")
    errors = {row["sample_id"]: row["error"] for row in run.read("samples").to_pylist() if row["error"]}
    assert set(errors) == {"q0", "q2", "q4", "q5", "q6"}
    assert "missing.png" in errors["q0"] and "broken.png" in errors["q2"] and "truncated.png" in errors["q4"]
    assert "mark" in errors["q5"] and "empty" in errors["q6"]
    good = {row["sample_id"]: row["answer"] for row in run.read("samples").to_pylist() if not row["error"]}
    assert {name: small.run.sample(name)["answer"] for name in good} == good
    assert "5 samples failed" in capsys.readouterr().err
    report = (tmp_path / "run" / "report.html").read_text()
    assert "broken.png" in report


def test_given_answers_are_scored_and_teacher_forced(small: Small, tmp_path: Path) -> None:
    given = {f"q{index}": f"image {index}" for index in range(11)} | {"q3": " "}
    (tmp_path / "answers.json").write_text(json.dumps(given))
    assert small.audit(tmp_path / "run", "--answers", str(tmp_path / "answers.json")) == 1
    run = RunFolder.open(tmp_path / "run")
    rows = {row["sample_id"]: row for row in run.read("samples").to_pylist()}
    assert rows["q0"]["answer"] == "image 0" and rows["q0"]["error"] is None and rows["q0"]["correct"] is False
    assert "no answer" in rows["q11"]["error"]
    assert "empty" in rows["q3"]["error"] or "no answer" in rows["q3"]["error"]

    from probes.model import HookedModel, Question
    from studies.multi_image import read_questions

    record = next(record for record in read_questions(small.data).records if record.id == "q0")
    model = HookedModel.from_pretrained(small.model)
    scored = model.log_probability([Question(record.images, record.question)], ["image 0"])
    assert rows["q0"]["log_probability"] == pytest.approx(scored.log_probability[0], abs=1e-3)


@pytest.mark.parametrize("policy", ["errors", "none"])
def test_map_policies(small: Small, tmp_path: Path, policy: str) -> None:
    assert small.audit(tmp_path / "run", "--maps", policy, "--limit", "8") == 0
    run = RunFolder.open(tmp_path / "run")
    kept = set(run.read("maps", columns=["sample_id"]).column("sample_id").to_pylist())
    if policy == "none":
        assert not kept and not run.verify().images_missing
        return
    samples = {row["sample_id"]: row for row in run.read("samples").to_pylist()}
    assert {name for name, row in samples.items() if not row["correct"]} <= kept
    assert kept < set(samples)


def test_limit_takes_every_split_and_task(small: Small, tmp_path: Path) -> None:
    assert small.audit(tmp_path / "run", "--limit", "4") == 0
    rows = RunFolder.open(tmp_path / "run").read("samples").to_pylist()
    assert {(row["split"], row["task"]) for row in rows} == {
        (split, task) for split in ("dev", "test") for task in ("content", "retrieval")
    }


def test_resuming_a_finished_run_changes_nothing_and_another_config_is_refused(
    small: Small, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "run"
    assert small.audit(out, "--limit", "4") == 0
    before = (out / "metrics.json").read_bytes()
    assert small.audit(out, "--limit", "4", "--resume") == 0
    assert (out / "metrics.json").read_bytes() == before
    capsys.readouterr()
    assert small.audit(out, "--limit", "4") == 2
    assert "--resume" in capsys.readouterr().err
    assert small.audit(out, "--limit", "5", "--resume") == 2
    message = capsys.readouterr().err
    assert "limit" in message and "Traceback" not in message
    assert small.audit(out, "--limit", "6", "--overwrite") == 0
    assert RunFolder.open(out).count("samples") == 6


def test_interrupt_leaves_a_run_that_resumes(
    small: Small, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probes.model import HookedModel

    real, calls = HookedModel.trace_batch, []

    def interrupted(self: Any, *arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *arguments, **named)

    monkeypatch.setattr(HookedModel, "trace_batch", interrupted)
    out = tmp_path / "run"
    assert small.audit(out) == 130
    told = capsys.readouterr().err
    assert "--resume" in told and str(out) in told
    assert RunFolder.open(out).missing_batches()
    monkeypatch.undo()
    assert small.audit(out, "--resume") == 0
    assert not RunFolder.open(out).missing_batches()


def test_bundled_names_the_bundled_assets_and_nothing_else() -> None:
    assert data_source("bundled") == str(BUNDLED_DATA) and data_source("./bundled") == "./bundled"
    assert model_source("bundled") == str(BUNDLED_MODEL) and model_source("me/bundled") == "me/bundled"
    assert AuditConfig().model == AuditConfig().data == "bundled"


def test_resume_command_names_only_what_differs() -> None:
    bench = CaptureBench(lengths=(64, 128), out=Path("b.json"))
    assert resume_command("bench capture", bench) == "sightcheck bench capture --lengths 64 128 --out b.json --resume"
    assert resume_command("audit", AuditConfig()) == "sightcheck audit --resume"
    words = resume_command("audit", AuditConfig(out=Path("a b"), position_study=True, overwrite=True))
    assert words == "sightcheck audit --out 'a b' --position-study --resume"
    assert resume_command("audit", AuditConfig(mixers=False)) == "sightcheck audit --no-mixers --resume"
