"""Recipes of Qwen's families that also hear, and of EXAONE 4.5, all on Qwen2-VL's processors.

See `tests.probes.recipes_grids`, which holds them among its own. Knows nothing of spans.
"""

from typing import Any

from tests.probes.recipes import MERGED, MERGING_TOWER, QWEN_MESSAGE, QWEN_SPECIAL, ROPE, Ids, Recipe, Settings


def _omni(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import (
        Qwen2_5OmniProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        WhisperFeatureExtractor,
    )

    return Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(**(MERGED | settings)),
        video_processor=Qwen2VLVideoProcessor(**(MERGED | settings)),
        feature_extractor=WhisperFeatureExtractor(),
        tokenizer=tokenizer,
        chat_template=template,
    )


_OMNI_NAMED = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "audio_token": "<|audio_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}


def _omni_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Qwen2_5OmniThinkerConfig

    sound = {"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "output_dim": 32}
    return Qwen2_5OmniThinkerConfig, {
        "text_config": {**text, "rope_parameters": ROPE},
        "vision_config": {**MERGING_TOWER, "window_size": 16, "fullatt_block_indexes": [1]},
        "audio_config": {**sound, "num_mel_bins": 8},
        "image_token_id": ids("<|image_pad|>"),
        "image_token_index": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "video_token_index": ids("<|video_pad|>"),
        "audio_token_id": ids("<|audio_pad|>"),
        "audio_token_index": ids("<|audio_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
        "audio_start_token_id": ids("<|audio_start|>"),
        "audio_end_token_id": ids("<|audio_end|>"),
    }


def _omni3_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Qwen3OmniMoeThinkerConfig

    _, arguments = _omni_config(ids, text, tower)
    experts = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
    arguments["text_config"] |= {**experts, "head_dim": 8, "rope_parameters": {**ROPE, "mrope_interleaved": True}}
    arguments["vision_config"] = {**MERGING_TOWER, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    arguments["audio_config"] |= {"downsample_hidden_size": 8, "num_mel_bins": 8}
    return Qwen3OmniMoeThinkerConfig, arguments


def _omni3(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        Qwen3OmniMoeProcessor,
        WhisperFeatureExtractor,
    )

    return Qwen3OmniMoeProcessor(
        image_processor=Qwen2VLImageProcessor(**(MERGED | settings)),
        video_processor=Qwen2VLVideoProcessor(**(MERGED | settings)),
        feature_extractor=WhisperFeatureExtractor(),
        tokenizer=tokenizer,
        chat_template=template,
    )


def _exaone4_5(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Exaone4_5_Processor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    return Exaone4_5_Processor(
        image_processor=Qwen2VLImageProcessor(**(MERGED | settings)),
        video_processor=Qwen2VLVideoProcessor(**(MERGED | settings)),
        tokenizer=tokenizer,
        chat_template=template,
    )


def _exaone4_5_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Exaone4_5_Config

    own = {"window_size": 16, "fullatt_block_indexes": [1], "num_key_value_heads": 1}
    return Exaone4_5_Config, {
        "text_config": {"model_type": "exaone4", **text, "sliding_window": 64, "sliding_window_pattern": 2},
        "vision_config": {**MERGING_TOWER, **own},
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
    }


OMNI: dict[str, Recipe] = {
    "qwen2_5_omni_thinker": Recipe(
        (*QWEN_SPECIAL, "<|audio_pad|>", "<|audio_start|>", "<|audio_end|>"),
        "<|im_end|>",
        QWEN_MESSAGE,
        _omni,
        _omni_config,
        _OMNI_NAMED,
    ),
    "qwen3_omni_moe_thinker": Recipe(
        (*QWEN_SPECIAL, "<|audio_pad|>", "<|audio_start|>", "<|audio_end|>"),
        "<|im_end|>",
        QWEN_MESSAGE,
        _omni3,
        _omni3_config,
        _OMNI_NAMED,
    ),
    "exaone4_5": Recipe(QWEN_SPECIAL, "<|im_end|>", QWEN_MESSAGE, _exaone4_5, _exaone4_5_config),
}
"""By family, as `tests.probes.recipes.RECIPES`."""
