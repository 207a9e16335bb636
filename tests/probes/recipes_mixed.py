"""Recipes of further families whose resampler mixes a picture into tokens. See `tests.probes.recipes`."""

from typing import Any

from tests.probes.recipes import LLAVA_MESSAGE, Ids, Recipe, Settings

_IDEFICS2_MARKS = ("<image>", "<fake_token_around_image>", "<end_of_utterance>")


def _idefics2(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Idefics2ImageProcessor, Idefics2Processor

    small = {"size": {"shortest_edge": 16, "longest_edge": 32}, "do_image_splitting": True}
    return Idefics2Processor(
        image_processor=Idefics2ImageProcessor(**(small | settings)),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=template,
    )


def _idefics2_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Idefics2Config

    resampler = {
        "hidden_size": 32,
        "resampler_n_latents": 4,
        "resampler_depth": 1,
        "resampler_n_heads": 2,
        "resampler_head_dim": 8,
        "num_key_value_heads": 1,
    }
    return Idefics2Config, {
        "text_config": {"model_type": "mistral", **text},
        "vision_config": tower,
        "perceiver_config": resampler,
        "image_token_id": ids("<image>"),
    }


def _aria(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import AriaImageProcessor, AriaProcessor

    processor = AriaProcessor(
        image_processor=AriaImageProcessor(),
        tokenizer=tokenizer,
        chat_template=template,
        size_conversion={490: 4},
    )
    # The processor's own defaults come before those of its image processor, which takes 490 or 980 pixels only.
    processor.images_kwargs = {"max_image_size": 490, "split_image": False, **settings}
    return processor


def _aria_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import AriaConfig

    experts = {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1}
    return AriaConfig, {
        "text_config": {**text, **experts},
        "vision_config": {**tower, "image_size": 490, "patch_size": 70},
        "projector_patch_to_query_dict": {7 * 7: 4},
        "image_token_index": ids("<image>"),
    }


MIXED: dict[str, Recipe] = {
    "idefics2": Recipe(_IDEFICS2_MARKS, "</s>", LLAVA_MESSAGE, _idefics2, _idefics2_config),
    "aria": Recipe(("<image>",), "</s>", LLAVA_MESSAGE, _aria, _aria_config, {"image_token": "<image>"}),
}
"""By family, as `tests.probes.recipes.RECIPES`."""
