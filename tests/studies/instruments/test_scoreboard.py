"""The whole scoreboard on a small model: its folder, its figures, its interruptions and refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.instruments.names import BY_ROWS, HEADS, IMAGE_ROWS, LENS, PROBE, ROWS
from probes.interventions import knockout_effects
from probes.model import HookedModel, Question
from studies.cli import main
from studies.instruments import measuring
from studies.instruments.evidence import read_evidence
from studies.multi_image import read_questions
from studies.runs import Manifest, RunFolder
from studies.scoreboard import ScoreboardConfig, draw_records
from tests.studies.small_audit import read_rows, save_model, save_questions, write_rows

pytestmark = pytest.mark.filterwarnings("ignore")
SAMPLES = ["--samples", "12", "--dev", "12", "--max-new-tokens", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("small")
    data = save_questions(root / "data", count=26, dev=13)
    return ["--model", str(save_model(root / "model")), "--data", str(data)]


@pytest.fixture(scope="module")
def run(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("run") / "out"
    assert main(["scoreboard", *files, *SAMPLES, "--out", str(out)]) == 0
    return RunFolder.open(out)


def test_every_instrument_has_its_place(run: RunFolder) -> None:
    entries = run.read_metrics()
    found = {
        (each["instrument"], each["rows"])
        for each in entries
        if each["name"] == "instrument_agreement" and each["layer"] is None and each["task"] is None
    }
    wanted = {(name, rows) for name in (*BY_ROWS, HEADS) for rows in ROWS}
    assert found == wanted | {(LENS, IMAGE_ROWS), (PROBE, "predicting")}
    for each in entries:
        assert {"value", "n", "low", "high"} <= set(each["estimate"])
    assert run.manifest.config["study"] == "scoreboard" and run.manifest.finished
    figures = {path.name for path in (run.path / "figures").iterdir()}
    assert figures == {"ranking.png", *(f"{kind}-{rows}.png" for kind in ("layers", "heads") for rows in ROWS)}


def test_what_is_read_back_is_what_was_measured(run: RunFolder, files: list[str]) -> None:
    from probes.instruments.sample import instrument_scores

    found = read_evidence(run)
    ids = run.read("samples", columns=["sample_id", "answer"]).to_pylist()
    model = HookedModel.from_pretrained(files[1], dtype="float32", device="cpu")
    records = {each.id: each for each in read_questions(files[3]).records}
    for place in (0, len(ids) - 1):
        record = records[ids[place]["sample_id"]]
        question = Question(record.images, record.question)
        trace = model.trace_batch([question], max_new_tokens=2, per_head=True, maps=False)[0]
        images = len(record.images)
        np.testing.assert_allclose(found.heads["paper"][place, ..., :images], trace.factors, atol=1e-5)
        own = instrument_scores(model, question, trace.answer_ids)
        for key, table in own.scores.items():
            np.testing.assert_allclose(found.scores[key][place, :, :images], table, rtol=1e-3, atol=1e-6)
            assert np.isnan(found.scores[key][place, :, images:]).all()
        np.testing.assert_allclose(found.features[place], own.features, atol=1e-4)
        np.testing.assert_allclose(found.answer_rank[place], own.answer.rank)
        rows = ("after", "anchor") if record.task == "retrieval" else ("after",)
        effects = knockout_effects(model, question, trace.answer_ids, rows=rows)[0]
        np.testing.assert_allclose(found.effects[place, :images], effects, atol=1e-4)
        assert (found.target[place], found.n_images[place]) == (record.target, images)
        assert found.anchored[place] == (record.task == "retrieval")
    assert 0 < found.anchored.sum() < len(found)


def test_an_interrupted_scoreboard_goes_on_where_it_was(
    run: RunFolder, files: list[str], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real, limit = measuring._add, 14

    def adding(model: Any, record: Any, *rest: Any) -> None:
        if len(asked) == limit:
            raise KeyboardInterrupt
        asked.append(record.id)
        real(model, record, *rest)

    monkeypatch.setattr(measuring, "_add", adding)
    words = ["scoreboard", *files, *SAMPLES, "--out", str(tmp_path / "out")]
    assert main(words) == 130
    assert "sightcheck scoreboard" in (said := capsys.readouterr().err) and "--resume" in said
    done = len(RunFolder.open(tmp_path / "out").done_batches())
    assert 0 < done < 3 and not (tmp_path / "out" / "metrics.json").exists()
    assert main(words) == 2 and "--resume" in capsys.readouterr().err
    assert main([*words, "--resume", "--generic", "What?"]) == 2
    assert "config.generic" in capsys.readouterr().err
    limit = 99
    assert main([*words, "--resume"]) == 0
    assert len(asked) < 14 + 24
    whole, again = run.read_metrics(), RunFolder.open(tmp_path / "out").read_metrics()
    assert json.dumps(whole) == json.dumps(again)


def test_a_sample_that_fails_is_counted_and_the_rest_goes_on(files: list[str], tmp_path: Path, capsys: Any) -> None:
    folder = Path(files[3])
    rows = read_rows(folder / "questions.jsonl")
    for row in rows:
        row["images"] = [str(folder / name) for name in row["images"]]
    (tmp_path / "broken.png").write_bytes((folder / "13-0.png").read_bytes()[:60])
    rows[-1]["images"][0] = str(tmp_path / "broken.png")
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "questions.jsonl", rows)
    words = [*files[:2], "--data", str(tmp_path / "data"), *SAMPLES, "--samples", "13", "--out", str(tmp_path / "out")]
    assert main(["scoreboard", *words]) == 1
    assert f"1 sample failed; the first, {rows[-1]['id']}" in capsys.readouterr().err
    assert (tmp_path / "out" / "metrics.json").exists()


def test_unusable_questions_are_told_and_are_status_1(files: list[str], tmp_path: Path, capsys: Any) -> None:
    data = save_questions(tmp_path / "data", count=26, dev=13)
    with (data / "questions.jsonl").open("a") as rows:
        rows.write('{"id": "half", "question": "What is in image 1?"}\n')
    words = [*files[:2], "--data", str(data), *SAMPLES, "--samples", "2", "--out", str(tmp_path / "out")]
    assert main(["scoreboard", *words]) == 1
    said = capsys.readouterr().err
    assert "1 unusable (the first, half: " in said and "1 question unusable" in said
    assert RunFolder.open(tmp_path / "out").manifest.finished


def test_a_run_is_replaced_only_when_asked_and_only_by_a_scoreboard(
    run: RunFolder, files: list[str], tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    shutil.copytree(run.path, out)
    words = ["scoreboard", *files, *SAMPLES, "--samples", "2", "--out", str(out)]
    assert main(words) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--resume"]) == 2 and "leave one out" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--device", "warp:9"]) == 2
    assert RunFolder.open(out).read_metrics() == run.read_metrics()
    assert main([*words, "--overwrite"]) == 0
    assert RunFolder.open(out).count("samples") == 14
    assert main([*words, "--resume", "--out", str(tmp_path / "absent")]) == 2
    assert "holds no run to go on with" in capsys.readouterr().err
    with RunFolder.create(tmp_path / "audit", Manifest(config={"study": "audit"}, batches=1)) as audit:
        pass
    assert main([*words, "--overwrite", "--out", str(audit.path)]) == 2
    assert "is of no scoreboard" in capsys.readouterr().err
    assert RunFolder.open(audit.path).manifest == audit.manifest


def test_a_sample_that_is_too_large_says_so(files: list[str], tmp_path: Path, capsys: Any) -> None:
    from studies import scoreboard

    patched = pytest.MonkeyPatch()
    patched.setattr(scoreboard, "_settings", lambda _: measuring.Settings(2, "What?", 0.3, 1000))
    try:
        assert main(["scoreboard", *files, *SAMPLES, "--out", str(tmp_path / "out")]) == 2
    finally:
        patched.undo()
    assert "more than the limit of 0.0 MiB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--samples", "0"], "--samples must be at least 1, not 0"),
        (["--dev", "1"], "--dev must be at least 2, not 1"),
        (["--limit-mib", "0"], "--limit-mib must be at least 1"),
        (["--sink-threshold", "1.5"], "--sink-threshold is a share"),
        (["--generic", " "], "--generic is empty"),
        (["--device", "warp:9"], "--device warp:9"),
    ],
)
def test_options_out_of_range_are_refused(
    files: list[str], tmp_path: Path, capsys: Any, words: list[str], said: str
) -> None:
    assert main(["scoreboard", *files, "--out", str(tmp_path / "out"), *words]) == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_questions_are_drawn_evenly_and_need_both_splits(tmp_path: Path, capsys: Any) -> None:
    data = save_questions(tmp_path / "data", count=20, dev=10)
    drawn, unusable = draw_records(ScoreboardConfig(data=str(data), samples=4, dev=6))
    assert unusable == 0
    assert [each.split for each in drawn] == ["dev"] * 6 + ["test"] * 4
    assert [sum(each.task == task for each in drawn) for task in ("content", "retrieval")] == [5, 5]
    alone = save_questions(tmp_path / "alone", count=4, dev=0)
    assert main(["scoreboard", "--data", str(alone), "--out", str(tmp_path / "out")]) == 2
    assert "has no dev question" in capsys.readouterr().err
