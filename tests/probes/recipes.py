"""How the test processors and models of further families are made; `tests.probes.processors` builds them.

A recipe holds a family's special tokens, its chat template and two functions, one for its real processor and one for
its configuration. It knows nothing of spans.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Settings = dict[str, Any]
Ids = Callable[[str], int]


class Message(NamedTuple):
    """What a chat template puts around a message, for an image, before the reply, and for a video."""

    before: str
    image: str
    after: str
    opening: str
    video: str = ""


class Recipe(NamedTuple):
    """One family's test processor and configuration."""

    special: tuple[str, ...]
    end: str
    message: Message
    processor: Callable[[Any, str, Settings], Any]
    """(tokenizer, chat template, image settings) to the processor."""
    config: Callable[[Ids, Settings, Settings], tuple[Any, Settings]]
    """(ids of tokens, settings of the text decoder, settings of the tower) to the class and its arguments."""
    named: Mapping[str, str] = {}


QWEN_MESSAGE = Message(
    "<|im_start|>{{ message['role'] + '\n' }}",
    "<|vision_start|><|image_pad|><|vision_end|>",
    "{{ '<|im_end|>\n' }}",
    "{{ '<|im_start|>assistant\n' }}",
    "<|vision_start|><|video_pad|><|vision_end|>",
)
QWEN_SPECIAL = (
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
MERGED: Settings = {
    "patch_size": 4,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "size": {"shortest_edge": 16 * 16, "longest_edge": 64 * 64},
}
_FRAMES: Settings = {**MERGED, "size": {"shortest_edge": 16 * 16, "longest_edge": 8 * 64 * 64}}
MERGING_TOWER: Settings = {
    "depth": 2,
    "num_heads": 2,
    "hidden_size": 32,
    "out_hidden_size": 32,
    "intermediate_size": 64,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
ROPE: Settings = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}


def qwen3_vl(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**(MERGED | settings)),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**(MERGED | settings)),
        chat_template=template,
    )


def qwen3_vl_arguments(ids: Ids, text: Settings) -> Settings:
    return {
        "text_config": {**text, "head_dim": 8, "rope_parameters": ROPE},
        "vision_config": {**MERGING_TOWER, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]},
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
    }


def _qwen3_vl_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Qwen3VLConfig

    return Qwen3VLConfig, qwen3_vl_arguments(ids, text)


def _qwen3_vl_moe_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Qwen3VLMoeConfig

    experts = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
    return Qwen3VLMoeConfig, qwen3_vl_arguments(ids, {**text, **experts})


GLM_SPECIAL = (
    "<|user|>",
    "<|assistant|>",
    "<|begin_of_image|>",
    "<|image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|video|>",
    "<|end_of_video|>",
)
GLM_MESSAGE = Message(
    "{{ '<|' + message['role'] + '|>\n' }}",
    "<|begin_of_image|><|image|><|end_of_image|>",
    "",
    "{{ '<|assistant|>\n' }}",
    "<|begin_of_video|><|video|><|end_of_video|>",
)


