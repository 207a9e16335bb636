"""Tiny random decoders of every kind of mixer, their weights enlarged until the scan carries the output.

With transformers' own initialisation the scan is some 3e-5 of a Mamba-2 layer's output, so that any formula would pass.
Nothing here knows how hidden attention is read.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.probes.tiny_models import fan_in

VOCABULARY = 97
HIDDEN = 32

_MIXER_SETTINGS = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 2, "mamba_expand": 2}
_DECODER = {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": 2, "pad_token_id": 0}
_ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
_DELTA = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}


def _mamba2(**own: Any) -> Any:
    from transformers import Mamba2Config, Mamba2ForCausalLM

    sizes = {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 2, "expand": 2}
    return Mamba2ForCausalLM(Mamba2Config(**{**_DECODER, **sizes, "chunk_size": 16, **own}))


def nemotron_h_settings(pattern: str = "MEM*-", **own: Any) -> dict[str, Any]:
    """Settings of a tiny Nemotron-H, with the legacy pattern of its layers."""
    sizes = {"mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 2, "chunk_size": 16}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1}
    experts |= {"moe_shared_expert_intermediate_size": 24, "topk_group": 1}
    plain = {name: value for name, value in _DECODER.items() if name != "num_hidden_layers"}
    return {**plain, **_ATTENTION, **sizes, **experts, "head_dim": 8, "hybrid_override_pattern": pattern, **own}


def _nemotron_h(**own: Any) -> Any:
    from transformers import NemotronHConfig, NemotronHForCausalLM

    return NemotronHForCausalLM(NemotronHConfig(**nemotron_h_settings(**own)))


def _bamba(**own: Any) -> Any:
    from transformers import BambaConfig, BambaForCausalLM

    settings = {**_DECODER, **_ATTENTION, **_MIXER_SETTINGS, "mamba_chunk_size": 16, "attn_layer_indices": [1], **own}
    return BambaForCausalLM(BambaConfig(**settings))


def _granite(**own: Any) -> Any:
    from transformers import GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM

    kinds = {"layer_types": ["linear_attention", "full_attention"], "mamba_chunk_size": 16}
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 24}
    settings = {**_DECODER, **_ATTENTION, **_MIXER_SETTINGS, **kinds, **experts, **own}
    return GraniteMoeHybridForCausalLM(GraniteMoeHybridConfig(**settings))


def _zamba2(**own: Any) -> Any:
    from transformers import Zamba2Config, Zamba2ForCausalLM

    sizes = {"n_mamba_heads": 8, "mamba_headdim": 8, "mamba_d_state": 8, "mamba_ngroups": 2, "mamba_expand": 2}
    kinds = {"layers_block_type": ["linear_attention", "hybrid"], "num_mem_blocks": 1, "chunk_size": 16}
    settings = {**_DECODER, **_ATTENTION, **sizes, **kinds, "num_key_value_heads": 4, **own}
    return Zamba2ForCausalLM(Zamba2Config(**settings))


def _falcon_h1(**own: Any) -> Any:
    from transformers import FalconH1Config, FalconH1ForCausalLM

    multipliers = {"ssm_multipliers": [0.7, 1.3, 0.8, 1.2, 0.9], "ssm_in_multiplier": 1.1}
    sizes = {"mamba_chunk_size": 16, "mamba_d_ssm": 64, "head_dim": 8, "mamba_rms_norm": True}
    settings = {**_DECODER, **_ATTENTION, **_MIXER_SETTINGS, **multipliers, **sizes, **own}
    return FalconH1ForCausalLM(FalconH1Config(**settings))


def _falcon_h1_without_norm(**own: Any) -> Any:
    return _falcon_h1(mamba_rms_norm=False, **own)


def _mamba(**own: Any) -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(MambaConfig(**{**_DECODER, "state_size": 8, "time_step_rank": 4, **own}))


def _falcon_mamba(**own: Any) -> Any:
    from transformers import FalconMambaConfig, FalconMambaForCausalLM

    return FalconMambaForCausalLM(FalconMambaConfig(**{**_DECODER, "state_size": 8, "time_step_rank": 4, **own}))


def _jamba(**own: Any) -> Any:
    from transformers import JambaConfig, JambaForCausalLM

    places = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
    sizes = {"mamba_d_state": 8, "mamba_dt_rank": 4, "num_experts": 2, "num_experts_per_tok": 1}
    return JambaForCausalLM(JambaConfig(**{**_DECODER, **_ATTENTION, **places, **sizes, **own}))


def _qwen3_5(**own: Any) -> Any:
    from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

    return Qwen3_5ForCausalLM(Qwen3_5TextConfig(**{**_DECODER, **_ATTENTION, **_DELTA, **own}))


def _qwen3_5_moe(**own: Any) -> Any:
    from transformers import Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig

    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    experts |= {"shared_expert_intermediate_size": 16}
    return Qwen3_5MoeForCausalLM(Qwen3_5MoeTextConfig(**{**_DECODER, **_ATTENTION, **_DELTA, **experts, **own}))


def _qwen3_next(**own: Any) -> Any:
    from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    experts |= {"shared_expert_intermediate_size": 16}
    return Qwen3NextForCausalLM(Qwen3NextConfig(**{**_DECODER, **_ATTENTION, **_DELTA, **experts, **own}))


BUILDERS: dict[str, Callable[..., Any]] = {
    "mamba2": _mamba2,
    "nemotron_h": _nemotron_h,
    "bamba": _bamba,
    "granite_moe_hybrid": _granite,
    "zamba2": _zamba2,
    "falcon_h1": _falcon_h1,
    "falcon_h1_without_norm": _falcon_h1_without_norm,
    "mamba": _mamba,
    "falcon_mamba": _falcon_mamba,
    "jamba": _jamba,
    "qwen3_5": _qwen3_5,
    "qwen3_5_moe": _qwen3_5_moe,
    "qwen3_next": _qwen3_next,
}
"""By family; arguments are settings of its configuration."""
DUAL = ("mamba2", "nemotron_h", "bamba", "granite_moe_hybrid", "zamba2", "falcon_h1", "falcon_h1_without_norm")
SELECTIVE = ("mamba", "falcon_mamba", "jamba")
DELTA = ("qwen3_5", "qwen3_5_moe", "qwen3_next")


def build(family: str, seed: int = 0, **settings: Any) -> Any:
    """A family's model in evaluation mode and fp32; the same seed gives the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BUILDERS[family](**settings).eval()
        enlarge(model)
    return model


def enlarge(model: nn.Module) -> None:
    """Redraw weights so that tokens differ and the scan, its decay and its steps all matter to the output."""
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if name.endswith("A_log"):
                parameter.uniform_(-3, 0.5)
            elif name.endswith(("dt_bias", "dt_proj.bias")):
                parameter.uniform_(-1.5, 0.5)
            elif name.endswith("conv1d.bias"):
                parameter.normal_(0, 0.5)
            elif name.endswith("conv1d.weight"):
                parameter.normal_(0, 0.7)
            elif name.endswith(".D"):
                parameter.normal_(0.5, 0.5)
            elif "embed" in name:
                parameter.normal_(0, 1)
            elif parameter.dim() >= 2:
                parameter.normal_(0, 1.2 / fan_in(name, parameter) ** 0.5)


def tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    """Random token ids, none of them padding."""
    return torch.randint(1, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def first_mixer(model: Any) -> Any:
    """The first layer module that convolves."""
    return next(module for module in model.modules() if hasattr(module, "conv1d") and hasattr(module, "out_proj"))
