"""Style matrix: against loops, symmetry, domains, and models that see style or content only."""

import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rewardmodels.styles import STYLES, style_matrix

ITEMS = st.integers(1, 6).flatmap(
    lambda n: st.tuples(*[arrays.arrays(np.float64, (n, 3), elements=st.integers(-2, 2).map(float))] * 2)
)
Table = npt.NDArray[np.float64]


def looped(chosen: Table, rejected: Table, ties: float) -> list[list[float]]:
    """Count item by item."""
    matrix = [[0.0] * 3 for _ in range(3)]
    for right, wrong in zip(chosen.tolist(), rejected.tolist(), strict=True):
        for i in range(3):
            for j in range(3):
                matrix[i][j] += 1.0 if right[i] > wrong[j] else ties if right[i] == wrong[j] else 0.0
    return [[total / len(chosen) for total in row] for row in matrix]


@given(ITEMS, st.sampled_from([0.0, 0.5]))
def test_against_loops(scores: tuple[Table, Table], ties: float) -> None:
    matrix = looped(*scores, ties)
    found = style_matrix(*scores, ties=ties)
    assert [[cell.value for cell in row] for row in found.accuracy] == [pytest.approx(row) for row in matrix]
    assert found.easy.value == pytest.approx((matrix[1][0] + matrix[2][0] + matrix[2][1]) / 3)
    assert found.normal.value == pytest.approx((matrix[0][0] + matrix[1][1] + matrix[2][2]) / 3)
    assert found.hard.value == pytest.approx((matrix[0][1] + matrix[0][2] + matrix[1][2]) / 3)
    assert found.average.value == pytest.approx((found.easy.value + found.normal.value + found.hard.value) / 3)


@given(ITEMS)
def test_reversing_the_styles_swaps_easy_and_hard(scores: tuple[Table, Table]) -> None:
    plain, turned = style_matrix(*scores), style_matrix(scores[0][:, ::-1], scores[1][:, ::-1])
    assert turned.easy.value == pytest.approx(plain.hard.value)
    assert turned.normal.value == pytest.approx(plain.normal.value)


def test_a_model_of_style_alone_and_one_of_content_alone() -> None:
    style = np.tile([0.0, 1.0, 2.0], (20, 1))
    found = style_matrix(style, style)
    assert (found.easy.value, found.normal.value, found.hard.value) == (1.0, 0.5, 0.0)
    seeing = style_matrix(np.ones((20, 3)), np.zeros((20, 3)))
    assert (seeing.easy.value, seeing.normal.value, seeing.hard.value, seeing.average.value) == (1.0, 1.0, 1.0, 1.0)
    assert [estimate.value for estimate in found.chosen] == [0.0, 1.0, 2.0]


def test_domains_count_once_each() -> None:
    chosen = np.array([[1.0, 1.0, 1.0]] * 3 + [[0.0, 0.0, 0.0]])
    rejected = 1 - chosen
    over_items = style_matrix(chosen, rejected)
    over_domains = style_matrix(chosen, rejected, ["math", "math", "math", "chat"])
    assert over_items.hard.value == 0.75 and over_domains.hard.value == 0.5
    assert over_domains.chosen[0].value == over_items.chosen[0].value == 0.75


def test_json_and_names() -> None:
    found = style_matrix(np.ones((2, 2)), np.zeros((2, 2)), styles=("plain", "rich"))
    record = json.loads(json.dumps(found.to_dict()))
    assert record["styles"] == ["plain", "rich"] and record["accuracy"][0][1]["value"] == 1.0
    assert STYLES == ("concise", "detailed", "markdown")


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"chosen must have the shape \(items, 3\)"):
        style_matrix(np.ones((2, 2)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="at least one item"):
        style_matrix(np.ones((0, 3)), np.ones((0, 3)))
    with pytest.raises(ValueError, match="the same items, got 2 and 1"):
        style_matrix(np.ones((2, 3)), np.ones((1, 3)))
    with pytest.raises(ValueError, match="rejected holds 3 missing"):
        style_matrix(np.ones((1, 3)), np.full((1, 3), np.nan))
    with pytest.raises(ValueError, match="credit of a tie"):
        style_matrix(np.ones((1, 3)), np.ones((1, 3)), ties=-1)
