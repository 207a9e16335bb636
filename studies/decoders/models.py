"""Build the bundled decoders: dots.llm1's and Nemotron-H's architecture at the dense model's size, under its tower.

Trains nothing and reads no question; `studies.decoders.training` does both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from studies.bundled import BUNDLED_MODEL
from studies.dense.model import CONTEXT

DecoderName = Literal["dots1", "nemotron-h", "nemotron-h-latent"]

HIDDEN = 128
"""Width of all of them, and of the dense model."""
EXPERTS_IMPLEMENTATION = "grouped_mm"
"""How transformers calls experts: of its ways the one that takes least time on a CPU."""


class Built(NamedTuple):
    """A model and what turns questions into its inputs."""

    model: Any
    """A `LlavaForConditionalGeneration` in float32."""
    processor: Any


def build_model(decoder: DecoderName, seed: int) -> Built:
    """A LLaVA with the dense model's trained tower, its processor, and projector and decoder of random weights.

    Args:
        decoder: Whose architecture.
        seed: What projector and decoder depend on.
    """
    import torch
    from transformers import AutoProcessor, LlavaConfig, LlavaForConditionalGeneration

    processor = AutoProcessor.from_pretrained(BUNDLED_MODEL)
    dense = LlavaForConditionalGeneration.from_pretrained(BUNDLED_MODEL, dtype=torch.float32)
    text = DECODERS[decoder](processor.tokenizer)
    config = LlavaConfig(
        **{**dense.config.to_dict(), "text_config": text, "tie_word_embeddings": text.tie_word_embeddings}
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.set_experts_implementation(EXPERTS_IMPLEMENTATION)
    model.model.vision_tower.load_state_dict(dense.model.vision_tower.state_dict())
    if not text.tie_word_embeddings:
        # Learned as one matrix, as the other decoders' are; saved as two, as the architecture has it.
        model.lm_head.weight = model.get_input_embeddings().weight
    model.generation_config = dense.generation_config
    return Built(model, processor)


def dots1_config(tokenizer: Any) -> Any:
    """dots.llm1 in small: a dense layer, then sigmoid routers with a bias, 4 of 16 experts called, and 2 shared.

    Experts are narrow, as many of them are to fit. Normalised weights are ours: the published model's are not known.
    """
    from transformers import Dots1Config

    return Dots1Config(
        **_tokens(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=192,
        num_hidden_layers=6,
        first_k_dense_replace=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        n_routed_experts=16,
        num_experts_per_tok=4,
        n_shared_experts=2,
        moe_intermediate_size=16,
        norm_topk_prob=True,
        sliding_window=None,
        tie_word_embeddings=True,
    )


def nemotron_h_config(tokenizer: Any, **own: Any) -> Any:
    """Nemotron-H in small: Mamba-2, attention without positions, experts without gates, one to a layer.

    Mamba-2 is twice as wide as the stream, as published; weights start at one over the root of the width, which the
    published 0.02 is for the published one. A third of the layers are attention, where the published ones have an
    eighth: with two of nine, image-to-image questions were not learned.
    """
    from transformers import NemotronHConfig

    settings = {
        **_tokens(tokenizer),
        "hidden_size": HIDDEN,
        "hybrid_override_pattern": "M*EM*EM*E",
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "mamba_num_heads": 8,
        "mamba_head_dim": 32,
        "ssm_state_size": 32,
        "n_groups": 1,
        "chunk_size": 32,
        "n_routed_experts": 16,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 24,
        "moe_shared_expert_intermediate_size": 64,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "tie_word_embeddings": False,
        "initializer_range": HIDDEN**-0.5,
        "num_logits_to_keep": 1,
    }
    return NemotronHConfig(**{**settings, **own})


def nemotron_h_latent_config(tokenizer: Any) -> Any:
    """The same with experts at half the width, twice as many of them and twice as many called, as LatentMoE has it."""
    return nemotron_h_config(tokenizer, moe_latent_size=HIDDEN // 2, n_routed_experts=32, num_experts_per_tok=8)


def _tokens(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": CONTEXT,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


DECODERS: dict[str, Callable[[Any], Any]] = {
    "dots1": dots1_config,
    "nemotron-h": nemotron_h_config,
    "nemotron-h-latent": nemotron_h_latent_config,
}
"""Configuration of each decoder, by the name that commands take."""
