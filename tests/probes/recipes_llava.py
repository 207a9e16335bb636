"""Recipes of LLaVA's kin. See `tests.probes.recipes`. Knows nothing of spans."""

from typing import Any

from tests.probes.recipes import LLAVA_MESSAGE, Ids, Recipe, Settings

_PINPOINTS = [[32, 32], [32, 64], [64, 32], [64, 64], [32, 96], [96, 32], [96, 64]]


def _llava_next(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor

    small = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(**(small | {"image_grid_pinpoints": _PINPOINTS} | settings)),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def _llava_next_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import LlavaNextConfig

    return LlavaNextConfig, {
        "text_config": {"model_type": "llama", **text},
        "vision_config": {"model_type": "clip_vision_model", **tower, "patch_size": 8, "projection_dim": 32},
        "image_token_index": ids("<image>"),
        "image_grid_pinpoints": _PINPOINTS,
    }


def _llava_onevision(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import LlavaOnevisionImageProcessor, LlavaOnevisionProcessor, LlavaOnevisionVideoProcessor

    small = {"size": {"height": 32, "width": 32}, "image_grid_pinpoints": _PINPOINTS}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(**(small | settings)),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size={"height": 32, "width": 32}),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template,
    )


def _llava_onevision_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import LlavaOnevisionConfig

    return LlavaOnevisionConfig, {
        "text_config": {"model_type": "qwen2", **text},
        "vision_config": {"model_type": "siglip_vision_model", **tower, "patch_size": 8, "vision_use_head": False},
        "image_token_index": ids("<image>"),
        "video_token_index": ids("<video>"),
        "image_grid_pinpoints": _PINPOINTS,
    }


def _llava_next_video(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import LlavaNextImageProcessor, LlavaNextVideoProcessor, LlavaNextVideoVideoProcessor

    small = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return LlavaNextVideoProcessor(
        image_processor=LlavaNextImageProcessor(**(small | {"image_grid_pinpoints": _PINPOINTS} | settings)),
        video_processor=LlavaNextVideoVideoProcessor(**small),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def _llava_next_video_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import LlavaNextVideoConfig

    _, arguments = _llava_next_config(ids, text, tower)
    return LlavaNextVideoConfig, {**arguments, "video_token_index": ids("<video>")}


def _vipllava(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import CLIPImageProcessor, LlavaProcessor

    small = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(**(small | settings)),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def _vipllava_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import VipLlavaConfig

    return VipLlavaConfig, {
        "text_config": {"model_type": "llama", **text},
        "vision_config": {"model_type": "clip_vision_model", **tower, "patch_size": 8, "projection_dim": 32},
        "image_token_index": ids("<image>"),
        "vision_feature_layer": [-1, -2],
    }


LLAVAS: dict[str, Recipe] = {
    "llava_next": Recipe(("<image>",), "</s>", LLAVA_MESSAGE, _llava_next, _llava_next_config),
    "llava_next_video": Recipe(
        ("<image>", "<video>"), "</s>", LLAVA_MESSAGE, _llava_next_video, _llava_next_video_config
    ),
    "llava_onevision": Recipe(
        ("<image>", "<video>"),
        "</s>",
        LLAVA_MESSAGE._replace(video="<video>"),
        _llava_onevision,
        _llava_onevision_config,
    ),
    "vipllava": Recipe(("<image>",), "</s>", LLAVA_MESSAGE, _vipllava, _vipllava_config),
}
"""By family, as `tests.probes.recipes.RECIPES`."""
