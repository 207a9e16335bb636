"""The study's machinery on seconds of it: pairs as set out, the recorded proxy, the frontier, what the numbers mean."""

import json
from copy import deepcopy
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
from studies.shortcuts import grid, summary
from studies.shortcuts.backbone import Teaching, taught, untaught
from studies.shortcuts.command import ShortcutsConfig, run, settings_digest
from studies.shortcuts.environments import make_pairs, strengths
from studies.shortcuts.frontier import below_frontier, two_cue_accuracies
from studies.shortcuts.grid import Task, missing, path_of, read_cell, run_task, tasks
from studies.shortcuts.pictures import image_of, named_pictures, split_pictures
from studies.shortcuts.preparing import PreparedPairs, margins
from studies.shortcuts.runs import _settings, prepare, train_method, train_proxy
from studies.shortcuts.settings import CUES, ENVIRONMENTS, LEARNABILITIES, METHODS, SEEDS, TEXT_ONLY, Sizes
from studies.shortcuts.summary import Condition, summarise, transfer

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


@pytest.mark.parametrize("name", ["SFC", "SFC^0.5", "1 - p", "product of experts"])
def test_the_recorded_proxy_gives_the_losses_of_training_both_at_once(
    start: RewardModel, tmp_path: Path, name: str
) -> None:
    data = prepare(start, "length", 0.95, 0.0, 0, SMALL)
    proxy = train_proxy(start, data, 0, SMALL, STEPS)
    recorded = train_method(start, data, method(name), 0, SMALL, proxy, STEPS)
    reward = RewardModel(deepcopy(start.model), start.processor)
    draw_head(reward.model, 0)
    reward.model.model.vision_tower.requires_grad_(False)
    branches = copied_branches(reward.model)
    branches.proxy_classifier().model.vision_tower.requires_grad_(False)
    settings: RewardConfig = _settings(tmp_path, method(name), 0, SMALL, STEPS)
    # Each branch's gradients were clipped by their own norm.
    settings.max_grad_norm = 0.0

    def both(items: Any) -> dict[str, Any]:
        return {**data.train(items), "proxy": _inputs_only(data.train.blank()(items))}

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


