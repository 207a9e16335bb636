"""Recipes of further families with one grid over the whole image, whose processors hand patches over in their own ways.

See `tests.probes.recipes_grids`, which holds them among its own. Knows nothing of spans.
"""

from typing import Any

from tests.probes.recipes import GLM_MESSAGE, GLM_SPECIAL, LLAVA_MESSAGE, Ids, Message, Recipe, Settings
from tests.probes.recipes_zoo import GLM_IDS, zoo_config

_PATCHES: Settings = {"patch_size": 4, "merge_size": 2}
_MUSE_NAMED = {
    "image_token": "<|patch|>",
    "image_start_token": "<|image_start|>",
    "image_end_token": "<|image_end|>",
    "video_token": "<|video|>",
    "audio_token": "<|audio|>",
}


def _muse_spark(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import (
        MuseGlimmerImageProcessor,
        MuseGlimmerVideoProcessor,
        MuseSparkFeatureExtractor,
        MuseSparkProcessor,
    )

    small = {**_PATCHES, "temporal_patch_size": 2, "max_image_tokens": 64}
    return MuseSparkProcessor(
        image_processor=MuseGlimmerImageProcessor(**(small | settings)),
        video_processor=MuseGlimmerVideoProcessor(),
        tokenizer=tokenizer,
        feature_extractor=MuseSparkFeatureExtractor(),
        chat_template=template,
    )


_GEMMA_NAMED = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}
_GEMMA_MESSAGE = Message(
    "<|turn>{{ message['role'] + '\n' }}", "<|image|>", "{{ '<turn|>\n' }}", "{{ '<|turn>model\n' }}"
)


