"""Balancing of routers: the loss against loops, and a router that calls few experts until its bias says otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from probes.experts.load import largest_over_mean, load_entropy
from studies.decoders.balance import LoadBalance, balanced_bias, calls, sequence_loss

HIDDEN, EXPERTS, K = 16, 8, 2


def by_loops(affinities: Tensor, real: Tensor, k: int) -> float:
    """The sequence-wise loss, token by token and expert by expert."""
    losses = []
    for row, kept in zip(affinities.tolist(), real.tolist(), strict=True):
        tokens = [token for token, is_real in zip(row, kept, strict=True) if is_real]
        experts, total = len(tokens[0]), 0.0
        for expert in range(experts):
            called = sum(expert in sorted(range(experts), key=lambda e: -token[e])[:k] for token in tokens)
            mean_share = sum(token[expert] / sum(token) for token in tokens) / len(tokens)
            total += called * experts / (k * len(tokens)) * mean_share
        losses.append(total)
    return float(np.mean(losses))


def test_the_loss_is_what_loops_make_of_it_and_knows_no_padding() -> None:
    affinities = torch.rand(3, 7, EXPERTS, generator=torch.Generator().manual_seed(0))
    real = torch.arange(7)[None] < torch.tensor([7, 5, 2])[:, None]
    found = sequence_loss(affinities, real, K)
    assert float(found) == pytest.approx(by_loops(affinities, real, K), rel=1e-5)
    assert float(found) != pytest.approx(by_loops(affinities, torch.ones_like(real), K), rel=1e-3)
    changed = torch.where(real[..., None], affinities, 1 - affinities)
    assert torch.equal(sequence_loss(changed, real, K), found)


def test_the_loss_is_one_where_all_is_even_and_experts_over_k_where_k_take_all() -> None:
    real = torch.ones(1, EXPERTS, dtype=torch.bool)
    even = torch.stack([torch.roll(torch.arange(1.0, EXPERTS + 1), shift) for shift in range(EXPERTS)])[None]
    few = torch.full((1, EXPERTS, EXPERTS), 1e-9)
    few[..., :K] = 1.0
    assert float(sequence_loss(even, real, K)) == pytest.approx(1.0)
    assert float(sequence_loss(few, real, K)) == pytest.approx(EXPERTS / K, rel=1e-5)


def test_going_down_the_loss_evens_the_affinities() -> None:
    logits = (2 * torch.randn(4, 9, EXPERTS, generator=torch.Generator().manual_seed(1))).requires_grad_()
    real = torch.ones(4, 9, dtype=torch.bool)
    losses = []
    for _ in range(40):
        loss = sequence_loss(logits.sigmoid(), real, K)
        (slope,) = torch.autograd.grad(loss, logits)
        logits = (logits - 5 * slope).detach().requires_grad_()
        losses.append(loss.item())
    assert losses[-1] - 1 < 0.5 * (losses[0] - 1)


def test_bias_moves_by_the_sign_alone() -> None:
    bias, called = torch.tensor([0.5, 0.0, -0.5, 1.0]), torch.tensor([100.0, 4.0, 0.0, 26.0])
    torch.testing.assert_close(balanced_bias(bias, called, 0.01) - bias, torch.tensor([-0.01, 0.01, 0.01, 0.01]))
    assert torch.equal(balanced_bias(bias, torch.full((4,), 3.0), 0.01), bias)
    assert calls(torch.tensor([[0, 3], [3, 1]]), 5).tolist() == [1, 1, 0, 2, 0]


def with_constant(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """States whose last feature is 1, so that a router can favour experts whatever it reads."""
    return (torch.cat([args[0][..., :-1], torch.ones_like(args[0][..., :1])], dim=-1),)


def unbalanced() -> Any:
    """A tiny dots1 whose routers call the first experts for every token."""
    from transformers import Dots1Config, Dots1ForCausalLM

    torch.manual_seed(0)
    model = Dots1ForCausalLM(
        Dots1Config(
            vocab_size=50,
            hidden_size=HIDDEN,
            intermediate_size=24,
            moe_intermediate_size=8,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=2,
            n_routed_experts=EXPERTS,
            num_experts_per_tok=K,
            n_shared_experts=1,
            first_k_dense_replace=1,
            norm_topk_prob=True,
            sliding_window=None,
        )
    )
    for layer in model.model.layers[1:]:
        layer.mlp.gate.register_forward_pre_hook(with_constant)
        with torch.no_grad():
            layer.mlp.gate.weight.normal_(std=0.3)
            layer.mlp.gate.weight[:, -1] = torch.linspace(1.5, -1.5, EXPERTS)
    return model


def follow(model: Any, rate: float, steps: int) -> tuple[float, float, LoadBalance]:
    """Largest load over the mean, of the worst layer, in the first and in the last step."""
    balance = LoadBalance(model)
    ids = torch.randint(1, 50, (4, 24), generator=torch.Generator().manual_seed(2))
    real = torch.ones_like(ids, dtype=torch.bool)
    worst = []
    for _ in range(steps):
        with balance.watching(), torch.no_grad():
            model(input_ids=ids)
        balance.step(real, rate)
        worst.append(max(float(largest_over_mean(called.numpy())) for called in balance.taken().values()))
    return worst[0], worst[-1], balance


def test_an_unbalanced_router_becomes_balanced_by_its_bias_alone() -> None:
    model = unbalanced()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    first, last, balance = follow(model, rate=0.02, steps=60)
    assert first > 2.2 and last < 1.5
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    for layer in model.model.layers[1:]:
        bias = layer.mlp.gate.e_score_correction_bias
        assert bias[0] < 0 < bias[-1]
    assert not any(called.any() for called in balance.taken().values())


def test_without_a_rate_it_stays_unbalanced() -> None:
    first, last, _ = follow(unbalanced(), rate=0.0, steps=3)
    assert first == last > 2.2


def test_bias_gets_no_gradient_and_the_router_does() -> None:
    model = unbalanced()
    balance = LoadBalance(model, loss_share=1.0)
    ids = torch.randint(1, 50, (2, 9), generator=torch.Generator().manual_seed(3))
    with balance.watching():
        model(input_ids=ids)
    balance.loss(torch.ones_like(ids, dtype=torch.bool)).backward()  # type: ignore[no-untyped-call]
    for layer in model.model.layers[1:]:
        gate = layer.mlp.gate
        assert "e_score_correction_bias" not in dict(gate.named_parameters())
        assert not gate.e_score_correction_bias.requires_grad and gate.e_score_correction_bias.grad is None
        assert gate.weight.grad.abs().sum() > 0


def test_padding_is_no_load() -> None:
    model = unbalanced()
    balance = LoadBalance(model)
    ids = torch.randint(1, 50, (2, 9), generator=torch.Generator().manual_seed(3))
    real = torch.arange(9)[None] < torch.tensor([9, 4])[:, None]
    with balance.watching():
        model(input_ids=ids)
    balance.step(real, 0.01)
    for called in balance.taken().values():
        assert called.sum() == 13 * K and 0 < load_entropy(called.numpy()) < 1


def test_what_is_heard_ends_with_the_watch() -> None:
    model = unbalanced()
    balance = LoadBalance(model)
    ids = torch.ones(1, 4, dtype=torch.long)
    with balance.watching():
        model(input_ids=ids)
    heard = balance.loss(torch.ones(1, 4, dtype=torch.bool))
    model(input_ids=torch.ones(3, 5, dtype=torch.long))
    assert torch.equal(balance.loss(torch.ones(1, 4, dtype=torch.bool)), heard)


def test_routers_without_a_bias_are_refused() -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = MixtralForCausalLM(MixtralConfig(vocab_size=20, num_key_value_heads=2, num_local_experts=4, **sizes))
    with pytest.raises(ValueError, match="layer 0 has no bias"):
        LoadBalance(model)
