"""The study's machinery on seconds of it: pairs as set out, the recorded proxy, the frontier, what the numbers mean."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from trl import RewardConfig

from probes.inputs import InputError
from rewardmodels.loading import draw_head
from rewardmodels.model import RewardModel
from rewardmodels.objectives import make_objective
from rewardmodels.proxies import copied_branches
from rewardmodels.training import RewardTrainer
from rewardmodels.views import partners
from studies.shortcuts import grid
from studies.shortcuts.backbone import Teaching, copy_backbones, taught, untaught
from studies.shortcuts.command import ShortcutsConfig, run, settings_digest
from studies.shortcuts.environments import make_pairs, strengths
from studies.shortcuts.frontier import below_frontier, two_cue_accuracies
from studies.shortcuts.grid import Task, methods_of, missing, no_cue, path_of, read_cell, run_task, tasks
from studies.shortcuts.pictures import image_of, named_pictures, split_pictures
from studies.shortcuts.preparing import PreparedPairs, margins, without_tower
from studies.shortcuts.quick import run_quick
from studies.shortcuts.runs import TEST_SETS, _settings, prepare, train_method, train_proxy
from studies.shortcuts.settings import (
    BACKBONES,
    CONTROL_METHODS,
    CUES,
    ENVIRONMENTS,
    HEADLINE,
    LEARNABILITIES,
    METHODS,
    NO_CUE,
    PLACES,
    SEEDS,
    STARTING_METHODS,
    TEXT_ONLY,
    Sizes,
)

SMALL = Sizes(train_pairs=48, dev_pairs=20, test_pairs=24, batch=8)
STEPS = 24


@pytest.fixture(scope="module")
def start() -> RewardModel:
    reward = untaught()
    with torch.no_grad():
        for parameter in reward.model.parameters():
            parameter.mul_(2)
    return reward


def method(name: str) -> Any:
    return next(each for each in METHODS if each.name == name)


def test_pictures_are_split_by_picture_and_each_name_is_in_every_split() -> None:
    splits = split_pictures()
    paths = [picture.path for pictures in splits.values() for picture in pictures]
    assert len(paths) == len(set(paths)) == len(named_pictures()) > 600
    assert len({frozenset(picture.name for picture in pictures) for pictures in splits.values()}) == 1


def test_noise_is_each_draws_own_and_as_strong_as_asked() -> None:
    picture = split_pictures()["test"][0]
    clean, noisy, again = (np.asarray(image_of(picture, noise).open(), dtype=float) for noise in (0.0, 0.3, 0.3))
    assert np.array_equal(noisy, again)
    inside = (clean > 90) & (clean < 165)
    residual = (noisy - clean)[inside]
    assert residual.std() == pytest.approx(0.3 * 127.5, rel=0.1)
    other = np.asarray(image_of(picture, 0.3, (1,)).open(), dtype=float)
    assert abs(np.corrcoef((noisy - clean)[inside], (other - clean)[inside])[0, 1]) < 0.1


@given(st.sampled_from(ENVIRONMENTS), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 99))
def test_the_truth_is_in_the_picture_and_the_cues_in_the_text(environment: str, strength: float, seed: int) -> None:
    pictures = split_pictures()["dev"]
    names = {picture.path: picture.name for picture in pictures}
    for pair in make_pairs(pictures, 12, strengths(environment, strength), 0.0, (seed,), environment):
        words = {cue.words for cue in CUES}
        right, wrong = (_without(response.text, words) for response in (pair.chosen, pair.rejected))
        assert right == names[pair.cluster] != wrong
        assert wrong in set(names.values())
        cue = next(cue for cue in CUES if cue.name == environment)
        favours = (cue.words in pair.chosen.text) == cue.good
        assert pair.group == f"{environment}{'+' if favours else '-'}"
        assert strength == 0.5 or favours == bool(strength)
        for each in CUES:
            assert (each.words in pair.chosen.text) != (each.words in pair.rejected.text)


def _without(text: str, words: set[str]) -> str:
    for each in words:
        text = text.replace(each, "")
    return text.strip()


def test_cues_are_right_as_often_as_asked() -> None:
    pairs = make_pairs(split_pictures()["test"], 4000, strengths("hedge", 0.95), 0.0, (5,), "hedge")
    share = np.mean([pair.group == "hedge+" for pair in pairs])
    assert share == pytest.approx(0.95, abs=0.015)
    longer = np.mean(["What is in image" in pair.chosen.text for pair in pairs])
    assert longer == pytest.approx(0.5, abs=0.03)


def test_prepared_pairs_score_as_the_reward_model_does(start: RewardModel) -> None:
    pairs = make_pairs(split_pictures()["test"], 70, strengths("length", 0.9), 0.5, (1,))
    found = margins(start.model, PreparedPairs(start, pairs), batch=13)
    prompts = [pair.prompt for pair in pairs]
    chosen = np.array(start.get_scores(prompts, [pair.chosen for pair in pairs]))
    rejected = np.array(start.get_scores(prompts, [pair.rejected for pair in pairs]))
    assert np.allclose(found, chosen - rejected, atol=1e-5)
    assert np.abs(found).max() > 1e-3
    white = margins(start.model, PreparedPairs(start, pairs).blank())
    assert not np.allclose(white, found, atol=1e-4)
    alike = [place for place, pair in enumerate(pairs) if pair.chosen.text == pairs[0].chosen.text]
    texts = {(pairs[place].chosen.text, pairs[place].rejected.text): white[place] for place in alike}
    again = margins(start.model, PreparedPairs(start, pairs[:1]).blank())
    assert texts[(pairs[0].chosen.text, pairs[0].rejected.text)] == pytest.approx(float(again[0]), abs=1e-6)


@pytest.mark.parametrize(
    "name",
    ["SFC", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SFC^0.5", "1 - p", "product of experts"))],
)
def test_the_recorded_proxy_gives_the_losses_of_training_both_at_once(
    start: RewardModel, tmp_path: Path, name: str
) -> None:
    data = prepare(start, "length", 0.95, 0.0, 0, SMALL)
    reward = RewardModel(deepcopy(start.model), start.processor)
    draw_head(reward.model, 0)
    reward.model.model.vision_tower.requires_grad_(False)
    branches = copied_branches(reward.model)
    branches.proxy_classifier().model.vision_tower.requires_grad_(False)
    settings: RewardConfig = _settings(tmp_path, method(name), 0, SMALL, STEPS)
    # A recorded proxy and its model are clipped each by their own norm, a joint one together with it.
    settings.max_grad_norm = 0.0

    whole = PreparedPairs(start, data.train.pairs)

    def both(items: Any) -> dict[str, Any]:
        return {**whole(items), "proxy": _inputs_only(whole.blank()(items))}

    objective = make_objective(method(name).objective, **dict(method(name).options))
    trainer = RewardTrainer(reward, data.train.pairs, settings, objective=objective, branches=branches, collator=both)
    trainer.train()
    unclipped = SMALL.__class__(**{**SMALL.__dict__, "clip": 0.0})
    proxy = train_proxy(start, data, 0, unclipped, STEPS)
    recorded = train_method(start, data, method(name), 0, unclipped, proxy, STEPS)
    test = PreparedPairs(start, data.tests["hedge"].pairs)
    assert np.allclose(margins(reward.model, test), recorded.tests["hedge"][-1], atol=2e-4)
    plain = train_method(start, data, method("plain"), 0, unclipped, proxy, STEPS)
    assert not np.allclose(plain.tests["hedge"][-1], recorded.tests["hedge"][-1], atol=2e-3)


def _inputs_only(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in batch.items() if key not in ("group", "index")}


@pytest.mark.slow
def test_a_run_depends_on_its_seed_and_settings_only(start: RewardModel) -> None:
    data = prepare(start, "opening", 0.98, 0.0, 1, SMALL)
    first, again = (train_method(start, data, method("plain"), 1, SMALL, None, STEPS) for _ in range(2))
    assert np.array_equal(first.tests["opening"], again.tests["opening"])
    other = train_method(start, data, method("plain"), 2, SMALL, None, STEPS)
    assert not np.array_equal(first.tests["opening"], other.tests["opening"])


def test_what_needs_a_proxy_is_refused_without(start: RewardModel) -> None:
    data = prepare(start, "length", 0.98, 0.0, 0, SMALL)
    with pytest.raises(ValueError, match="margins of a proxy"):
        train_method(start, data, method("SFC"), 0, SMALL, None, STEPS)
    with pytest.raises(ValueError, match="as many steps"):
        train_method(start, data, method("SFC"), 0, SMALL, train_proxy(start, data, 0, SMALL, 20), STEPS)


def test_group_dro_runs_where_one_group_is_empty(start: RewardModel) -> None:
    data = prepare(start, "length", 1.0, 0.0, 0, SMALL)
    assert np.isfinite(train_method(start, data, method("group-DRO"), 0, SMALL, None, STEPS).loss).all()


def test_the_frontier_is_simulated_evidence_and_cue() -> None:
    rng = np.random.default_rng(0)
    ceiling, strength, ratio = 0.9, 0.95, 0.8
    evidence = stats.norm.ppf(ceiling) + rng.normal(size=400_000)
    for right, place in ((strength, 0), (0.5, 1)):
        cue = np.where(rng.random(400_000) < right, 1.0, -1.0)
        simulated = np.mean(evidence + ratio * cue > 0)
        assert float(two_cue_accuracies(ceiling, strength, ratio)[place]) == pytest.approx(simulated, abs=0.003)


def test_a_point_on_the_frontier_is_at_no_distance_and_one_below_it_is() -> None:
    home, away = two_cue_accuracies(0.92, 0.98, np.array([0.2, 0.7, 1.2]))
    assert np.allclose(below_frontier(0.92, 0.98, home, away), 0, atol=1e-6)
    assert np.allclose(below_frontier(0.92, 0.98, home, away - 0.1), 0.1, atol=1e-6)
    assert float(below_frontier(0.92, 0.98, 0.8, 0.9)) == pytest.approx(0.02)
    with pytest.raises(ValueError, match="ceiling"):
        two_cue_accuracies(1.0, 0.98, 0.0)


def test_each_place_has_its_ceiling_and_every_run_is_asked_for_once() -> None:
    every = tasks()
    assert len(every) == len(set(every))
    assert every[:4] == tasks(("headline",), SEEDS[:1])
    for task in every:
        if task.environment != NO_CUE:
            assert no_cue(task.place, task.seed) in every
    counted = {name: len({task.place for task in tasks((name,)) if task.environment != NO_CUE}) for name in PLACES}
    assert counted == {"headline": 1, "controls": 2, "start": 1, "map": 18}
    assert [each.name for each in methods_of(Task("blind", "noisier", 0.98, 400, "length", 1))] == list(CONTROL_METHODS)
    assert [each.name for each in methods_of(Task("unaligned", "clearer", 0.98, 800, "length", 1))] == list(
        STARTING_METHODS
    )


def test_chosen_methods_alone_are_run_with_what_they_are_compared_with() -> None:
    task = Task(*HEADLINE, "length", 1)
    assert grid.runs_of(task, ("SFC^0.5",)) == [TEXT_ONLY, "plain", "SFC^0.5"]
    assert grid.runs_of(task) == [TEXT_ONLY, *(each.name for each in METHODS)]
    assert grid.runs_of(no_cue(HEADLINE, 1), ("SFC",)) == ["plain"]
    assert grid.runs_of(task, ("SFC^0.6",)) == [TEXT_ONLY, "plain", "SFC^0.6"]
    assert "SFC^0.6" not in grid.runs_of(task)
    assert grid.runs_of(task._replace(backbone="blind"), ("image contrast",)) == [TEXT_ONLY, "plain", "image contrast"]
    assert {each.place for each in tasks(("lengths",)) if each.environment != NO_CUE} < set(PLACES["map"])
    assert all(each.strength < 1 for each in tasks(("fallible",)))


@pytest.mark.slow
def test_a_task_leaves_whole_runs_and_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("seeing", "blind"):
        untaught().save_pretrained(tmp_path / "backbones" / name)
    monkeypatch.setattr(grid, "METHODS", tuple(method(name) for name in ("plain", "SFC")))
    ceiling = Task("seeing", LEARNABILITIES[0].name, 0.5, STEPS, NO_CUE, 0)
    assert run_task(tmp_path, ceiling, SMALL) == ["plain"] and missing(tmp_path, ceiling) == []
    assert read_cell(tmp_path, ceiling.cell("plain")).tests["neutral"].shape == (2, 3 * SMALL.test_pairs)
    task = Task("seeing", LEARNABILITIES[0].name, 0.98, STEPS, "length", 0)
    assert missing(tmp_path, task) == [TEXT_ONLY, "plain", "SFC"]
    assert run_task(tmp_path, task, SMALL) == [TEXT_ONLY, "plain", "SFC"]
    before = read_cell(tmp_path, task.cell("SFC"))
    path_of(tmp_path, task.cell("SFC")).unlink()
    assert run_task(tmp_path, task, SMALL) == ["SFC"]
    again = read_cell(tmp_path, task.cell("SFC"))
    assert all(np.array_equal(before.tests[name], again.tests[name]) for name in before.tests)
    assert run_task(tmp_path, task, SMALL) == []
    assert not list(tmp_path.rglob(".tmp-*"))
    path_of(tmp_path, task.cell("SFC")).write_bytes(b"half")
    with pytest.raises(InputError, match="run the study again with --resume"):
        read_cell(tmp_path, task.cell("SFC"))


def test_test_sets_hold_what_they_are_called(start: RewardModel) -> None:
    sizes = replace(SMALL, test_pairs=200)
    data = prepare(start, "hedge", 0.9, 0.0, 3, sizes)
    assert set(data.tests) == set(TEST_SETS)

    def right(test: str, cue: str) -> float:
        pairs = data.tests[test].pairs
        return float(np.mean([_cue_is_right(pair, cue) for pair in pairs]))

    for test, cue, share in (
        ("hedge", "hedge", 0.9),
        ("hedge", "length", 0.5),
        ("length", "length", 0.9),
        ("length", "hedge", 0.5),
        ("opening", "opening", 0.9),
        ("reversed", "hedge", 0.1),
        ("neutral", "hedge", 0.5),
        ("blank", "hedge", 0.9),
    ):
        assert right(test, cue) == pytest.approx(share, abs=0.1), (test, cue)
    assert data.tests["blank"].pairs == data.tests["hedge"].pairs
    shown = [data.tests[name].inputs(np.arange(3))["pixel_values"] for name in ("hedge", "blank")]
    assert not torch.equal(*shown) and torch.equal(shown[1][0], shown[1][2])
    drawings = [{pair.cluster for pair in data.tests[name].pairs} for name in ("dev", "hedge")]
    assert not drawings[0] & drawings[1]


def _cue_is_right(pair: Any, cue: str) -> bool:
    words = next(each for each in CUES if each.name == cue)
    holds = [words.words.lower() in response.text.lower() for response in (pair.chosen, pair.rejected)]
    assert sum(holds) == 1, "one of the two carries the cue"
    return holds[0] == words.good


def test_code_that_changes_under_a_study_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task("seeing", "noisier", 0.98, STEPS, "length", 0)
    with pytest.raises(InputError, match="leave the code alone"):
        grid._run_one(("other", tmp_path, task, SMALL, ()))
    before = grid.code_digest()
    grid.code_digest.cache_clear()
    for name in ("rewardmodels", "studies/shortcuts"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "rewardmodels" / "one.py").write_text("1")
    (tmp_path / "studies" / "short_training.py").write_text("1")
    monkeypatch.setattr(grid, "SOURCE", tmp_path)
    changed = grid.code_digest()
    grid.code_digest.cache_clear()
    assert changed != before


def test_runs_without_the_tower_are_those_with_it(start: RewardModel) -> None:
    pairs = make_pairs(split_pictures()["test"], 30, strengths("length", 0.9), 0.5, (1,))
    kept = margins(without_tower(deepcopy(start.model)), PreparedPairs(start, pairs, "states"))
    assert np.allclose(kept, margins(start.model, PreparedPairs(start, pairs)), atol=1e-5)
    white = margins(without_tower(deepcopy(start.model)), PreparedPairs(start, pairs, "states").blank())
    assert np.allclose(white, margins(start.model, PreparedPairs(start, pairs).blank()), atol=1e-5)
    assert not np.allclose(kept, white, atol=1e-4)


def test_others_are_the_same_texts_with_another_pairs_image(start: RewardModel) -> None:
    pairs = make_pairs(split_pictures()["test"], 12, strengths("length", 0.9), 0.0, (1,))
    prepared = PreparedPairs(start, pairs).with_others(3)
    inputs = prepared.inputs(np.array([2, 5, 7]))
    partner = partners([1] * 12, [pair.cluster for pair in pairs], 3)
    alone = PreparedPairs(start, pairs)
    own, others = inputs["pixel_values"].chunk(2)
    assert torch.equal(own, alone.inputs(np.array([2, 5, 7]))["pixel_values"])
    swapped = alone.inputs(np.array([partner[place] for place in (2, 5, 7)]))["pixel_values"]
    assert torch.equal(others, swapped) and not torch.equal(others, own)
    assert torch.equal(inputs["input_ids"][:6], inputs["input_ids"][6:])


def test_the_bundled_backbones_are_what_they_are_called(tmp_path: Path) -> None:
    copy_backbones(tmp_path, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(BACKBONES)
    models = {name: RewardModel.from_pretrained(tmp_path / name, device="cpu") for name in BACKBONES}
    weights = {name: model.model.state_dict() for name, model in models.items()}

    def same(one: str, other: str, part: str) -> bool:
        return all(torch.equal(value, weights[other][key]) for key, value in weights[one].items() if part in key)

    assert same("seeing", "unaligned", "vision_tower") and not same("seeing", "unaligned", "language_model")
    assert same("blind", "unaligned", "language_model") and not same("blind", "unaligned", "vision_tower")
    pairs = make_pairs(split_pictures()["test"], 150, strengths("", 0.5), 0.0, (1,))
    right = {name: np.mean(margins(model.model, PreparedPairs(model, pairs)) > 0) for name, model in models.items()}
    assert right["seeing"] > 0.85
    assert max(right["unaligned"], right["blind"]) < 0.65


@pytest.mark.slow
def test_the_quick_table_is_of_its_own_margins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_quick(tmp_path, SMALL, steps=12) == 0
    written = json.loads((tmp_path / "quick.json").read_text())
    said = capsys.readouterr().out
    assert "no claim" in said and "SFC^0.7" in said and "nothing" in said
    assert list(written["accuracy"]) == [TEXT_ONLY, "plain", "SFC", "SFC^0.7"]
    for method, row in written["accuracy"].items():
        for test, estimate in row.items():
            right = np.array(written["margins"][method][test]) > 0
            assert estimate["value"] == pytest.approx(right.mean()) and estimate["n"] == SMALL.test_pairs
    margins_of = written["margins"]
    assert margins_of["plain"] != margins_of["SFC"] != margins_of["SFC^0.7"]
    assert margins_of[TEXT_ONLY]["as in training"] == margins_of[TEXT_ONLY]["as in training, images blank"]


@pytest.mark.slow
def test_teaching_teaches() -> None:
    teaching = Teaching(tower_steps=60, tower_batch=32, pair_steps=40, pair_batch=16, views=2)
    said: list[str] = []
    reward = taught(teaching, said.append)
    assert type(reward.model).__name__ == "LlavaForSequenceClassification"
    first, last = untaught().model.state_dict(), reward.model.state_dict()
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert any("vision_tower" in name for name in moved) and any("language_model" in name for name in moved)


def test_the_command_refuses_what_the_study_does_not_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--seeds"):
        run(ShortcutsConfig(tmp_path / "a", seeds=9))
    with pytest.raises(InputError, match="nothing to resume"):
        run(ShortcutsConfig(tmp_path / "a", resume=True))
    with pytest.raises(InputError, match="'sfc': there are 'plain'"):
        run(ShortcutsConfig(tmp_path / "a", methods=("sfc",)))
    with pytest.raises(InputError, match="leave --parts out"):
        run(ShortcutsConfig(tmp_path / "a", attempt="faster", parts=("start",)))
    with pytest.raises(InputError, match="--out alone"):
        run(ShortcutsConfig(tmp_path / "a", quick=True, seeds=2))
    (tmp_path / "c" / "backbones").mkdir(parents=True)
    with pytest.raises(InputError, match="leave --teach out"):
        run(ShortcutsConfig(tmp_path / "c", teach=True))
    from probes.files import write_json

    write_json(tmp_path / "b" / "manifest.json", {"study": "shortcuts", "digest": "other"})
    with pytest.raises(InputError, match="holds this study already"):
        run(ShortcutsConfig(tmp_path / "b"))
    with pytest.raises(InputError, match="other settings"):
        run(ShortcutsConfig(tmp_path / "b", resume=True))
    before = settings_digest()
    monkeypatch.setattr("studies.shortcuts.settings.STOPS", (1.0,))
    assert settings_digest() != before
