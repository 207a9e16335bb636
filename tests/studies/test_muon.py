"""Muon for matrices and stacks of them against torch's own, matrix by matrix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from studies.dense.muon import Muon, orthogonalised
from studies.dense.state import Optimisers


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def step(optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter], gradients: list[Tensor]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimiser.step()


@pytest.mark.parametrize("shape", [(5, 6, 20), (3, 24, 8)])
def test_a_stack_learns_as_its_matrices_do_one_by_one(shape: tuple[int, int, int]) -> None:
    start = drawn(*shape, seed=0)
    stack, single = nn.Parameter(start.clone()), [nn.Parameter(matrix.clone()) for matrix in start]
    ours = Muon([stack], lr=0.02, weight_decay=0.1)
    theirs = torch.optim.Muon(single, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for seed in range(1, 5):
        gradient = drawn(*shape, seed=seed)
        step(ours, [stack], [gradient])
        step(theirs, single, list(gradient))
    moved, expected = stack.detach() - start, torch.stack([matrix.detach() for matrix in single]) - start
    assert float((moved - expected).norm() / expected.norm()) < 0.01


def test_the_comparison_sees_one_matrix_made_of_all() -> None:
    gradient = drawn(5, 6, 20, seed=1)
    together = orthogonalised(gradient.reshape(1, 30, 20)).reshape(5, 6, 20)
    apart = orthogonalised(gradient)
    assert float((together - apart).norm() / apart.norm()) > 0.3


def test_orthogonalised_matrices_have_singular_values_near_one_and_the_same_vectors() -> None:
    matrices = drawn(4, 8, 32, seed=2)
    found = orthogonalised(matrices).float()
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.5 and float(values.max()) < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    within = left.mT @ found @ right.mT
    assert float((within - torch.diag_embed(within.diagonal(dim1=-2, dim2=-1))).norm() / within.norm()) < 0.05
    torch.testing.assert_close(orthogonalised(matrices.mT), orthogonalised(matrices).mT)


def test_what_is_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one is \(4,\)"):
        Muon([nn.Parameter(torch.ones(4))])


def test_a_matrix_learns_as_in_torch() -> None:
    start, gradient = drawn(12, 30, seed=4), drawn(12, 30, seed=5)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    step(Muon([ours], lr=0.02, weight_decay=0.1), [ours], [gradient])
    step(torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"), [theirs], [gradient])
    moved, expected = ours.detach() - start, theirs.detach() - start
    assert float((moved - expected).norm() / expected.norm()) < 0.01
    assert orthogonalised(gradient).dtype == torch.bfloat16


def test_a_stack_without_gradient_stays_and_no_closure_is_called() -> None:
    stack = nn.Parameter(drawn(2, 3, 4, seed=3))
    before, optimiser = stack.detach().clone(), Muon([stack], lr=0.1, weight_decay=0.1)
    optimiser.step()
    assert torch.equal(stack.detach(), before)
    with pytest.raises(ValueError, match="no closure"):
        optimiser.step(lambda: 0.0)


def test_a_dense_decoder_has_no_stacks() -> None:
    layer = nn.Linear(4, 3)
    optimisers = Optimisers(layer.named_parameters(), 0.1)
    assert len(optimisers.state_dict()) == 2
