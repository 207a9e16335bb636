"""Transfer matrix: means by hand, Student's interval over seeds, paired differences."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rewardmodels.transfer import transfer_difference, transfer_matrix

NAMES = ("vlfeedback", "povid", "rlhf-v")


def table(seeds: int = 5, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    rng = np.random.default_rng(seed)
    return np.clip(0.6 + 0.3 * np.eye(3) + rng.normal(0, 0.03, (seeds, 3, 3)), 0, 1)


def test_means_and_intervals_by_hand() -> None:
    values = table()
    found = transfer_matrix(values, NAMES)
    diagonal = np.array([[values[s, i, i] for i in range(3)] for s in range(5)]).mean(1)
    rest = np.array([[values[s, i, j] for i in range(3) for j in range(3) if i != j] for s in range(5)]).mean(1)
    for estimate, numbers in ((found.iid, diagonal), (found.ood, rest), (found.gap, diagonal - rest)):
        low, high = stats.t.interval(0.95, 4, numbers.mean(), stats.sem(numbers))
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((numbers.mean(), low, high))
        assert estimate.n == 5
    np.testing.assert_allclose(found.values(), values.mean(0))
    cells = {(train, test): cell.value for train, test, cell in found}
    assert cells["povid", "rlhf-v"] == pytest.approx(values[:, 1, 2].mean())


@given(st.permutations(range(3)))
def test_the_order_of_environments_does_not_matter(order: list[int]) -> None:
    values = table()
    moved = transfer_matrix(values[:, order][:, :, order], [NAMES[place] for place in order])
    plain = transfer_matrix(values, NAMES)
    for name in ("iid", "ood", "gap"):
        one, other = getattr(moved, name), getattr(plain, name)
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))
    assert {(train, test): cell.value for train, test, cell in moved} == pytest.approx(
        {(train, test): cell.value for train, test, cell in plain}
    )


def test_means_over_all_cells_are_not_means_of_the_diagonal() -> None:
    found = transfer_matrix(table(), NAMES)
    assert found.iid.value > 0.85 and found.ood.value < 0.65
    assert abs(table().mean() - found.iid.value) > 0.1


def test_published_gap() -> None:
    """The means that the shortcut paper's readers report: 91.4 at home and 68.1 elsewhere, 23.3 apart."""
    found = transfer_matrix([[[0.914, 0.681], [0.681, 0.914]]], ["a", "b"])
    assert found.gap.value == pytest.approx(0.233)


def test_differences_are_paired_by_seed() -> None:
    base = table()
    noise = np.random.default_rng(9).normal(0, 0.001, base.shape)
    better = np.clip(base + np.where(np.eye(3, dtype=bool), -0.02, 0.1) + noise, 0, 1)
    found = transfer_difference(better, base, NAMES)
    assert found.ood.value == pytest.approx(0.1, abs=0.002) and found.iid.value == pytest.approx(-0.02, abs=0.002)
    assert found.ood.low > 0.09
    loose = transfer_matrix(better, NAMES).ood
    assert found.ood.high - found.ood.low < 0.5 * (loose.high - loose.low)
    shuffled = transfer_difference(better[::-1], base, NAMES)
    assert shuffled.ood.high - shuffled.ood.low > 2 * (found.ood.high - found.ood.low)


def test_one_seed_promises_nothing() -> None:
    found = transfer_matrix(table(1), NAMES)
    assert (found.ood.low, found.ood.high) == (0.0, 1.0)
    assert (found.gap.low, found.gap.high) == (-1.0, 1.0)


def test_json() -> None:
    record = json.loads(json.dumps(transfer_matrix(table(), NAMES).to_dict()))
    assert record["environments"] == list(NAMES) and len(record["cells"]) == 3 and "gap" in record


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match="two environments"):
        transfer_matrix([[[1.0]]], ["a"])
    with pytest.raises(ValueError, match="different names"):
        transfer_matrix(np.ones((1, 2, 2)), ["a", "a"])
    with pytest.raises(ValueError, match=r"shape \(seeds, 3, 3\)"):
        transfer_matrix(np.ones((2, 2)), NAMES)
    holes = table()
    holes[2, 0, 1] = math.nan
    with pytest.raises(ValueError, match="trained on 'vlfeedback', tested on 'povid', seed number 2, is missing"):
        transfer_matrix(holes, NAMES)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        transfer_matrix(100 * table(), NAMES)
    with pytest.raises(ValueError, match="same seeds, got 5 and 4"):
        transfer_difference(table(), table(4), NAMES)
