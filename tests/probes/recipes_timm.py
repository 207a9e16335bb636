"""Recipes of families whose vision towers are timm's; their models need that library, their processors do not.

See `tests.probes.recipes`. The towers are the architectures of the checkpoints, made small. Knows nothing of spans.
"""

from typing import Any

from tests.probes.recipes import LLAVA_MESSAGE, Ids, Message, Recipe, Settings


def _fast_vlm(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import CLIPImageProcessor, LlavaProcessor

    small = {"size": {"shortest_edge": 256}, "crop_size": {"height": 256, "width": 256}}
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(**(small | settings)),
        tokenizer=tokenizer,
        patch_size=64,
        vision_feature_select_strategy="full",
        chat_template=template,
    )


def _fast_vlm_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import FastVlmConfig

    return FastVlmConfig, {
        "text_config": {"model_type": "qwen2", **text},
        "vision_config": {
            "model_type": "timm_wrapper",
            "architecture": "fastvit_mci3",
            "hidden_size": 64,
            "model_args": {"inference_mode": True, "layers": [1, 1, 1, 1, 1], "embed_dims": [8, 8, 16, 32, 32]},
        },
        "image_token_index": ids("<image>"),
        "image_seq_length": 16,
    }


def _gemma3n(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Gemma3nAudioFeatureExtractor, Gemma3nProcessor, SiglipImageProcessor

    return Gemma3nProcessor(
        feature_extractor=Gemma3nAudioFeatureExtractor(),
        image_processor=SiglipImageProcessor(**({"size": {"height": 128, "width": 128}} | settings)),
        tokenizer=tokenizer,
        chat_template=template,
        audio_seq_length=4,
        image_seq_length=16,
    )


def _gemma3n_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Gemma3nConfig

    vocabulary = text["vocab_size"]
    layers = {
        "head_dim": 8,
        "vocab_size_per_layer_input": vocabulary,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 4,
        "num_kv_shared_layers": 0,
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        "intermediate_size": [48, 48, 48],
        "activation_sparsity_pattern": [0.0, 0.0, 0.0],
    }
    return Gemma3nConfig, {
        "text_config": {**text, **layers},
        "vision_config": {
            "architecture": "mobilenetv5_300m_enc",
            "model_args": {"channel_multiplier": 0.05, "msfa_output_resolution": 4},
            "vocab_offset": vocabulary,
            "vocab_size": 8,
        },
        "audio_config": {
            "hidden_size": 32,
            "conf_num_hidden_layers": 1,
            "conf_num_attention_heads": 2,
            "vocab_offset": vocabulary + 8,
            "vocab_size": 8,
        },
        "vision_soft_tokens_per_image": 16,
        "audio_soft_tokens_per_image": 4,
        "image_token_id": ids("<image_soft_token>"),
        "boi_token_id": ids("<start_of_image>"),
        "eoi_token_id": ids("<end_of_image>"),
        "audio_token_id": ids("<audio_soft_token>"),
        "boa_token_id": ids("<start_of_audio>"),
        "eoa_token_id": ids("<end_of_audio>"),
    }


def _perception_lm(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import PerceptionLMImageProcessor, PerceptionLMProcessor, PerceptionLMVideoProcessor

    small = {"tile_size": 32, "max_num_tiles": 4}
    return PerceptionLMProcessor(
        video_processor=PerceptionLMVideoProcessor(size={"height": 32, "width": 32}),
        image_processor=PerceptionLMImageProcessor(**(small | settings)),
        tokenizer=tokenizer,
        patch_size=4,
        pooling_ratio=2,
        chat_template=template,
    )


def _perception_lm_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import PerceptionLMConfig

    return PerceptionLMConfig, {
        "text_config": {"model_type": "llama", **text},
        "vision_config": {
            "model_type": "timm_wrapper",
            "architecture": "vit_pe_lang_large_patch14_448",
            "model_args": {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2},
        },
        "projector_pooling_ratio": 2,
        "image_token_id": ids("<image>"),
        "video_token_id": ids("<video>"),
    }


_GEMMA_NAMED = {
    "image_token": "<image_soft_token>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "audio_token": "<audio_soft_token>",
    "boa_token": "<start_of_audio>",
    "eoa_token": "<end_of_audio>",
}
_GEMMA_MESSAGE = Message(
    "<start_of_turn>{{ ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}",
    "<image_soft_token>",
    "{{ '<end_of_turn>\n' }}",
    "{{ '<start_of_turn>model\n' }}",
)

TIMM: dict[str, Recipe] = {
    "fast_vlm": Recipe(("<image>",), "</s>", LLAVA_MESSAGE, _fast_vlm, _fast_vlm_config),
    "gemma3n": Recipe(
        ("<start_of_turn>", "<end_of_turn>", *_GEMMA_NAMED.values()),
        "<end_of_turn>",
        _GEMMA_MESSAGE,
        _gemma3n,
        _gemma3n_config,
        _GEMMA_NAMED,
    ),
    "perception_lm": Recipe(
        ("<image>", "<video>"),
        "</s>",
        LLAVA_MESSAGE,
        _perception_lm,
        _perception_lm_config,
        {"image_token": "<image>", "video_token": "<video>"},
    ),
}
"""By family, as `tests.probes.recipes.RECIPES`."""