def made_cells(folder: Path, seeds: int = 2) -> None:
    """Cells with known margins: the text-only model follows the cue, the method is right where a coin says so."""
    rng = np.random.default_rng(0)
    for task in tasks(("seeing",), SEEDS[:seeds], (0.98,)):
        for name in (TEXT_ONLY, "plain"):
            tests = {
                test: rng.normal(0.4, 1, (2, 30)).astype(np.float32)
                for test in ("dev", *ENVIRONMENTS, "reversed", "blank", "neutral")
            }
            arrays: dict[str, Any] = {"stops": np.array([0.5, 1.0]), "loss": np.zeros(2)}
            arrays |= {f"margins.{key}": value for key, value in tests.items()}
            arrays |= {f"clusters.{key}": np.array([f"p{at % 7}" for at in range(30)]) for key in tests}
            path = path_of(folder, task.cell(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **arrays)
    ceiling = {"value": 0.93, "n": 100, "low": 0.9, "high": 0.95}
    from probes.files import write_json

    write_json(folder / "ceilings.json", {each.name: {"seeing": ceiling} for each in LEARNABILITIES})


def test_summaries_are_what_a_loop_over_the_cells_gives(tmp_path: Path) -> None:
    made_cells(tmp_path)
    learnability = LEARNABILITIES[0].name
    condition = Condition("seeing", learnability, 0.98, 300)
    found = summarise(tmp_path, condition, "plain", (0, 1))
    home: list[float] = []
    away: list[float] = []
    right: list[bool] = []
    by_text: list[bool] = []
    for seed in (0, 1):
        for train in ENVIRONMENTS:
            task = Task("seeing", learnability, 0.98, 300, train, seed)
            stored = read_cell(tmp_path, task.cell("plain")).tests
            text = read_cell(tmp_path, task.cell(TEXT_ONLY)).tests
            for test in ENVIRONMENTS:
                hits = stored[test][1] > 0
                (home if test == train else away).append(hits.mean())
                if test != train:
                    right += list(hits)
                    by_text += list(text[test][1] > 0)
    assert found.iid.value == pytest.approx(np.mean(home))
    assert found.ood.value == pytest.approx(np.mean(away))
    gap = 100 * (
        np.mean([r for r, t in zip(right, by_text, strict=True) if t])
        - np.mean([r for r, t in zip(right, by_text, strict=True) if not t])
    )
    assert found.degradation.value == pytest.approx(gap)
    assert found.degradation.n_plus == sum(by_text)
    assert found.pairs == 2 * 3 * 30
    assert transfer(tmp_path, condition, "plain", (0, 1)).shape == (2, 3, 3)
    shorter = summarise(tmp_path, Condition("seeing", learnability, 0.98, 300, 0.5), "plain", (0, 1))
    assert shorter.iid.value != found.iid.value
    at_home, elsewhere = summary.compare(tmp_path, condition, "plain", "plain", (0, 1))
    assert at_home.value == elsewhere.value == 0


def test_the_report_holds_complete_places_and_names_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from studies.shortcuts import report
    from studies.shortcuts.report import print_summaries, write_metrics

    made_cells(tmp_path)
    monkeypatch.setattr(grid, "METHODS", (method("plain"),))
    monkeypatch.setattr(report, "STOPS", (0.5, 1.0))
    wanted = tasks(("seeing",), SEEDS[:2], (0.95, 0.98))
    found = write_metrics(tmp_path, wanted)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert len(found) == 2 * 3 * 2 and len(content["rows"]) == 2 * len(found)
    assert {row["strength"] for row in content["rows"]} == {0.98}
    assert {each["strength"] for each in content["unfinished"]} == {0.95}
    row = next(row for row in content["rows"] if row["method"] == "plain" and row["stop"] == 1.0)
    assert row["ood_gain"]["value"] == 0 and row["seeds"] == [0, 1]
    print_summaries(found)
    assert "o.o.d." in capsys.readouterr().out


def test_a_task_leaves_whole_runs_and_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("seeing", "blind"):
        untaught().save_pretrained(tmp_path / "backbones" / name)
    monkeypatch.setattr(grid, "METHODS", tuple(method(name) for name in ("plain", "SFC")))
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


def test_teaching_teaches() -> None:
    teaching = Teaching(tower_steps=60, tower_batch=32, pair_steps=40, pair_batch=16, views=2)
    said: list[str] = []
    reward = taught(teaching, said.append)
    assert type(reward.model).__name__ == "LlavaForSequenceClassification"
    first, last = untaught().model.state_dict(), reward.model.state_dict()
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert any("vision_tower" in name for name in moved) and any("language_model" in name for name in moved)


def test_the_command_refuses_what_the_study_does_not_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--strengths"):
        run(ShortcutsConfig(tmp_path / "a", strengths=(0.9,)))
    with pytest.raises(InputError, match="--seeds"):
        run(ShortcutsConfig(tmp_path / "a", seeds=9))
    with pytest.raises(InputError, match="nothing to resume"):
        run(ShortcutsConfig(tmp_path / "a", resume=True))
    from probes.files import write_json

    write_json(tmp_path / "b" / "manifest.json", {"study": "shortcuts", "digest": "other"})
    with pytest.raises(InputError, match="holds this study already"):
        run(ShortcutsConfig(tmp_path / "b"))
    with pytest.raises(InputError, match="other settings"):
        run(ShortcutsConfig(tmp_path / "b", resume=True))
    before = settings_digest()
    monkeypatch.setattr("studies.shortcuts.settings.STOPS", (1.0,))
    assert settings_digest() != before
