"""The study of decoders: what carries an image, what runs say, and that what is published follows from what was run."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes import HookedModel, Question
from probes.errors import InputError
from probes.estimates import Estimate, mean
from probes.experts.files import load_routing
from probes.experts.saved import SavedRouting
from probes.experts.stability import overlap_counts
from studies.bundled import BUNDLED_DECODERS, BUNDLED_MODEL, model_source
from studies.decoders.carrying import EVERY, Carried, carry, load_carried, paths_of, save_carried
from studies.decoders.checkpoints import keep_checkpoint, probe_questions
from studies.decoders.findings import (
    GIVEAWAY,
    Course,
    Look,
    RunFindings,
    Special,
    bits_above_chance,
    depth_gain,
    gained_bits,
    read_run,
    settles,
    target_named,
)
from studies.decoders.measuring import Amounts, measure_dense, measure_run
from studies.decoders.measuring import main as measure_runs
from studies.decoders.models import build_model
from studies.decoders.questions import drawn_questions as questions
from studies.decoders.shipping import main as ship_runs
from studies.decoders.shipping import ship
from studies.decoders.study import conclusions, main, run_entries
from studies.routing.recording import probe_routing
from tests.probes.hybrid_models import enlarge

PUBLISHED = Path(__file__).parents[2] / "docs" / "study" / "decoders"
NAN = float("nan")
FEW = Amounts(audited=24, carried=6, permutations=9)


def one(value: float) -> Estimate:
    return Estimate(value, 10, value - 0.1, value + 0.1)


def hand_made(name: str = "nemotron-h", seed: int = 0, shift: float = 0.0) -> RunFindings:
    """A hybrid whose numbers a reader can follow: one layer more gives the attention layers 0.4."""
    looks = {
        0: Look("state space", one(0.2), 0.25),
        2: Look("attention", one(0.4 + shift), 0.25),
        3: Look("state space", one(0.3), 0.25),
        5: Look("attention", one(0.8), 0.25),
    }
    course = Course(
        (0, 100, 200),
        (1, 4),
        np.array([[0.2, 0.4], [0.8, 0.96], [1.0, 1.0]]),
        np.full((3, 2), 0.25),
        np.array([[0.1, 0.1], [0.5, 0.3], [0.3, 0.3 + shift]]),
        np.full((3, 2), 0.1),
    )
    return RunFindings(
        name, seed, one(0.9), {"content": one(0.9)},
        {0: ("state space",), 1: ("mixture of experts",), 2: ("attention",), 3: ("state space",),
         4: ("mixture of experts",), 5: ("attention",)},
        looks, {"attention": Look("attention", one(0.8), 0.25), "state space": Look("state space", one(0.3), 0.25)},
        {"attention": one(3.0), "state space": one(0.5), EVERY: one(4.0), "layer 2": one(1.0)},
        {path: Look(path, one(0.9), 0.3) for path in ("attention", "state space", EVERY, "layer 2")},
        course, (Special("modality", 1, 0.4, 0.1, 0.01), Special("modality", 4, 0.3, 0.2, 0.2)),
    )  # fmt: skip


def dense() -> RunFindings:
    return replace(hand_made(), name="dense", answers=one(0.98), course=None, special=())


@pytest.fixture(scope="module")
def hybrid() -> HookedModel:
    built = build_model("nemotron-h", seed=0)
    enlarge(built.model)
    return HookedModel(built.model, built.processor)


@pytest.mark.slow
def test_every_path_is_the_knock_out_of_its_layers(hybrid: HookedModel) -> None:
    from probes.interventions import knockout_effects
    from probes.mixers.knockout import joint_knockout_effects, mixer_knockout_effects

    records = questions(6)
    carried = carry(hybrid, records)
    assert carried.paths == ("attention", "state space", EVERY, *(f"layer {layer}" for layer in (0, 1, 3, 4, 6, 7)))
    assert paths_of(hybrid)[EVERY] == [0, 1, 3, 4, 6, 7]
    for place, record in enumerate(records):
        question, count = Question(record.images, record.question), len(record.images)
        rows = ("after", "anchor") if record.task == "retrieval" else ("after",)
        cuts = [knockout_effects, mixer_knockout_effects, joint_knockout_effects]
        for path, cut in enumerate(cuts):
            expected = cut(hybrid, question, record.answer, rows=rows)[0]
            np.testing.assert_allclose(carried.effects[place, path, :count], expected, atol=1e-5)
        assert np.isnan(carried.effects[place, :, count:]).all()
    seen = np.nanmax(np.abs(carried.effects), axis=(0, 2))
    assert (seen[:3] > 1e-3).all(), "enlarged weights leave every path something to carry"


def test_a_dense_decoder_has_one_kind_and_no_path_of_all() -> None:
    model = HookedModel.from_pretrained(BUNDLED_MODEL, device="cpu", dtype="float32")
    carried = carry(model, questions(2))
    assert carried.paths == ("attention", *(f"layer {layer}" for layer in range(6)))


def test_questions_without_a_target_or_none_at_all_are_refused(hybrid: HookedModel) -> None:
    with pytest.raises(InputError, match="names no target image"):
        carry(hybrid, [replace(questions(1)[0], target=None)])
    with pytest.raises(InputError, match="there are no questions"):
        carry(hybrid, [])


def by_hand() -> Carried:
    effects = np.array([[[1.0, 3.0, NAN], [2.0, 0.5, NAN]], [[0.0, 0.0, 4.0], [1.0, 5.0, 2.0]]])
    ids, tasks = ("a", "b"), ("content", GIVEAWAY)
    return Carried(("attention", "layer 0"), effects, np.array([1, 2]), np.array([-1, 1]), ids, tasks)


def test_the_targets_loss_and_whether_it_is_the_dearest_by_hand(tmp_path: Path) -> None:
    carried = by_hand()
    assert carried.of_target().tolist() == [[3.0, 0.5], [4.0, 2.0]]
    named = target_named(carried, 0)
    # Of two and, the query image left out, of two.
    assert named.estimate.value == 1.0 and named.estimate.n == 2 and named.chance == 0.5
    assert target_named(carried, 1).estimate.value == 0.5, "the query image is dearer than the right one, and no rival"
    nothing = carried._replace(effects=carried.effects * 1e-3)
    assert target_named(nothing, 0).estimate.n == 0, "images whose loss is rounding noise name nothing"
    assert carried.without(GIVEAWAY).ids == ("a",) and len(carried.without(GIVEAWAY).effects) == 1
    save_carried(tmp_path / "carrying.npz", carried)
    again = load_carried(tmp_path / "carrying.npz")
    np.testing.assert_array_equal(again.effects, carried.effects)
    assert again.targets.tolist() == [1, 2]
    assert (again.paths, again.ids, again.tasks) == (carried.paths, carried.ids, carried.tasks)
    assert again.anchors.tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("values", "step"),
    [([1, 1, 1], 0), ([0.5, 0.95, 1], 100), ([0.95, 0.5, 1], None), ([1, 1.3, 1], None), ([1, 1.05, 1], 0)],
)
def test_what_overshoots_has_not_settled(values: list[float], step: int | None) -> None:
    assert settles([0, 100, 200], values) == step
    with pytest.raises(ValueError, match="needs a number at every checkpoint"):
        settles([0, 100, 200], [*values[:2], NAN])


def test_depth_is_told_within_a_kind_and_bits_above_chance() -> None:
    run = hand_made()
    assert run.depths == {"state space": [0, 3], "attention": [2, 5]}
    assert depth_gain(run, "attention") == pytest.approx(0.4)
    assert depth_gain(run, "state space") == pytest.approx(0.1)
    assert bits_above_chance(run, "modality") == pytest.approx(0.2)
    assert gained_bits(run).tolist() == pytest.approx([0.0, 0.3, 0.2])
    with pytest.raises(ValueError, match="has no experts"):
        gained_bits(dense())


def test_conclusions_are_means_over_seeds_by_hand() -> None:
    found = [dense(), *(hand_made(seed=seed, shift=0.1 * seed) for seed in range(3))]
    told = {
        (each["name"], each.get("kind") or each.get("path") or each.get("label")): each for each in conclusions(found)
    }
    assert told["answers_minus_dense", None]["by_seed"] == pytest.approx([-0.08] * 3)
    depth = told["last_minus_first_layer", "attention"]
    assert depth["by_seed"] == pytest.approx([0.4, 0.3, 0.2]) and depth["seeds"] == [0, 1, 2]
    assert depth["estimate"] == mean(depth["by_seed"]).to_dict()
    # Student's interval with two degrees of freedom: 4.303 times 0.1 over the root of three.
    assert depth["estimate"]["high"] - 0.3 == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)
    assert told["attention_minus_state_space", None]["by_seed"] == pytest.approx([0.5] * 3)
    assert told["choices_settle", None]["by_seed"] == [None] * 3 and "estimate" not in told["choices_settle", None]
    assert told["choices_settle", None]["last_step"] == 200
    assert ("lost_without_target", "layer 2") not in told


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of no training at all, measured with a handful of questions, and the dense model beside it."""
    runs = tmp_path_factory.mktemp("runs")
    folder, built = runs / "nemotron-h-0", build_model("nemotron-h", seed=0)
    enlarge(built.model)
    probe = probe_questions(1)
    for step in (0, 100):
        keep_checkpoint(built.model, built.processor, probe, step, folder)
    (folder / "training.json").write_text(json.dumps({"config": {"steps": 100}}))
    measure_run(folder, FEW)
    measure_dense(runs / "dense-0", FEW)
    return runs


