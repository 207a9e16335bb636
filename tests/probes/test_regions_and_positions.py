"""Region attention accuracy and the position study: by hand, planted, at chance, and with wrong input."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from probes.estimates import proportion
from probes.scores import (
    RegionScore,
    position_spread,
    position_study,
    region_attention_accuracy,
    region_summary,
)


def grid(size: int, side: float = 10.0) -> np.ndarray:
    return np.array(
        [[x * side, y * side, (x + 1) * side, (y + 1) * side] for y in range(size) for x in range(size)], dtype=float
    )


def test_region_by_hand() -> None:
    scores = np.arange(16.0)  # row-major: the strongest cells are 15 and 14, bottom right
    inside = region_attention_accuracy(scores, grid(4), [30, 30, 40, 40])
    assert inside == RegionScore(hit=1.0, top_ratio=0.5, chance=1 / 16, cells=16)
    across = region_attention_accuracy(scores, grid(4), [25, 25, 35, 35])
    assert (across.hit, across.top_ratio, across.chance) == (1.0, 1.0, 4 / 16)
    away = region_attention_accuracy(scores, grid(4), [0, 0, 10, 10])
    assert (away.hit, away.top_ratio, away.chance) == (0.0, 0.0, 1 / 16)


def test_top_decile_is_the_ninetieth_percentile() -> None:
    scores = np.random.default_rng(0).permutation(100).astype(float)
    found = region_attention_accuracy(scores, grid(10), [0, 0, 50, 100])
    top = np.argsort(scores)[-10:]
    assert found.top_ratio == pytest.approx(np.mean(top % 10 < 5))
    assert found.chance == 0.5


def test_uniform_map_gets_chance() -> None:
    found = region_attention_accuracy(np.full(16, 0.3), grid(4), [0, 0, 25, 15])
    assert found.hit == found.top_ratio == found.chance == 6 / 16


def test_membership() -> None:
    by_centre = region_attention_accuracy(np.arange(16.0), grid(4), [24, 24, 36, 36], inside="center")
    assert by_centre.chance == 4 / 16
    corner = region_attention_accuracy(np.arange(16.0), grid(4), [24, 24, 31, 31], inside="center")
    assert corner.chance == 1 / 16
    touching = region_attention_accuracy(np.arange(16.0), grid(4), [10, 10, 20, 20])
    assert touching.chance == 1 / 16, "cells that only share an edge are outside"
    several = region_attention_accuracy(np.arange(16.0), grid(4), [[0, 0, 5, 5], [35, 35, 40, 40]])
    assert (several.chance, several.hit) == (2 / 16, 1.0)


def test_region_summary() -> None:
    scores = [RegionScore(1.0, 0.5, 0.25, 16), RegionScore(0.0, 0.0, 0.5, 16), RegionScore(0.5, 1.0, 0.25, 16)]
    found = region_summary(scores, clusters=[0, 0, 1])
    assert found.accuracy == proportion([1.0, 0.0, 0.5], [0, 0, 1])
    assert found.top_ratio.value == 0.5
    assert found.chance == pytest.approx(1 / 3)
    empty = region_summary([])
    assert math.isnan(empty.accuracy.value)
    assert math.isnan(empty.chance)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: region_attention_accuracy([1.0], grid(4), [0, 0, 1, 1]), "1 scores and 16 boxes"),
        (lambda: region_attention_accuracy([], np.zeros((0, 4)), [0, 0, 1, 1]), "0 scores"),
        (lambda: region_attention_accuracy(np.ones(16), grid(4), [90, 90, 95, 95]), "no cell belongs"),
        (lambda: region_attention_accuracy(np.ones(16), grid(4), [24, 24, 24.5, 24.5], inside="center"), "no cell"),
        (lambda: region_attention_accuracy(np.ones(16), grid(4), [5, 5, 5, 9]), "without area"),
        (lambda: region_attention_accuracy(np.ones(16), grid(4), [5, 5, 9]), r"\(boxes, 4\)"),
        (lambda: region_attention_accuracy(np.full(16, np.nan), grid(4), [0, 0, 9, 9]), "missing"),
        (lambda: region_attention_accuracy(np.ones(16), grid(4), [0, 0, 9, 9], top=0), r"\(0, 1\]"),
        (
            lambda: region_attention_accuracy(np.ones(16), grid(4), [0, 0, 9, 9], inside="touch"),  # type: ignore[arg-type]
            "unknown membership",
        ),
        (lambda: position_spread([1, 1], [0, 0]), "at least two groups"),
        (lambda: position_spread([1, 1], [0]), "lengths differ"),
        (lambda: position_spread([1, 1], [0, 0.5]), "0-based"),
        (lambda: position_study([0, 1], [0, 1], [True]), "lengths differ"),
    ],
)
def test_bad_input_says_why(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def every_position(rng: np.random.Generator, bases: int, answer: list[float], looks: list[float]) -> Any:
    images = len(answer)
    target = np.tile(np.arange(images), bases)
    correct = rng.random(bases * images) < np.tile(answer, bases)
    looked = rng.random(bases * images) < np.tile(looks, bases)
    focused = np.where(looked, target, (target + 1) % images)
    return focused, target, correct, np.repeat(np.arange(bases), images)


def test_position_spread_by_hand() -> None:
    success = [1, 1, 1, 0, 0, 1, 0, 0]
    position = [0, 1, 0, 1, 0, 1, 3, 3]
    found = position_spread(success, position, clusters=list("aabbccdd"), resamples=50)
    assert found.positions == (0, 1, 3)
    assert [one.value for one in found.by_position] == pytest.approx([2 / 3, 2 / 3, 0.0])
    assert found.range.value == pytest.approx(2 / 3)
    assert found.std.value == pytest.approx(np.std([2 / 3, 2 / 3, 0.0]))
    assert found.range.clusters == 4


def test_noise_range_is_what_no_bias_looks_like() -> None:
    rng = np.random.default_rng(0)
    _, target, correct, base = every_position(rng, 60, [0.7] * 4, [0.9] * 4)
    calm = position_spread(correct, target, base, resamples=300)
    assert calm.range.low == 0.0
    assert calm.noise_range == pytest.approx(calm.range.value, abs=0.1)
    tilted = every_position(rng, 60, [0.95, 0.7, 0.5, 0.3], [0.9] * 4)
    steep = position_spread(tilted[2], tilted[1], base, resamples=300)
    assert steep.range.value > 3 * steep.noise_range
    assert steep.range.low > 0.2


def test_position_study_finds_the_steadier_of_the_two() -> None:
    rng = np.random.default_rng(1)
    study = position_study(*every_position(rng, 300, [0.95, 0.7, 0.5, 0.4], [0.9] * 4), resamples=300, seed=2)
    assert study.gap.value == pytest.approx(study.answer.range.value - study.attention.range.value)
    assert study.gap.low > 0.0
    swapped = position_study(*every_position(rng, 300, [0.8] * 4, [0.95, 0.7, 0.5, 0.4]), resamples=300)
    assert swapped.gap.high < 0.0
    level = position_study(*every_position(rng, 300, [0.8] * 4, [0.8] * 4), resamples=300)
    assert level.gap.low < 0.0 < level.gap.high


def test_attention_spread_conditions_on_right_answers() -> None:
    # Wrong answers never look at the target; right ones always do.
    target = np.tile([0, 1], 50)
    correct = np.concatenate([np.ones(50, dtype=bool), np.zeros(50, dtype=bool)])
    focused = np.where(correct, target, 1 - target)
    study = position_study(focused, target, correct, np.repeat(np.arange(50), 2), resamples=50)
    assert [one.value for one in study.attention.by_position] == [1.0, 1.0]
    assert [one.n for one in study.attention.by_position] == [25, 25]
    assert [one.n for one in study.answer.by_position] == [50, 50]


def test_seeded_and_clustered() -> None:
    arguments = every_position(np.random.default_rng(3), 40, [0.8, 0.6, 0.7], [0.9, 0.8, 0.7])
    first, again = (position_study(*arguments, resamples=100, seed=4) for _ in range(2))
    assert first == again
    assert first != position_study(*arguments, resamples=100, seed=5)
    assert first.answer.range.clusters == first.gap.clusters == 40
    assert position_study(*arguments[:3], resamples=100).gap.clusters is None


def test_a_position_without_right_answers_is_nan_not_zero() -> None:
    study = position_study([0, 1, 0, 1], [0, 1, 0, 1], [True, False, True, False], resamples=20)
    assert study.answer.range.value == 1.0
    assert math.isnan(study.attention.range.value)
    assert (study.attention.range.low, study.attention.range.high) == (0.0, 1.0)
    assert math.isnan(study.attention.by_position[1].value)
    assert math.isnan(study.gap.value)
    assert (study.gap.low, study.gap.high) == (-1.0, 1.0)
    assert math.isnan(study.attention.noise_range)


def test_noise_shuffles_within_clusters_only() -> None:
    places, base = [0, 1, 0, 1], list("aabb")
    assert position_spread([1, 1, 0, 0], places, base, resamples=20).noise_range == 0.0
    assert position_spread([1, 0, 1, 0], [0, 1, 0, 1], list("abab"), resamples=20).noise_range == 1.0
    assert position_spread([1, 0], [0, 1], list("aa"), resamples=20).noise_range == 1.0
    mixed = position_spread([1, 0, 1, 0], places, base, resamples=2000).noise_range
    assert mixed == pytest.approx(0.5, abs=0.05), "both clusters the same way round in half of the shuffles"


def gap_by_loops(focused: Any, target: Any, correct: Any, base: Any, resamples: int, seed: int, level: float) -> Any:
    """The gap's value and reach, draw by draw and sample by sample."""
    clusters, positions = sorted({*base}), sorted({*target})

    def accuracies(weights: Any) -> tuple[Any, Any, Any, Any]:
        asked, right, looked = (dict.fromkeys(positions, 0.0) for _ in range(3))
        for sees, place, good, cluster in zip(focused, target, correct, base, strict=True):
            weight = weights[clusters.index(cluster)]
            asked[place] += weight
            right[place] += weight * good
            looked[place] += weight * (good and sees == place)
        answer = [right[place] / asked[place] if asked[place] else math.nan for place in positions]
        attention = [looked[place] / right[place] if right[place] else math.nan for place in positions]
        return answer, attention, max(answer) - min(answer), max(attention) - min(attention)

    answer, attention, first, second = accuracies([1] * len(clusters))
    shares = np.full(len(clusters), 1 / len(clusters))
    reaches = []
    for weights in np.random.default_rng(seed).multinomial(len(clusters), shares, size=resamples):
        drawn = accuracies(weights)
        strays = [np.subtract(drawn[0], answer), np.subtract(drawn[1], attention)]
        reaches.append(sum(stray.max() - stray.min() for stray in strays))
    return first - second, np.quantile([reach for reach in reaches if not math.isnan(reach)], level)


