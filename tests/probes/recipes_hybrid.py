"""Recipes of Qwen3.5, whose decoders mix linear layers with attention. See `tests.probes.recipes`."""

from typing import Any

from tests.probes.recipes import QWEN_MESSAGE, QWEN_SPECIAL, ROPE, Ids, Recipe, Settings, qwen3_vl, qwen3_vl_arguments


def _qwen3_5_arguments(ids: Ids, text: Settings) -> Settings:
    arguments = qwen3_vl_arguments(ids, text)
    linear = {
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    }
    kinds = {"layer_types": ["full_attention", "linear_attention", "full_attention"]}
    rope = {"rope_parameters": {**ROPE, "partial_rotary_factor": 1.0}}
    arguments["text_config"] |= {**linear, **kinds, **rope}
    del arguments["vision_config"]["deepstack_visual_indexes"]
    return arguments


def _qwen3_5_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Qwen3_5Config

    return Qwen3_5Config, _qwen3_5_arguments(ids, text)


def _qwen3_5_moe_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Qwen3_5MoeConfig

    experts = {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
    experts |= {"num_experts": 4, "num_experts_per_tok": 2}
    return Qwen3_5MoeConfig, _qwen3_5_arguments(ids, {**text, **experts})


HYBRIDS: dict[str, Recipe] = {
    "qwen3_5": Recipe((*QWEN_SPECIAL, "<|endoftext|>"), "<|im_end|>", QWEN_MESSAGE, qwen3_vl, _qwen3_5_config),
    "qwen3_5_moe": Recipe((*QWEN_SPECIAL, "<|endoftext|>"), "<|im_end|>", QWEN_MESSAGE, qwen3_vl, _qwen3_5_moe_config),
}
"""By family, as `tests.probes.recipes.RECIPES`."""
