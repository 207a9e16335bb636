"""The untrained control: at chance over balanced places, and off chance when something is wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.scores import chance_level
from studies.cli import main
from studies.untrained import Traced, UntrainedConfig, balanced, reinitialised, untrained_metrics
from tests.studies.small_audit import save_model, save_questions

pytestmark = pytest.mark.filterwarnings("ignore")


def traced(seeds: int = 20, samples: int = 30, images: int = 3, lean: float = 0.0, peek: float = 0.0) -> Traced:
    """Random factors; `lean` favours the last image, `peek` the target."""
    rng = np.random.default_rng(0)
    target = np.tile(np.arange(samples) % images, seeds)
    factors = rng.random((seeds * samples, 4, images))
    factors[:, :, -1] += lean
    factors[np.arange(len(target)), :, target] += peek
    return Traced((0, 1, 2, 3), {"paper": factors}, target, np.repeat(np.arange(seeds), samples))


def test_random_attention_is_at_chance_and_a_preferred_place_stays_there() -> None:
    for lean in (0.0, 5.0):
        for entry in untrained_metrics(traced(lean=lean)):
            estimate = entry["estimate"]
            assert entry["chance"] == pytest.approx(1 / 3)
            assert abs(estimate["value"] - 1 / 3) < 0.06 and estimate["clusters"] == 20


def test_attention_that_peeks_is_off_chance() -> None:
    assert all(entry["estimate"]["low"] > 0.4 for entry in untrained_metrics(traced(peek=0.5)))


def test_unbalanced_places_would_not_be_at_chance() -> None:
    known = traced(lean=5.0)
    leaning = known._replace(target=np.full_like(known.target, 2))
    assert untrained_metrics(leaning)[0]["estimate"]["value"] == 1.0


def test_uniform_attention_shares_ties() -> None:
    known = traced()
    uniform = known._replace(factors={"paper": np.full_like(known.factors["paper"], 0.5)})
    for entry in untrained_metrics(uniform):
        assert entry["estimate"]["value"] == pytest.approx(1 / 3)


def test_the_whole_control_on_a_small_model(tmp_path: Path, capsys: Any) -> None:
    model, data = save_model(tmp_path / "model"), save_questions(tmp_path / "data")
    out = tmp_path / "out"
    words = ["--model", str(model), "--data", str(data), "--out", str(out), "--samples", "4"]
    assert main(["untrained", *words]) == 0
    assert "chance 0.500 (20 seeds, 8 samples)" in capsys.readouterr().out
    entries = json.loads((out / "untrained.json").read_text())["entries"]
    assert (out / "layers.png").read_bytes().startswith(b"\x89PNG")
    assert {entry["layer"] for entry in entries} == {None, 0, 1, 2}
    for entry in entries:
        assert entry["estimate"]["n"] == 160
        assert abs(entry["estimate"]["value"] - 0.5) < 0.15


def test_targets_are_balanced_and_weights_differ_by_seed(tmp_path: Path) -> None:
    import torch

    from probes.model import HookedModel

    data = save_questions(tmp_path / "data")
    records = balanced(UntrainedConfig(data=str(data), samples=3))
    assert sorted(record.target or 0 for record in records) == [0, 0, 0, 1, 1, 1]
    assert {record.split for record in records} == {"test"} and {record.task for record in records} == {"content"}
    trained = HookedModel.from_pretrained(save_model(tmp_path / "model"))
    first, again, other = (reinitialised(trained, seed).model for seed in (0, 0, 1))
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    weights = [model.get_parameter(name) for model in (first, again, other, trained.model)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[3])


def test_chance_counts_images_of_each_sample() -> None:
    assert chance_level([2, 4]) == 0.375