def test_the_gap_by_loops() -> None:
    focused, target, correct, base = every_position(np.random.default_rng(5), 60, [0.9, 0.7, 0.6], [0.9, 0.8, 0.95])
    value, reach = gap_by_loops(
        focused.tolist(), target.tolist(), correct.tolist(), base.tolist(), resamples=60, seed=3, level=0.8
    )
    found = position_study(focused, target, correct, base, resamples=60, seed=3, level=0.8).gap
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == pytest.approx((value - reach, value + reach))


def test_the_gap_covers_and_is_no_wider_than_the_ranges_allow() -> None:
    rng, rounds = np.random.default_rng(6), 60
    answer, looks = [0.9, 0.7, 0.5], [0.9, 0.85, 0.8]
    gaps = [position_study(*every_position(rng, 150, answer, looks), resamples=150).gap for _ in range(rounds)]
    covered = np.mean([gap.low <= 0.3 <= gap.high for gap in gaps])
    assert covered >= 0.95
    assert 0.2 < np.mean([gap.high - gap.low for gap in gaps]) < 0.6


def test_a_position_that_most_draws_leave_without_right_answers_has_no_interval() -> None:
    """Each position is answered right in one cluster of four: most draws miss one of the two."""
    target, base = np.tile([0, 1], 4), np.repeat(np.arange(4), 2)
    correct = np.array([1, 0, 0, 1, 0, 0, 0, 0], dtype=bool)
    gap = position_study(target, target, correct, base, resamples=200).gap
    assert gap.value == 0.0
    assert (gap.low, gap.high) == (-1.0, 1.0)
