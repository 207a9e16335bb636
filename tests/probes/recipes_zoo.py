"""Recipes of further families on merging towers whose configurations are the zoo's, fitted to the test tokenizer.

See `tests.probes.recipes` and `tests.probes.zoo`. Knows nothing of spans.
"""

from collections.abc import Mapping
from typing import Any

from tests.probes.recipes import (
    GLM_MESSAGE,
    GLM_SPECIAL,
    MERGED,
    PIXTRAL_SPECIAL,
    QWEN_MESSAGE,
    QWEN_SPECIAL,
    ROPE,
    Ids,
    Message,
    Recipe,
    Settings,
    native,
)
from tests.probes.zoo.shrinking import SPECIAL_TOKENS

_QWEN_IDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
_ROOM = 4
"""Embeddings beyond the tokenizer's, for tokens that processors add."""
GLM_IDS = {
    "image_token_id": "<|image|>",
    "video_token_id": "<|video|>",
    "image_start_token_id": "<|begin_of_image|>",
    "image_end_token_id": "<|end_of_image|>",
    "video_start_token_id": "<|begin_of_video|>",
    "video_end_token_id": "<|end_of_video|>",
}


def zoo_config(model_type: str, tokens: Mapping[str, str], changes: Mapping[str, Any] | None = None) -> Any:
    """A recipe's function that takes the zoo's configuration of a model type."""

    def make(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
        from tests.probes.zoo.verifying import config_of

        def build(**overrides: Any) -> Any:
            config = config_of(model_type)
            decoder = config.get_text_config(decoder=True)
            for name in ("vocab_size", "max_position_embeddings", *SPECIAL_TOKENS):
                for part in (decoder, config):
                    if hasattr(part, name):
                        setattr(part, name, text[name] + (_ROOM if name == "vocab_size" else 0))
            for name, token in tokens.items():
                setattr(config, name, ids(token))
            for path, value in {**(changes or {}), **overrides}.items():
                *parts, name = path.split(".")
                place = config
                for part in parts:
                    place = getattr(place, part)
                setattr(place, name, value)
            return config

        return build, {}

    return make


def _processor(
    kind: str,
    images: str = "Qwen2VLImageProcessor",
    videos: str = "Qwen2VLVideoProcessor",
) -> Any:
    """A recipe's function for a processor of the named classes."""

    def make(tokenizer: Any, template: str, settings: Settings) -> Any:
        import transformers

        return getattr(transformers, kind)(
            image_processor=getattr(transformers, images)(**(MERGED | settings)),
            video_processor=getattr(transformers, videos)(**MERGED),
            tokenizer=tokenizer,
            chat_template=template,
        )

    return make


_MINIMAX_MARKS = ("]<]image[>[", "]<]video[>[", "]<]start of image[>[", "]<]end of image[>[")
_DOTS_LAYERS = ("indexed_attention", "sliding_attention")
_DOTS_IDS = {"image_token_id": "<|imgpad|>", "audio_token_id": "<|audio_comp_pad|>"}
_DEEP = {"vision_config.deepstack_visual_indexes": [0, 1], "vision_config.num_position_embeddings": 64}
_COMPASS_IDS = {name: token.upper() for name, token in _QWEN_IDS.items()}
_COMPASS_MESSAGE = Message(
    "<|START|>{{ message['role'] + ': ' }}",
    "<|VISION_START|><|IMAGE_PAD|><|VISION_END|>",
    "<|END|>",
    "<|START|>{{ 'assistant: ' }}",
)


def _mistral_large4(tokenizer: Any, template: str, settings: Settings) -> Any:
    return native(tokenizer, template, settings, 2)


def _dots3_note(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Dots3NoteFeatureExtractor, Dots3NoteProcessor, Qwen2VLImageProcessor, Qwen3VLVideoProcessor

    frames = {**MERGED, "temporal_patch_size": 1}
    return Dots3NoteProcessor(
        image_processor=Qwen2VLImageProcessor(**(frames | settings)),
        video_processor=Qwen3VLVideoProcessor(**frames),
        feature_extractor=Dots3NoteFeatureExtractor(),
        tokenizer=tokenizer,
        chat_template=template,
    )


def _cosmos3_edge(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Cosmos3EdgeImageProcessor, Cosmos3EdgeProcessor, Cosmos3EdgeVideoProcessor

    frames = {**MERGED, "temporal_patch_size": 1}
    processor = Cosmos3EdgeProcessor(
        image_processor=Cosmos3EdgeImageProcessor(**(frames | settings)),
        video_processor=Cosmos3EdgeVideoProcessor(**frames),
        tokenizer=tokenizer,
        chat_template=template,
    )
    # Tests that call the processor themselves do not ask for what the model wants.
    processor.return_mm_token_type_ids = True
    return processor


ZOO: dict[str, Recipe] = {
    "cosmos3_edge": Recipe(
        QWEN_SPECIAL,
        "<|im_end|>",
        QWEN_MESSAGE,
        _cosmos3_edge,
        zoo_config("cosmos3_edge", _QWEN_IDS, {"projector_hidden_size": 32, "text_config.rope_parameters": ROPE}),
    ),
    "dots3_note": Recipe(
        (*QWEN_SPECIAL, *_DOTS_IDS.values()),
        "<|im_end|>",
        QWEN_MESSAGE._replace(image="<|vision_start|><|imgpad|><|vision_end|>"),
        _dots3_note,
        zoo_config(
            "dots3_note",
            {**_DOTS_IDS, "video_token_id": "<|video_pad|>"},
            {
                "vision_config.adapter_in_dim": 32,
                "audio_config.num_key_value_heads": 4,
                "vision_config.mlp_layer_types": ["dense", "sparse", "sparse"],
                "vision_config.per_layer_config": {1: {"num_local_experts": 2}, 2: {"num_local_experts": 4}},
                "text_config.mlp_layer_types": ["dense", "sparse", "sparse"],
                "text_config.per_layer_config": {2: {"kv_lora_rank": 16}},
                "text_config.head_dim": 16,
                "text_config.rope_parameters": {kind: {**ROPE, "partial_rotary_factor": 0.5} for kind in _DOTS_LAYERS},
            },
        ),
    ),
    "lfm3_vl": Recipe(
        QWEN_SPECIAL,
        "<|im_end|>",
        QWEN_MESSAGE,
        _processor("Lfm3VlProcessor"),
        zoo_config("lfm3_vl", _QWEN_IDS, {"text_config.layer_types": ["full_attention", "conv", "full_attention"]}),
    ),
    "hyperclovax_vision_v2": Recipe(
        QWEN_SPECIAL,
        "<|im_end|>",
        QWEN_MESSAGE,
        _processor("HyperCLOVAXVisionV2Processor"),
        zoo_config(
            "hyperclovax_vision_v2",
            {name: _QWEN_IDS[name] for name in ("image_token_id", "video_token_id")},
            {"vision_config.window_size": 16, "vision_config.fullatt_block_indexes": [1]},
        ),
    ),
    "cosmos3_omni": Recipe(
        QWEN_SPECIAL,
        "<|im_end|>",
        QWEN_MESSAGE,
        _processor("Qwen3VLProcessor", videos="Qwen3VLVideoProcessor"),
        zoo_config("cosmos3_omni", _QWEN_IDS, _DEEP),
    ),
    "cohere_compass": Recipe(
        ("<|START|>", "<|END|>", *_COMPASS_IDS.values()),
        "<|END|>",
        _COMPASS_MESSAGE,
        _processor("CohereCompassProcessor", "CohereCompassImageProcessor", "CohereCompassVideoProcessor"),
        zoo_config("cohere_compass", _COMPASS_IDS, _DEEP),
    ),
    "glmga": Recipe(
        GLM_SPECIAL,
        "<|user|>",
        GLM_MESSAGE,
        _processor("Glm46VProcessor", "GlmgaImageProcessor", "GlmgaVideoProcessor"),
        zoo_config("glmga", GLM_IDS, {"vision_config.image_size": 32}),
    ),
    "minimax_m3_vl": Recipe(
        ("<|turn|>", *_MINIMAX_MARKS),
        "<|turn|>",
        Message("{{ message['role'] + ': ' }}", _MINIMAX_MARKS[0], "<|turn|>", "{{ 'assistant: ' }}"),
        _processor("MiniMaxM3VLProcessor", "MiniMaxM3VLImageProcessor", "MiniMaxM3VLVideoProcessor"),
        zoo_config(
            "minimax_m3_vl",
            {"image_token_index": _MINIMAX_MARKS[0], "video_token_index": _MINIMAX_MARKS[1]},
            {"vision_config.image_size": 64, "text_config.mlp_layer_types": ["dense", "sparse", "sparse"]},
        ),
    ),
    "mistral_large4": Recipe(
        PIXTRAL_SPECIAL,
        "</s>",
        Message("[INST]", "[IMG]", "[/INST]", ""),
        _mistral_large4,
        zoo_config(
            "mistral_large4",
            {"image_token_index": "[IMG]"},
            {
                "vision_config.image_size": 64,
                "text_config.kv_source_layers": [0, 1, 2],
                "text_config.no_rope_layers": [1, 1, 1],
                "text_config.mlp_layer_types": ["dense", "sparse", "sparse"],
                "text_config.indexer_types": ["full"] * 3,
            },
        ),
    ),
    "qwen4_exp": Recipe(
        QWEN_SPECIAL,
        "<|im_end|>",
        QWEN_MESSAGE,
        _processor("Qwen3VLProcessor", videos="Qwen3VLVideoProcessor"),
        zoo_config("qwen4_exp", _QWEN_IDS, {"vision_config.num_position_embeddings": 64}),
    ),
}
"""By family, as `tests.probes.recipes.RECIPES`."""
