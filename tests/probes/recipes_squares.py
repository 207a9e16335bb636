"""Recipes of further families that see every image at one size: stretched or cropped to a square, or padded to one.

See `tests.probes.recipes`. Knows nothing of spans.
"""

from typing import Any

from tests.probes.recipes import LLAVA_MESSAGE, Ids, Message, Recipe, Settings

_SQUARE: Settings = {"size": {"height": 32, "width": 32}}


def _paligemma(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import PaliGemmaProcessor, SiglipImageProcessor

    image_processor = SiglipImageProcessor(**(_SQUARE | settings))
    image_processor.image_seq_length = 16
    return PaliGemmaProcessor(image_processor=image_processor, tokenizer=tokenizer, chat_template=template)


def _siglip(tower: Settings) -> Settings:
    return {"model_type": "siglip_vision_model", **tower, "patch_size": 8, "vision_use_head": False}


def _paligemma_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import PaliGemmaConfig

    return PaliGemmaConfig, {
        "text_config": {"model_type": "gemma", **text, "vocab_size": text["vocab_size"], "head_dim": 8},
        "vision_config": _siglip(tower),
        "image_token_index": ids("<image>"),
        "projection_dim": 32,
        "hidden_size": 32,
    }


def _deepseek_vl(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import DeepseekVLImageProcessor, DeepseekVLProcessor

    return DeepseekVLProcessor(
        image_processor=DeepseekVLImageProcessor(**(_SQUARE | {"min_size": 4} | settings)),
        tokenizer=tokenizer,
        chat_template=template,
        num_image_tokens=16,
    )


def _deepseek_vl_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import DeepseekVLConfig

    return DeepseekVLConfig, {
        "text_config": {"model_type": "llama", **text},
        "vision_config": _siglip(tower),
        "image_token_id": ids("<image>"),
    }


def _deepseek_vl_hybrid(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import DeepseekVLHybridImageProcessor, DeepseekVLHybridProcessor

    small = {"high_res_size": {"height": 64, "width": 64}, "min_size": 4}
    return DeepseekVLHybridProcessor(
        image_processor=DeepseekVLHybridImageProcessor(**(_SQUARE | small | settings)),
        tokenizer=tokenizer,
        chat_template=template,
        num_image_tokens=16,
    )


def _deepseek_vl_hybrid_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import DeepseekVLHybridConfig

    _, arguments = _deepseek_vl_config(ids, text, tower)
    sam = {"image_size": 64, "patch_size": 8, "output_channels": 8, "window_size": 4, "global_attn_indexes": [1]}
    fine = {key: value for key, value in tower.items() if key not in ("image_size", "patch_size", "intermediate_size")}
    return DeepseekVLHybridConfig, {
        **arguments,
        "high_res_vision_config": {"model_type": "sam_vision_model", **fine, **sam, "mlp_dim": 64},
    }


def _janus(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import JanusImageProcessor, JanusProcessor

    return JanusProcessor(
        image_processor=JanusImageProcessor(**(_SQUARE | {"min_size": 4} | settings)),
        tokenizer=tokenizer,
        chat_template=template,
        num_image_tokens=16,
    )


def _janus_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import JanusConfig

    vision = {**tower, "patch_size": 8, "mlp_ratio": 2.0, "projection_dim": 32, "num_image_tokens": 16}
    del vision["intermediate_size"]
    codes = {"base_channels": 32, "latent_channels": 32, "num_embeddings": 16, "channel_multiplier": [1, 1]}
    return JanusConfig, {
        "text_config": {"model_type": "llama", **text},
        "vision_config": vision,
        "vq_config": {**codes, "embed_dim": 8, "image_token_embed_dim": 32, "projection_dim": 32},
        "image_token_id": ids("<image>"),
    }


def _video_llava(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import VideoLlavaImageProcessor, VideoLlavaProcessor, VideoLlavaVideoProcessor

    small = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return VideoLlavaProcessor(
        image_processor=VideoLlavaImageProcessor(**(small | settings)),
        video_processor=VideoLlavaVideoProcessor(**small),
        tokenizer=tokenizer,
        patch_size=8,
        chat_template=template,
    )


def _video_llava_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import VideoLlavaConfig

    return VideoLlavaConfig, {
        "text_config": {"model_type": "llama", **text},
        "vision_config": {"model_type": "clip_vision_model", **tower, "patch_size": 8, "projection_dim": 32},
        "image_token_index": ids("<image>"),
        "video_token_index": ids("<video>"),
    }


def _pp_chart2table(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import PPChart2TableImageProcessor, PPChart2TableProcessor

    small = {"size": {"height": 64, "width": 64}}
    return PPChart2TableProcessor(
        image_processor=PPChart2TableImageProcessor(**(small | settings)), tokenizer=tokenizer, chat_template=template
    )


def _pp_chart2table_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import PPChart2TableConfig

    sam = {"hidden_size": 32, "output_channels": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 64}
    # By default the tower starts at almost nothing, which would hide every image.
    seen = {"image_size": 64, "patch_size": 2, "window_size": 4, "global_attn_indexes": [1], "initializer_range": 0.02}
    return PPChart2TableConfig, {
        "text_config": {"model_type": "qwen2", **text},
        "vision_config": {**sam, **seen},
        "image_token_index": ids("<imgpad>"),
    }


_CHART_MESSAGE = LLAVA_MESSAGE._replace(image="<img>{{ '<imgpad>' * 64 }}</img>")
"""The template itself writes as many tokens as the model makes."""
_PALIGEMMA_MESSAGE = Message("", "<image>", "", "")
"""PaliGemma's checkpoints have no template; its processor puts a line break behind the text."""
_JANUS_NAMED = {"image_token": "<image>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}

SQUARES: dict[str, Recipe] = {
    "paligemma": Recipe(
        ("<image>",), "</s>", _PALIGEMMA_MESSAGE, _paligemma, _paligemma_config, {"image_token": "<image>"}
    ),
    "deepseek_vl": Recipe(
        ("<image>",), "</s>", LLAVA_MESSAGE, _deepseek_vl, _deepseek_vl_config, {"image_token": "<image>"}
    ),
    "deepseek_vl_hybrid": Recipe(
        ("<image>",), "</s>", LLAVA_MESSAGE, _deepseek_vl_hybrid, _deepseek_vl_hybrid_config, {"image_token": "<image>"}
    ),
    "video_llava": Recipe(("<image>", "<video>"), "</s>", LLAVA_MESSAGE, _video_llava, _video_llava_config),
    "janus": Recipe(tuple(_JANUS_NAMED.values()), "</s>", LLAVA_MESSAGE, _janus, _janus_config, _JANUS_NAMED),
    "pp_chart2table": Recipe(
        ("<img>", "<imgpad>", "</img>"), "</s>", _CHART_MESSAGE, _pp_chart2table, _pp_chart2table_config
    ),
}
"""By family, as `tests.probes.recipes.RECIPES`."""