def _gemma4_unified(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import (
        Gemma4UnifiedAudioFeatureExtractor,
        Gemma4UnifiedImageProcessor,
        Gemma4UnifiedProcessor,
        Gemma4UnifiedVideoProcessor,
    )

    small = {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    return Gemma4UnifiedProcessor(
        feature_extractor=Gemma4UnifiedAudioFeatureExtractor(),
        image_processor=Gemma4UnifiedImageProcessor(**(small | settings)),
        tokenizer=tokenizer,
        video_processor=Gemma4UnifiedVideoProcessor(**small),
        chat_template=template,
    )


def _gemma4_unified_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Gemma4UnifiedConfig

    layers = {"layer_types": ["sliding_attention", "full_attention", "full_attention"], "sliding_window": 64}
    return Gemma4UnifiedConfig, {
        "text_config": {**text, **layers, "head_dim": 8, "global_head_dim": 8},
        "vision_config": {"patch_size": 4, "pooling_kernel_size": 2, "mm_embed_dim": 32, "output_proj_dims": 32},
        "image_token_id": ids("<|image|>"),
        "video_token_id": ids("<|video|>"),
        "audio_token_id": ids("<|audio|>"),
        "boi_token_id": ids("<|image>"),
        "eoi_token_id": ids("<image|>"),
        "boa_token_id": ids("<|audio>"),
        "eoa_token_index": ids("<audio|>"),
    }


_NEMOTRON_MARKS = ("<image>", "<img>", "</img>", "<video>", "<so_embedding>", "<so_start>", "<so_end>")


def _nemotron_h_omni(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import (
        NemotronH_Omni_Reasoning_V3ImageProcessor,
        NemotronH_Omni_Reasoning_V3Processor,
        NemotronH_Omni_Reasoning_V3VideoProcessor,
        ParakeetFeatureExtractor,
    )

    small = {"patch_size": 4, "min_num_patches": 16, "max_num_patches": 256}
    return NemotronH_Omni_Reasoning_V3Processor(
        image_processor=NemotronH_Omni_Reasoning_V3ImageProcessor(**(small | settings)),
        video_processor=NemotronH_Omni_Reasoning_V3VideoProcessor(
            patch_size=4, video_target_num_patches=64, norm_mean=[0.5] * 3, norm_std=[0.5] * 3
        ),
        tokenizer=tokenizer,
        feature_extractor=ParakeetFeatureExtractor(),
        chat_template=template,
    )


def _kimi_k25(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Kimi_K25ImageProcessor, Kimi_K25Processor, Kimi_K25VideoProcessor

    return Kimi_K25Processor(
        image_processor=Kimi_K25ImageProcessor(**({**_PATCHES, "max_patches": 256} | settings)),
        video_processor=Kimi_K25VideoProcessor(),
        tokenizer=tokenizer,
        chat_template=template,
    )


def _glm5_next(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Glm5NextImageProcessor, Glm5NextProcessor, Glm5NextVideoProcessor

    small = {**_PATCHES, "temporal_patch_size": 2, "min_image_tokens": 4, "max_image_tokens": 64}
    return Glm5NextProcessor(
        image_processor=Glm5NextImageProcessor(**(small | settings)),
        video_processor=Glm5NextVideoProcessor(),
        tokenizer=tokenizer,
        chat_template=template,
    )


_CELL: Settings = {"size": {"height": 8, "width": 8}}
_INKLING_MARKS = ("<|unused_200054|>", "<|unused_200053|>", "<|content_image|>", "<|content_audio_input|>")
_INKLING_MESSAGE = LLAVA_MESSAGE._replace(image="<|content_image|><|unused_200054|>")


def _inkling2(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Inkling2ImageProcessor, Inkling2Processor

    return Inkling2Processor(
        image_processor=Inkling2ImageProcessor(**(_CELL | settings)), tokenizer=tokenizer, chat_template=template
    )


def _inkling(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import InklingFeatureExtractor, InklingImageProcessor, InklingProcessor

    return InklingProcessor(
        feature_extractor=InklingFeatureExtractor(),
        image_processor=InklingImageProcessor(**(_CELL | settings)),
        tokenizer=tokenizer,
        chat_template=template,
    )


PATCHES: dict[str, Recipe] = {
    "muse_spark": Recipe(
        tuple(_MUSE_NAMED.values()),
        "</s>",
        LLAVA_MESSAGE._replace(image="<|patch|>"),
        _muse_spark,
        zoo_config(
            "muse_spark",
            {name: _MUSE_NAMED[name[: -len("_id")]] for name in ("image_token_id", "video_token_id", "audio_token_id")},
            {
                "out_hidden_size": 128,
                "text_config.sliding_window": 64,
                "text_config.layer_rope_theta": [500000.0, 0, 500000.0],
                "audio_config.patch_sizes": [2, 2, 2],
                "audio_config.hidden_sizes": [8, 8, 8],
                "audio_config.depths": [1, 1, 1],
                "text_config.mlp_layer_types": ["sparse"] * 3,
            },
        ),
        _MUSE_NAMED,
    ),
    "gemma4_unified": Recipe(
        ("<|turn>", "<turn|>", "<|video|>", *_GEMMA_NAMED.values()),
        "<turn|>",
        _GEMMA_MESSAGE,
        _gemma4_unified,
        _gemma4_unified_config,
        _GEMMA_NAMED,
    ),
    "nemotron_h_omni": Recipe(
        _NEMOTRON_MARKS,
        "</s>",
        LLAVA_MESSAGE._replace(video="<video>"),
        _nemotron_h_omni,
        zoo_config(
            "nemotron_h_omni",
            {"image_token_id": "<image>", "video_token_id": "<video>", "audio_token_id": "<so_embedding>"},
            {"vision_hidden_size": 32, "vision_config.patch_dim": 3 * 4 * 4, "vision_config.video_patch_dim": 96},
        ),
    ),
    "kimi_k25": Recipe(
        ("<|media_pad|>", "<|kimi_k25_video_placeholder|>", "<|media_begin|>", "<|media_content|>", "<|media_end|>"),
        "</s>",
        LLAVA_MESSAGE._replace(image="<|media_begin|>image<|media_content|><|media_pad|><|media_end|>"),
        _kimi_k25,
        zoo_config(
            "kimi_k25",
            {
                "image_token_id": "<|media_pad|>",
                "video_token_id": "<|kimi_k25_video_placeholder|>",
                "vision_start_token_id": "<|media_begin|>",
                "vision_end_token_id": "<|media_end|>",
            },
            {"projection_hidden_size": 32},
        ),
    ),
    "glm5_next": Recipe(
        GLM_SPECIAL,
        "<|user|>",
        GLM_MESSAGE,
        _glm5_next,
        zoo_config(
            "glm5_next",
            GLM_IDS,
            {
                "vision_config.projection_intermediate_size": 64,
                "text_config.mlp_layer_types": ["dense", "sparse", "sparse"],
                "text_config.indexer_types": ["full"] * 3,
                "text_config.index_topk": 16,
                "text_config.index_kpool": 4,
                "text_config.qk_rope_head_dim": 0,
                "text_config.head_dim": 0,
            },
        ),
    ),
    "inkling2": Recipe(
        _INKLING_MARKS,
        "</s>",
        _INKLING_MESSAGE,
        _inkling2,
        zoo_config(
            "inkling2",
            {"image_token_id": _INKLING_MARKS[0]},
            {
                "vision_config.text_hidden_size": 32,
                "vision_config.projection_hidden_dim": 32,
                "text_config.swa_num_attention_heads": 4,
                "text_config.swa_num_key_value_heads": 2,
            },
        ),
    ),
    "inkling_mm_model": Recipe(
        _INKLING_MARKS,
        "</s>",
        _INKLING_MESSAGE,
        _inkling,
        zoo_config(
            "inkling_mm_model",
            dict(
                zip(
                    ("image_token_id", "audio_token_id", "image_bos_token_id", "audio_bos_token_id"),
                    _INKLING_MARKS,
                    strict=True,
                )
            ),
            {
                "vision_config.patch_size": 8,
                "vision_config.n_layers": 5,
                "text_config.mlp_layer_types": ["sparse"] * 3,
                "text_config.swa_num_attention_heads": 4,
                "text_config.swa_num_key_value_heads": 2,
                "text_config.swa_head_dim": 8,
            },
        ),
    ),
}
"""By family, as `tests.probes.recipes.RECIPES`."""