@pytest.mark.slow
def test_a_measured_run_is_read_back_and_measuring_again_does_nothing(measured: Path) -> None:
    folder = measured / "nemotron-h-0"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    measure_run(folder, FEW)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    with pytest.raises(InputError, match="was measured with other amounts: remove"):
        measure_run(folder, Amounts(audited=1))
    run = read_run(folder, "nemotron-h", 0)
    assert run.parts[2] == ("mixture of experts",)
    assert {layer: look.kind for layer, look in run.looks.items()} == {
        0: "state space", 1: "attention", 3: "state space", 4: "attention", 6: "state space", 7: "attention"
    }  # fmt: skip
    assert run.course is not None and run.course.steps == (0, 100) and run.course.layers == (2, 5, 8)
    assert np.allclose(run.course.overlap, 1.0), "both checkpoints are the same weights"
    assert {each.label for each in run.special} == {"modality", "image", "task"}
    assert 0 < run.answers.n <= 24


@pytest.mark.slow
def test_the_study_writes_numbers_figures_and_what_they_are_made_from(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="no finished training run"):
        main(tmp_path, tmp_path / "out")
    half = tmp_path / "half"
    (half / "dots1-0").mkdir(parents=True)
    (half / "dots1-0" / "training.json").write_text("{}")
    (half / "dense-0").symlink_to(measured / "dense-0")
    with pytest.raises(InputError, match="dots1-0 not measured"):
        main(half, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    main(measured, tmp_path / "out")
    manifest = (tmp_path / "out" / "manifest.json").read_text()
    assert str(measured) not in manifest and "amounts" in manifest
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {"answers_minus_dense", "lost_without_target", "bits_settle"} <= {entry["name"] for entry in written}
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        "three-models.png", "carrying.png", "settling.png"
    }  # fmt: skip
    assert (tmp_path / "out" / "by-run" / "dense-0" / "carrying.npz").is_file()
    assert "nemotron-h" in capsys.readouterr().out


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no training\.json"):
        measure_run(tmp_path)
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(InputError, match=r"left no routing|keeps no checkpoint"):
        measure_run(tmp_path)


