"""The study's machinery on seconds of it: pairs as set out, the recorded proxy, the frontier, what the numbers mean."""

import json
from collections.abc import Sequence
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

from probes.estimates import Estimate
from probes.inputs import InputError
from rewardmodels.loading import draw_head
from rewardmodels.model import RewardModel
from rewardmodels.objectives import make_objective
from rewardmodels.proxies import copied_branches
from rewardmodels.training import RewardTrainer
from rewardmodels.views import partners
from studies.shortcuts import grid, settings, summary
from studies.shortcuts.backbone import Teaching, copy_backbones, taught, untaught
from studies.shortcuts.command import ShortcutsConfig, run, settings_digest, wanted
from studies.shortcuts.environments import make_pairs, strengths
from studies.shortcuts.figures import write_figures
from studies.shortcuts.frontier import below_frontier, two_cue_accuracies
from studies.shortcuts.grid import Task, methods_of, missing, no_cue, path_of, read_cell, run_task, tasks
from studies.shortcuts.pictures import image_of, named_pictures, split_pictures
from studies.shortcuts.preparing import PreparedPairs, margins, without_tower
from studies.shortcuts.quick import run_quick
from studies.shortcuts.report import complete, print_summaries, print_verdict, write_metrics
from studies.shortcuts.runs import TEST_SETS, _settings, prepare, train_method, train_proxy
from studies.shortcuts.settings import (
    BACKBONES,
    CONTROL_METHODS,
    CUES,
    ENVIRONMENTS,
    EXPONENTS,
    HEADLINE,
    LEARNABILITIES,
    METHODS,
    NO_CUE,
    PLACES,
    SEEDS,
    STARTING_METHODS,
    TEXT_ONLY,
    Place,
    Sizes,
)
from studies.shortcuts.summary import Condition, summarise, transfer
from studies.shortcuts.verdict import Gain, chosen_exponent, gain, verdict

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


def made_cells(folder: Path, place: Place = HEADLINE, seeds: Sequence[int] = (1, 2)) -> None:
    """Cells with known margins: the methods differ by how far their margins lie above 0."""
    rng = np.random.default_rng(0)
    shift = {TEXT_ONLY: 0.4, "plain": 0.4, "SFC": 1.0, "SFC, normalised": 1.0, "SFC^0.7": 0.5, "SFC^0.5": 0.45}
    for task in tasks(("headline",), seeds):
        there = task._replace(
            backbone=place.backbone, learnability=place.learnability, strength=place.strength, steps=place.steps
        )
        if task.environment == NO_CUE:
            write_made(folder, no_cue(place, task.seed), "plain", {"neutral": rng.normal(1.5, 1, (2, 90))})
            continue
        for name, above in shift.items():
            tests = {test: rng.normal(above, 1, (2, 30)) for test in TEST_SETS}
            write_made(folder, there, name, tests)


