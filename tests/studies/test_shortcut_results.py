"""What the study's numbers mean: summaries by a loop over made cells, gains, choices, controls, report and figures."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.estimates import Estimate, difference, mean
from probes.inputs import InputError
from studies.fixed_study import hold_inputs
from studies.shortcuts import grid, settings, summary
from studies.shortcuts.command import ShortcutsConfig, inputs_of, settings_digest, wanted
from studies.shortcuts.figures import MAPPED, write_figures
from studies.shortcuts.frontier import below_frontier
from studies.shortcuts.grid import Task, no_cue, path_of, read_cell, tasks
from studies.shortcuts.packing import CELLS, publish, unpack
from studies.shortcuts.printing import print_controls, print_summaries, print_verdict
from studies.shortcuts.report import complete, unfinished, write_metrics
from studies.shortcuts.runs import TEST_SETS
from studies.shortcuts.settings import (
    ENVIRONMENTS,
    EXPONENTS,
    HEADLINE,
    METHODS,
    NO_CUE,
    TEXT_ONLY,
    Place,
)
from studies.shortcuts.summary import Condition, Summary, summarise, transfer
from studies.shortcuts.verdict import (
    Gain,
    chosen_exponent,
    chosen_without_proxy,
    controls,
    gain,
    gain_of_stopping,
    stopped,
    verdict,
)
from viz import rewards

STUDY = Path(__file__).parents[2] / "docs" / "study" / "shortcuts"
SHIFTS = {
    TEXT_ONLY: 0.4,
    "plain": 0.4,
    "half rate": 0.7,
    "SFC": 1.2,
    "SFC, normalised": 1.0,
    "SFC^0.7": 0.5,
    "SFC^0.5": 0.45,
}
"""How far a made method's margins lie above 0."""
HERE = Condition(*HEADLINE)


def made_cells(folder: Path, place: Place = HEADLINE, seeds: Sequence[int] = (1, 2)) -> None:
    """Cells with known margins, other ones in each test set, environment, seed and share of the training."""
    rng = np.random.default_rng(0)
    for task in grid.tasks_at((place,), seeds):
        if task.environment == NO_CUE:
            shifts = np.array([[0.9], [1.6]]) + 0.1 * task.seed
            write_made(folder, task, "plain", {"neutral": rng.normal(0, 1, (2, 90)) + shifts})
            continue
        for name, above in SHIFTS.items():
            tests = {
                test: rng.normal(0, 1, (2, 30)) + np.array([[0.5 * above], [above]]) + 0.15 * at - 0.2 * task.seed
                for at, test in enumerate(TEST_SETS)
            }
            tests[task.environment] += 0.6
            write_made(folder, task, name, tests)


