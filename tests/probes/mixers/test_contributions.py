"""Shares of a mixing layer's output by token, against autograd on the recurrences; and what knock-outs take out."""

from typing import Any

import pytest
import torch

from probes.mixers.contributions import attention_contributions, image_part, scan_contributions
from tests.probes.mixers.recurrences import by_recurrence
from tests.probes.mixers.scans import BATCH, MAKERS


@pytest.mark.parametrize("kind", MAKERS)
def test_shares_are_values_times_the_gradient_by_them(kind: str) -> None:
    """The output is linear in the values, so a token's share is its value times the derivative by it."""
    scan = MAKERS[kind](21)
    rows = torch.tensor([[20, 3, 12], [19, 18, 0]])
    batch = torch.arange(BATCH)[:, None]
    size = scan.values.shape[-1]
    weights = torch.randn(BATCH, scan.heads, 3, size, generator=torch.Generator().manual_seed(1))
    values = scan.values.double().requires_grad_()
    output = torch.einsum("bhij,bjhp->bihp", by_recurrence(scan), values)
    if scan.skip is not None:
        output = output + scan.skip.double()[:, None] * values
    weighted = (output[batch, rows] * weights.double().transpose(1, 2)).sum()
    (gradient,) = torch.autograd.grad(weighted, values)
    right = (gradient * values.detach()).sum((2, 3))
    found = scan_contributions(scan, rows, weights)
    torch.testing.assert_close(found.double(), right, rtol=1e-4, atol=1e-5 * float(right.abs().max()))
    assert float(found.sum()) == pytest.approx(float(weighted.detach()), rel=1e-4)


def test_shares_of_softmax_attention_add_up() -> None:
    draw = torch.Generator().manual_seed(0)
    attention = torch.randn(4, 3, 7, generator=draw).softmax(-1)
    values, weights = torch.randn(2, 7, 5, generator=draw), torch.randn(4, 3, 5, generator=draw)
    found = attention_contributions(attention, values, weights)
    by_hand = [
        sum(
            float(attention[head, row, token]) * float(weights[head, row] @ values[head // 2, token])
            for head in range(4)
            for row in range(3)
        )
        for token in range(7)
    ]
    torch.testing.assert_close(found, torch.tensor(by_hand))


@pytest.mark.parametrize("kind", MAKERS)
def test_an_images_part_is_the_sum_over_its_tokens(kind: str) -> None:
    scan, rows = MAKERS[kind](21), torch.tensor([[20, 3], [19, 18]])
    tokens = torch.zeros(BATCH, 21, dtype=torch.bool)
    tokens[0, 2:9] = tokens[1, [0, 17]] = True
    alpha = by_recurrence(scan) * tokens[:, None, None]
    right = torch.einsum("bhij,bjhp->bihp", alpha, scan.values.double())[torch.arange(BATCH)[:, None], rows]
    torch.testing.assert_close(image_part(scan, rows, tokens).double(), right, rtol=1e-4, atol=1e-5)
    nothing: Any = image_part(scan, rows, torch.zeros_like(tokens))
    assert nothing.shape == right.shape
    assert not nothing.any()
