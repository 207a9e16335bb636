"""Muon for matrices and stacks of them: the experts of a layer are one parameter, each orthogonalised by itself.

`torch.optim.Muon` takes single matrices only, and multiplies in bfloat16, which a CPU without units for it does number
by number. This follows it, all experts at once, in products of float32 that are rounded to bfloat16, as such units do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
SMALLEST_NORM = 1e-7


class Muon(torch.optim.Optimizer):
    """Muon (Jordan 2024) with AdamW's step size (Liu et al. 2025), for parameters ([matrices,] rows, columns).

    Args:
        weights: The parameters.
        lr: Learning rate.
        weight_decay: Decoupled, as AdamW's.
        momentum: Of the gradient's running mean; steps are Nesterov's.

    Raises:
        ValueError: If a parameter is neither a matrix nor a stack of them.
    """

    def __init__(
        self, weights: Iterable[nn.Parameter], lr: float = 0.0, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim not in (2, 3):
                    raise ValueError(f"parameters are ([matrices,] rows, columns), and one is {tuple(weight.shape)}")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step by the gradients at hand; parameters without one stay. Takes no closure."""
        if closure is not None:
            raise ValueError("Muon steps by gradients that are there: call backward first, and give no closure")
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step(weight, group)

    def _step(self, weight: nn.Parameter, group: dict[str, Any]) -> None:
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight.grad)
        mean: Tensor = state["momentum_buffer"]
        mean.lerp_(weight.grad, 1 - group["momentum"])
        direction = orthogonalised(weight.grad.lerp(mean, group["momentum"]))
        size = 0.2 * max(weight.shape[-2:]) ** 0.5
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(direction, alpha=-group["lr"] * size)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices ([n,] rows, columns) with the same singular vectors and singular values near 1, in bfloat16.

    Five Newton-Schulz iterations of degree five: values come out between some 0.7 and 1.2.
    """
    first, third, fifth = COEFFICIENTS
    turned = matrices.shape[-2] > matrices.shape[-1]
    found = (matrices.mT if turned else matrices).bfloat16()
    found = _rounded(found / torch.linalg.matrix_norm(found, keepdim=True).clamp(min=SMALLEST_NORM))
    for _ in range(ITERATIONS):
        gram = _rounded(found @ found.mT)
        change = _rounded(third * gram + fifth * (gram @ gram))
        found = _rounded(first * found + change @ found)
    return (found.mT if turned else found).bfloat16()


def _rounded(numbers: Tensor) -> Tensor:
    """The nearest numbers that bfloat16 has, in float32."""
    return numbers.bfloat16().float()
