"""Tiny random decoders with state spaces, linear attention or experts, alone and under a LLaVA, for several tests.

Weights are enlarged and routers given biases: with default initialisation routing hardly depends on the token, and a
bias of zero would hide that it is left out. Knows nothing of how routing is recorded.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

from probes.model import HookedModel
from tests.probes import processors
from tests.probes.hooked import NEVER
from tests.probes.tiny_models import decoder_settings, enlarge_weights

BIAS = 0.3
"""Standard deviation of the routers' biases."""
EXPERT_GAIN = 2.0
"""Gain of each expert's maps: with less, routed experts would hardly count beside shared ones."""

_NEMOTRON: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "ssm_state_size": 16,
    "mamba_num_heads": 8,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "chunk_size": 8,
    "n_routed_experts": 16,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 48,
    "hybrid_override_pattern": "MEM*E-",
    "routed_scaling_factor": 2.5,
}
_DEEPSEEK = {
    "moe_intermediate_size": 24,
    "n_routed_experts": 16,
    "n_shared_experts": 1,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
    "norm_topk_prob": True,
    "first_k_dense_replace": 1,
}
_LATENT_ATTENTION = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
_LINEAR = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
_QWEN = {"num_experts": 16, "num_experts_per_tok": 3, "moe_intermediate_size": 24}

DECODERS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "nemotron": ("nemotron_h", _NEMOTRON),
    "latent": ("nemotron_h", {**_NEMOTRON, "moe_latent_size": 24}),
    "dots1": (
        "dots1",
        {**_DEEPSEEK, "n_group": 1, "topk_group": 1, "n_shared_experts": 2, "head_dim": 8, "layer_types": None},
    ),
    "deepseek_v3": ("deepseek_v3", {**_DEEPSEEK, **_LATENT_ATTENTION}),
    "mixtral": ("mixtral", {"num_local_experts": 8, "num_experts_per_tok": 2}),
    "qwen3_moe": ("qwen3_moe", {**_QWEN, "norm_topk_prob": True, "head_dim": 8}),
    "olmoe": ("olmoe", {"num_experts": 16, "num_experts_per_tok": 4, "intermediate_size": 24, "norm_topk_prob": False}),
    "qwen3_5": ("qwen3_5_text", _LINEAR),
    "qwen3_5_moe": ("qwen3_5_moe_text", {**_LINEAR, **_QWEN, "shared_expert_intermediate_size": 24}),
    "bamba": ("bamba", {**_MAMBA, "mamba_expand": 2, "attn_layer_indices": [1]}),
    "falcon_h1": ("falcon_h1", {**_MAMBA, "mamba_d_ssm": 64, "head_dim": 8}),
    "llama": ("llama", {}),
    "mamba2": ("mamba2", {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8}),
}
"""By name, transformers' model type and what differs from `decoder_settings`."""
ROUTED = ("nemotron", "latent", "dots1", "deepseek_v3", "mixtral", "qwen3_moe", "olmoe")
"""Those whose routing is recorded."""


def config(name: str, **changes: Any) -> Any:
    """The configuration of a decoder, of three layers or as its pattern says."""
    from transformers import AutoConfig

    kind, own = DECODERS[name]
    settings = {**decoder_settings(3), **own, **changes}
    if "hybrid_override_pattern" in settings:
        settings.pop("num_hidden_layers")
    return AutoConfig.for_model(kind, **{key: value for key, value in settings.items() if value is not None})


def build(name: str, seed: int = 0, **changes: Any) -> Any:
    """A decoder with its language head; the same call gives the same weights."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config(name, **changes)).eval()
        enlarge(model)
    return model


@cache
def hooked(name: str, seed: int = 0) -> HookedModel:
    """A LLaVA over a decoder, with its processor; answers end at their length only. Shared: leave it as found."""
    processor = processors.build_processor("llava")
    ids = processor.tokenizer.convert_tokens_to_ids
    text = config(
        name, vocab_size=len(processor.tokenizer), max_position_embeddings=4096, pad_token_id=ids("<pad>")
    ).to_dict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = processors.build_model("llava", processor, seed, text_config=text)
        enlarge(model)
    model.generation_config.eos_token_id = NEVER
    return HookedModel(model, processor)


def enlarge(model: nn.Module) -> None:
    """Enlarge weights, those of stacked experts too, and draw the routers' biases."""
    enlarge_weights(model)
    for name, parameter in model.named_parameters():
        if ".experts." in name and parameter.dim() == 3:
            torch.nn.init.normal_(parameter, 0, EXPERT_GAIN / parameter.shape[-1] ** 0.5)
    for name, tensor in (*model.named_buffers(), *model.named_parameters()):
        if name.endswith("e_score_correction_bias"):
            torch.nn.init.normal_(tensor, 0, BIAS)


def padded(batch: int = 3, longest: int = 17, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random texts, each three tokens shorter than the one before it and padded on the left."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 80, (batch, longest), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(batch):
        ids[row, : 3 * row], mask[row, : 3 * row] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}
