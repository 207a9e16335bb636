"""Ranks of instruments whose right place is known, because their scores were made by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from probes.inputs import InputError
from probes.instruments.names import GRADIENT, HEADS, IMAGE_ROWS, LENS, PROBE, RAW, ROWS
from probes.scores import causal_agreement, focus_all
from studies.auditing.entries import Entry
from studies.instruments.beside import DECODABLE, SHUFFLED, beside
from studies.instruments.evidence import Evidence
from studies.instruments.ranking import (
    AGREEMENT,
    DIFFERENCE,
    HEAD_AGREEMENT,
    SINGLE,
    TARGET,
    Choice,
    board,
    choose,
    hits,
    rank,
    ranked,
)

LAYERS = (0, 2, 3)


def evidence(samples: int = 240, dev: int = 120, seed: int = 0) -> Evidence:
    """Random scores over 2 to 4 images; the raw factor of layer 2 knows the image in 8 of 10, under predicting rows."""
    rng = np.random.default_rng(seed)
    count = rng.integers(2, 5, samples)
    target = (rng.random(samples) * count).astype(np.int64)
    there = np.arange(4) < count[:, None]
    effects = np.where(there, rng.random((samples, 4)) * 0.005, np.nan)
    effects[np.arange(samples), target] = 3.0
    effects[:20:2] = np.where(there[:20:2], 0.001, np.nan)
    scores: dict[tuple[str, str], Any] = {
        (name, rows): np.where(there[:, None], rng.random((samples, 3, 4)), np.nan)
        for name in (RAW, GRADIENT)
        for rows in ROWS
    }
    led = np.where(rng.random(samples) < 0.8, target, (target + 1) % count)
    scores[RAW, "predicting"][np.arange(samples), 1, led] = 9.0
    scores[LENS, IMAGE_ROWS] = np.where(there[:, None], rng.random((samples, 4, 4)), np.nan)
    heads = {rows: np.where(there[:, None, None], rng.random((samples, 3, 2, 4)), np.nan) for rows in ROWS}
    heads["paper"][np.arange(samples), 2, 1, target] = 2.0
    features = rng.normal(size=(samples, 4, 6))
    features[np.arange(samples), 3, target] += 5.0
    return Evidence(
        cluster=np.array([f"base{index // 2}" for index in range(samples)]),
        task=np.array(["content", "caption"])[np.arange(samples) % 2],
        split=np.where(np.arange(samples) < dev, "dev", "test"),
        n_images=count,
        target=target,
        effects=effects,
        anchored=np.arange(samples) % 6 == 5,
        layers=LAYERS,
        depths=(0, 1, 2, 3),
        scores=scores,
        heads=heads,
        features=features,
        answer_log_probability=-rng.random((samples, 4)),
        answer_rank=rng.integers(1, 3, (samples, 4)).astype(np.float64),
        sinks=rng.random((samples, 3)),
    )


def entry(entries: list[Entry], name: str, instrument: str, rows: str, **keys: Any) -> Entry:
    wanted = {"name": name, "instrument": instrument, "rows": rows, "layer": None, "task": None, "subset": None} | keys
    (found,) = [each for each in entries if all(each.get(key) == value for key, value in wanted.items())]
    return found


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return [*rank(evidence()), *beside(evidence())]


def test_instruments_that_know_are_on_top_and_the_others_at_chance(entries: list[Entry]) -> None:
    best = ranked(entries)
    assert [each["estimate"]["value"] for each in best] == sorted(
        (each["estimate"]["value"] for each in best), reverse=True
    )
    heads, raw = entry(entries, AGREEMENT, HEADS, "paper"), entry(entries, AGREEMENT, RAW, "predicting")
    assert heads["heads"] == [[3, 1]] and heads["estimate"]["value"] == 1.0 and heads["trained"]
    assert raw["rule"] == "LND" and raw["layers"] == [2] and raw["estimate"]["value"] > 0.75 and not raw["trained"]
    probe = entry(entries, AGREEMENT, PROBE, "predicting")
    assert probe["layers"] == [3] and probe["estimate"]["value"] > 0.9
    for name, rows in ((GRADIENT, "paper"), (GRADIENT, "predicting"), (RAW, "paper"), (LENS, IMAGE_ROWS)):
        blind = entry(entries, AGREEMENT, name, rows)
        assert abs(blind["estimate"]["value"] - blind["chance"]) < 0.15
    assert raw["left_out"] == 0 and raw["estimate"]["n"] == 120 and raw["estimate"]["clusters"] == 60


def test_hits_are_those_of_causal_agreement() -> None:
    ours = board(evidence())
    for (rule, layers), table in ((Choice("LND", (1,)), "paper"), (Choice("M-LND", (0, 1, 2)), "predicting")):
        scores = ours.test.scores[RAW, table]
        focused = focus_all(scores[:, list(layers)], rule, len(layers))
        own = causal_agreement(focused, ours.test.effects, ours.test.cluster).estimate
        found = hits(Choice(rule, layers), scores, ours.test.effects)
        assert found.mean() == pytest.approx(own.value) and set(found) <= {0.0, 1.0}


def test_equal_scores_share_their_hits() -> None:
    effects = np.array([[0.0, 3.0, 0.0, np.nan]])
    even = np.array([[[1.0, 1.0, 1.0, np.nan]]])
    assert hits(Choice("LND", (0,)), even, effects).tolist() == [pytest.approx(1 / 3)]


def test_samples_to_which_no_image_matters_are_left_out() -> None:
    turned = evidence()
    turned = replace(turned, split=np.where(turned.split == "dev", "test", "dev"))
    assert board(turned).left_out == 10 and len(board(turned).test) == 110
    nothing = replace(turned, effects=np.where(np.isnan(turned.effects), np.nan, 0.01))
    with pytest.raises(InputError, match="the dev split hold no sample to which an image matters"):
        board(nothing)
    with pytest.raises(InputError, match="the test samples hold no sample"):
        board(replace(turned, split=np.full(len(turned), "dev")))


def test_choices_come_from_dev_alone() -> None:
    """Test samples on which another layer knows better change the numbers and not the choice."""
    ours = evidence()
    test = ours.split != "dev"
    scores = {key: table.copy() for key, table in ours.scores.items()}
    scores[RAW, "predicting"][test, 0, ours.target[test]] = 99.0
    scores[RAW, "predicting"][test, 1] = scores[GRADIENT, "paper"][test, 1]
    turned = rank(replace(ours, scores=scores))
    raw = entry(turned, AGREEMENT, RAW, "predicting")
    assert raw["layers"] == [2] and raw["estimate"]["value"] < 0.5
    assert entry(turned, AGREEMENT, RAW, "predicting", layer=0)["estimate"]["value"] == 1.0
    assert choose(ours.scores[RAW, "predicting"], ours.effects) == Choice("LND", (1,))


def test_differences_are_paired(entries: list[Entry]) -> None:
    ours = board(evidence())
    raw = hits(Choice("LND", (1,)), ours.test.scores[RAW, "predicting"], ours.test.effects)
    gap = entry(entries, DIFFERENCE, PROBE, "predicting")
    probe = entry(entries, AGREEMENT, PROBE, "predicting")["estimate"]["value"]
    assert gap["estimate"]["value"] == pytest.approx(probe - raw.mean()) and gap["against"] == "predicting"
    assert entry(entries, DIFFERENCE, LENS, IMAGE_ROWS)["against"] == "predicting"
    assert entry(entries, DIFFERENCE, HEADS, "paper")["estimate"]["low"] > 0.4
    assert not [each for each in entries if each["name"] == DIFFERENCE and each["instrument"] == RAW]


def test_effects_of_other_samples_agree_with_nothing() -> None:
    ours = evidence()
    order = np.random.default_rng(3).permutation(len(ours))
    whole = replace(ours, n_images=np.full(len(ours), 4), effects=np.nan_to_num(ours.effects))
    whole = replace(
        whole,
        scores={key: np.nan_to_num(table) for key, table in ours.scores.items()},
        heads={key: np.nan_to_num(table) for key, table in ours.heads.items()},
    )
    mixed = rank(replace(whole, effects=whole.effects[order]))
    for each in ranked(mixed):
        assert each["estimate"]["value"] < 0.5


def test_image_to_image_samples_can_be_left_out(entries: list[Entry]) -> None:
    ours = board(evidence())
    kept = ~ours.test.anchored
    assert 0 < kept.sum() < len(kept)
    found = hits(Choice("LND", (1,)), ours.test.scores[RAW, "predicting"], ours.test.effects)
    part = entry(entries, AGREEMENT, RAW, "predicting", subset=SINGLE)
    assert part["estimate"]["value"] == pytest.approx(found[kept].mean()) and part["estimate"]["n"] == kept.sum()
    assert part["chance"] == pytest.approx((1 / ours.test.n_images[kept]).mean())
    gap = entry(entries, DIFFERENCE, PROBE, "predicting", subset=SINGLE)["estimate"]
    own = entry(entries, AGREEMENT, PROBE, "predicting", subset=SINGLE)["estimate"]["value"]
    assert gap["value"] == pytest.approx(own - found[kept].mean())
    assert len(ranked(entries, SINGLE)) == len(ranked(entries))
    none = rank(replace(evidence(), anchored=np.zeros(240, dtype=bool)))
    assert not ranked(none, SINGLE) and len(ranked(none)) == len(ranked(entries))


def test_the_probes_curve_has_a_control(entries: list[Entry]) -> None:
    found = entry(entries, DECODABLE, PROBE, "predicting", layer=3)
    assert found["estimate"]["value"] > 0.9 and found["trained_on"] == 120
    assert found["chance"] == pytest.approx(0.35, abs=0.03)
    blind = entry(entries, DECODABLE, PROBE, "predicting", layer=1)["estimate"]["value"]
    assert abs(blind - found["chance"]) < 0.15
    control = entry(entries, SHUFFLED, PROBE, "predicting", layer=3)["estimate"]["value"]
    assert abs(control - found["chance"]) < 0.15


def test_every_head_has_an_entry_and_the_chosen_ones_say_so(entries: list[Entry]) -> None:
    heads = [each for each in entries if each["name"] == HEAD_AGREEMENT and each["rows"] == "paper"]
    assert {(each["layer"], each["head"]) for each in heads} == {(layer, head) for layer in LAYERS for head in (0, 1)}
    assert [(each["layer"], each["head"]) for each in heads if each["chosen"]] == [(3, 1)]
    assert max(each["estimate"]["value"] for each in heads if not each["chosen"]) < 0.6


def test_how_often_the_target_has_the_largest_effect() -> None:
    ours = evidence()
    turned = ours.effects.copy()
    where = np.flatnonzero((ours.split == "test") & (ours.task == "caption"))
    turned[where, (ours.target[where] + 1) % ours.n_images[where]] = 5.0
    found = [each for each in rank(replace(ours, effects=turned)) if each["name"] == TARGET and not each["subset"]]
    assert {each["task"]: each["estimate"]["value"] for each in found} == {None: 0.5, "caption": 0.0, "content": 1.0}


def test_tasks_add_up_to_the_whole(entries: list[Entry]) -> None:
    whole = entry(entries, AGREEMENT, RAW, "predicting")["estimate"]
    parts = [entry(entries, AGREEMENT, RAW, "predicting", task=task)["estimate"] for task in ("content", "caption")]
    assert sum(part["n"] for part in parts) == whole["n"]
    assert sum(part["n"] * part["value"] for part in parts) == pytest.approx(whole["n"] * whole["value"])
