"""The random decoders of the inside bench: a Nemotron-H and a dots.llm1, narrow, with widths in proportion to theirs.

Weights are redrawn so that what is recorded matters to the output: transformers' own leave the scan some 3e-5 of a
Mamba-2 layer's output, and routers without a bias. Knows nothing of what is recorded, of clocks or processes.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from studies.inside_bench.config import InsideBench

__all__ = ["HEADS", "VOCABULARY", "decoder"]

VOCABULARY = 256
"""Words: few, so that logits weigh nothing."""
HEADS = 8
"""Attention heads; a head of either mixer, and a Mamba-2 state, are as wide as one."""
PER_TOKEN = 6
"""Experts that a token goes to."""
RATES, STEPS = (1.0, 16.0), (1e-3, 0.1)
"""Between which Mamba-2's own initialisation draws its decay rates and, log-uniformly, its time steps."""
BIAS_SPREAD = 0.3
"""Standard deviation of a router's biases."""


def decoder(config: InsideBench, model: str) -> nn.Module:
    """A decoder by its name; the same seed gives the same weights."""
    torch.manual_seed(config.seed)
    made: nn.Module = _BUILDERS[model](config).eval()
    _redraw(made)
    return made


def _hybrid(config: InsideBench) -> Any:
    """Nemotron-H. Nemotron 3 Nano is 2,688 wide, its Mamba-2 heads 4,096, an expert 1,856, a shared one 3,712."""
    from transformers import NemotronHConfig, NemotronHForCausalLM

    settings = NemotronHConfig(
        **_shared(config),
        hybrid_override_pattern=config.pattern,
        num_key_value_heads=2,
        head_dim=config.hidden // HEADS,
        mamba_num_heads=3 * HEADS // 2,
        mamba_head_dim=config.hidden // HEADS,
        ssm_state_size=config.hidden // HEADS,
        n_groups=4,
        chunk_size=128,
        intermediate_size=4 * config.hidden,
        moe_intermediate_size=11 * config.hidden // 16,
        moe_shared_expert_intermediate_size=11 * config.hidden // 8,
        norm_topk_prob=True,
        routed_scaling_factor=2.5,
    )
    return NemotronHForCausalLM(settings)


def _dots1(config: InsideBench) -> Any:
    """dots.llm1, which is 4,096 wide, its first layer 10,944, an expert 1,408; two experts are shared."""
    from transformers import Dots1Config, Dots1ForCausalLM

    settings = Dots1Config(
        **_shared(config),
        num_hidden_layers=config.layers,
        num_key_value_heads=HEADS,
        intermediate_size=8 * config.hidden // 3,
        moe_intermediate_size=11 * config.hidden // 32,
        n_shared_experts=2,
        first_k_dense_replace=1,
        sliding_window=None,
    )
    return Dots1ForCausalLM(settings)


def _shared(config: InsideBench) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": config.hidden,
        "num_attention_heads": HEADS,
        "n_routed_experts": config.experts,
        "num_experts_per_tok": PER_TOKEN,
        "n_group": 1,
        "topk_group": 1,
        "max_position_embeddings": max(*config.lengths, config.checked_length),
        "attn_implementation": "sdpa",
        "eos_token_id": None,
    }


@torch.no_grad()
def _redraw(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith("A_log"):
            parameter.uniform_(*RATES).log_()
        elif name.endswith("dt_bias"):
            steps = parameter.uniform_(*map(math.log, STEPS)).exp()
            parameter.copy_(steps + torch.log(-torch.expm1(-steps)))  # What softplus makes these steps of.
        elif name.endswith("conv1d.weight"):
            parameter.normal_(0, 0.7)
        elif "embed" in name:
            parameter.normal_(0, 1)
        elif parameter.dim() >= 2:
            parameter.normal_(0, 1.2 / math.sqrt(parameter.shape[-1]))
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.normal_(0, BIAS_SPREAD)


_BUILDERS: dict[str, Callable[[InsideBench], Any]] = {"hybrid": _hybrid, "dots1": _dots1}
