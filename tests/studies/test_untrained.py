"""The untrained control: at chance over balanced places, and off chance when something is wrong."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.inputs import InputError
from probes.model import HookedModel
from probes.scores import chance_level
from studies import untrained
from studies.cli import main
from studies.untrained import UntrainedConfig, balanced, check, reinitialised, untrained_metrics
from studies.untrained_seeds import ROWS, FinishedSeeds, Traced
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


def test_image_to_image_samples_count_under_their_own_rows_only() -> None:
    known = traced(images=3, lean=5.0)
    anchored = np.tile(np.arange(30) < 12, 20)
    text, anchor = known.factors["paper"].copy(), known.factors["paper"].copy()
    text[anchored] = np.nan
    anchor[~anchored] = np.nan
    anchor[..., -1] = np.nan
    target = np.where(anchored, known.target % 2, known.target)
    target[anchored] = np.tile(np.arange(12) % 2, 20)
    entries = untrained_metrics(known._replace(factors={"paper": text, "anchor": anchor}, target=target))
    for entry in entries:
        samples, chance = (12, 1 / 2) if entry["rows"] == "anchor" else (18, 1 / 3)
        assert entry["estimate"]["n"] == 20 * samples and entry["chance"] == pytest.approx(chance)
        assert abs(entry["estimate"]["value"] - chance) < 4 * (chance * (1 - chance) / (20 * samples)) ** 0.5


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("small")
    return ["--model", str(save_model(root / "model")), "--data", str(save_questions(root / "data"))]


def test_the_whole_control_on_a_small_model(files: list[str], tmp_path: Path, capsys: Any) -> None:
    words = [*files, "--out", str(tmp_path), "--samples", "8", "--device", "cpu"]
    assert main(["untrained", *words]) == 0
    shown = capsys.readouterr().out
    assert "chance 0.500 (20 seeds, 8 samples)" in shown and "anchor, LND over" in shown
    written = (tmp_path / "untrained.json").read_bytes()
    entries = json.loads(written)["entries"]
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")
    assert {entry["layer"] for entry in entries} == {None, 0, 1, 2}
    assert {entry["rows"] for entry in entries} == {"paper", "predicting", "anchor"}
    for entry in entries:
        n, value = entry["estimate"]["n"], entry["estimate"]["value"]
        assert n == 160 and entry["estimate"]["clusters"] == 20
        assert abs(value - 0.5) < 3 * (0.25 / n) ** 0.5
    inside = [entry["estimate"]["low"] <= 0.5 <= entry["estimate"]["high"] for entry in entries]
    assert sum(inside) >= len(entries) - 1

    assert main(["untrained", *words]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "untrained.json").read_bytes() == written


def test_an_interrupted_control_goes_on_where_it_was(
    files: list[str], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*files, "--samples", "4", "--device", "cpu", "--out"]
    assert main(["untrained", *words, str(tmp_path / "whole")]) == 0
    built: list[int] = []
    real = untrained.reinitialised

    limit = 12

    def building(trained: Any, seed: int) -> Any:
        if len(built) == limit:
            raise KeyboardInterrupt
        built.append(seed)
        return real(trained, seed)

    monkeypatch.setattr(untrained, "reinitialised", building)
    broken = str(tmp_path / "broken")
    assert main(["untrained", *words, broken]) == 130
    told = capsys.readouterr().err
    assert "--device cpu" in told and f"--out {broken} --samples 4 --resume" in told
    assert [path.name for path in (tmp_path / "broken").iterdir()] == ["seeds"]
    limit = 99
    for more, said in (
        ([], "--resume to go on, --overwrite to start again"),
        (["--resume", "--batch-size", "3"], "seeds of other options"),
        (["--resume", "--overwrite"], "leave one out"),
    ):
        assert main(["untrained", *words, broken, *more]) == 2
        assert said in capsys.readouterr().err
    built.clear()
    # A file of another run among the finished ones is not taken for one of these.
    shutil.copy(tmp_path / "broken" / "seeds" / "0.npz", tmp_path / "foreign.npz")
    with np.load(tmp_path / "foreign.npz") as held:
        np.savez(tmp_path / "broken" / "seeds" / "3.npz", **{**held, "identity": "another"})
    assert main(["untrained", *words, broken, "--resume"]) == 0
    assert built == [0, 3, *range(11, 20)]
    results = [json.loads((tmp_path / name / "untrained.json").read_text()) for name in ("whole", "broken")]
    assert results[0]["entries"] == results[1]["entries"]
    assert sorted(path.name for path in (tmp_path / "broken").iterdir()) == ["layers.png", "untrained.json"]
    assert main(["untrained", *words, str(tmp_path / "none"), "--resume"]) == 2
    assert "there is nothing to resume" in capsys.readouterr().err


def test_other_pictures_are_another_control(files: list[str], tmp_path: Path) -> None:
    """The question texts stay, one image changes: seeds that were traced on the old one are not gone on from."""
    trained = HookedModel.from_pretrained(files[1])
    config = UntrainedConfig(model=files[1], data=files[3], out=tmp_path, samples=2)
    records = balanced(config)
    other = [replace(records[0], images=records[0].images[::-1]), *records[1:]]
    identities = [untrained._identity(config, trained, asked) for asked in (records, other)]
    assert identities[0] != identities[1] == untrained._identity(replace(config, out=tmp_path / "b"), trained, other)
    FinishedSeeds(tmp_path, identities[0], resume=False).write(0, [0], dict.fromkeys(ROWS, np.zeros((1, 1, 2))))
    with pytest.raises(InputError, match="other options, data, model"):
        FinishedSeeds(tmp_path, identities[1], resume=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batch-size", "0"], "--batch-size must be at least 1, not 0"),
        (["--samples", "-3"], "--samples must be at least 1, not -3"),
        (["--seed", "-1"], "--seed must be at least 0, not -1"),
        (["--device", "warp:9"], "--device warp:9"),
    ],
)
def test_options_out_of_range_are_refused(
    files: list[str], tmp_path: Path, capsys: Any, words: list[str], said: str
) -> None:
    assert main(["untrained", *files, "--out", str(tmp_path / "out"), *words]) == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_results_are_replaced_on_request_only(tmp_path: Path) -> None:
    check(UntrainedConfig(out=tmp_path))
    (tmp_path / "layers.png").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"holds a layers\.png"):
        check(UntrainedConfig(out=tmp_path))
    check(UntrainedConfig(out=tmp_path, overwrite=True))


def test_targets_are_balanced_and_weights_differ_by_seed(tmp_path: Path) -> None:
    import torch

    data = save_questions(tmp_path / "data")
    records = balanced(UntrainedConfig(data=str(data), samples=6))
    assert sorted(record.target or 0 for record in records) == [0] * 6 + [1] * 6
    assert {record.split for record in records} == {"test"}
    assert {record.task for record in records} == {"content", "retrieval"}
    trained = HookedModel.from_pretrained(save_model(tmp_path / "model"))
    first, again, other = (reinitialised(trained, seed).model for seed in (0, 0, 1))
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    weights = [model.get_parameter(name) for model in (first, again, other, trained.model)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[3])


def test_chance_counts_images_of_each_sample() -> None:
    assert chance_level([2, 4]) == 0.375