def write_made(folder: Path, task: Task, name: str, tests: dict[str, Any]) -> None:
    arrays: dict[str, Any] = {"stops": np.array([0.25, 1.0]), "loss": np.zeros(2)}
    arrays |= {f"margins.{key}": value.astype(np.float32) for key, value in tests.items()}
    arrays |= {
        f"clusters.{key}": np.array([f"p{at % 7}" for at in range(value.shape[1])]) for key, value in tests.items()
    }
    path = path_of(folder, task.cell(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def hits(folder: Path, seed: int, environment: str, method: str, test: str, stop: int) -> Any:
    """Which pairs a run ranks right, read by itself; no margin is 0."""
    return read_cell(folder, Task(*HEADLINE, environment, seed).cell(method)).tests[test][stop] > 0


def by_loop(folder: Path, method: str, stop: int, seeds: Sequence[int]) -> dict[str, list[float]]:
    """Every number of a summary, seed by seed."""
    found: dict[str, list[float]] = {
        name: [] for name in ("dev", "iid", "ood", "reversed", "blank", "neutral", "degradation", "ceiling", "below")
    }
    for seed in seeds:
        home, away, by_text, right = [], [], [], []
        for train in ENVIRONMENTS:
            home.append(hits(folder, seed, train, method, train, stop).mean())
            for test in ENVIRONMENTS:
                if test != train:
                    away.append(hits(folder, seed, train, method, test, stop).mean())
                    right.append(hits(folder, seed, train, method, test, stop))
                    by_text.append(hits(folder, seed, train, TEXT_ONLY, test, stop))
        for name in ("dev", "reversed", "neutral"):
            found[name].append(np.mean([hits(folder, seed, each, method, name, stop).mean() for each in ENVIRONMENTS]))
        blank = np.mean([hits(folder, seed, each, method, "blank", stop).mean() for each in ENVIRONMENTS])
        found["iid"].append(float(np.mean(home)))
        found["ood"].append(float(np.mean(away)))
        found["blank"].append(float(np.mean(home) - blank))
        ranked, text = np.concatenate(right), np.concatenate(by_text)
        found["degradation"].append(float(100 * (ranked[text].mean() - ranked[~text].mean())))
        ceiling = read_cell(folder, no_cue(HEADLINE, seed).cell("plain")).tests["neutral"][stop]
        found["ceiling"].append(float((ceiling > 0).mean()))
        found["below"].append(
            float(below_frontier(found["ceiling"][-1], HEADLINE.strength, found["iid"][-1], found["ood"][-1]))
        )
    return found


@pytest.mark.parametrize(("stop", "share"), [(0, 0.25), (1, 1.0)])
def test_summaries_are_what_a_loop_over_the_cells_gives(tmp_path: Path, stop: int, share: float) -> None:
    made_cells(tmp_path, seeds=(1, 2, 3))
    found = summarise(tmp_path, replace(HERE, stop=share), "SFC^0.7", (1, 2, 3))
    wanted_ = by_loop(tmp_path, "SFC^0.7", stop, (1, 2, 3))
    assert len({round(float(np.mean(values)), 6) for values in wanted_.values()}) == len(wanted_), "unlike values"
    for name, values in wanted_.items():
        estimate = getattr(found, "below_frontier" if name == "below" else name)
        over = mean(values)
        assert estimate.value == pytest.approx(over.value, abs=1e-6), name
        assert estimate.low == pytest.approx(max(over.low, 0.0) if name in ("dev", "iid") else over.low, abs=1e-6), name
        assert estimate.n == 3
    text = [hits(tmp_path, seed, train, TEXT_ONLY, test, stop) for seed in (1, 2, 3) for train in ENVIRONMENTS
            for test in ENVIRONMENTS if test != train]  # fmt: skip
    assert (found.degradation.n_plus, found.degradation.n_minus) == (
        int(np.sum(text)),
        int(np.size(text) - np.sum(text)),
    )
    assert found.pairs == 3 * 3 * 30
    matrix = transfer(tmp_path, HERE, "SFC^0.7", (1, 2, 3))
    assert matrix.shape == (3, 3, 3)
    assert matrix[1, 0, 2] == hits(tmp_path, 2, ENVIRONMENTS[0], "SFC^0.7", ENVIRONMENTS[2], 1).mean()


def test_gains_are_paired_differences_at_home_and_elsewhere(tmp_path: Path) -> None:
    made_cells(tmp_path, seeds=(1, 2, 3))
    plain, sfc = (by_loop(tmp_path, name, 1, (1, 2, 3)) for name in ("plain", "SFC"))
    found = gain(tmp_path, HERE, "SFC", (1, 2, 3))
    assert found.iid.value == pytest.approx(difference(sfc["iid"], plain["iid"]).value)
    assert found.ood.value == pytest.approx(difference(sfc["ood"], plain["ood"]).value)
    assert found.ood.low == pytest.approx(difference(sfc["ood"], plain["ood"]).low)
    assert found.iid.value != pytest.approx(found.ood.value)
    early = by_loop(tmp_path, "half rate", 0, (1, 2, 3))
    halted = gain_of_stopping(tmp_path, HERE, "half rate", (1, 2, 3))
    assert halted.method == stopped("half rate")
    assert halted.ood.value == pytest.approx(np.mean(early["ood"]) - np.mean(plain["ood"]))
    assert halted.iid.value == pytest.approx(np.mean(early["iid"]) - np.mean(plain["iid"]))


def test_the_verdict_judges_by_hand_made_numbers(tmp_path: Path) -> None:
    made_cells(tmp_path, seeds=(1, 2, 3))
    judged = verdict(tmp_path, complete(tmp_path, tasks(("headline",), (1, 2, 3))))
    assert judged is not None
    plain, sfc = (by_loop(tmp_path, name, 1, (1, 2, 3)) for name in ("plain", "SFC"))
    beyond = mean(np.array(sfc["degradation"]) - np.array(plain["degradation"]) / 2)
    assert judged.headline.beyond_half.value == pytest.approx(beyond.value)
    assert judged.headline.halves == (beyond.high <= 0)
    early = by_loop(tmp_path, "half rate", 0, (1, 2, 3))
    against = {change.against: change for change in judged.headline.against_stopped}
    assert set(against) == {stopped("plain"), stopped("half rate")}
    assert against[stopped("half rate")].ood.value == pytest.approx(np.mean(sfc["ood"]) - np.mean(early["ood"]))
    for seed in (2, 3):
        path_of(tmp_path, Task(*HEADLINE, "hedge", seed).cell("half rate")).unlink()
    judged = verdict(tmp_path, complete(tmp_path, tasks(("headline",), (1, 2, 3))))
    assert judged is not None and judged.headline.chosen_without_proxy is None, "one seed has no interval"
    assert [change.against for change in judged.headline.against_stopped] == [stopped("plain")]


def test_the_exponent_is_the_largest_that_dev_pictures_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_cells(tmp_path)
    seeds = (1, 2)
    plain = np.mean(by_loop(tmp_path, "plain", 1, seeds)["dev"])
    losses = [float(plain - np.mean(by_loop(tmp_path, name, 1, seeds)["dev"])) for name in EXPONENTS]
    assert len(set(losses)) == 3
    for allowed in (-1.0, *(loss + 1e-9 for loss in losses), 1.0):
        monkeypatch.setattr("studies.shortcuts.verdict.LARGEST_DEV_LOSS", allowed)
        fitting = [name for name, loss in zip(EXPONENTS, losses, strict=True) if loss <= allowed]
        assert chosen_exponent(tmp_path, HERE, seeds) == (fitting[-1] if fitting else None)


def test_rate_and_stop_without_a_proxy_spend_most_of_the_same_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_cells(tmp_path)
    seeds = (1, 2)
    dev = {
        (stop, name): float(np.mean(by_loop(tmp_path, name, at, seeds)["dev"]))
        for at, stop in enumerate((0.25, 1.0))
        for name in ("plain", "half rate")
    }
    losses = {each: dev[1.0, "plain"] - value for each, value in dev.items()}
    assert len(set(losses.values())) == 4
    chosen = set()
    for allowed in (0.0, *(loss + 1e-9 for loss in losses.values() if loss > 0), 1.0):
        monkeypatch.setattr("studies.shortcuts.verdict.LARGEST_DEV_LOSS", allowed)
        stop, name = max((each for each in dev if losses[each] <= allowed), key=lambda each: losses[each])
        assert chosen_without_proxy(tmp_path, HERE, seeds) == (replace(HERE, stop=stop), name)
        judged = verdict(tmp_path, complete(tmp_path, tasks(("headline",), seeds)))
        assert judged is not None and judged.headline.chosen_without_proxy is not None
        found = judged.headline.chosen_without_proxy
        assert found.method == (name if stop == 1.0 else stopped(name))
        away = by_loop(tmp_path, name, (0.25, 1.0).index(stop), seeds)["ood"]
        assert found.ood.value == pytest.approx(
            np.mean(away) - np.mean(by_loop(tmp_path, "plain", 1, seeds)["ood"]), abs=1e-9
        )
        chosen.add((stop, name))
    assert len(chosen) > 1


def test_exponents_between_are_chosen_among_once_all_were_run(tmp_path: Path) -> None:
    made_cells(tmp_path)
    asked = tasks(("headline",), (1, 2))
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
    best = chosen_exponent(tmp_path, HERE, (1, 2), settings.FINER_EXPONENTS)
    assert best is not None and found.headline.chosen_finer == gain(tmp_path, HERE, best, (1, 2))


def change(home: float, low: float) -> Gain:
    return Gain("SFC", Estimate(home, 5, home - 0.01, home + 0.01), Estimate(low + 0.02, 5, low, low + 0.04))


def test_gains_are_held_against_the_bars() -> None:
    assert change(-0.05, 0.1).reaches(0.05) and change(-0.05, 0.1).helps
    assert not change(-0.051, 0.1).reaches(0.05)
    assert not change(-0.01, 0.099).reaches(0.05)
    assert not change(0.0, -0.01).helps
    assert change(0.02, 0.0).is_small and not change(-0.031, 0.0).is_small and not change(0.0, 0.011).is_small


def test_controls_are_places_where_nothing_can_help(tmp_path: Path) -> None:
    blind, sure = HEADLINE._replace(backbone="blind"), HEADLINE._replace(strength=1.0)
    for place in (HEADLINE, blind, sure):
        made_cells(tmp_path, place)
    there = complete(tmp_path, grid.tasks_at((HEADLINE, blind, sure), (1, 2)))
    found = controls(tmp_path, there)
    assert set(found) == {Condition(*blind), Condition(*sure)}
    names = {each.method for each in found[Condition(*blind)]}
    assert names == set(SHIFTS) - {TEXT_ONLY, "plain"}
    assert found[Condition(*sure)][0] == gain(tmp_path, Condition(*sure), found[Condition(*sure)][0].method, (1, 2))


def test_the_report_holds_all_that_is_complete_and_names_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other, blind = HEADLINE._replace(strength=0.95), HEADLINE._replace(backbone="blind")
    made_cells(tmp_path)
    made_cells(tmp_path, other, (1,))
    made_cells(tmp_path, blind)
    fixed = tuple(each for each in METHODS if each.name in SHIFTS)
    monkeypatch.setattr(grid, "METHODS", fixed)
    left_out = HEADLINE._replace(strength=0.95, steps=800)
    asked = grid.tasks_at((HEADLINE, other, left_out, blind), (1, 2))
    found, judged, _, _ = write_metrics(tmp_path, asked)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert len(content["rows"]) == 2 * len(found) == 2 * 3 * len(SHIFTS)
    every = [TEXT_ONLY, *(each.name for each in fixed)]
    assert content["unfinished"][Condition(*left_out).label] == every
    assert content["unfinished"][Condition(*other).label] == every
    assert Condition(*HEADLINE).label not in content["unfinished"]
    rows = {(row["strength"], row["backbone"], row["method"], row["stop"]): row for row in content["rows"]}
    assert rows[0.98, "seeing", "plain", 1.0]["seeds"] == [1, 2] and rows[0.95, "seeing", "plain", 1.0]["seeds"] == [1]
    assert rows[0.98, "seeing", "plain", 1.0]["ood_gain"]["value"] == 0
    early = gain_of_stopping(tmp_path, HERE, "SFC", (1, 2))
    assert rows[0.98, "seeing", "SFC", 0.25]["ood_gain"]["value"] == pytest.approx(early.ood.value)
    assert judged is not None and set(judged.helping) == {Condition(*HEADLINE).label}, "one seed has no interval"
    assert set(content["controls"]) == {Condition(*blind).label}
    drawn = {path.name for path in write_figures(tmp_path, found)}
    places = {"seeing-noisier-0.95-400.png", "seeing-noisier-0.98-400.png", "blind-noisier-0.98-400.png"}
    assert drawn == {"map.png", *places, "transfer-SFC.png", "transfer-SFC0.7.png", "transfer-plain.png"}
    assert all((tmp_path / "figures" / name).stat().st_size > 5000 for name in drawn)
    print_summaries(found)
    print_controls(controls(tmp_path, complete(tmp_path, asked)))
    print_verdict(judged)
    said = capsys.readouterr().out
    assert "of 1 places" in said and "control: blind backbone" in said and "against half rate, stopped" in said


@pytest.mark.parametrize(("seeds", "bars"), [((1,), False), ((1, 2), True)])
def test_one_seed_is_drawn_without_an_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: tuple[int, ...], bars: bool
) -> None:
    made_cells(tmp_path, seeds=seeds)
    drawn: list[Any] = []
    draw = rewards.home_and_elsewhere

    def spied(names: Any, home: Any, elsewhere: Any, *rest: Any, **options: Any) -> Any:
        drawn.append((names, np.array(home), np.array(elsewhere)))
        return draw(names, home, elsewhere, *rest, **options)

    monkeypatch.setattr(rewards, "home_and_elsewhere", spied)
    write_figures(tmp_path, [summarise(tmp_path, HERE, name, seeds) for name in ("plain", "SFC")])
    ((names, home, elsewhere),) = drawn
    assert all(("(one seed)" in name) != bars for name in names)
    for values in (home, elsewhere):
        assert (values[:, 1] < values[:, 0]).all() == bars and (values[:, 2] > values[:, 0]).all() == bars


def test_a_whole_grid_leaves_nothing_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_cells(tmp_path)
    monkeypatch.setattr(grid, "METHODS", tuple(each for each in METHODS if each.name in SHIFTS))
    asked = tasks(("headline",), (1, 2))
    assert unfinished(complete(tmp_path, asked), asked) == {}
    path_of(tmp_path, Task(*HEADLINE, "hedge", 2).cell("SFC")).unlink()
    assert unfinished(complete(tmp_path, asked), asked) == {HERE.label: ["SFC"]}
    path_of(tmp_path, no_cue(HEADLINE, 1).cell("plain")).unlink()
    assert complete(tmp_path, asked)[HERE]["plain"] == (2,)


def test_without_the_headline_there_is_no_verdict(tmp_path: Path) -> None:
    assert verdict(tmp_path, {Condition(*HEADLINE._replace(strength=0.95)): {"SFC": ()}}) is None


def test_the_map_shows_every_method_but_plain_training() -> None:
    assert set(MAPPED) >= {each.name for each in METHODS if each.name != "plain"} | {stopped("plain")}
    assert "plain" not in MAPPED


def test_an_attempt_is_one_place_that_is_never_called_the_headline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faster, scarcer = settings.ATTEMPTS["faster"], settings.ATTEMPTS["scarcer"]
    assert len({settings_digest(), settings_digest(faster), settings_digest(scarcer)}) == 3
    found = wanted(ShortcutsConfig(tmp_path, seeds=2, attempt="scarcer"))
    assert {task.place for task in found if task.environment != NO_CUE} == {scarcer.place}
    assert {task.seed for task in found} == {1, 2} and len(found) == 2 * (len(ENVIRONMENTS) + 1)
    made_cells(tmp_path, scarcer.place)
    _, judged, _, _ = write_metrics(tmp_path, found, scarcer.place, {"attempt": "scarcer", "why": scarcer.why})
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert "headline" not in content and content["attempt"]["why"] == scarcer.why
    assert judged is not None and list(judged.places) == [Condition(*scarcer.place)]
    print_verdict(judged, "scarcer")
    assert "attempt 'scarcer', not fixed beforehand" in capsys.readouterr().out
    assert write_metrics(tmp_path, found)[1] is None


def test_runs_from_other_inputs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "backbones").mkdir()
    (tmp_path / "backbones" / "a").write_text("1")
    first = inputs_of(tmp_path)
    hold_inputs(tmp_path, first)
    hold_inputs(tmp_path, first)
    assert json.loads((tmp_path / "manifest.json").read_text())["inputs"] == first
    (tmp_path / "backbones" / "a").write_text("2")
    with pytest.raises(InputError, match="other backbones: give another --out"):
        hold_inputs(tmp_path, inputs_of(tmp_path))


