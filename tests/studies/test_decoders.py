"""The decoders with experts: what they are made of, a few training steps, and resuming them after a kill."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from probes import HookedModel
from probes.errors import InputError
from probes.experts.files import load_routing
from probes.experts.layers import expert_layers
from studies.bundled import BUNDLED_MODEL
from studies.decoders import grid
from studies.decoders.checkpoints import probe_questions
from studies.decoders.models import DECODERS, DecoderName, build_model
from studies.decoders.run import DecoderRun, DecoderTrainingConfig, resume_run, start_run
from studies.decoders.training import Material, finish, make_material, train
from studies.dense.lessons import Lessons, states_of
from studies.dense.pictures import PictureCounts, PictureStore, tower_features
from studies.dense.sequences import Batch, BatchMaker
from studies.dense.state import Optimisers
from studies.routing.recording import probe_routing
from tests.studies.drawn import drawn_sources

TINY = DecoderTrainingConfig(
    "nemotron-h-latent",
    steps=4,
    batch=2,
    warm_up=2,
    views=1,
    checkpoints=(2,),
    dev_questions_per_task=1,
    probe_questions_per_task=1,
)
HYBRID = [{"M": "state space", "E": "mixture of experts", "*": "attention"}[letter] for letter in "M*EM*EM*E"]
LARGEST_ASSET = 3_100_000
"""Bytes: about as many as the dense model's."""


@pytest.fixture(scope="module")
def material() -> Material:
    store = PictureStore(drawn_sources(), PictureCounts(emoji=2, digits=2, clothes=2, needles=3), seed=0)
    return make_material(TINY, store, store)


@pytest.fixture(scope="module")
def whole(material: Material, tmp_path_factory: pytest.TempPathFactory) -> tuple[DecoderRun, Path]:
    """An unbroken run, and its folder."""
    out = tmp_path_factory.mktemp("whole")
    run = start_run(TINY, out)
    list(train(run, material, TINY, out))
    return run, out


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_stand_under_the_trained_tower_and_are_as_large_as_the_dense_model(name: DecoderName) -> None:
    built, dense = build_model(name, seed=0), load_file(BUNDLED_MODEL / "model.safetensors")
    weights = built.model.state_dict()
    tower = [key for key in weights if "vision_tower" in key]
    assert len(tower) > 40
    saved = {key.removeprefix("model."): value for key, value in dense.items()}
    for key in tower:
        assert torch.equal(weights[key], saved[key.removeprefix("model.")].float()), key
    count = sum(weight.numel() for weight in built.model.parameters())
    assert 2_400_000 < 2 * count < LARGEST_ASSET


def test_seeds_decide_the_weights_behind_the_tower() -> None:
    first, again, other = (build_model("dots1", seed).model.state_dict() for seed in (0, 0, 1))
    drawn = [key for key, value in first.items() if value.ndim >= 2 and "vision_tower" not in key]
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert drawn and not any(torch.equal(first[key], other[key]) for key in drawn)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("dots1", ["attention, mlp", *["attention, mixture of experts"] * 5]),
        ("nemotron-h", HYBRID),
        ("nemotron-h-latent", HYBRID),
    ],
)
def test_layers_are_of_the_kinds_of_the_family(name: DecoderName, kinds: list[str]) -> None:
    built = build_model(name, seed=0)
    found = HookedModel(built.model, built.processor).layer_kinds
    assert [", ".join(each.all) for each in found.values()] == kinds
    assert all(mixture.rule.bias == "e_score_correction_bias" for mixture in expert_layers(built.model).values())


