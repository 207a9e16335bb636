"""Audits of hybrids: hidden attention beside attention factors, apart for each kind of layer, and what is refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch

from probes.attention_calls import UnsupportedAttention
from probes.encoding import row_sets
from probes.knockout import AttentionKnockout
from probes.mixers.knockout import MixerKnockout
from probes.mixers.recorder import MixerRecorder
from probes.model import HookedModel, Question
from probes.state_space import trace_mixers
from studies.auditing import run as auditing
from studies.auditing.causal_metrics import MIXERS_TOO
from studies.auditing.entries import find
from studies.auditing.evidence import gather, readings
from studies.auditing.finalise import finalise
from studies.auditing.kind_figures import draw_kinds, layer_parts
from studies.auditing.mixers import MEASURES
from studies.auditing.summary import without_image_lines
from studies.explorer.run_pages import summary
from studies.explorer.run_samples import choices
from studies.multi_image import read_questions
from studies.position import is_anchored
from studies.runs import RunFolder
from tests.studies.hybrid_audit import Hybrid
from tests.studies.made_run import contents
from tests.studies.small_audit import save_questions
from tests.studies.test_audit_metrics import pick, rows_of
from tests.studies.test_audit_processes import alone, assert_same, launched
from tests.studies.test_audit_resume import ROOT, assert_equal

pytestmark = pytest.mark.filterwarnings("ignore")

TEXT = ("paper", "predicting")
MIXER_WORDS = "knock-out of attention and mixers at once"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Hybrid:
    """Nemotron-H of the pattern MEM*-, audited."""
    made = Hybrid(tmp_path_factory.mktemp("nemotron"), "nemotron_h")
    assert made.audit(made.out, "--causal", "2", "--position-study", "--per-head") == 0
    return made


def factors(run: RunFolder, measure: str) -> dict[tuple[str, str, int, int], float]:
    """By sample, row set, layer and image."""
    wanted = (pc.field("measure") == measure) & (pc.field("head") == -1)
    return {
        (row["sample_id"], row["rows"], row["layer"], row["image"]): row["factor"]
        for row in run.read("layers", filter=wanted).to_pylist()
    }


def by_batch(run: RunFolder) -> Iterable[list[str]]:
    batches: dict[int, list[str]] = {}
    for row in run.read("samples").to_pylist():
        batches.setdefault(row["batch"], []).append(row["sample_id"])
    return batches.values()


@pytest.mark.parametrize("family", ["nemotron_h", "qwen3_5"])
def test_rows_are_the_hidden_attention_of_the_same_batches_to_the_bit(
    small: Hybrid, tmp_path: Path, family: str
) -> None:
    if family != "nemotron_h":
        small = Hybrid(tmp_path, family, count=4, dev=1)
        assert small.audit(small.out) == 0
    run = RunFolder.open(small.out)
    model = HookedModel.from_pretrained(small.model)
    records = {record.id: record for record in read_questions(small.data).records}
    expected: dict[str, dict[Any, float]] = {measure: {} for measure in MEASURES.values()}
    for ids in by_batch(run):
        asked = [Question(records[name].images, records[name].question) for name in ids]
        rows = (*TEXT, "anchor") if len(asked[0].images) == 3 else TEXT
        answers = [trace.answer_ids for trace in model.trace_batch(asked, max_new_tokens=4, maps=False)]
        for name, trace in zip(ids, trace_mixers(model, asked, answers, rows), strict=True):
            for (row_set, form), table in trace.factors_by_rows.items():
                if form in MEASURES:
                    expected[MEASURES[form]] |= {
                        (name, row_set, layer, image): value
                        for layer, own in zip(trace.layers, table.tolist(), strict=True)
                        for image, value in enumerate(own)
                        if not np.isnan(value)
                    }
    for measure, values in expected.items():
        assert values and factors(run, measure) == values
    assert factors(run, MEASURES["absolute"]) != factors(run, MEASURES["value"])
    kinds = {row["layer"]: row["layer_kind"] for row in run.read("layers").to_pylist()}
    assert all(kind in model.layer_kinds[layer].mixers for layer, kind in kinds.items())
    assert set(kinds.values()) == {"attention", "state space" if family == "nemotron_h" else "linear attention"}
    assert run.manifest.config["mixers"]["layer_kinds"] == {
        str(layer): list(each.all) for layer, each in model.layer_kinds.items()
    }


@pytest.mark.parametrize("measure", list(MEASURES.values()))
@pytest.mark.parametrize("rows", TEXT)
def test_rules_and_scores_run_within_one_kind(small: Hybrid, rows: str, measure: str) -> None:
    """By hand from the rows: the simplest best rule on dev over the state-space layers alone, then its score."""
    table: dict[str, dict[int, dict[int, float]]] = {}
    for (name, row_set, layer, image), value in factors(RunFolder.open(small.out), measure).items():
        if row_set == rows:
            table.setdefault(name, {}).setdefault(layer, {})[image] = value
    samples = rows_of(small.out, "samples")
    assert {layer for own in table.values() for layer in own} == {0, 2}

    def score(split: str, rule: str, last: int) -> float:
        right = [row for row in samples if row["split"] == split and row["correct"]]
        return float(np.mean([pick(table[row["sample_id"]], rule, last) == row["target"] for row in right]))

    order = [(rule, last) for last in (1, 2) for rule in ("LND", "M-LND", "MC-LND")]
    best = order[int(np.argmax([score("dev", *each) for each in order]))]
    entries = RunFolder.open(small.out).read_metrics()
    named = {"measure": measure, "layer_kind": "state space", "rows": rows, "split": "test"}
    (found,) = find(entries, "attention_accuracy", **named)
    assert (found["rule"], found["last"]) == best
    assert found["estimate"]["value"] == pytest.approx(score("test", *best))
    by_layer = [each for each in find(entries, "attention_accuracy", layer=..., **named) if each["layer"] is not None]
    assert [each["layer"] for each in by_layer] == [0, 2]
    picked = {row["sample_id"]: row for row in RunFolder.open(small.out).read("focus_by_kind").to_pylist()
              if (row["measure"], row["rows"]) == (measure, rows)}  # fmt: skip
    assert {name: row["focus"] for name, row in picked.items()} == {
        name: pick(own, *best) for name, own in table.items()
    }
    assert find(entries, "attention_spread", places=..., **{**named, "split": "position study"})
    assert find(entries, "causal_agreement", intervention="blank", window="all", **named)
    # The knock-out cuts softmax attention: it says nothing of where another kind of layer looks.
    assert not find(entries, "causal_agreement", intervention="knockout", window=..., **named)
    assert find(entries, "causal_agreement", intervention="knockout", window="all", rows=rows, split="test")
    assert find(entries, "causal_agreement", intervention=MIXERS_TOO, window="all", **named)


def test_an_image_is_knocked_out_of_attention_and_mixers_at_once(small: Hybrid) -> None:
    """Layers: mixers 0 and 2, attention 3. By hand, as both cuts entered by themselves around one forward."""
    run = RunFolder.open(small.out)
    model = HookedModel.from_pretrained(small.model)
    records = {record.id: record for record in read_questions(small.data).records}
    rows = [row for row in run.read("effects").to_pylist() if row["intervention"] == MIXERS_TOO]
    assert {row["window"] for row in rows} == {"all", "0", "2", "3"}
    name = rows[0]["sample_id"]
    record, cut = (
        records[name],
        {(row["window"], row["image"]): row["effect"] for row in rows if row["sample_id"] == name},
    )
    question = Question(record.images, record.question)
    answer = model.trace(*question, max_new_tokens=4).answer_ids
    encoded = model.encode([question], [answer])
    before = float(model.score(encoded).log_probability[0])
    blinded = torch.stack(list(row_sets(encoded, ["after", *["anchor"] * is_anchored(record)]).values())).any(0)
    for image, span in enumerate(encoded.spans[0]):
        rows_left = blinded.clone()
        rows_left[0, span.start : span.stop] = False
        with AttentionKnockout(model.model, rows_left, [[span]]), MixerKnockout(model.model, rows_left, [[span]]):
            after = float(model.score(encoded).log_probability[0])
        assert cut["all", image] == pytest.approx(before - after, abs=1e-4)
    alone = {(row["window"], row["image"]): row["effect"] for row in run.read("effects").to_pylist()
             if row["sample_id"] == name and row["intervention"] == "knockout"}  # fmt: skip
    assert {window for window, _ in alone} == {"all"}
    assert all(alone["all", image] == pytest.approx(cut["3", image], abs=1e-5) for _, image in alone)
    assert max(abs(alone["all", image] - cut["all", image]) for _, image in alone) > 1e-3
    report = (small.out / "report.html").read_text()
    assert "knockout, mixers too" in report and "by the kind of layer whose focus it is" in report
    lines = without_image_lines(run.read_metrics(), "test")
    assert [MIXER_WORDS in line for line in lines] == [False, False, True]


def test_numbers_that_hang_on_no_focus_stand_once(small: Hybrid) -> None:
    entries = RunFolder.open(small.out).read_metrics()
    hidden = [entry for entry in entries if entry.get("measure")]
    assert not [entry for entry in hidden if entry["name"].startswith("answer_") or entry["rows"] is None]
    keys = [json.dumps({key: value for key, value in entry.items() if key != "estimate"}) for entry in hidden]
    assert len(set(keys)) == len(keys)
    assert {(entry["measure"], entry["layer_kind"]) for entry in hidden} == {
        (measure, "state space") for measure in MEASURES.values()
    }


def test_softmax_attention_is_the_same_to_the_bit_without_mixers(small: Hybrid, tmp_path: Path, capsys: Any) -> None:
    """What is written without them is also what runs held before there were such measures, and opens as those do."""
    assert small.audit(tmp_path / "run", "--causal", "2", "--position-study", "--per-head", "--no-mixers") == 0
    without, whole = contents(tmp_path / "run"), contents(small.out)
    for folder in ("", "position/"):
        name = f"{folder}layers/part-merged.parquet"
        softmax = [row for row in whole[name] if "hidden_attention" not in row]
        assert without[name] == softmax != whole[name]
        effects = [row for row in whole.get(f"{folder}effects/part-merged.parquet", []) if MIXERS_TOO not in row]
        assert without.get(f"{folder}effects/part-merged.parquet", []) == effects
        for table in ("samples", "maps", "cells", "pairwise"):
            own = f"{folder}{table}/part-merged.parquet"
            assert without.get(own) == whole.get(own)
    assert without["focus.parquet"] == whole["focus.parquet"] and "focus_by_kind.parquet" not in without
    assert json.loads(without["metrics.json"]) == [
        entry
        for entry in json.loads(whole["metrics.json"])
        if "measure" not in entry and entry.get("intervention") != MIXERS_TOO
    ]
    old = RunFolder.open(tmp_path / "run")
    assert "mixers" not in old.manifest.config
    assert old.read("focus_by_kind").num_rows == old.read("unread").num_rows == 0
    assert not readings(old, gather(old))
    assert "By kind of layer" not in (tmp_path / "run" / "report.html").read_text()
    capsys.readouterr()
    assert small.audit(tmp_path / "run", "--causal", "2", "--position-study", "--per-head", "--resume") == 2
    assert "config.mixers: absent before" in capsys.readouterr().err


def test_hidden_attention_is_compared_and_scaled_beside_attention_factors(
    small: Hybrid, tmp_path: Path, capsys: Any
) -> None:
    from studies.cli import main

    entries = RunFolder.open(small.out).read_metrics()
    named = {"measure": MEASURES["value"], "layer_kind": "state space", "rows": "paper", "split": "test"}
    (expected,) = find(entries, "attention_accuracy", **named)
    assert main(["compare", str(small.out), str(small.out), "--out", str(tmp_path / "same")]) == 0
    found = json.loads((tmp_path / "same" / "compare.json").read_text())["entries"]
    wanted = {"name": "attention_accuracy", "rows": "paper", "subset": "right in each", "measure": MEASURES["value"]}
    (own,) = [each for each in found if wanted.items() <= each.items()]
    assert own["baseline"] == own["candidate"] == pytest.approx(expected["estimate"]["value"])
    assert own["layer_kind"] == "state space" and own["estimate"]["value"] == 0
    assert "paper, state space: hidden attention, value-weighted" in (tmp_path / "same" / "compare.html").read_text()
    capsys.readouterr()
    assert main(["scaling", str(small.out), str(small.out), "--out", str(tmp_path / "sizes")]) == 0
    label = "attention accuracy, paper, state space: hidden attention, value-weighted"
    assert capsys.readouterr().out.count(label) == 2 and (tmp_path / "sizes" / "scaling-kinds.png").is_file()
    first, _ = json.loads((tmp_path / "sizes" / "scaling.json").read_text())["models"]
    (scaled,) = [each for each in first["entries"] if each["label"] == label and each["task"] is None]
    assert scaled["estimate"] == expected["estimate"]


def test_a_hybrid_opens_in_the_explorer(small: Hybrid) -> None:
    run = RunFolder.open(small.out)
    assert {rule.rows for rule in choices(run).rules} == {"paper", "predicting", "anchor"}
    assert len(choices(run).rules) == 3
    shown = summary(run)
    assert "measure hidden_attention_value, layer kind state space" in shown


def test_the_report_and_its_figure_stand_by_kind(small: Hybrid, tmp_path: Path) -> None:
    shutil.copytree(small.out, tmp_path / "run")
    report = (small.out / "report.html").read_text()
    assert "hidden attention of state space layers 0, 2" in report and "hidden attention, value-weighted" in report
    with RunFolder.create(tmp_path / "run", RunFolder.open(small.out).manifest, resume=True) as folder:
        final = finalise(folder)
    for name in ("metrics.json", "focus_by_kind.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (small.out / name).read_bytes()
    config = folder.manifest.config
    assert layer_parts(config, final) == [
        ["state space"],
        ["mixture of experts"],
        ["state space"],
        ["attention"],
        ["mlp"],
    ]
    drawn = {figure.file: drawing for figure, drawing in draw_kinds(config, final, "test")}
    assert set(drawn) == {"figures/kinds-paper.png", "figures/kinds-predicting.png"}
    above, below = drawn["figures/kinds-paper.png"].axes
    points = {str(each.get_label()): each[0].get_xdata().round().tolist() for each in above.containers}
    assert points == {
        "attention": [3],
        "state space: hidden attention, absolute": [0, 2],
        "state space: hidden attention, value-weighted": [0, 2],
    }
    assert [label.get_text() for label in below.get_yticklabels()] == [
        "attention", "state space", "mixture of experts", "mlp"
    ]  # fmt: skip
    bare = layer_parts({}, final)
    assert bare == [["state space"], [], ["state space"], ["attention"]]
    assert not list(draw_kinds(config, final._replace(by_kind=[]), "test"))


def test_mixers_of_unknown_classes_are_refused_by_name_and_the_audit_goes_on(
    small: Hybrid, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probes.mixers.modules.READERS", {})
    said = "decoder layers 0, 2 (NemotronHMamba2Mixer): the configuration gives it a mixer without softmax"
    assert small.audit(tmp_path / "run", "--dry-run") == 0
    assert "no hidden attention: (NemotronHMamba2Mixer)" in capsys.readouterr().out
    assert small.audit(tmp_path / "run") == 0
    run = RunFolder.open(tmp_path / "run")
    assert set(run.manifest.config["mixers"]["refused"]) == {"0", "2"}
    assert not run.count("layers", pc.field("measure") == MEASURES["value"])
    assert said in (tmp_path / "run" / "report.html").read_text()


def test_a_mixer_that_cannot_be_followed_is_refused_before_the_first_batch(
    small: Hybrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = MixerRecorder._hold_against

    def odd(self: MixerRecorder, call: Any, output: Any) -> None:
        if call.layer == 2:
            raise call.refuse("it does something else", "leave it out")
        real(self, call, output)

    monkeypatch.setattr(MixerRecorder, "_hold_against", odd)
    assert small.audit(tmp_path / "run", "--causal", "2") == 0
    run = RunFolder.open(tmp_path / "run")
    # It would go on carrying an image that is cut out of all others.
    assert set(run.read("effects")["intervention"].to_pylist()) == {"blank", "swap", "knockout"}
    told = run.manifest.config["mixers"]
    assert told["read"] == {"0": "state space"} and "it does something else" in told["refused"]["2"]
    found = factors(run, MEASURES["value"])
    whole = factors(RunFolder.open(small.out), MEASURES["value"])
    assert found == {key: value for key, value in whole.items() if key[2] == 0} and not run.count("unread")
    assert (
        "decoder layer 2 (NemotronHMamba2Mixer): it does something else"
        in (tmp_path / "run" / "report.html").read_text()
    )


def test_a_sample_whose_hidden_attention_fails_keeps_the_rest(
    small: Hybrid, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = auditing.trace_records

    def odd(model: Any, records: list[Any], settings: auditing.Settings) -> Any:
        if settings.mixers.read and any(record.id == "q5" for record in records):
            raise UnsupportedAttention("decoder layer 2 (Odd): not for this sample; leave it out")
        return real(model, records, settings)

    monkeypatch.setattr(auditing, "trace_records", odd)
    assert small.audit(tmp_path / "run") == 1
    assert "1 sample failed; the first: q5: decoder layer 2 (Odd)" in capsys.readouterr().err
    run = RunFolder.open(tmp_path / "run")
    assert run.read("unread").drop_columns(["batch"]).to_pylist() == [
        {
            "sample_id": "q5",
            "part": "hidden attention",
            "error": "decoder layer 2 (Odd): not for this sample; leave it out",
        }
    ]
    assert run.sample("q5")["error"] is None and {key[0] for key in factors(run, "factor")} >= {"q5"}
    assert {f"q{index}" for index in range(8)} - {key[0] for key in factors(run, MEASURES["value"])} == {"q5"}
    report = (tmp_path / "run" / "report.html").read_text()
    assert "hidden attention of 1 sample could not be read; the first: q5" in report
    assert "The check of" not in report


def test_kinds_that_share_a_measure_are_never_put_together(tmp_path: Path) -> None:
    """State-space layers point at image 0, linear ones at image 1 with ten times the size: each kind keeps its own."""
    from studies.auditing.choices import DEFAULT_RULE, focus_of
    from studies.runs import Manifest

    kinds = {0: "state space", 1: "linear attention", 2: "state space", 3: "linear attention"}
    rows = [
        {
            "sample_id": "a", "rows": "paper", "layer": layer, "layer_kind": kind, "measure": MEASURES["value"],
            "image": image, "head": -1,
            "factor": 10.0 * (image == 1) if kind == "linear attention" else 1.0 * (image == 0),
        }
        for layer, kind in kinds.items()
        for image in range(2)
    ]  # fmt: skip
    sample = {"sample_id": "a", "cluster": "a", "split": "test", "n_images": 2, "target": 0, "correct": True}
    with RunFolder.create(tmp_path / "run", Manifest(config={}, batches=1)) as made:
        made.write_batch(0, {"samples": [sample], "layers": rows})
        evidence = gather(made)
        found = {each.layer_kind: each for each in readings(made, evidence)}
        entries = finalise(made).entries
    assert evidence.layers == () and not evidence.factors
    assert {kind: each.evidence.layers for kind, each in found.items()} == {
        "state space": (0, 2),
        "linear attention": (1, 3),
    }
    focused = {
        kind: focus_of(each.evidence, "paper", replace(DEFAULT_RULE, last=2)).tolist() for kind, each in found.items()
    }
    assert focused == {"state space": [0], "linear attention": [1]}
    named = {"measure": MEASURES["value"], "rows": "paper", "split": "test"}
    values = {
        entry["layer_kind"]: entry["estimate"]["value"]
        for entry in find(entries, "attention_accuracy", layer_kind=..., **named)
    }
    assert values == {"state space": 1.0, "linear attention": 0.0}


@pytest.mark.slow
def test_killed_and_resumed_is_bit_equal(small: Hybrid, tmp_path: Path) -> None:
    data = save_questions(tmp_path / "data", count=4, dev=1)
    words = [str(small.model), str(data), str(tmp_path), "1", "7"]
    command = [sys.executable, "-m", "tests.studies.killed_audit", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("killed with") == 1
    for folder in ("", "position"):
        assert_equal(tmp_path / "whole" / folder, tmp_path / "broken" / folder)
        assert factors(RunFolder.open(tmp_path / "broken" / folder), MEASURES["value"])


@pytest.mark.slow
def test_shared_by_processes_is_bit_equal(small: Hybrid, tmp_path: Path) -> None:
    shutil.copytree(small.model, tmp_path / "model")
    shutil.copytree(small.data, tmp_path / "data")
    assert alone(tmp_path, "whole") == 0
    done = launched(tmp_path, "shared")
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(tmp_path, "shared")
    assert factors(RunFolder.open(tmp_path / "shared"), MEASURES["value"])


def test_a_dry_run_and_the_doctor_tell_of_hidden_attention(small: Hybrid, tmp_path: Path, capsys: Any) -> None:
    from studies.cli import main

    assert small.audit(tmp_path / "run", "--dry-run") == 0
    text = capsys.readouterr().out
    assert "hidden_attention_absolute, hidden_attention_value: in the same pass, as means over heads" in text
    assert "layer 0: state space, hidden attention recorded" in text
    assert "per sample:" in text
    assert small.audit(tmp_path / "run", "--dry-run", "--no-mixers") == 0
    text = capsys.readouterr().out
    assert "left out by --no-mixers" in text and "layer 0: no attention (linear_attention), not recorded" in text
    assert main(["doctor", "--model", str(small.model)]) == 0
    assert "hidden attention is read in 2 layers without softmax" in capsys.readouterr().out


def test_the_memory_to_expect_counts_a_sum_for_each_form_row_set_and_image() -> None:
    from studies.doctor.layers import LayerPath
    from studies.doctor.memory import Batch, recorder_bytes

    batch = Batch(samples=3, tokens=50, images=4, image_tokens=40, answer_tokens=2, forms=2)
    mixer, attention = LayerPath(0, "mamba", mixer="state space"), LayerPath(1, "full", "sdpa", heads=4)
    assert recorder_bytes([mixer], batch) == 4 * 3 * 2 * 2 * 4
    assert recorder_bytes([mixer, attention], batch) - recorder_bytes([mixer], batch) == recorder_bytes(
        [attention], batch
    )
    assert recorder_bytes([attention], batch) == recorder_bytes([attention], batch._replace(forms=0)) > 0
