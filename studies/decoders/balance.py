"""Keep routers balanced while they learn: a bias that follows the load, and a small loss within each sequence.

The bias decides who is called and has no gradient; transformers holds it and never moves it. Knows routers by what
`probes.experts.layers` finds, and nothing of questions or optimisers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from probes.experts.layers import ExpertLayer, expert_layers

BIAS_RATE = 1e-2
"""What a bias moves by in one step where learning is fastest. DeepSeek-V3 and Nemotron 3 take 1e-3, and the dots.llm1
report names no number that we have. Here weights learn ten times as fast, and outran a bias of 1e-3: in the first 20
steps the most called expert had 2.4 to 3.8 times the mean load, by layer, against 1.2 to 1.7 times with this."""
LOSS_SHARE = 1e-4
"""Weight of the sequence-wise loss (DeepSeek-V3; Nemotron 3 gives its own the same)."""


class LoadBalance:
    """Watches the routers of one model: the loss and the bias of each step, and the load since it was last asked.

    Auxiliary-loss-free balancing (Wang et al. 2024) with the sequence-wise loss of DeepSeek-V3, as the dots.llm1 report
    says that it did. Padding counts for nothing.

    Args:
        model: A transformers model whose routers have a bias.
        loss_share: Weight of the sequence-wise loss.

    Raises:
        InputError, UnsupportedRouting: As `probes.experts.layers.expert_layers`.
        ValueError: If a router has no bias.
    """

    def __init__(self, model: nn.Module, loss_share: float = LOSS_SHARE) -> None:
        self.loss_share = loss_share
        self._mixtures = expert_layers(model)
        for layer, mixture in self._mixtures.items():
            if mixture.rule.bias is None:
                raise ValueError(f"the router of layer {layer} has no bias that could keep it balanced")
        self._logits: dict[int, Tensor] = {}
        self._called: dict[int, Tensor] = {}
        self._since = {layer: torch.zeros(mixture.count) for layer, mixture in self._mixtures.items()}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While open, remember what each router does; the last forward counts."""
        handles = [mixture.router.register_forward_hook(self._hook(mixture)) for mixture in self._mixtures.values()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def loss(self, real: Tensor) -> Tensor:
        """The weighted loss of the forward watched, one more term of a step's loss: each layer's mean over sequences,
        summed over layers.

        Args:
            real: Bool (batch, tokens): which are no padding.
        """
        losses = [
            sequence_loss(mixture.affinities(self._logits[layer]).view(*real.shape, -1), real, self._k(layer))
            for layer, mixture in self._mixtures.items()
        ]
        return self.loss_share * torch.stack(losses).sum()

    @torch.no_grad()
    def step(self, real: Tensor, rate: float) -> None:
        """Move each bias against the load of the forward watched, and forget that forward.

        Args:
            real: As for `loss`.
            rate: What a bias moves by.
        """
        for layer, mixture in self._mixtures.items():
            called = calls(self._called.pop(layer)[real.flatten()], mixture.count)
            bias: Tensor = getattr(mixture.router, str(mixture.rule.bias))
            bias.copy_(balanced_bias(bias, called, rate))
            self._since[layer] += called
        self._logits = {}

    def taken(self) -> dict[int, Tensor]:
        """By true layer index how often each expert was called since this was last asked, (experts,)."""
        since = self._since
        self._since = {layer: torch.zeros_like(called) for layer, called in since.items()}
        return since

    def _hook(self, mixture: ExpertLayer) -> Any:
        def hook(_: nn.Module, __: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
            self._logits[mixture.layer], self._called[mixture.layer] = output[0], output[2]

        return hook

    def _k(self, layer: int) -> int:
        return int(self._called[layer].shape[-1])


def balanced_bias(bias: Tensor, called: Tensor, rate: float) -> Tensor:
    """The bias after a step: up by `rate` where an expert was called less than the mean, down where more.

    >>> balanced_bias(torch.zeros(3), torch.tensor([5.0, 3.0, 1.0]), 0.5).tolist()
    [-0.5, 0.0, 0.5]
    """
    return bias + rate * torch.sign(called.mean() - called)


def calls(indices: Tensor, experts: int) -> Tensor:
    """How often each expert is called, (experts,), by indices (tokens, k)."""
    return torch.bincount(indices.flatten(), minlength=experts).float()


def sequence_loss(affinities: Tensor, real: Tensor, k: int) -> Tensor:
    """How unevenly sequences call experts, mean over them (DeepSeek-V3 technical report, equations 17 to 20).

    Per sequence the sum over experts of f P: f, their share of tokens by affinity alone, without bias, times experts
    over k; P, their mean share of affinity, which the gradient goes through. 1 where all is even.

    Args:
        affinities: (batch, tokens, experts), positive.
        real: Bool (batch, tokens): which are no padding.
        k: Experts that each token goes to.
    """
    experts = affinities.shape[-1]
    kept = real[..., None]
    called = torch.zeros_like(affinities).scatter_(-1, affinities.detach().topk(k, dim=-1).indices, 1.0)
    tokens = kept.sum(dim=1)
    share = affinities / affinities.sum(dim=-1, keepdim=True)
    frequency = (called * kept).sum(dim=1) / tokens * (experts / k)
    probability = (share * kept).sum(dim=1) / tokens
    return (frequency * probability).sum(dim=-1).mean()