def test_published_cells_keep_every_sign_and_every_number(tmp_path: Path) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    made_cells(run)
    with pytest.raises(InputError, match=r"no metrics\.json and no manifest\.json"):
        publish(run, tmp_path / "published")
    (run / "manifest.json").write_text("{}")
    asked = tasks(("headline",), (1, 2))
    write_metrics(run, asked)
    small = next((run / "cells").glob("*hedge-1-plain.npz"))
    arrays = dict(np.load(small))
    arrays["margins.dev"][1, :3] = [1e-12, -1e-12, 1e9]
    np.savez(small, **arrays)
    unpack(publish(run, tmp_path / "published"), again)
    for path in (run / "cells").glob("*.npz"):
        before, after = np.load(path), np.load(again / "cells" / path.name)
        assert before.files == after.files
        for name in before.files:
            if name.startswith("margins."):
                assert np.array_equal(np.sign(before[name]), np.sign(after[name]))
                assert np.allclose(np.clip(before[name], -6e4, 6e4), after[name], rtol=1e-3, atol=1e-6)
            else:
                assert np.array_equal(before[name], after[name])
    summary._cell.cache_clear()
    write_metrics(again, asked)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "published", again)]
    assert metrics[0] == metrics[1]


def test_committed_numbers_are_those_of_the_committed_margins(tmp_path: Path) -> None:
    unpack(STUDY / CELLS, tmp_path)
    summary._cell.cache_clear()
    rows = json.loads((STUDY / "metrics.json").read_text())["rows"]
    last = [row for row in rows if row["stop"] == 1.0]
    for row in last[:: max(1, len(last) // 12)]:
        condition = Condition(*(row[name] for name in ("backbone", "learnability", "strength", "steps")))
        found: Summary = summarise(tmp_path, condition, row["method"], row["seeds"])
        for name in ("iid", "ood", "reversed", "degradation", "ceiling"):
            assert getattr(found, name).value == pytest.approx(row[name]["value"]), (row["method"], name)
            assert getattr(found, name).low == pytest.approx(row[name]["low"]), (row["method"], name)
