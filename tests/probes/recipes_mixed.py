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


MIXED: dict[str, Recipe] = {
    "idefics2": Recipe(_IDEFICS2_MARKS, "</s>", LLAVA_MESSAGE, _idefics2, _idefics2_config),
}
"""By family, as `tests.probes.recipes.RECIPES`."""
