"""The shortcut-failure coefficient and loss: hand values, arbitrary precision, gradients, and wrong variants."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from rewardmodels.shortcut import (
    coefficient_from_margins,
    pair_loss,
    shortcut_aware_loss,
    shortcut_failure_coefficient,
)


def exactly(margin: float, margin_text: float) -> float:
    """The coefficient from its definition, in arithmetic that no loss rounds to zero in."""
    with localcontext() as context:
        context.prec = 60 + int(0.9 * (max(abs(margin), abs(margin_text)) + 1))
        loss, loss_text = ((1 + (-Decimal(value)).exp()).ln() for value in (margin, margin_text))
        return float(loss_text / (loss + loss_text))


def released(loss: Tensor, loss_text: Tensor, eps: float = 1e-7) -> Tensor:
    """The weight as the paper's code has it: by precedence half the epsilon stands outside of the fraction."""
    return eps / 2 + loss_text / (eps + loss_text + loss)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_hand_values() -> None:
    found = shortcut_failure_coefficient(
        torch.tensor([1.0, 1.0, 3.0, 0.0, 2.0]), torch.tensor([1.0, 3.0, 1.0, 2.0, 0.0])
    )
    assert found.tolist() == [0.5, 0.75, 0.25, 1.0, 0.0]


def test_two_zero_losses_give_one_half_and_the_released_weight_does_not() -> None:
    zero = torch.zeros(1)
    assert shortcut_failure_coefficient(zero, zero).item() == 0.5
    assert released(zero, zero).item() == pytest.approx(5e-8)
    tiny = torch.tensor([1e-12])
    assert shortcut_failure_coefficient(tiny, tiny).item() == 0.5
    assert released(tiny, tiny).item() < 1e-4
    assert released(torch.ones(1), torch.ones(1) * 3).item() == pytest.approx(0.75, abs=1e-6)


def test_huge_and_tiny_losses_keep_their_ratio() -> None:
    huge = torch.tensor([3e38])
    assert shortcut_failure_coefficient(huge, huge).item() == 0.5
    smallest = doubles(5e-324)
    assert shortcut_failure_coefficient(smallest, smallest).item() == 0.5
    assert shortcut_failure_coefficient(torch.tensor([6e4]).half(), torch.tensor([6e4]).half()).item() == 0.5


@given(st.floats(-700, 700), st.floats(-700, 700))
def test_margins_give_the_exact_ratio(margin: float, margin_text: float) -> None:
    expected = exactly(margin, margin_text)
    found = coefficient_from_margins(doubles(margin), doubles(margin_text)).item()
    assert found == pytest.approx(expected, rel=1e-11, abs=1e-300)
    single = coefficient_from_margins(torch.tensor([margin]), torch.tensor([margin_text])).item()
    assert single == pytest.approx(
        exactly(*(float(torch.tensor(m)) for m in (margin, margin_text))), rel=2e-4, abs=1e-37
    )


@pytest.mark.parametrize("margin", [19.99, 20.0, 20.01, 21.0, 23.0, 37.0])
@pytest.mark.parametrize("margin_text", [0.3, 19.5, 20.5, 22.0])
def test_no_digit_is_lost_where_the_loss_becomes_an_exponential(margin: float, margin_text: float) -> None:
    found = coefficient_from_margins(doubles(margin), doubles(margin_text)).item()
    assert found == pytest.approx(exactly(margin, margin_text), rel=2e-14)


@given(st.floats(-12, 12), st.floats(-12, 12))
def test_margins_agree_with_losses(margin: float, margin_text: float) -> None:
    pair = doubles(margin), doubles(margin_text)
    by_loss = shortcut_failure_coefficient(pair_loss(pair[0]), pair_loss(pair[1]))
    torch.testing.assert_close(coefficient_from_margins(*pair), by_loss, rtol=1e-9, atol=0)


@pytest.mark.parametrize("level", [60.0, 800.0, 1e6])
def test_the_limit_of_two_vanishing_losses_is_the_sigmoid_of_the_difference(level: float) -> None:
    gap = doubles(-2.0, 0.0, 0.5, 3.0)
    found = coefficient_from_margins(level + gap, torch.full_like(gap, level))
    torch.testing.assert_close(found, torch.sigmoid(gap), rtol=1e-9, atol=0)
    if level > 745:
        losses = pair_loss(level + gap), pair_loss(torch.full_like(gap, level))
        assert shortcut_failure_coefficient(*losses).tolist() == [0.5] * 4


def test_ends_of_the_range() -> None:
    endless = math.inf
    found = coefficient_from_margins(doubles(endless, endless, 0.0, -1e300), doubles(endless, 0.0, endless, 0.0))
    assert found.tolist() == pytest.approx([0.5, 1.0, 0.0, 0.0], abs=1e-299)
    assert coefficient_from_margins(doubles(math.nan), doubles(0.0)).isnan().all()


