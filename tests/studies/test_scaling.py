"""The scaling study: audits of two sizes side by side, numbers as the audits have them, and what is refused."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from studies.cli import main
from studies.runs import RunFolder
from studies.scaling import LABELS, Measured, measure, scaling_figure, shared_kinds, unshared_kinds
from tests.studies.small_audit import Small, changed

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    made = Small(tmp_path_factory.mktemp("small"))
    made.audit(made.out.parent / "shallow", "--model", str(shallower(made.model, made.out.parent / "cut")))
    return made


def shallower(model: Path, out: Path) -> Path:
    """The model without its last layer."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    loaded = AutoModelForImageTextToText.from_pretrained(model)
    language = loaded.model.language_model
    language.layers = language.layers[:-1]
    loaded.config.text_config.num_hidden_layers -= 1
    loaded.config.text_config.layer_types = None
    loaded.save_pretrained(out)
    AutoProcessor.from_pretrained(model).save_pretrained(out)
    return out


def test_sizes_are_ordered_and_numbers_are_the_audits(small: Small, tmp_path: Path, capsys: Any) -> None:
    shallow = small.out.parent / "shallow"
    assert main(["scaling", str(small.out), str(shallow), "--out", str(tmp_path)]) == 0
    assert "attention accuracy, paper" in capsys.readouterr().out
    models = json.loads((tmp_path / "scaling.json").read_text())["models"]
    assert [model["model"] for model in models] == [str(small.out.parent / "cut"), str(small.model)]
    assert models[0]["parameters"] < models[1]["parameters"] == parameters(small.model)
    for model, path in zip(models, (shallow, small.out), strict=True):
        own = [entry for entry in RunFolder.open(path).read_metrics() if entry["split"] == "test"]
        for entry in model["entries"]:
            assert {key: value for key, value in entry.items() if key != "label"} in own
        assert model["manifest"]["data_digest"] == models[0]["manifest"]["data_digest"]
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "scaling-kinds.png").exists(), "these models have one kind of layers"


def test_what_only_some_audits_recorded_is_named_and_not_drawn() -> None:
    def audit(model: str, *labels: str) -> Measured:
        entries = tuple({"label": label, "task": None} for label in (*LABELS, *labels))
        return Measured("test", entries, {"config": {"model": model, "parameters": 1}})

    audits = [audit("small", "mamba", "delta"), audit("middle", "mamba"), audit("large", "mamba", "gated", "delta")]
    assert shared_kinds(audits) == ["mamba"]
    assert unshared_kinds(audits) == {"delta": ["small", "large"], "gated": ["large"]}
    assert unshared_kinds(audits[1:2] * 2) == {}


def parameters(model: Path) -> int:
    from safetensors import safe_open

    with safe_open(model / "model.safetensors", "pt") as weights:
        return sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118


def test_the_figure_draws_what_was_measured(small: Small) -> None:
    measured = [measure(RunFolder.open(path)) for path in (small.out.parent / "shallow", small.out)]
    axes = scaling_figure(measured).axes[0]
    drawn = {tuple(line.get_xdata()) for line in axes.lines}
    assert tuple(float(each.parameters) for each in measured) in drawn
    for each in measured:
        value = next(entry for entry in each.entries if entry["label"] == "answers right" and entry["task"] is None)
        assert any(value["estimate"]["value"] in list(line.get_ydata()) for line in axes.lines)


def test_one_audit_is_no_study(small: Small, tmp_path: Path, capsys: Any) -> None:
    assert main(["scaling", str(small.out), "--out", str(tmp_path / "out")]) == 2
    assert "two or more audits" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_questions_are_refused(small: Small, tmp_path: Path, capsys: Any) -> None:
    data = changed(small, tmp_path / "data", {"q0": {"answer": "another"}})
    small.audit(tmp_path / "other", data=data)
    assert main(["scaling", str(small.out), str(tmp_path / "other"), "--out", str(tmp_path / "out")]) == 2
    assert "different questions" in capsys.readouterr().err


def test_what_is_no_run_is_refused(small: Small, tmp_path: Path, capsys: Any) -> None:
    assert main(["scaling", str(small.out), str(tmp_path / "absent"), "--out", str(tmp_path / "out")]) == 2
    assert "absent" in capsys.readouterr().err


def edited(source: Path, out: Path, **config: Any) -> Path:
    """A copy of a run whose manifest says something else."""
    shutil.copytree(source, out)
    manifest = RunFolder.open(out).manifest
    changed_manifest = dataclasses.replace(manifest, config={**manifest.config, **config})
    (out / "manifest.json").write_text(json.dumps(changed_manifest.as_json()))
    return out


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("answers_digest", "0" * 64, "audit both with --answers, each with its own file, or both without"),
        ("max_new_tokens", 99, "differ in max_new_tokens (4 and 99)"),
    ],
)
def test_answers_made_differently_are_refused_with_the_reason(
    small: Small, tmp_path: Path, capsys: Any, key: str, value: object, said: str
) -> None:
    other = edited(small.out, tmp_path / "other", **{key: value})
    for runs in ((small.out, other), (other, small.out)):
        assert main(["scaling", *map(str, runs), "--out", str(tmp_path / "out")]) == 2
        shown = capsys.readouterr().err
        assert (said in shown or "(99 and 4)" in shown) and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_given_answers_are_each_models_own(small: Small, tmp_path: Path) -> None:
    runs = [
        edited(small.out, tmp_path / name, answers_digest=name * 64, max_new_tokens=tokens)
        for name, tokens in (("0", 4), ("1", 99))
    ]
    assert main(["scaling", *map(str, runs), "--out", str(tmp_path / "out")]) == 0


def test_runs_without_targets_are_refused_before_anything_is_written(small: Small, tmp_path: Path, capsys: Any) -> None:
    runs = []
    for name in ("first", "second"):
        shutil.copytree(small.out, tmp_path / name)
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        kept = [entry for entry in metrics if not entry["name"].startswith("attention")]
        (tmp_path / name / "metrics.json").write_text(json.dumps(kept))
        runs.append(str(tmp_path / name))
    assert main(["scaling", *runs, "--out", str(tmp_path / "out")]) == 2
    assert "has no attention accuracy, paper" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