def test_what_is_published_stands_beside_new_runs_without_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Measuring and shipping pass over runs of which all is measured and no weights are left; others are refused."""
    with tarfile.open(PUBLISHED / "measured.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setattr("studies.decoders.measuring.measure_dense", lambda *_: None)
    measure_runs(tmp_path)
    ship_runs(tmp_path)
    assert "dots1: no finished run with its weights, left as it is" in capsys.readouterr().out
    measured = tmp_path / "dots1-0" / "measured.json"
    measured.write_text(measured.read_text().replace('"carrying"', '"other"'))
    with pytest.raises(InputError, match="keeps no checkpoint"):
        measure_runs(tmp_path)


def test_what_is_bundled_is_the_final_weights_and_some_earlier_ones_or_their_routing(tmp_path: Path) -> None:
    run, asset = tmp_path / "run", tmp_path / "asset"
    for step in (0, 200, 3500):
        (run / "checkpoints" / f"step-{step:05d}").mkdir(parents=True)
        (run / "checkpoints" / f"step-{step:05d}" / "model.safetensors").write_text(str(step))
        (run / "routing").mkdir(exist_ok=True)
        (run / "routing" / f"step-{step:05d}.npz").write_text(str(step))
    with pytest.raises(InputError, match="the run is not finished"):
        ship(run, asset)
    (run / "training.json").write_text("{}")
    with pytest.raises(InputError, match=r"kept no checkpoints.step-00100: step-00000, step-00200"):
        ship(run, tmp_path / "other", (100,))
    with pytest.raises(InputError, match=r"kept no routing.step-00100\.npz: step-00000\.npz, step-00200\.npz"):
        ship(run, tmp_path / "other", (200,), (0, 100))
    assert not (tmp_path / "other").exists()
    asset.mkdir()
    (asset / "README.md").write_text("a card")
    ship(run, asset, (200,), (0, 200))
    assert sorted(str(path.relative_to(asset)) for path in asset.rglob("*") if path.is_file()) == [
        "README.md",
        "checkpoints/step-00200/model.safetensors",
        "model.safetensors",
        "routing/step-00000.npz",
        "routing/step-00200.npz",
        "training.json",
    ]
    assert (asset / "model.safetensors").read_text() == "3500"
    assert (asset / "checkpoints" / "step-00200" / "model.safetensors").read_text() == "200"


def shared(one: SavedRouting, other: SavedRouting) -> float:
    """Share of each token's experts that both have."""
    return float(overlap_counts(one.indices, other.indices, one.experts).mean() / one.k)