def test_features_of_the_tower_give_the_states_that_pixels_give(material: Material) -> None:
    built = build_model("nemotron-h", seed=0)
    model = built.model.eval()
    batch = BatchMaker(built.processor.tokenizer, material.store, 2).batch(np.random.default_rng(0), 3)
    pixels = material.store.values(batch.pictures.numpy())
    direct = model.model(input_ids=batch.input_ids, pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(states_of(model, batch, material.features), direct, atol=1e-4, rtol=0)


def parts_of(name: Any) -> list[set[str]]:
    """Which parameters each optimiser holds, by name; AdamW's that do not decay are apart, last."""
    model = build_model(name, seed=0).model
    trained = [(key, weight) for key, weight in model.named_parameters() if "vision_tower" not in key]
    names = {id(weight): key for key, weight in trained}
    muon, adam, *stacked = Optimisers(trained, 0.1)._parts
    groups = [group for part in (muon, adam, *stacked) for group in part.param_groups]
    assert sorted(names[id(w)] for group in groups for w in group["params"]) == sorted(names.values())
    groups.sort(key=lambda group: group["weight_decay"] == 0.0)
    return [{names[id(weight)] for weight in group["params"]} for group in groups]


def test_each_parameter_goes_to_one_optimiser() -> None:
    matrices, others, stacks, undecayed = parts_of("nemotron-h")
    assert stacks and all(key.split(".")[-2] == "experts" for key in stacks)
    assert {key.rpartition(".")[2] for key in undecayed} == {"A_log", "D", "dt_bias"}
    assert "model.language_model.embeddings.weight" in others
    assert "lm_head.weight" not in matrices | others | stacks | undecayed, "one matrix is learned once"
    assert any(key.endswith("conv1d.weight") for key in others)
    assert any("shared_experts" in key for key in matrices) and any(key.endswith("gate.weight") for key in matrices)


def test_names_are_learned_as_one_matrix_and_saved_as_two(whole: tuple[DecoderRun, Path]) -> None:
    run, out = whole
    assert run.model.lm_head.weight is run.model.get_input_embeddings().weight
    saved = load_file(out / "checkpoints" / "step-00004" / "model.safetensors")
    assert torch.equal(saved["language_model.lm_head.weight"], saved["language_model.model.embeddings.weight"])
    loaded = HookedModel.from_pretrained(out / "checkpoints" / "step-00004", device="cpu").model
    assert torch.equal(loaded.lm_head.weight, loaded.get_input_embeddings().weight)
    assert loaded.lm_head.weight is not loaded.get_input_embeddings().weight


def test_a_killed_run_goes_on_to_the_same_bits(
    whole: tuple[DecoderRun, Path], material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compose = Lessons.batch

    def killed(self: Lessons, step: int) -> Batch:
        if step == 3:
            raise KeyboardInterrupt
        return compose(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Lessons, "batch", killed)
        with pytest.raises(KeyboardInterrupt):
            finish(TINY, material, tmp_path, resume=False)
    assert not (tmp_path / "training.json").exists()
    finish(TINY, material, tmp_path, resume=True)
    run, out = whole
    for step in ("step-00002", "step-00004"):
        first, second = (load_file(folder / "checkpoints" / step / "model.safetensors") for folder in (out, tmp_path))
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["config"]["decoder"] == "nemotron-h-latent"
    assert [(row["step"], row["loss"], row["balance_loss"], row["load"]) for row in record["dev_history"]] == [
        (m.step, m.loss, m.balance_loss, m.load)  # type: ignore[attr-defined]
        for m in run.history
    ]


def test_training_moves_everything_but_the_tower(whole: tuple[DecoderRun, Path]) -> None:
    start, now = build_model(TINY.decoder, TINY.seed).model.state_dict(), whole[0].model.state_dict()
    still = {name for name, weight in now.items() if torch.equal(weight, start[name])}
    assert still == {name for name in start if "vision_tower" in name}


def test_measurements_tell_tasks_and_the_balance_of_each_layer(whole: tuple[DecoderRun, Path]) -> None:
    measured: Any = whole[0].history
    assert [each.step for each in measured] == [2, 4]
    for each in measured:
        assert len(each.accuracy) == 6 and each.loss > 0 and each.balance_loss > 0
        assert set(each.load) == {"2", "5", "8"}
        for layer in each.load.values():
            assert 1 <= layer["largest_over_mean"] <= 4 and 0.6 < layer["entropy"] <= 1
    assert "largest load" in str(measured[0])


def test_checkpoints_load_as_they_were_recorded(whole: tuple[DecoderRun, Path]) -> None:
    run, out = whole
    files = sorted(path.name for path in (out / "routing").iterdir())
    assert files == ["step-00000.npz", "step-00002.npz", "step-00004.npz"]
    folder = out / "checkpoints" / "step-00004"
    saved, model = load_routing(out / "routing" / "step-00004.npz"), HookedModel.from_pretrained(folder)
    again = probe_routing(model, probe_questions(1), step=4, batch=1)
    assert np.array_equal(saved.indices, again.indices) and saved.names == again.names and saved.step == 4
    before = load_routing(out / "routing" / "step-00000.npz")
    assert np.array_equal(before.ids, saved.ids) and not np.array_equal(before.indices, saved.indices)
    loaded, trained = expert_layers(model.model), expert_layers(run.model)
    for layer, mixture in trained.items():
        assert np.array_equal(loaded[layer].bias(), mixture.bias()) and mixture.bias().any()
    assert model.model.dtype == torch.bfloat16
    assert folder.joinpath("model.safetensors").stat().st_size < LARGEST_ASSET


def test_the_trained_model_is_left_as_found_by_saving(whole: tuple[DecoderRun, Path]) -> None:
    assert all(weight.dtype == torch.float32 for weight in whole[0].model.state_dict().values())


def test_other_settings_are_not_resumed(whole: tuple[DecoderRun, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another batch, seed"):
        resume_run(replace(TINY, seed=1, batch=3), whole[1])
    with pytest.raises(InputError, match="does not exist"):
        resume_run(TINY, tmp_path)


def test_probe_questions_are_the_first_of_each_task() -> None:
    few, more = probe_questions(1), probe_questions(2)
    assert len(few) == 6 and len(more) == 12 and len({record.task for record in few}) == 6
    assert {record.id for record in few} < {record.id for record in more}
    assert {record.split for record in more} == {"dev"}


def test_a_grid_trains_what_is_left_and_goes_on_with_what_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[tuple[str, bool]] = []
    monkeypatch.setattr(grid, "load_material", lambda *_: "material")
    monkeypatch.setattr(grid, "finish", lambda *given, resume: trained.append((given[2].name, resume)))
    for name, file in (("dots1-0", "training.json"), ("nemotron-h-1", "training_state.pt")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    grid.main(tmp_path, decoders=("dots1", "nemotron-h"), seeds=(0, 1))
    assert trained == [("nemotron-h-0", False), ("dots1-1", False), ("nemotron-h-1", True)]
    assert "1 of 4 runs are done" in capsys.readouterr().out


def test_a_finished_grid_draws_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dots1-0").mkdir()
    (tmp_path / "dots1-0" / "training.json").touch()
    monkeypatch.setattr(grid, "load_material", lambda *_: pytest.fail("pictures were drawn"))
    grid.main(tmp_path, decoders=("dots1",), seeds=(0,))


def test_features_are_those_of_the_dense_model(material: Material) -> None:
    dense = build_model("dots1", seed=5).model
    torch.testing.assert_close(tower_features(dense, material.store, 1), material.features, atol=0, rtol=0)
