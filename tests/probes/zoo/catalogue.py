"""What each family needs beyond the general shrinking: sizes that hang together, inputs without which it does not run.

Model types that are not named here work as they are. Knows configurations only; models are built in `verifying`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.probes.tiny_models import SHARPNESS
from tests.probes.zoo.crossing import CROSSING
from tests.probes.zoo.shrinking import IMAGE_TOKEN, shrink

MoreInputs = Callable[[Tensor, torch.Generator], dict[str, Tensor]]
IMAGE_STARTS = 8
"""Column from which the families that do not run on text alone have their image tokens."""
IMAGE_TOKENS = 4
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}


class Entry(NamedTuple):
    """What a family needs.

    Args:
        changes: See `tests.probes.zoo.shrinking.shrink`.
        config: Makes the configuration where the default one cannot be made, or is not what is wanted.
        more_inputs: From input ids (batch, tokens) and generator, what the model takes besides text, or in its place.
        attention: The implementation that is recorded; "eager" where the family has no other.
        dull: Why its attention cannot be made as sharp as others'; empty where it can.
        cross_spans: Columns that stand for images among the features of cross-attention layers.
        only_crossing: Whether no layer that is recorded attends to the decoder's own tokens.
        images_masked: Whether type ids say which tokens are images, for masks that act on images only.
        keeps_prompt: Whether caches cut what was generated and never the prompt.
        decoder: Class of the decoder alone, where the whole needs a library of its own (timm); ``config`` is then its.
        sharpness: See `tests.probes.tiny_models.enlarge_weights`.
    """

    changes: Mapping[str, Any] = {}
    config: Callable[[], PretrainedConfig] | None = None
    more_inputs: MoreInputs | None = None
    attention: str = "sdpa"
    dull: str = ""
    sharpness: float = SHARPNESS
    decoder: str = ""
    cross_spans: tuple[tuple[int, int], ...] = ()
    only_crossing: bool = False
    images_masked: bool = False
    keeps_prompt: bool = False


def _multi_axis(part: str) -> Entry:
    """Multi-axis rotary positions: the default sections fit heads of 128."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    return Entry({f"{part}.rope_parameters": rope} if part else {"rope_parameters": rope})


def _llava(decoder: str, changes: Mapping[str, Any] | None = None, attention: str = "sdpa") -> Entry:
    """A LLaVA over a decoder that is not its usual one."""

    def make() -> PretrainedConfig:
        config: PretrainedConfig = CONFIG_MAPPING["llava"](text_config=CONFIG_MAPPING[decoder]())
        return config

    return Entry(changes or {}, config=make, decoder="LlavaForConditionalGeneration", attention=attention)


def _named(model_type: str, **settings: Any) -> Callable[[], PretrainedConfig]:
    def make() -> PretrainedConfig:
        config: PretrainedConfig = CONFIG_MAPPING[model_type](**settings)
        return config

    return make


