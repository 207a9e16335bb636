"""Scores by style: planted bonuses come back, a constant bonus is taken off and no other, and halves do not leak."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from rewardmodels.style_scores import style_centred, style_report
from rewardmodels.styles import style_matrix

Table = npt.NDArray[np.float64]


def planted(bonus: float, right: float = 1.0, items: int = 400, only_wrong: bool = False) -> tuple[Table, Table]:
    """Scores of items that differ, with a gain for being right and a bonus for each step towards the rich style."""
    rng = np.random.default_rng(0)
    base = rng.normal(0, 5, (items, 1))
    steps = bonus * np.arange(3)
    chosen = base + right + (0 if only_wrong else steps) + rng.normal(0, 0.6, (items, 3))
    return chosen, base + steps + rng.normal(0, 0.6, (items, 3))


def test_planted_gains_come_back_in_points_of_score() -> None:
    found = style_report(*planted(bonus=1.5, right=2.0), resamples=50)
    # Five standard errors: 0.6 * sqrt(2 / 3 / 400), and 0.6 / sqrt(400).
    assert found.right_is_worth.value == pytest.approx(2.0, abs=0.13)
    assert found.rich_is_worth.value == pytest.approx(3.0, abs=0.15)
    assert found.rich_is_worth.high - found.rich_is_worth.value == pytest.approx(1.97 * 0.6 / 20, rel=0.15)
    assert found.right_is_worth.n == found.matrix.easy.n == 400 and found.domains == {}


def test_a_bonus_for_all_answers_of_a_style_is_taken_off() -> None:
    found = style_report(*planted(bonus=2.0), resamples=50)
    assert found.matrix.easy.value > 0.97 and found.matrix.hard.value < 0.2
    assert found.centred.normal.value == pytest.approx(found.matrix.normal.value)
    assert abs(found.centred.hard.value - found.centred.easy.value) < 0.05


def test_a_bonus_for_wrong_answers_alone_is_not() -> None:
    found = style_report(*planted(bonus=2.0, only_wrong=True), resamples=50)
    assert found.centred.hard.high < 0.3 < found.centred.normal.low


def test_the_correction_is_the_other_halfs_mean() -> None:
    chosen, rejected = planted(bonus=1.0, items=7)
    even = style_centred(chosen, rejected, seed=3)
    order = np.random.default_rng(3).permutation(7).tolist()
    halves = order[:3], order[3:]
    for own, other in (halves, halves[::-1]):
        for item in own:
            for style in range(3):
                mean = sum(chosen[at, style] + rejected[at, style] for at in other) / (2 * len(other))
                assert even[0][item, style] == pytest.approx(chosen[item, style] - mean)
                assert even[1][item, style] == pytest.approx(rejected[item, style] - mean)


def test_no_item_sets_its_own_correction() -> None:
    chosen, rejected = planted(bonus=1.0, items=8)
    moved = chosen.copy()
    moved[2] += [5.0, -7.0, 11.0]
    before, after = style_centred(chosen, rejected), style_centred(moved, rejected)
    assert np.allclose(after[0][2] - before[0][2], [5.0, -7.0, 11.0])
    assert np.allclose(after[1][2], before[1][2])


def test_correlations_are_pearsons_with_more_and_more_taken_off() -> None:
    chosen, rejected = planted(bonus=0.7, items=30)
    found = style_report(chosen, rejected, resamples=50).correlations
    both = np.stack([chosen, rejected], axis=1)
    place = np.broadcast_to(np.arange(3.0), both.shape)
    assert found.total.value == pytest.approx(stats.pearsonr(both.ravel(), place.ravel()).statistic)
    by_side = both - both.mean(axis=(0, 2), keepdims=True)
    assert found.at_fixed_quality.value == pytest.approx(stats.pearsonr(by_side.ravel(), place.ravel()).statistic)
    inside = both - both.mean(axis=(1, 2), keepdims=True)
    inside -= inside.mean(axis=(0, 2), keepdims=True)
    assert found.within_prompt.value == pytest.approx(stats.pearsonr(inside.ravel(), place.ravel()).statistic)
    assert found.within_prompt.value > 2 * found.total.value > 0 and found.total.clusters == 30


def test_domains_count_once_each() -> None:
    chosen, rejected = planted(bonus=1.0, items=9)
    names = ["chat"] * 6 + ["code"] * 3
    found = style_report(chosen, rejected, names, resamples=50)
    assert list(found.domains) == ["chat", "code"]
    alone = style_matrix(chosen[:6], rejected[:6], ties=0.0)
    assert alone.hard.value == found.domains["chat"].hard.value
    expected = (found.domains["chat"].hard.value + found.domains["code"].hard.value) / 2
    assert found.matrix.hard.value == pytest.approx(expected)


def test_one_item_has_no_other_half() -> None:
    with pytest.raises(ValueError, match="two items or more, got 1"):
        style_centred([[1.0, 2.0]], [[0.0, 1.0]])
