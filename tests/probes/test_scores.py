"""Scores: accuracies, rule choice and agreement by hand, their intervals, and their negative controls."""

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from probes.estimates import Estimate, proportion
from probes.inputs import InputError
from probes.scores import (
    RULES,
    RegionScore,
    Rule,
    accuracy_by_layer,
    attention_accuracy,
    attention_accuracy_when_wrong,
    causal_agreement,
    chance_level,
    choose_rule,
    focus,
    focus_all,
    focus_histogram,
    focus_rate,
    focus_shares,
    ivm_rate,
    oracle_maximum,
    position_spread,
    position_study,
    region_summary,
    score_rules,
    scoreboard,
    shared_focus_rate,
)

NAN = math.nan


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: focus([[0.1, 0.2]], rule="max"), "unknown focus rule 'max': use one of LND"),
        (lambda: focus([[0.1, 0.2]], last=0), "at least 1"),
        (lambda: focus([0.1, 0.2]), r"\(layers, images\)"),
        (lambda: focus([[NAN, NAN]]), "sample 0 has no image"),
        (lambda: focus_all([[[0.1, 0.2]], [[NAN, NAN]]]), "sample 1 has no image"),
        (lambda: focus([[NAN, 0.2], [0.1, 0.3]]), "image 0 of sample 0 has NaN factors in some layers only"),
        (lambda: focus([[math.inf, 0.2]]), "infinite"),
        (lambda: focus_all([[0.1]]), r"\(samples, layers, images\)"),
        (lambda: focus_all(np.zeros((2, 3, 0))), "no image to focus on"),
        (lambda: focus_shares([[0.1, 0.2]], tolerance=-1), "at least 0"),
        (lambda: attention_accuracy([0], [0, 1], [True]), "lengths differ"),
        (lambda: attention_accuracy([0, 1], [0, 1], [True]), "lengths differ"),
        (lambda: attention_accuracy([0], np.array([None]), [True]), "target must hold numbers|target holds 1 missing"),
        (lambda: attention_accuracy([0], [-1], [True]), "0-based"),
        (lambda: attention_accuracy([0], [0], np.array([None])), "correct"),
        (lambda: attention_accuracy([0], [0], [0.5]), "True or False"),
        (lambda: attention_accuracy([0, 1], [0, 1], [True, True], ["a"]), "one label for each"),
        (lambda: scoreboard([0], [3], [True], [3]), "sample 0 points at image 3, 0-based, of 3 images"),
        (lambda: chance_level([0]), "at least one image"),
        (lambda: shared_focus_rate([[[0.1, 0.2]]], [2]), "points at image 2"),
        (lambda: causal_agreement([2], [[1.0, 2.0, NAN]]), "not among the images"),
        (lambda: causal_agreement([0], [[NAN, NAN]]), "no image"),
        (lambda: causal_agreement([0, 1], [[1.0, 2.0]]), r"\(samples, images\) for 2 samples"),
        (lambda: Rule("LND", 0), "at least 1"),
        (lambda: score_rules([[[0.1, 0.2]]], [0], [True], [Rule("LND", 2)]), "more than the 1 layer with"),
        (lambda: score_rules([[[0.1, 0.2]]], [0], [True], []), "no candidate"),
        (lambda: score_rules([[[0.1, 0.2]]], [0, 1], [True]), "one target and one answer"),
    ],
)
def test_bad_input_says_why(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_accuracies_by_hand() -> None:
    focused = [0, 1, 2, 0, 1, 1]
    target = [0, 1, 0, 0, 2, 1]
    correct = [True, True, True, False, False, True]
    right = attention_accuracy(focused, target, correct)
    assert (right.value, right.n) == (3 / 4, 4)
    missed = ivm_rate(focused, target, correct)
    assert (missed.value, missed.low, missed.high) == pytest.approx((1 / 4, 1 - right.high, 1 - right.low))
    wrong = attention_accuracy_when_wrong(focused, target, correct)
    assert (wrong.value, wrong.n) == (1 / 2, 2)
    assert focus_rate(focused, target).value == 4 / 6
    # P(g | a) is neither P(a | g) nor P(a and g).
    assert right.value not in (3 / 4 * 4 / 6, 3 / 6)
    board = scoreboard(focused, target, correct, [3, 2, 3, 3, 4, 2], clusters=list("aabbcc"))
    assert board.answer_accuracy.value == 4 / 6
    assert board.attention_accuracy == attention_accuracy(focused, target, correct, list("aabbcc"))
    assert (board.attention_when_wrong.value, board.attention_overall.value) == (0.5, 4 / 6)
    assert board.chance == pytest.approx(np.mean([1 / 3, 1 / 2, 1 / 3, 1 / 3, 1 / 4, 1 / 2]))
    assert board.chance_when_right == pytest.approx(np.mean([1 / 3, 1 / 2, 1 / 3, 1 / 2]))
    assert board.chance_when_wrong == pytest.approx(np.mean([1 / 3, 1 / 4]))
    # A mean of 1/n is not 1 over the mean n.
    assert board.chance != pytest.approx(1 / np.mean([3, 2, 3, 3, 4, 2]))


def test_clusters_are_those_of_the_right_answers() -> None:
    found = attention_accuracy([0, 0, 1, 0], [0, 1, 1, 0], [True, True, True, False], ["a", "a", "b", "c"])
    assert (found.n, found.clusters) == (3, 2)


def test_no_right_answers_and_no_samples() -> None:
    for found in (
        attention_accuracy([0, 1], [0, 1], [False, False]),
        attention_accuracy([], [], []),
        focus_rate([], []),
        shared_focus_rate(np.zeros((0, 2, 3)), []),
        causal_agreement([], np.zeros((0, 3))).estimate,
    ):
        assert math.isnan(found.value)
        assert (found.n, found.low, found.high) == (0, 0.0, 1.0)
    board = scoreboard([0, 1], [0, 1], [False, False], [2, 2])
    assert math.isnan(board.chance_when_right)
    assert math.isnan(board.ivm_rate.value)
    assert (board.ivm_rate.low, board.ivm_rate.high) == (0.0, 1.0)


def test_one_sample() -> None:
    board = scoreboard([1], [1], [True], [3])
    estimates = [getattr(board, field.name) for field in fields(board)]
    assert all(0 <= found.low <= found.high <= 1 for found in estimates if isinstance(found, Estimate))
    assert board.attention_accuracy == proportion([True])


def planted(rng: np.random.Generator, samples: int, layers: int, images: int, boost: float) -> Any:
    target = np.arange(samples) % images
    table = rng.random((samples, layers, images))
    table[np.arange(samples), :, target] += boost
    return table, target


def test_planted_target_is_found_and_shuffled_targets_are_not() -> None:
    table, target = planted(np.random.default_rng(0), 400, 5, 4, boost=2.0)
    right = np.ones(400, dtype=bool)
    for rule in RULES:
        focused = focus_all(table, rule, 3)
        assert attention_accuracy(focused, target, right).value == 1.0
        assert shared_focus_rate(table, target, rule, 3).value == 1.0
        shifted = attention_accuracy(focused, (target + 1) % 4, right)
        assert shifted.value == 0.0
    assert all(found.value == 1.0 for found in accuracy_by_layer(table, target, right))


@pytest.mark.parametrize("rule", RULES)
def test_uniform_attention_is_at_chance(rule: str) -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(2, 9, 300)
    table = np.full((300, 4, 8), NAN)
    for sample, count in enumerate(images):
        table[sample, :, :count] = 1 / count
    target = rng.integers(0, images)
    found = shared_focus_rate(table, target, rule, 4, clusters=np.arange(300))
    assert found.value == pytest.approx(chance_level(images))
    # Breaking ties to the lowest index gives what the first position happens to hold instead.
    assert focus_rate(focus_all(table, rule, 4), target).value == (target == 0).mean()


def test_random_attention_covers_chance() -> None:
    table, target = planted(np.random.default_rng(2), 8000, 6, 4, boost=0.0)
    for rule in RULES:
        found = shared_focus_rate(table, target, rule, level=0.999)
        assert found.low < 0.25 < found.high


def test_layers_are_scored_alone() -> None:
    table = np.zeros((4, 3, 2))
    target = np.array([0, 1, 0, 1])
    table[np.arange(4), 0, target] = 1.0
    table[np.arange(4), 1, 1 - target] = 1.0
    table[:, 2, 0] = 5.0
    right = [True, True, True, False]
    assert [found.value for found in accuracy_by_layer(table, target, right)] == pytest.approx([1.0, 0.0, 2 / 3])
    assert [found.value for found in accuracy_by_layer(table, target)] == [1.0, 0.0, 0.5]
    assert [found.n for found in accuracy_by_layer(table, target, right, list("aabb"))] == [3, 3, 3]


def test_a_layer_that_sees_no_image_is_at_chance() -> None:
    factors = np.zeros((6, 2, 3))
    factors[:, 1, 0] = 0.4
    blind, seeing = accuracy_by_layer(factors, np.zeros(6, dtype=int))
    assert blind.value == pytest.approx(1 / 3)
    assert seeing.value == 1.0


EIGHT: tuple[list[int], list[int], list[int]] = (
    [0, 1, 1, 0, 1, 0, 0, 1],
    [0, 1, 0, 0, 1, 1, 0, 1],
    [1, 1, 1, 0, 1, 0, 0, 0],
)
MANY: tuple[Any, Any, Any] = (np.tile(EIGHT[0], 40), np.tile(EIGHT[1], 40), np.tile(EIGHT[2], 40))
FACTORS = np.random.default_rng(0).random((8, 2, 2))
REGIONS = [RegionScore(1.0, 0.5, 0.25, 16), RegionScore(0.0, 0.0, 0.5, 16), RegionScore(0.5, 1.0, 0.25, 16)]
LEVELLED: dict[str, Callable[[float], Any]] = {
    "attention_accuracy": lambda level: attention_accuracy(*EIGHT, level=level),
    "ivm_rate": lambda level: ivm_rate(*EIGHT, level=level),
    "attention_accuracy_when_wrong": lambda level: attention_accuracy_when_wrong(*EIGHT, level=level),
    "focus_rate": lambda level: focus_rate(*EIGHT[:2], level=level),
    "shared_focus_rate": lambda level: shared_focus_rate(FACTORS, EIGHT[1], level=level),
    "accuracy_by_layer": lambda level: accuracy_by_layer(FACTORS, EIGHT[1], level=level)[0],
    "causal_agreement": lambda level: causal_agreement(EIGHT[0], FACTORS[:, 0], level=level).estimate,
    "answer accuracy": lambda level: scoreboard(*EIGHT, [2] * 8, level=level).answer_accuracy,
    "headline": lambda level: scoreboard(*EIGHT, [2] * 8, level=level).attention_accuracy,
    "headline ivm": lambda level: scoreboard(*EIGHT, [2] * 8, level=level).ivm_rate,
    "when wrong": lambda level: scoreboard(*EIGHT, [2] * 8, level=level).attention_when_wrong,
    "overall": lambda level: scoreboard(*EIGHT, [2] * 8, level=level).attention_overall,
    "region accuracy": lambda level: region_summary(REGIONS, level=level).accuracy,
    "region top": lambda level: region_summary(REGIONS, level=level).top_ratio,
    "position": lambda level: position_spread(EIGHT[2], EIGHT[1], level=level, resamples=200).by_position[0],
    "position range": lambda level: position_spread(EIGHT[2], EIGHT[1], level=level, resamples=200).range,
    "position std": lambda level: position_spread(EIGHT[2], EIGHT[1], level=level, resamples=200).std,
    "study answer": lambda level: position_study(*EIGHT, level=level, resamples=200).answer.by_position[0],
    "rules": lambda level: score_rules(FACTORS, EIGHT[1], EIGHT[2], level=level)[0].estimate,
    "oracle": lambda level: oracle_maximum(FACTORS, EIGHT[1], EIGHT[2], level=level).estimate,
    "study gap": lambda level: position_study(*MANY, level=level, resamples=200).gap,
}
"""Every public score, by its confidence level."""


@pytest.mark.parametrize("name", LEVELLED)
def test_a_lower_level_gives_a_narrower_interval(name: str) -> None:
    narrow, wide = LEVELLED[name](0.5), LEVELLED[name](0.95)
    assert narrow.value == wide.value
    assert narrow.high - narrow.low < wide.high - wide.low


def test_rule_choice_is_the_best_and_then_the_simplest() -> None:
    table, target = planted(np.random.default_rng(3), 60, 4, 3, boost=2.0)
    right = np.ones(60, dtype=bool)
    assert choose_rule(table, target, right) == Rule("LND", 1)
    table[:, -1] = 0.0
    table[:, -1, 0] = 3.5  # the last layer is a sink: LND never recovers, votes need three layers
    assert choose_rule(table, target, right, [Rule("LND", n) for n in (4, 3, 2, 1)]).last == 1
    chosen = choose_rule(table, target, right)
    assert chosen == Rule("MC-LND", 3)
    scores = {score.rule: score.estimate.value for score in score_rules(table, target, right)}
    assert len(scores) == 12
    assert scores[chosen] == max(scores.values()) == 1.0
    assert all(value < 1.0 for rule, value in scores.items() if rule.complexity < chosen.complexity)
    for rule, value in scores.items():
        assert value == attention_accuracy(focus_all(table, rule.name, rule.last), target, right).value


def test_wrong_answers_do_not_choose_the_rule() -> None:
    table = np.zeros((4, 2, 2))
    target = np.array([0, 1, 0, 1])
    table[np.arange(4), 1, [0, 1, 1, 0]] = 1.0  # the last layer is right for the two right answers only
    table[np.arange(4), 0, target] = 5.0
    assert choose_rule(table, target, [True, True, False, False]) == Rule("LND", 1)
    assert choose_rule(table, target, [True] * 4) == Rule("LND", 2)


def test_oracle_maximum_is_labelled_and_beats_the_fixed_rule() -> None:
    rng = np.random.default_rng(4)
    table, target = planted(rng, 120, 6, 4, boost=0.0)
    right = rng.random(120) < 0.8
    oracle = oracle_maximum(table, target, right, clusters=np.arange(120) // 2)
    fixed = choose_rule(table[:60], target[:60], right[:60])
    on_test = attention_accuracy(focus_all(table, fixed.name, fixed.last), target, right)
    assert oracle.estimate.value >= on_test.value
    assert oracle.estimate.value > 0.25  # pure noise: the maximum alone looks like a finding
    assert oracle.candidates == 18
    assert "oracle maximum" in oracle.label
    assert oracle.estimate.clusters is not None


def test_rule_choice_without_right_answers_names_the_way_forward() -> None:
    for choose in (choose_rule, oracle_maximum):
        with pytest.raises(InputError, match="name a rule"):
            choose([[[0.1, 0.2]]], [0], [False])


def test_causal_agreement_by_hand() -> None:
    effects = [[3.0, 1.0, NAN], [0.5, 0.5, 0.1], [-1.0, -2.0, -3.0], [0.0, 0.0, 0.0]]
    found = causal_agreement([0, 1, 1, 2], effects)
    assert found.estimate.value == pytest.approx((1 + 1 / 2 + 0 + 1 / 3) / 4)
    assert found.chance == pytest.approx((1 / 2 + 3 * 1 / 3) / 4)
    some = causal_agreement([0, 1, 1, 2], effects, clusters=list("aabb"), min_effect=0.0)
    assert (some.estimate.value, some.estimate.n, some.estimate.clusters) == (0.75, 2, 1)
    assert some.chance == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_focus_histogram_shows_a_sink() -> None:
    table = np.random.default_rng(5).random((300, 3, 4))
    level = focus_histogram(table, "M-LND", 3)
    assert level == pytest.approx([0.25] * 4, abs=0.08)
    table[:, :, 3] += 0.5
    assert focus_histogram(table, "M-LND", 3)[3] > 0.7
    with pytest.raises(ValueError, match="at least one sample"):
        focus_histogram(np.zeros((0, 2, 2)))


def test_half_precision_and_lists_are_taken() -> None:
    table = np.random.default_rng(6).random((5, 4)).astype(np.float16)
    assert focus(table) == focus(table.tolist()) == focus(table.astype(np.float64))
    assert isinstance(focus(table), int)
