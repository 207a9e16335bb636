"""What mixtures of experts compute, from their own parameters one expert and one token at a time, for tests.

Nothing of the package, and none of transformers' forwards, is used.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def expert_output(block: Any, expert: int, state: Tensor) -> Tensor:
    """One expert's output for one state, without its weight."""
    experts = block.experts
    if hasattr(experts, "gate_up_proj"):
        gate, up = (experts.gate_up_proj[expert] @ state).chunk(2)
        inner = functional.silu(gate) * up
    else:
        inner = functional.relu(experts.up_proj[expert] @ state) ** 2
    output: Tensor = experts.down_proj[expert] @ inner
    return output


def shared_output(block: Any, state: Tensor) -> Tensor:
    """The shared experts' output for one state; zero where there are none."""
    shared = getattr(block, "shared_experts", None)
    if shared is None:
        return torch.zeros_like(state)
    if hasattr(shared, "gate_proj"):
        inner = functional.silu(shared.gate_proj.weight @ state) * (shared.up_proj.weight @ state)
    else:
        inner = functional.relu(shared.up_proj.weight @ state) ** 2
    output: Tensor = shared.down_proj.weight @ inner
    return output


def mixture_output(block: Any, state: Tensor, indices: Any, weights: Any, shared: bool = True) -> Tensor:
    """A mixture's output for one state, from the experts that it goes to and their weights.

    Latent experts (`fc1_latent_proj`, `fc2_latent_proj`) work at their smaller width.
    """
    down, up = getattr(block, "fc1_latent_proj", None), getattr(block, "fc2_latent_proj", None)
    latent = isinstance(down, torch.nn.Linear)
    inner = down.weight @ state if down is not None and latent else state
    mixed = torch.zeros_like(inner)
    for expert, weight in zip(indices, weights, strict=True):
        mixed += float(weight) * expert_output(block, int(expert), inner)
    routed = up.weight @ mixed if up is not None and latent else mixed
    return routed + shared_output(block, state) if shared else routed
