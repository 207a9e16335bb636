"""Recipes of further families that keep an image's shape: one grid over the whole of it.

See `tests.probes.recipes`, whose messages and settings of merging towers these share. Knows nothing of spans.
"""

from typing import Any

from tests.probes.recipes import (
    GLM_MESSAGE,
    GLM_SPECIAL,
    MERGED,
    MERGING_TOWER,
    PIXTRAL_TOWER,
    QWEN_MESSAGE,
    QWEN_SPECIAL,
    ROPE,
    Ids,
    Message,
    Recipe,
    Settings,
    glm46v,
    glm_arguments,
)
from tests.probes.recipes_omni import OMNI
from tests.probes.recipes_patches import PATCHES

_SINGLE_FRAMES: Settings = {**MERGED, "temporal_patch_size": 1}


def _paddleocr_vl(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import PaddleOCRVLImageProcessor, PaddleOCRVLProcessor

    return PaddleOCRVLProcessor(
        image_processor=PaddleOCRVLImageProcessor(**(_SINGLE_FRAMES | settings)),
        tokenizer=tokenizer,
        chat_template=template,
    )


def _paddleocr_vl_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import PaddleOCRVLConfig

    return PaddleOCRVLConfig, {
        "text_config": {**text, "head_dim": 8, "rope_parameters": ROPE},
        "vision_config": {**tower, "image_size": 64, "spatial_merge_size": 2},
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
    }


def _video_llama_3(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import VideoLlama3ImageProcessor, VideoLlama3Processor, VideoLlama3VideoProcessor

    return VideoLlama3Processor(
        image_processor=VideoLlama3ImageProcessor(**(_SINGLE_FRAMES | settings)),
        video_processor=VideoLlama3VideoProcessor(**(_SINGLE_FRAMES | settings)),
        tokenizer=tokenizer,
        chat_template=template,
    )


def _video_llama_3_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import VideoLlama3Config

    return VideoLlama3Config, {
        "text_config": {"model_type": "qwen2", **text},
        "vision_config": {key: value for key, value in tower.items() if key != "image_size"},
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
    }


def _glm_ocr_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import GlmOcrConfig

    arguments = glm_arguments(ids, text)
    arguments["text_config"] |= {"model_type": "glm_ocr_text", "head_dim": 8}
    arguments["vision_config"] |= {"model_type": "glm_ocr_vision"}
    return GlmOcrConfig, arguments


_ERNIE_NAMED = {
    "image_token": "<|IMAGE_PLACEHOLDER|>",
    "image_start_token": "<|IMAGE_START|>",
    "image_end_token": "<|IMAGE_END|>",
    "video_token": "<|VIDEO_PLACEHOLDER|>",
    "video_start_token": "<|VIDEO_START|>",
    "video_end_token": "<|VIDEO_END|>",
}
_ERNIE_MESSAGE = Message(
    "{{ message['role'].capitalize() + ': ' }}",
    "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
    "{{ '\n' }}",
    "{{ 'Assistant: ' }}",
)


def _ernie4_5_vl_moe(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Ernie4_5_VLMoeImageProcessor, Ernie4_5_VLMoeProcessor, Ernie4_5_VLMoeVideoProcessor

    return Ernie4_5_VLMoeProcessor(
        image_processor=Ernie4_5_VLMoeImageProcessor(**(_SINGLE_FRAMES | settings)),
        video_processor=Ernie4_5_VLMoeVideoProcessor(**(MERGED | settings), draw_on_frames=False),
        tokenizer=tokenizer,
        chat_template=template,
    )


def _ernie4_5_vl_moe_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Ernie4_5_VLMoeConfig

    experts = {"moe_intermediate_size": [32, 32], "moe_k": 2, "moe_num_experts": 4, "moe_num_shared_experts": 1}
    kept = ("depth", "num_heads", "hidden_size", "intermediate_size", "patch_size", "spatial_merge_size")
    return Ernie4_5_VLMoeConfig, {
        "text_config": {**text, **experts, "rope_parameters": {**ROPE, "mrope_section": [1, 1, 2]}},
        "vision_config": {name: MERGING_TOWER[name] for name in kept},
        "image_token_id": ids("<|IMAGE_PLACEHOLDER|>"),
        "image_start_token_id": ids("<|IMAGE_START|>"),
        "image_end_token_id": ids("<|IMAGE_END|>"),
        "video_token_id": ids("<|VIDEO_PLACEHOLDER|>"),
        "video_start_token_id": ids("<|VIDEO_START|>"),
        "video_end_token_id": ids("<|VIDEO_END|>"),
    }


_HUNYUAN_NAMED = {
    "image_token": "<|image_pad|>",
    "image_start_token": "<|vision_start|>",
    "image_end_token": "<|vision_end|>",
}


def _hunyuan_vl(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import HunYuanVLImageProcessor, HunYuanVLProcessor

    return HunYuanVLProcessor(
        image_processor=HunYuanVLImageProcessor(**(_SINGLE_FRAMES | settings)),
        tokenizer=tokenizer,
        chat_template=template,
    )


def _hunyuan_vl_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import HunYuanVLConfig

    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 1, 1]}
    own = {"spatial_merge_size": 2, "out_hidden_size": 32, "max_image_size": 64, "image_size": 64}
    return HunYuanVLConfig, {
        "text_config": {**text, "head_dim": 8, "rope_parameters": rope},
        "vision_config": {**tower, **own},
        "image_token_id": ids("<|image_pad|>"),
        "image_start_token_id": ids("<|vision_start|>"),
        "image_end_token_id": ids("<|vision_end|>"),
    }


_LIGHTON_NAMED = {"image_token": "<|image_pad|>", "image_break_token": "<|break|>", "image_end_token": "<|vision_end|>"}


def _lighton_ocr(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import LightOnOcrProcessor, PixtralImageProcessor

    small = {"size": {"longest_edge": 64}, "patch_size": {"height": 8, "width": 8}}
    return LightOnOcrProcessor(
        image_processor=PixtralImageProcessor(**(small | settings)),
        tokenizer=tokenizer,
        patch_size=4,
        spatial_merge_size=2,
        chat_template=template,
    )


def _lighton_ocr_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import LightOnOcrConfig

    return LightOnOcrConfig, {
        "text_config": {"model_type": "qwen3", **text, "head_dim": 8},
        "vision_config": {**tower, **PIXTRAL_TOWER, "image_size": 64},
        "image_token_id": ids("<|image_pad|>"),
    }


_GEMMA4_NAMED = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}
_GEMMA4_MESSAGE = Message(
    "<|turn>{{ message['role'] + '\n' }}", "<|image|>", "{{ '<turn|>\n' }}", "{{ '<|turn>model\n' }}"
)


def _gemma4(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Gemma4AudioFeatureExtractor, Gemma4ImageProcessor, Gemma4Processor, Gemma4VideoProcessor

    small = {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    return Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(**(small | settings)),
        tokenizer=tokenizer,
        video_processor=Gemma4VideoProcessor(**small),
        chat_template=template,
    )


def _gemma4_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Gemma4Config

    layers = {"layer_types": ["sliding_attention", "full_attention", "full_attention"], "sliding_window": 64}
    per_layer = {"vocab_size_per_layer_input": text["vocab_size"], "hidden_size_per_layer_input": 8}
    shared = {"num_kv_shared_layers": 1}
    vision = {key: tower[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "patch_size")}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    return Gemma4Config, {
        "text_config": {
            **text,
            **layers,
            **per_layer,
            **shared,
            "head_dim": 8,
            "global_head_dim": 8,
            "use_bidirectional_attention": "vision",
        },
        "vision_config": {**vision, **heads, "pooling_kernel_size": 2, "position_embedding_size": 128},
        "audio_config": None,
        "image_token_id": ids("<|image|>"),
        "video_token_id": ids("<|video|>"),
        "audio_token_id": ids("<|audio|>"),
        "boi_token_id": ids("<|image>"),
        "eoi_token_id": ids("<image|>"),
    }


_MUSE_MARKS = (
    "<|patch|>",
    "<|image_start|>",
    "<|image_end|>",
    "<|video|>",
    "<|vid_frame_separator|>",
    "<|vid_start|>",
    "<|vid_end|>",
)
_MUSE_MESSAGE = QWEN_MESSAGE._replace(image="<|patch|>")


def _muse_glimmer(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import MuseGlimmerImageProcessor, MuseGlimmerProcessor, MuseGlimmerVideoProcessor

    small = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    return MuseGlimmerProcessor(
        image_processor=MuseGlimmerImageProcessor(**(small | {"max_image_tokens": 64} | settings)),
        tokenizer=tokenizer,
        video_processor=MuseGlimmerVideoProcessor(**small),
        chat_template=template,
    )


def _muse_glimmer_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import MuseGlimmerConfig

    vision = {key: value for key, value in tower.items() if key != "image_size"}
    folded = 2 * 2 * vision["hidden_size"]
    return MuseGlimmerConfig, {
        "text_config": {**text, "head_dim": 8, "sliding_window": 64},
        "vision_config": {**vision, "merge_size": 2, "pos_emb_height": 8, "pos_emb_width": 8},
        "image_token_id": ids("<|patch|>"),
        "video_token_id": ids("<|video|>"),
        "out_hidden_size": folded,
        "projector_hidden_size": 32,
    }


GRIDS: dict[str, Recipe] = {
    **OMNI,
    **PATCHES,
    "paddleocr_vl": Recipe(
        QWEN_SPECIAL,
        "<|im_end|>",
        QWEN_MESSAGE,
        _paddleocr_vl,
        _paddleocr_vl_config,
        {"image_token": "<|image_pad|>"},
    ),
    "video_llama_3": Recipe(QWEN_SPECIAL, "<|im_end|>", QWEN_MESSAGE, _video_llama_3, _video_llama_3_config),
    "glm_ocr": Recipe(GLM_SPECIAL, "<|user|>", GLM_MESSAGE, glm46v, _glm_ocr_config),
    "ernie4_5_vl_moe": Recipe(
        tuple(_ERNIE_NAMED.values()),
        "</s>",
        _ERNIE_MESSAGE,
        _ernie4_5_vl_moe,
        _ernie4_5_vl_moe_config,
        _ERNIE_NAMED,
    ),
    "gemma4": Recipe(
        ("<|turn>", "<turn|>", "<|video|>", *_GEMMA4_NAMED.values()),
        "<turn|>",
        _GEMMA4_MESSAGE,
        _gemma4,
        _gemma4_config,
        _GEMMA4_NAMED,
    ),
    "hunyuan_vl": Recipe(QWEN_SPECIAL, "<|im_end|>", QWEN_MESSAGE, _hunyuan_vl, _hunyuan_vl_config, _HUNYUAN_NAMED),
    "lighton_ocr": Recipe(
        (*QWEN_SPECIAL, "<|break|>"), "<|im_end|>", QWEN_MESSAGE, _lighton_ocr, _lighton_ocr_config, _LIGHTON_NAMED
    ),
    "muse_glimmer": Recipe(
        ("<|im_start|>", "<|im_end|>", *_MUSE_MARKS), "<|im_end|>", _MUSE_MESSAGE, _muse_glimmer, _muse_glimmer_config
    ),
}
"""By family, as `tests.probes.recipes.RECIPES`."""
