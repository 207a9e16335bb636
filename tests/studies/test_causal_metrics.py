"""What the causal check counts: agreement, samples to which no image matters, and those left out."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from probes.scores import Rule
from studies.auditing.causal_metrics import right_without_image
from studies.auditing.choices import Choice
from studies.auditing.entries import find
from studies.auditing.evidence import Effects
from studies.auditing.metrics import audit_metrics
from studies.auditing.summary import without_image_lines
from tests.studies.made_evidence import evidence


def test_right_answers_with_their_focus_elsewhere_are_told_apart() -> None:
    known = evidence(samples=40, dev=0.0)
    effects = np.zeros((40, 4))
    effects[np.arange(40), known.target] = 1.0
    known = evidence(samples=40, dev=0.0, effects=(Effects("blank", "all", effects),))
    entries = audit_metrics(known, {"paper": Choice(Rule("LND", 1), "default")})
    keys: dict[str, Any] = {"rows": "paper", "split": "test", "intervention": "blank", "window": "all"}
    assert find(entries, "target_has_largest_effect", **{**keys, "rows": None})[0]["estimate"]["value"] == 1.0
    on_focus = find(entries, "causal_agreement", subset="right, focus elsewhere", **keys)[0]["estimate"]
    on_target = find(entries, "causal_agreement", subset="right, focus elsewhere: target", **keys)[0]["estimate"]
    assert on_focus["n"] == on_target["n"] > 0
    assert (on_focus["value"], on_target["value"]) == (0.0, 1.0)


def test_samples_to_which_no_image_mattered_do_not_count_as_agreement() -> None:
    known = evidence(samples=40, dev=0.0)
    effects = np.full((40, 4), -1e-7)
    effects[np.arange(40), known.target] = 1e-6
    effects[:10] = 0.0
    effects[np.arange(10), (known.target[:10] + 1) % 4] = 2.0
    known = evidence(samples=40, dev=0.0, effects=(Effects("blank", "all", effects),))
    entries = audit_metrics(known, {"paper": Choice(Rule("LND", 1), "default")})
    keys: dict[str, Any] = {"split": "test", "intervention": "blank", "window": "all"}
    nothing = find(entries, "no_image_matters", **keys)[0]["estimate"]
    assert (nothing["value"], nothing["n"]) == (0.75, 40)
    target = find(entries, "target_has_largest_effect", **keys)[0]
    assert (target["estimate"]["value"], target["estimate"]["n"], target["left_out"]) == (0.0, 10, 30)
    for entry in find(entries, "causal_agreement", layer=..., rows="paper", **keys):
        assert (entry["estimate"]["n"], entry["left_out"]) == (10, 30)


def test_samples_with_an_image_that_could_not_be_taken_away_are_left_out_and_counted() -> None:
    """Ten of 40 samples have a blank image, five of them where the focus is, five where the target is."""
    known = evidence(samples=40, dev=0.0)
    focused = known.factors["paper"][:, -1].argmax(-1)
    effects = np.random.default_rng(1).random((40, 4)) + 0.1
    whole = np.arange(40) >= 10
    choices = {"paper": Choice(Rule("LND", 1), "default")}
    keys: dict[str, Any] = {"split": "test", "intervention": "blank", "window": "all"}
    wanted = replace(known, effects=(Effects("blank", "all", effects),)).where(whole)
    expected = audit_metrics(wanted, choices)
    effects[np.arange(5), focused[:5]] = np.nan
    effects[np.arange(5, 10), known.target[5:10]] = np.nan
    found = audit_metrics(replace(known, effects=(Effects("blank", "all", effects),)), choices)
    for name in ("target_has_largest_effect", "no_image_matters", "causal_agreement"):
        rows = "paper" if name == "causal_agreement" else None
        (own,), (other,) = (find(entries, name, rows=rows, **keys) for entries in (found, expected))
        assert own["estimate"] == other["estimate"] and own["estimate"]["n"] == 30
        assert own.get("left_out") == (None if name == "no_image_matters" else 10)
    for layer in known.layers:
        (own,), (other,) = (
            find(entries, "causal_agreement", layer=layer, rows="paper", **keys) for entries in (found, expected)
        )
        assert own["estimate"] == other["estimate"] and own["left_out"] == 10


def test_right_answers_that_no_image_moves_are_counted_by_task_and_on_target() -> None:
    """40 samples of two tasks: in "told" no image matters but to one answer, which gains when it goes; in "seen" the
    target does. Every fourth is wrong."""
    known = evidence(samples=40, dev=0.0)
    told = np.arange(40) < 16
    effects = np.zeros((40, 4))
    effects[~told, known.target[~told]] = 2.0
    effects[told, 0] = -0.009
    effects[1, 2] = -0.5
    known = replace(
        known,
        task=np.where(told, "told", "seen"),
        correct=np.where(np.arange(40) % 4 == 0, 0.0, 1.0),
        effects=(Effects("blank", "all", effects),),
    )
    entries = audit_metrics(known, {"paper": Choice(Rule("LND", 1), "default")})
    keys: dict[str, Any] = {"split": "test", "intervention": "blank", "window": "all"}
    found = {
        entry["task"]: (entry["estimate"]["value"], entry["estimate"]["n"])
        for entry in find(entries, "no_image_matters", task=..., subset="right", **keys)
    }
    assert found == {None: (11 / 30, 30), "told": (11 / 12, 12), "seen": (0.0, 18)}
    (hit,) = find(entries, "no_image_matters", subset="right, focus on target", rows="paper", **keys)
    on_target = (known.factors["paper"][:, -1].argmax(-1) == known.target) & (known.correct == 1)
    assert 0 < on_target.sum() < 30
    assert hit["estimate"]["n"] == on_target.sum()
    assert hit["estimate"]["value"] == pytest.approx((told & (np.arange(40) != 1))[on_target].mean())
    assert right_without_image(entries, "test", intervention="blank", task="told")[0]["estimate"]["n"] == 12
    (line,) = without_image_lines([{**entry, "intervention": "knockout"} for entry in entries], "test")
    assert line.startswith("no single image mattered (knock-out, 0.01 nat) to 36.7 %")
    assert line.endswith("of 30 right answers checked: seen 0.0 %, told 91.7 %")
    mixed = {**entries[0], "measure": "hidden_attention_value", "layer_kind": "state space"}
    first, second = without_image_lines([*({**each, "intervention": "knockout"} for each in entries), mixed], "test")
    assert first == line and "cuts softmax attention alone" in second
    assert not find(entries, "causal_agreement", task="told", layer=0, rows="paper", **keys)
