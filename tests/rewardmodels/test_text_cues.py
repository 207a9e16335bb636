"""Rulers that read the surface: counts by hand, the logistic model against a minimiser's, folds that do not leak."""

import numpy as np
import pytest
from scipy import optimize

from rewardmodels.text_cues import CUES, held_out_margins, text_cues

TEXT = "# Title\n- I see 12 cats, 3 dogs.\n- It **may** be one, perhaps; I'm sorry.\n1. Paris"


def test_what_is_counted() -> None:
    counts = {name: count(TEXT) for name, count in CUES.items()}
    assert counts == {
        "longer": len(TEXT),
        "more lines": 3,
        "more markdown": 6,
        "more numbers": 3,
        "more capitals": 3,
        "more hedges": 3,
        "more of I": 2,
    }


def test_ties_count_one_half_and_are_told() -> None:
    found = text_cues(["a b 1", "cc", "d"], ["a b", "d", "cc"], ["g"] * 3, ["x", "y", "z"], folds=3)
    assert found.cues["longer"].value == pytest.approx(2 / 3) and found.tied["longer"] == 0
    assert found.cues["more numbers"].value == pytest.approx((1 + 0.5 + 0.5) / 3) and found.tied["more numbers"] == 2
    assert found.cues["more of I"].value == 0.5


def test_each_fold_is_ranked_by_what_minimises_the_loss_of_the_others() -> None:
    rng = np.random.default_rng(1)
    table = rng.normal(size=(60, 3)) * [1.0, 4.0, 0.2] + [0.3, 1.0, 0.0]
    clusters = [f"q{at // 3}" for at in range(60)]
    found = held_out_margins(table, clusters, folds=4, seed=5, strength=2.0)
    number = np.array([sorted(set(clusters)).index(name) for name in clusters])
    fold_of = np.random.default_rng(5).permutation(20) % 4
    for fold in range(4):
        held = fold_of[number] == fold
        scale = np.sqrt((table[~held] ** 2).mean(axis=0))
        rest = table[~held] / scale

        def loss(weights: np.ndarray, rest: np.ndarray = rest) -> float:
            return float(np.logaddexp(0, -rest @ weights).sum() + 2.0 / 2 * (weights**2).sum())

        best = optimize.minimize(loss, np.zeros(3), tol=1e-12).x
        assert found[held] == pytest.approx((table[held] / scale) @ best, abs=1e-4)


def test_what_only_tells_the_questions_apart_does_not_help() -> None:
    """Every question has a mark of its own; a model that saw its other pairs would rank all of them right."""
    clusters = np.repeat(np.arange(40), 2)
    marks = np.eye(40)[clusters] * np.random.default_rng(0).choice([-1.0, 1.0], 40)[clusters, None]
    assert np.all(held_out_margins(marks, clusters) == 0)
    leaking = held_out_margins(marks, np.arange(80), folds=80)
    assert np.all(leaking > 0)


def test_all_cues_find_what_one_of_them_tells() -> None:
    chosen = [f"seen {at} 7 8" for at in range(40)]
    rejected = [f"seen {at} x y" for at in range(40)]
    groups = ["a", "b"] * 20
    found = text_cues(chosen, rejected, groups, [str(at) for at in range(40)])
    assert found.together.micro.value == 1.0 and set(found.together.groups) == {"a", "b"}
    assert found.cues["longer"].value == 0.5


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match="same pairs, at least one, got 1 and 2"):
        text_cues(["a"], ["b", "c"], ["g"], ["x"])
    with pytest.raises(ValueError, match="two clusters and two folds or more, got 1 and 10"):
        text_cues(["a", "b"], ["b", "c"], ["g", "g"], ["x", "x"])