def _glm4v(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Glm4vImageProcessor, Glm4vProcessor, Glm4vVideoProcessor

    return Glm4vProcessor(
        image_processor=Glm4vImageProcessor(**(MERGED | settings)),
        tokenizer=tokenizer,
        video_processor=Glm4vVideoProcessor(**_FRAMES),
        chat_template=template,
    )


def glm46v(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Glm46VImageProcessor, Glm46VProcessor, Glm46VVideoProcessor

    return Glm46VProcessor(
        image_processor=Glm46VImageProcessor(**(MERGED | settings)),
        tokenizer=tokenizer,
        video_processor=Glm46VVideoProcessor(**_FRAMES),
        chat_template=template,
    )


def glm_arguments(ids: Ids, text: Settings) -> Settings:
    return {
        "text_config": {"model_type": "glm4v_text", **text, "rope_parameters": {**ROPE, "partial_rotary_factor": 1.0}},
        "vision_config": {"model_type": "glm4v_vision", **MERGING_TOWER, "image_size": 32},
        "image_token_id": ids("<|image|>"),
        "video_token_id": ids("<|video|>"),
        "image_start_token_id": ids("<|begin_of_image|>"),
        "image_end_token_id": ids("<|end_of_image|>"),
        "video_start_token_id": ids("<|begin_of_video|>"),
        "video_end_token_id": ids("<|end_of_video|>"),
    }


def _glm4v_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Glm4vConfig

    return Glm4vConfig, glm_arguments(ids, text)


def _glm46v_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Glm46VConfig

    return Glm46VConfig, glm_arguments(ids, text)


LLAVA_MESSAGE = Message("{{ message['role'].upper() + ': ' }}", "<image>", "{{ ' ' }}", "ASSISTANT:")

TILED: Settings = {"size": {"height": 32, "width": 32}, "min_patches": 1, "max_patches": 6}
INTERNVL_NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
INTERNVL_MESSAGE = QWEN_MESSAGE._replace(image="<IMG_CONTEXT>{{ '\n' }}", video="<video>{{ '\n' }}")


def _internvl(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor

    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(**(TILED | settings)),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size={"height": 32, "width": 32}),
        image_seq_length=16,
        chat_template=template,
    )


def _internvl_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import InternVLConfig

    return InternVLConfig, {
        "text_config": {"model_type": "qwen2", **text},
        "vision_config": {**tower, "image_size": [32, 32], "patch_size": [4, 4]},
        "image_token_id": ids("<IMG_CONTEXT>"),
        "image_seq_length": 16,
    }


_COHERE_TURN = ("<|START_OF_TURN|>", "<|END_OF_TURN|>")
_COHERE_MESSAGE = Message(
    "<|START_OF_TURN|>{{ message['role'] + ': ' }}",
    "<image>",
    "<|END_OF_TURN|>",
    "<|START_OF_TURN|>{{ 'assistant: ' }}",
)
_AYA_SPECIAL = ("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", *_COHERE_TURN)
_COHERE_NAMED = {
    "image_token": "<image>",
    "boi_token": "<|START_OF_IMG|>",
    "eoi_token": "<|END_OF_IMG|>",
    "img_line_break_token": "<|IMG_LINE_BREAK|>",
}


def _aya_vision(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import AyaVisionProcessor, GotOcr2ImageProcessor

    return AyaVisionProcessor(
        image_processor=GotOcr2ImageProcessor(**(TILED | {"crop_to_patches": True} | settings)),
        tokenizer=tokenizer,
        patch_size=4,
        img_size=32,
        downsample_factor=2,
        chat_template=template,
    )


def _aya_vision_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import AyaVisionConfig

    return AyaVisionConfig, {
        "text_config": {"model_type": "cohere2", **text, "sliding_window": 1024},
        "vision_config": {"model_type": "siglip_vision_model", **tower, "vision_use_head": False},
        "image_token_index": ids("<|IMG_PATCH|>"),
    }


def _cohere2_vision(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Cohere2VisionImageProcessor, Cohere2VisionProcessor

    return Cohere2VisionProcessor(
        image_processor=Cohere2VisionImageProcessor(**(TILED | {"patch_size": 4} | settings)),
        tokenizer=tokenizer,
        chat_template=template,
    )


def _cohere2_vision_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Cohere2VisionConfig

    return Cohere2VisionConfig, {
        "text_config": {"model_type": "cohere2", **text, "sliding_window": 64},
        "vision_config": {"model_type": "siglip_vision_model", **tower, "vision_use_head": False},
        "image_token_id": ids("<image>"),
        "alignment_intermediate_size": 64,
    }


PIXTRAL_SPECIAL = ("[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]")
PIXTRAL_TOWER = {"model_type": "pixtral", "head_dim": 16}


def native(tokenizer: Any, template: str, settings: Settings, merge: int) -> Any:
    from transformers import PixtralImageProcessor, PixtralProcessor

    return PixtralProcessor(
        image_processor=PixtralImageProcessor(**({"size": {"longest_edge": 64}} | settings)),
        tokenizer=tokenizer,
        patch_size=8 // merge,
        spatial_merge_size=merge,
        chat_template=template,
    )


def _mistral3(tokenizer: Any, template: str, settings: Settings) -> Any:
    return native(tokenizer, template, settings, 2)


def _mistral3_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Mistral3Config

    return Mistral3Config, {
        "text_config": {"model_type": "mistral", **text, "head_dim": 8},
        "vision_config": {**tower, **PIXTRAL_TOWER, "image_size": 64},
        "image_token_index": ids("[IMG]"),
    }


def _pixtral(tokenizer: Any, template: str, settings: Settings) -> Any:
    return native(tokenizer, template, settings, 1)


def _pixtral_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import LlavaConfig

    return LlavaConfig, {
        "text_config": {"model_type": "mistral", **text, "head_dim": 8},
        "vision_config": {**tower, **PIXTRAL_TOWER, "image_size": 64, "patch_size": 8},
        "image_token_index": ids("[IMG]"),
        "vision_feature_select_strategy": "full",
        "vision_feature_layer": -1,
    }


def _glm4v_moe_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Glm4vMoeConfig

    arguments = glm_arguments(ids, text)
    experts = {"moe_intermediate_size": 32, "n_routed_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}
    arguments["text_config"] |= {"model_type": "glm4v_moe_text", **experts}
    arguments["vision_config"] |= {"model_type": "glm4v_moe_vision"}
    return Glm4vMoeConfig, arguments


RECIPES: dict[str, Recipe] = {
    "qwen3_vl": Recipe(QWEN_SPECIAL, "<|im_end|>", QWEN_MESSAGE, qwen3_vl, _qwen3_vl_config),
    "qwen3_vl_moe": Recipe(QWEN_SPECIAL, "<|im_end|>", QWEN_MESSAGE, qwen3_vl, _qwen3_vl_moe_config),
    "glm4v": Recipe(GLM_SPECIAL, "<|user|>", GLM_MESSAGE, _glm4v, _glm4v_config),
    "glm46v": Recipe(GLM_SPECIAL, "<|user|>", GLM_MESSAGE, glm46v, _glm46v_config),
    "internvl": Recipe(
        ("<|im_start|>", "<|im_end|>", *INTERNVL_NAMED.values()),
        "<|im_end|>",
        INTERNVL_MESSAGE,
        _internvl,
        _internvl_config,
        INTERNVL_NAMED,
    ),
    "aya_vision": Recipe(_AYA_SPECIAL, "<|END_OF_TURN|>", _COHERE_MESSAGE, _aya_vision, _aya_vision_config),
    "cohere2_vision": Recipe(
        (*_COHERE_NAMED.values(), *_COHERE_TURN),
        "<|END_OF_TURN|>",
        _COHERE_MESSAGE,
        _cohere2_vision,
        _cohere2_vision_config,
        _COHERE_NAMED,
    ),
    "mistral3": Recipe(PIXTRAL_SPECIAL, "</s>", Message("[INST]", "[IMG]", "[/INST]", ""), _mistral3, _mistral3_config),
    "pixtral": Recipe(PIXTRAL_SPECIAL, "</s>", LLAVA_MESSAGE._replace(image="[IMG]"), _pixtral, _pixtral_config),
    "glm4v_moe": Recipe(GLM_SPECIAL, "<|user|>", GLM_MESSAGE, _glm4v, _glm4v_moe_config),
}