def _pictures(*frames: int, tokens: int = IMAGE_TOKENS) -> MoreInputs:
    """An image, or a video of some frames, for families that do not run on text alone."""

    def make(input_ids: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        with_image = input_ids.clone()
        with_image[:, IMAGE_STARTS : IMAGE_STARTS + tokens] = IMAGE_TOKEN
        pixels = torch.randn(len(input_ids), *frames, 3, 16, 16, generator=generator)
        return {"input_ids": with_image, "pixel_values": pixels}

    return make


def _instructed(*frames: int, tokens: int = IMAGE_TOKENS) -> MoreInputs:
    """The same, with the instruction that the query former reads too."""
    pictures = _pictures(*frames, tokens=tokens)

    def make(input_ids: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        instruction = torch.randint(4, 88, (len(input_ids), 5), generator=generator)
        mask = torch.ones_like(instruction)
        return {**pictures(input_ids, generator), "qformer_input_ids": instruction, "qformer_attention_mask": mask}

    return make


def _kosmos(input_ids: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    made = _pictures()(input_ids, generator)
    return {**made, "image_embeds_position_mask": (made["input_ids"] == IMAGE_TOKEN).int()}


def _step() -> PretrainedConfig:
    kinds = ["sliding_attention", "full_attention", "full_attention"]
    rope = dict.fromkeys(kinds, _ROPE)
    config: PretrainedConfig = CONFIG_MAPPING["step3p7"](
        text_config={"layer_types": kinds, "num_hidden_layers": 3, "sliding_window": 8, "rope_parameters": rope}
    )
    return config


def _clip(**settings: Any) -> PretrainedConfig:
    """A tower that stands for one that needs a library of its own (timm); the decoder is the family's."""
    tower: PretrainedConfig = shrink(CONFIG_MAPPING["clip_vision_model"](**settings))
    return tower


_OPT = {
    "qformer_config.encoder_hidden_size": 32,
    "text_config.word_embed_proj_dim": 32,
    "num_query_tokens": IMAGE_TOKENS,
}
_HEADS = {"text_config.num_key_value_heads": 4}
"""Latent attention has as many key heads as query heads."""
_NEMOTRON = {"text_config.layers_block_type": ["linear_attention", "full_attention", "moe", "full_attention"]}

ENTRIES: dict[str, Entry] = {
    "blip": Entry({"text_config.encoder_hidden_size": 32}, more_inputs=_pictures(), attention="eager"),
    "blip-2": Entry({**_OPT, "image_token_index": IMAGE_TOKEN}, more_inputs=_pictures()),
    "chameleon": Entry(config=_named("chameleon", vocabulary_map={"<image>": 90, "IMGIMGAZ": 91})),
    "cohere_compass": Entry(
        {
            "text_config.layer_types": ["sliding_attention", "full_attention", "full_attention"],
            "text_config.rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE},
        }
    ),
    "deepseek_ocr2": Entry(
        {"text_config.mlp_layer_types": ["dense", "sparse", "sparse"], "text_config.num_experts_per_tok": 2}
    ),
    "dots3_note": Entry(
        {
            "vision_config.adapter_in_dim": 128,
            "vision_config.adapter_out_dim": 32,
            "audio_config.adapter_out_dim": 32,
            "audio_config.adapter_input_size": 32,
            "text_config.num_key_value_heads": 4,
            "text_config.layer_types": ["indexed_attention", "indexed_attention", "sliding_attention"],
        }
    ),
    "diffusion_gemma": Entry(
        {"text_config.num_experts": 4, "text_config.top_k_experts": 2, "text_config.moe_intermediate_size": 16}
    ),
    "emu3": Entry(
        {"vq_config.base_channels": 32, "vq_config.codebook_size": 16},
        config=_named("emu3", vocabulary_map={"<image>": 90, "<|extra_200|>": 91}),
    ),
    "ernie4_5_vl_moe": Entry({"text_config.rope_parameters": {**_ROPE, "mrope_section": [1, 1, 2]}}),
    "fast_vlm": Entry(config=_named("fast_vlm", vision_config=_clip())),
    "gemma3n": Entry(
        {
            "vocab_size_per_layer_input": 96,
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 4,
            "num_kv_shared_layers": 1,
            "layer_types": ["sliding_attention", "full_attention", "full_attention"],
            "intermediate_size": [48, 48, 48],
            "activation_sparsity_pattern": [0.0, 0.0, 0.0],
        },
        config=CONFIG_MAPPING["gemma3n_text"],
        decoder="Gemma3nForCausalLM",
    ),
    "git": Entry(attention="eager"),
    "glm46v": _multi_axis("text_config"),
    "glm4v": _multi_axis("text_config"),
    "glm4v_moe": _multi_axis("text_config"),
    "glm5_next": Entry(_HEADS),
    "glm_ocr": _multi_axis("text_config"),
    "glmga": _multi_axis("text_config"),
    "gemma3": Entry({"text_config.query_pre_attn_scalar": 8}, images_masked=True),
    "gemma4": Entry(
        {
            "text_config.vocab_size_per_layer_input": 96,
            "text_config.hidden_size_per_layer_input": 8,
            "text_config.use_bidirectional_attention": "vision",
        },
        images_masked=True,
    ),
    "gemma4_unified": Entry(images_masked=True),
    "granite4_vision": Entry({"deepstack_layer_map": [], "spatial_target_layers": [], "downsample_rate": "1/2"}),
    "granite_docling": Entry({"text_config.attention_multiplier": 8**-0.5}),
    "hunyuan_vl": Entry(
        {"text_config.head_dim": 8, "text_config.rope_parameters": {**_ROPE, "mrope_section": [1, 1, 1, 1]}},
        sharpness=9.0,
    ),
    "hyperclovax_vision_v2": Entry({"text_config.attention_multiplier": 8**-0.5}),
    "inkling2": Entry({"text_config.sliding_window_size": 8, "text_config.rel_extent": 16}, attention="eager"),
    "inkling_mm_model": Entry(
        {
            "text_config.sliding_window_size": 8,
            "text_config.rel_extent": 16,
            "audio_config.text_hidden_size": 32,
            "audio_config.mel_vocab_size": 16,
            "vision_config.text_hidden_size": 32,
            "vision_config.n_layers": 2,
        }
    ),
    "instructblip": Entry({**_OPT, "image_token_index": IMAGE_TOKEN}, more_inputs=_instructed()),
    "instructblipvideo": Entry(
        {**_OPT, "video_token_index": IMAGE_TOKEN}, more_inputs=_instructed(2, tokens=2 * IMAGE_TOKENS)
    ),
    "janus": Entry({"vq_config.base_channels": 32, "vq_config.latent_channels": 32, "vq_config.num_embeddings": 16}),
    "kimi_k25": Entry(_HEADS),
    "kosmos-2": Entry({"latent_query_num": IMAGE_TOKENS}, more_inputs=_kosmos),
    "llava_dots1": _llava(
        "dots1",
        {
            "text_config.layer_types": ["sliding_attention", "full_attention", "full_attention"],
            "text_config.n_routed_experts": 4,
            "text_config.n_shared_experts": 1,
            "text_config.num_experts_per_tok": 2,
            "text_config.first_k_dense_replace": 1,
        },
    ),
    "llava_gpt_oss": _llava("gpt_oss", attention="eager"),
    "llava_gemma2": _llava(
        "gemma2", {"text_config.attn_logit_softcapping": 4.0, "text_config.query_pre_attn_scalar": 8}, attention="eager"
    ),
    "llava_nemotron_h": _llava("nemotron_h", _NEMOTRON),
    "llama4": Entry(dull="queries and keys are normalised without a weight that could be enlarged"),
    "minimax_m3_vl": Entry(
        {
            "projector_hidden_size": 32,
            "merged_hidden_size": 128,
            "text_config.layer_types": ["full_attention", "minimax_m3_sparse", "minimax_m3_sparse"],
            "text_config.index_n_heads": 2,
            "text_config.index_block_size": 4,
            "text_config.index_topk_blocks": 3,
        },
        # Blocks that hold padding and text are chosen by what padding rows hold, which sdpa and eager leave different.
        attention="eager",
    ),
    "mistral4": Entry({"num_key_value_heads": 4, "head_dim": 16, "qk_head_dim": 16}),
    "mistral_large4": Entry(_HEADS),
    "molmo2": Entry(images_masked=True),
    "muse_spark": Entry({"projector_hidden_size": 32, "text_config.moe_hidden_size": 32}),
    "nemotron_h_omni": Entry({"projector_hidden_size": 32, "vision_config.max_img_size": 64, **_NEMOTRON}),
    "paddleocr_vl": _multi_axis("text_config"),
    "perception_lm": Entry({"vision_config": _clip(model_args={"embed_dim": 32})}),
    "pi0": Entry({"vlm_config.vision_config.projection_dim": 32, "vlm_config.projection_dim": 32}),
    "qwen2_5_omni_thinker": Entry(
        {"audio_config.encoder_attention_heads": 4, "vision_start_token_id": 92, **_multi_axis("text_config").changes}
    ),
    "qwen2_5_vl": _multi_axis("text_config"),
    "qwen2_vl": _multi_axis("text_config"),
    "qwen3_omni_moe_thinker": Entry({"audio_config.encoder_attention_heads": 4, "vision_start_token_id": 92}),
    "qwen4_exp": Entry(
        {
            "text_config.indexer_n_heads": 2,
            "text_config.indexer_kv_heads": 1,
            "text_config.indexer_head_dim": 8,
            "text_config.indexer_budget": 12,
            "text_config.indexer_compress_ratio": 4,
        }
    ),
    "shieldgemma2": Entry({"text_config.query_pre_attn_scalar": 8}, images_masked=True),
    "step3p7": Entry(config=_step, sharpness=9.0),
    "unlimited_ocr": Entry(_HEADS, keeps_prompt=True),
}
ENTRIES |= {name: Entry(**crossing._asdict()) for name, crossing in CROSSING.items()}