@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0, 4))
def test_exponent_is_a_power(margin: float, margin_text: float, exponent: float) -> None:
    plain = coefficient_from_margins(doubles(margin), doubles(margin_text))
    found = coefficient_from_margins(doubles(margin), doubles(margin_text), exponent)
    torch.testing.assert_close(found, plain**exponent, rtol=1e-9, atol=1e-300)


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_swapping_the_branches_complements(margin: float, margin_text: float) -> None:
    one = coefficient_from_margins(doubles(margin), doubles(margin_text))
    other = coefficient_from_margins(doubles(margin_text), doubles(margin))
    assert (one + other).item() == pytest.approx(1.0, abs=1e-12)


def margins(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = [3 * torch.randn(9, generator=generator, dtype=torch.float64) for _ in range(2)]
    weight = torch.rand(9, generator=generator, dtype=torch.float64)
    return drawn[0].requires_grad_(), drawn[1].requires_grad_(), weight


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("exponent", [1.0, 0.7])
def test_value_and_gradients(weighted: bool, normalize: bool, exponent: float) -> None:
    margin, margin_text, weight = margins()
    used = weight if weighted else torch.ones_like(weight)
    loss = shortcut_aware_loss(margin, margin_text, weight if weighted else None, normalize, exponent=exponent)
    main, text = -functional.logsigmoid(margin), -functional.logsigmoid(margin_text)
    coefficient = (text / (main + text)).detach() ** exponent
    if normalize:
        coefficient = coefficient * used.sum() / (coefficient * used).sum()
    expected = (used * (coefficient * main + text)).sum() / 9
    torch.testing.assert_close(loss, expected)
    (of_main, of_text) = torch.autograd.grad(loss, (margin, margin_text))
    step, held = 1e-6, used * coefficient
    for place in range(9):
        # The coefficient is held where it is: its own change is no part of the gradient.
        shift = torch.zeros(9, dtype=torch.float64)
        shift[place] = step
        ends = [float((held * -functional.logsigmoid(margin.detach() + d)).sum() / 9) for d in (shift, -shift)]
        assert of_main[place].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6, abs=1e-10)
    plain = margin_text.detach().clone().requires_grad_()
    (expected_text,) = torch.autograd.grad((used * -functional.logsigmoid(plain)).mean(), plain)
    assert torch.equal(of_text, expected_text)


def test_the_check_of_gradients_sees_a_coefficient_that_learns() -> None:
    margin, margin_text, _ = margins()
    main, text = -functional.logsigmoid(margin), -functional.logsigmoid(margin_text)
    (wrong,) = torch.autograd.grad(((text / (main + text)) * main + text).mean(), margin_text)
    plain = margin_text.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad((-functional.logsigmoid(plain)).mean(), plain)
    assert not torch.allclose(wrong, expected, rtol=1e-2)


def test_normalised_coefficients_have_the_step_of_plain_training() -> None:
    margin, margin_text, weight = margins(3)
    far = shortcut_aware_loss(margin * 0, margin_text * 0, weight, normalize=True)
    torch.testing.assert_close(far, 2 * math.log(2) * weight.mean())
    half = shortcut_aware_loss(margin * 0, margin_text * 0, weight)
    torch.testing.assert_close(half, 1.5 * math.log(2) * weight.mean())


def test_extreme_margins_leave_loss_and_gradients_finite() -> None:
    margin = torch.tensor([1e4, -1e4, 1e4, -1e4, 0.0], requires_grad=True)
    margin_text = torch.tensor([1e4, 1e4, -1e4, -1e4, 1e4], requires_grad=True)
    for normalize in (False, True):
        loss = shortcut_aware_loss(margin, margin_text, normalize=normalize)
        gradients = torch.autograd.grad(loss, (margin, margin_text))
        assert loss.isfinite() and all(gradient.isfinite().all() for gradient in gradients)
    solved = torch.full((3,), 1e4)
    assert shortcut_aware_loss(-solved, solved, normalize=True).isfinite()


def test_half_precision_is_computed_in_single() -> None:
    margin, margin_text, _ = margins()
    half = margin.detach().bfloat16(), margin_text.detach().bfloat16()
    found = shortcut_aware_loss(*half)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, shortcut_aware_loss(half[0].float(), half[1].float()))


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (torch.zeros(2), torch.zeros(3), r"shape \(pairs,\)"),
        (torch.zeros(2, 1), torch.zeros(2, 1), r"shape \(pairs,\)"),
        (torch.zeros(0), torch.zeros(0), "no pair"),
    ],
)
def test_wrong_shapes_are_refused(first: Tensor, second: Tensor, words: str) -> None:
    for function in (shortcut_failure_coefficient, coefficient_from_margins, shortcut_aware_loss):
        with pytest.raises(ValueError, match=words):
            function(first, second)


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_losses_that_are_none_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="loss_text must be finite and >= 0"):
        shortcut_failure_coefficient(torch.ones(1), torch.tensor([wrong]))
    with pytest.raises(ValueError, match=r"^loss must be finite"):
        shortcut_failure_coefficient(torch.tensor([wrong]), torch.ones(1))


def test_wrong_weights_and_exponents_are_refused() -> None:
    with pytest.raises(ValueError, match="weight"):
        shortcut_aware_loss(torch.zeros(2), torch.zeros(2), torch.ones(3))
    with pytest.raises(ValueError, match="exponent"):
        shortcut_aware_loss(torch.zeros(2), torch.zeros(2), exponent=-1.0)
