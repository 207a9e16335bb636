"""The rules that pick an image from factors: by hand, against brute force, and what must not change their pick."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from probes.scores import (
    RULES,
    focus,
    focus_all,
    focus_by_depth,
    focus_shares,
    image_counts,
)

NAN = math.nan
# Small whole numbers: ties are common and sums exact.
WHOLE = arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    elements=st.integers(0, 3).map(float),
)
REAL = arrays(np.float64, (4, 5), elements=st.floats(1e-4, 1.0), unique=True)


def brute(factors: list[list[float]], rule: str, last: int) -> int:
    """The rules in plain loops, from their definition."""
    rows = factors[-last:]
    images = [i for i in range(len(rows[0])) if not math.isnan(rows[0][i])]
    if rule == "LND":
        largest = max(row[i] for row in rows for i in images)
        return min(i for i in images if any(row[i] == largest for row in rows))
    if rule == "M-LND":
        means = {i: sum(row[i] for row in rows) / len(rows) for i in images}
        return min(i for i in images if means[i] == max(means.values()))
    leaders = [min(i for i in images if row[i] == max(row[j] for j in images)) for row in rows]
    votes = {i: leaders.count(i) for i in images}
    tied = [i for i in images if votes[i] == max(votes.values())]
    support = {i: sum(row[i] for row, leader in zip(rows, leaders, strict=True) if leader == i) for i in tied}
    return min(i for i in tied if support[i] == max(support.values()))


def test_rules_by_hand() -> None:
    #           images:  0    1    2    3
    table = np.array(
        [
            [0.0, 0.3, 0.9, 0.0],
            [0.6, 0.4, 0.0, 0.1],
            [0.3, 0.5, 0.0, 0.1],
            [0.4, 0.3, 0.2, 0.1],
        ]
    )
    assert [focus(table, rule, 4) for rule in RULES] == [2, 1, 0]
    assert [focus(table, rule, 3) for rule in RULES] == [0, 0, 0]
    assert [focus(table, rule, 1) for rule in RULES] == [0, 0, 0]


def test_vote_ties_count_only_the_layers_that_voted() -> None:
    table = [[0.5, 0.4, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 0.4], [0.0, 0.0, 0.2]]
    # Image 2 leads two layers (sum 0.6), image 0 one, image 1 one; over the last three only images 1 and 2 voted.
    assert focus(table, "MC-LND", 4) == 2
    # One vote each for 0 (0.5) and 1 (0.3): image 1's factors in all layers (0.7) must not count.
    assert focus(table[:2], "MC-LND", 2) == 0
    assert np.argmax(np.sum(table[:2], axis=0)) == 1
    # Two small votes beat one large one.
    assert focus([[0.9, 0.0], [0.1, 0.2], [0.1, 0.2]], "MC-LND", 3) == 1


@settings(max_examples=300)
@given(WHOLE, st.sampled_from(RULES), st.integers(1, 6))
def test_rules_equal_brute_force(table: np.ndarray, rule: str, last: int) -> None:
    assert focus(table, rule, last) == brute(table.tolist(), rule, last)


@given(WHOLE, st.sampled_from(RULES), st.integers(1, 5), st.data())
def test_padding_is_no_image(table: np.ndarray, rule: str, last: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, table.shape[1]))
    padded = np.insert(table, at, NAN, axis=1)
    chosen = focus(table, rule, last)
    assert focus(padded, rule, last) == chosen + (chosen >= at)
    assert focus_shares(padded, rule, last)[at] == 0.0


@given(REAL, st.sampled_from(RULES), st.integers(1, 4), st.permutations(range(5)))
def test_permuting_images_permutes_the_focus(table: np.ndarray, rule: str, last: int, order: list[int]) -> None:
    shares = focus_shares(table, rule, last)
    assume(shares.max() == 1.0)
    assert order[focus(table[:, order], rule, last)] == focus(table, rule, last)
    assert focus_shares(table[:, order], rule, last).tolist() == shares[order].tolist()


@given(WHOLE, st.sampled_from(RULES), st.integers(1, 4), st.integers(-20, 20))
def test_scale_does_not_matter(table: np.ndarray, rule: str, last: int, power: int) -> None:
    assert focus(table * 2.0**power, rule, last) == focus(table, rule, last)
    assert focus_shares(table * 2.0**power, rule, last).tolist() == focus_shares(table, rule, last).tolist()


@given(WHOLE, st.sampled_from(RULES), st.integers(1, 5))
def test_shares_sum_to_one_and_hold_the_focus(table: np.ndarray, rule: str, last: int) -> None:
    shares = focus_shares(table, rule, last)
    assert shares.sum() == pytest.approx(1.0)
    if shares.max() == 1.0 and (rule != "MC-LND" or _no_layer_ties(table)):
        assert shares.argmax() == focus(table, rule, last)


def _no_layer_ties(table: np.ndarray) -> bool:
    return bool(((table == table.max(axis=1, keepdims=True)).sum(axis=1) == 1).all())


def test_shares_by_hand() -> None:
    table = [[0.4, 0.4, 0.1], [0.1, 0.3, 0.3]]
    assert focus_shares(table, "LND", 2).tolist() == [0.5, 0.5, 0.0]
    assert focus_shares(table, "M-LND", 2).tolist() == [0.0, 1.0, 0.0]
    assert focus_shares(table, "MC-LND", 2).tolist() == [0.0, 1.0, 0.0]  # half a vote, one vote, half a vote
    near = [[0.2, 0.2 * (1 + 1e-8), 0.1]]
    assert focus_shares(near).tolist() == [0.0, 1.0, 0.0]
    assert focus_shares(near, tolerance=1e-6).tolist() == [0.5, 0.5, 0.0]


def test_all_samples_at_once_equal_one_by_one() -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(0, 4, (200, 6, 5)).astype(float)
    for sample, images in enumerate(rng.integers(1, 6, 200)):
        table[sample, :, images:] = NAN
    for rule in RULES:
        depths = focus_by_depth(table, rule)
        for last in (1, 2, 4, 6, 9):
            one_by_one = [brute(sample.tolist(), rule, last) for sample in table]
            assert focus_all(table, rule, last).tolist() == one_by_one
            assert depths[:, min(last, 6) - 1].tolist() == one_by_one
    assert focus_all(table[:0]).shape == (0,)
    assert image_counts(table).tolist() == [int((~np.isnan(sample[0])).sum()) for sample in table]


def test_mean_over_image_tokens_differs_from_sum() -> None:
    # Image 0 has 2 tokens of weight 0.3, image 1 has 8 of 0.1: the mean picks 0, the sum 1.
    mean = [[np.mean([0.3] * 2), np.mean([0.1] * 8)]]
    total = [[np.sum([0.3] * 2), np.sum([0.1] * 8)]]
    assert (focus(mean), focus(total)) == (0, 1)