@pytest.mark.parametrize("name", BUNDLED_DECODERS)
def test_bundled_decoders_answer_and_their_routing_is_that_of_their_weights(name: str) -> None:
    folder = BUNDLED_DECODERS[name]
    model = HookedModel.from_pretrained(model_source(f"bundled-{name}"), device="cpu")
    for whole in sorted((folder / "checkpoints").glob("step-*")):
        saved = load_routing(folder / "routing" / f"{whole.name}.npz")
        checkpoint = HookedModel.from_pretrained(str(whole), device="cpu")
        again = probe_routing(checkpoint, probe_questions(2), saved.step, batch=1)
        # Rounding differs between machines, so that a choice on the edge may too.
        assert shared(saved.of_questions(again.names), again) > 0.99
        other = load_routing(folder / "routing" / "step-00100.npz")
        assert shared(other.of_questions(again.names), again) < 0.9, "control: another checkpoint routes otherwise"
    records = questions(12)
    answers = [model.trace(record.images, record.question).answer for record in records]
    right = np.mean([answer.strip() == record.answer for answer, record in zip(answers, records, strict=True)])
    assert right >= 0.75, "trained weights: blind guesses are right a third of the time"


def test_all_bundled_decoders_take_no_more_than_sixteen_megabytes() -> None:
    files = [path for folder in BUNDLED_DECODERS.values() for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pth", ".pkl")]


@pytest.mark.parametrize("name", ["bundled-dots2", "bundled-"])
def test_a_bundled_model_that_is_none_is_refused_with_the_names(name: str) -> None:
    names = ", ".join(["bundled", "bundled-dots1", "bundled-nemotron-h", "bundled-nemotron-h-latent"])
    with pytest.raises(InputError, match=f"there are {names}$"):
        model_source(name)


def published() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((PUBLISHED / "metrics.json").read_text())
    return found


def test_published_losses_follow_from_the_published_effects() -> None:
    checked = 0
    for entry in published():
        if entry["name"] == "lost_without_target" and "seed" in entry:
            carried = load_carried(PUBLISHED / "by-run" / f"{entry['decoder']}-{entry['seed']}" / "carrying.npz")
            kept = [place for place, task in enumerate(carried.tasks) if task != GIVEAWAY]
            path = carried.paths.index(entry["path"])
            lost = [carried.effects[place, path, carried.targets[place]] for place in kept]
            assert entry["estimate"]["value"] == pytest.approx(float(np.mean(lost)))
            checked += 1
    assert checked > 10


def test_published_conclusions_follow_from_the_published_runs() -> None:
    entries = published()
    concluded = [entry for entry in entries if "by_seed" in entry]
    assert {entry["decoder"] for entry in concluded} >= {"dots1", "nemotron-h", "nemotron-h-latent"}
    right = {
        (entry["decoder"], entry["seed"]): entry["estimate"]["value"]
        for entry in entries
        if entry["name"] == "answer_accuracy" and entry["task"] is None
    }
    for entry in concluded:
        if "settle" not in entry["name"]:
            assert entry["estimate"] == mean([value for value in entry["by_seed"] if value is not None]).to_dict()
        if entry["name"] == "answers_minus_dense":
            gaps = [right[entry["decoder"], seed] - right["dense", 0] for seed in entry["seeds"]]
            assert entry["by_seed"] == pytest.approx(gaps)


def test_published_conclusions_are_those_of_each_seeds_own_entries() -> None:
    """Worked out once more from entries alone, without `studies.decoders.findings`."""
    entries, seen = published(), set()

    def own(name: str, told: dict[str, Any], seed: int, **more: Any) -> list[dict[str, Any]]:
        wanted = {"name": name, "decoder": told["decoder"], "seed": seed, **more}
        return [entry for entry in entries if all(entry.get(key) == value for key, value in wanted.items())]

    def again(told: dict[str, Any], seed: int) -> float | None:
        match told["name"]:
            case "last_minus_first_layer":
                looks = own("attention_accuracy", told, seed, layer_kind=told["kind"])
                layers = sorted((each for each in looks if each["layer"] is not None), key=lambda each: each["layer"])
                return float(layers[-1]["estimate"]["value"] - layers[0]["estimate"]["value"])
            case "lost_without_target":
                (entry,) = own("lost_without_target", told, seed, path=told["path"])
                return float(entry["estimate"]["value"])
            case "attention_minus_state_space":
                kinds = [own("attention_accuracy", told, seed, layer=None, layer_kind=kind)[0]
                         for kind in ("attention", "state space")]  # fmt: skip
                return float(kinds[0]["estimate"]["value"] - kinds[1]["estimate"]["value"])
            case "bits_above_chance":
                told_apart = own("specialisation", told, seed, label=told["label"])
                return float(np.mean([each["information"] - each["chance"] for each in told_apart]))
        (course,) = own("course", told, seed)
        bits = (np.array(course["information"]) - np.array(course["chance"])).mean(1)
        shared = np.array(course["overlap"]).mean(1)
        if told["name"] == "bits_at_first":
            return float(bits[0])
        values = bits if told["name"] == "bits_settle" else shared
        late = [step for at, step in enumerate(course["steps"])
                if (abs(values[at:] - values[-1]) <= 0.1 * abs(values[-1])).all()]  # fmt: skip
        return late[0] if late[0] < course["steps"][-1] else None

    for told in entries:
        if "by_seed" in told and told["name"] != "answers_minus_dense":
            expected = [again(told, seed) for seed in told["seeds"]]
            assert told["by_seed"] == [None if each is None else pytest.approx(each) for each in expected], told
            seen.add(told["name"])
    assert len(seen) == 7


def test_kinds_of_layers_are_held_against_their_own_knock_outs(hybrid: HookedModel) -> None:
    from probes.instruments.contributions import ATTENTION
    from probes.interventions import knockout_effects
    from studies.decoders.one_unit import agreements, line, read
    from studies.decoders.one_unit import questions as asked

    records = asked(3)
    assert len(records) == 3 and not {record.task for record in records} & {GIVEAWAY, "retrieval"}
    found = [read(hybrid, record) for record in records]
    entries = agreements("a model", found)
    assert {(entry["layer_kind"], entry["reading"]) for entry in entries} == {
        (kind, reading) for kind in (ATTENTION, "mamba2", "mixture of experts") for reading in ("nats", "slopes")
    }
    for each, record in zip(found, records, strict=True):
        own = knockout_effects(hybrid, Question(record.images, record.question), record.answer, [[1], [4], [7]])
        np.testing.assert_allclose(each.effects[ATTENTION], own, atol=1e-5)
    for entry in entries:
        assert entry["layers"] == 3 and entry["largest_completeness_error"] < 1e-4
        assert -1 <= entry["rank_correlation"]["value"] <= 1 and entry["rank_correlation"]["n"] == 3
        assert "a model" in line(entry)


def test_published_agreement_is_of_every_kind_of_layer_of_the_bundled_models() -> None:
    entries = json.loads((PUBLISHED / "one-unit.json").read_text())
    kinds = {(entry["model"], entry["layer_kind"]) for entry in entries}
    assert kinds >= {
        ("bundled", "attention"), ("bundled-dots1", "mixture of experts"), ("bundled-nemotron-h", "mamba2"),
        ("bundled-nemotron-h-latent", "mixture of experts"),
    }  # fmt: skip
    assert all(entry["largest_completeness_error"] < 1e-5 for entry in entries)
    page = (PUBLISHED.parents[1] / "README.md").read_text()
    for entry in entries:
        rank = Estimate.from_dict(entry["rank_correlation"])
        assert f"{rank.value:.2f} [{rank.low:.2f}, {rank.high:.2f}]" in page


def test_every_number_of_a_run_is_written() -> None:
    names = {entry["name"] for entry in run_entries(hand_made())}
    assert names == {
        "answer_accuracy", "attention_accuracy", "lost_without_target", "target_is_dearest", "specialisation", "course"
    }  # fmt: skip