def write_made(folder: Path, task: Task, name: str, tests: dict[str, Any]) -> None:
    arrays: dict[str, Any] = {"stops": np.array([0.25, 1.0]), "loss": np.zeros(2)}
    arrays |= {f"margins.{key}": value.astype(np.float32) for key, value in tests.items()}
    arrays |= {
        f"clusters.{key}": np.array([f"p{at % 7}" for at in range(value.shape[1])]) for key, value in tests.items()
    }
    path = path_of(folder, task.cell(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def test_summaries_are_what_a_loop_over_the_cells_gives(tmp_path: Path) -> None:
    made_cells(tmp_path)
    condition = Condition(*HEADLINE)
    found = summarise(tmp_path, condition, "plain", (1, 2))
    home: list[float] = []
    away: list[float] = []
    right: list[bool] = []
    by_text: list[bool] = []
    ceilings = []
    for seed in (1, 2):
        ceilings.append(np.mean(read_cell(tmp_path, no_cue(HEADLINE, seed).cell("plain")).tests["neutral"][1] > 0))
        for train in ENVIRONMENTS:
            task = Task(*HEADLINE, train, seed)
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
    assert found.ceiling.value == pytest.approx(np.mean(ceilings))
    gap = 100 * (
        np.mean([r for r, t in zip(right, by_text, strict=True) if t])
        - np.mean([r for r, t in zip(right, by_text, strict=True) if not t])
    )
    assert found.degradation.value == pytest.approx(gap)
    assert found.degradation.n_plus == sum(by_text)
    assert found.pairs == 2 * 3 * 30
    assert transfer(tmp_path, condition, "plain", (1, 2)).shape == (2, 3, 3)
    shorter = summarise(tmp_path, replace(condition, stop=0.25), "plain", (1, 2))
    assert shorter.iid.value != found.iid.value
    at_home, elsewhere = summary.compare(tmp_path, (condition, "plain"), (condition, "plain"), (1, 2))
    assert at_home.value == elsewhere.value == 0


def test_the_exponent_is_the_largest_that_dev_pictures_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_cells(tmp_path)
    condition, seeds = Condition(*HEADLINE), (1, 2)
    plain = summarise(tmp_path, condition, "plain", seeds).dev.value
    losses = [plain - summarise(tmp_path, condition, name, seeds).dev.value for name in EXPONENTS]
    assert len(set(losses)) == 3
    for allowed in (-1.0, *losses, 1.0):
        monkeypatch.setattr("studies.shortcuts.verdict.LARGEST_DEV_LOSS", allowed)
        fitting = [name for name, loss in zip(EXPONENTS, losses, strict=True) if loss <= allowed]
        assert chosen_exponent(tmp_path, condition, seeds) == (fitting or EXPONENTS)[-1 if fitting else 0]


def test_exponents_between_are_chosen_among_once_all_were_run(tmp_path: Path) -> None:
    made_cells(tmp_path)
    asked, here = tasks(("headline",), (1, 2)), Condition(*HEADLINE)
    before = verdict(tmp_path, complete(tmp_path, asked))
    assert before is not None and before.headline.chosen_finer is None and before.headline.chosen is not None
    rng = np.random.default_rng(1)
    for name in ("SFC^0.55", "SFC^0.6", "SFC^0.65"):
        for task in asked:
            if task.environment != NO_CUE:
                write_made(tmp_path, task, name, {test: rng.normal(0.5, 1, (2, 30)) for test in TEST_SETS})
    found = verdict(tmp_path, complete(tmp_path, asked))
    assert found is not None and found.headline.chosen_finer is not None
    assert found.headline.chosen == before.headline.chosen
    best = chosen_exponent(tmp_path, here, (1, 2), settings.FINER_EXPONENTS)
    assert found.headline.chosen_finer == gain(tmp_path, here, best, (1, 2))


def test_the_verdict_holds_gains_against_the_bars() -> None:
    def change(home: float, low: float) -> Gain:
        return Gain("SFC", Estimate(home, 5, home - 0.01, home + 0.01), Estimate(low + 0.02, 5, low, low + 0.04))

    assert change(-0.05, 0.1).reaches(0.05) and change(-0.05, 0.1).helps
    assert not change(-0.051, 0.1).reaches(0.05)
    assert not change(-0.01, 0.099).reaches(0.05)
    assert not change(0.0, -0.01).helps


def test_the_report_holds_complete_places_and_names_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = HEADLINE._replace(strength=0.95)
    made_cells(tmp_path)
    made_cells(tmp_path, other, (1,))
    monkeypatch.setattr(grid, "METHODS", tuple(method(name) for name in ("plain", "SFC", *EXPONENTS)))
    unfinished = HEADLINE._replace(strength=0.95, steps=800)
    monkeypatch.setattr(grid, "PLACES", {"headline": (HEADLINE,), "map": (other, unfinished)})
    asked = tasks(("headline", "map"), (1, 2))
    found, judged = write_metrics(tmp_path, asked)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert len(content["rows"]) == 2 * len(found) == 2 * 2 * 6
    every = [TEXT_ONLY, "plain", "SFC", *EXPONENTS]
    assert set(content["unfinished"]) == {Condition(*unfinished).label, Condition(*other).label}
    assert set(content["unfinished"][Condition(*unfinished).label]) == set(every)
    rows = [row for row in content["rows"] if row["method"] == "plain" and row["stop"] == 1.0]
    assert [row["seeds"] for row in rows] == [[1, 2], [1]]
    assert all(row["ood_gain"]["value"] == 0 for row in rows)
    assert judged is not None and set(judged.helping) == {Condition(*HEADLINE).label, Condition(*other).label}
    assert judged.headline.published.ood.value > 0.05
    drawn = write_figures(tmp_path, found)
    assert sorted(path.name for path in drawn) == [
        "map.png",
        "seeing-noisier-0.95-400.png",
        "seeing-noisier-0.98-400.png",
        "transfer-SFC.png",
        "transfer-SFC0.7.png",
        "transfer-plain.png",
    ]
    assert all(path.stat().st_size > 5000 for path in drawn)
    print_summaries(found)
    print_verdict(judged)
    said = capsys.readouterr().out
    assert "o.o.d." in said and "of 2 places measured" in said


def test_without_the_headline_there_is_no_verdict(tmp_path: Path) -> None:
    assert verdict(tmp_path, {Condition(*HEADLINE._replace(strength=0.95)): {"SFC": ()}}) is None


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
    assert grid.runs_of(task._replace(strength=1.0), ("SFC^0.6",)) == [TEXT_ONLY, "plain"]
    assert "SFC^0.6" not in grid.runs_of(task)
    assert grid.runs_of(task._replace(backbone="blind"), ("image contrast",)) == [TEXT_ONLY, "plain"]
    assert {each.place for each in tasks(("lengths",)) if each.environment != NO_CUE} < set(PLACES["map"])
    assert all(each.strength < 1 for each in tasks(("fallible",)))


def test_an_attempt_is_one_place_with_sizes_of_its_own_and_shares_no_folder(tmp_path: Path) -> None:
    faster, scarcer = settings.ATTEMPTS["faster"], settings.ATTEMPTS["scarcer"]
    assert len({settings_digest(), settings_digest(faster), settings_digest(scarcer)}) == 3
    found = wanted(ShortcutsConfig(tmp_path, seeds=2, attempt="scarcer"))
    assert {task.place for task in found if task.environment != NO_CUE} == {scarcer.place}
    assert {task.seed for task in found} == {1, 2} and len(found) == 2 * (len(ENVIRONMENTS) + 1)
    made_cells(tmp_path, scarcer.place)
    _, judged = write_metrics(tmp_path, found, scarcer.place)
    assert judged is not None and list(judged.places) == [Condition(*scarcer.place)]
    assert write_metrics(tmp_path, found)[1] is None
    with pytest.raises(InputError, match="there are faster, scarcer"):
        run(ShortcutsConfig(tmp_path / "new", attempt="better"))
    with pytest.raises(InputError, match="'sfc': there are 'plain'"):
        run(ShortcutsConfig(tmp_path / "new", methods=("sfc",)))


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


def test_teaching_teaches() -> None:
    teaching = Teaching(tower_steps=60, tower_batch=32, pair_steps=40, pair_batch=16, views=2)
    said: list[str] = []
    reward = taught(teaching, said.append)
    assert type(reward.model).__name__ == "LlavaForSequenceClassification"
    first, last = untaught().model.state_dict(), reward.model.state_dict()
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert any("vision_tower" in name for name in moved) and any("language_model" in name for name in moved)


def test_the_command_refuses_what_the_study_does_not_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--parts maps: there are headline"):
        run(ShortcutsConfig(tmp_path / "a", parts=("maps",)))
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
