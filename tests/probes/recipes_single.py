"""Recipes of families whose processors take one image for each prompt. See `tests.probes.recipes`. Knows no spans."""

from typing import Any

from transformers import PreTrainedTokenizerFast

from tests.probes.recipes import LLAVA_MESSAGE, Recipe, Settings
from tests.probes.recipes_zoo import zoo_config

_PATCH = {"height": 8, "width": 8}


class _Underscored(PreTrainedTokenizerFast):  # type: ignore[misc]
    """Puts a token before every text, as the SentencePiece tokenizers do that Fuyu's processor counts on."""

    def __call__(self, text: Any = None, **settings: Any) -> Any:
        return super().__call__([f"_{each}" for each in text] if isinstance(text, list) else f"_{text}", **settings)


def _fuyu(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import FuyuImageProcessor, FuyuProcessor

    tokenizer.__class__ = _Underscored
    small = {"size": {"height": 56, "width": 64}, "patch_size": _PATCH}
    return FuyuProcessor(image_processor=FuyuImageProcessor(**(small | settings)), tokenizer=tokenizer)


def _kosmos2(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import CLIPImageProcessor, Kosmos2Processor

    small = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    tokenizer.unk_token = "<unk>"
    processor = Kosmos2Processor(CLIPImageProcessor(**(small | settings)), tokenizer, num_patch_index_tokens=4)
    processor.num_image_tokens = 4
    return processor


def _kosmos2_5(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Kosmos2_5ImageProcessor, Kosmos2_5Processor

    processor = Kosmos2_5Processor(Kosmos2_5ImageProcessor(**settings), tokenizer, num_image_tokens=4)
    # The processor's own default comes before that of its image processor.
    processor.images_kwargs = {"max_patches": 16, "return_tensors": "pt"}
    return processor


def _shieldgemma2(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Gemma3ImageProcessor, ShieldGemma2Processor

    small = {"size": {"height": 32, "width": 32}, "pan_and_scan_min_crop_size": 16}
    return ShieldGemma2Processor(
        image_processor=Gemma3ImageProcessor(**(small | settings)),
        tokenizer=tokenizer,
        image_seq_length=16,
        chat_template=template,
    )


_GEMMA_NAMED = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
_KOSMOS_NAMED = {"image_token": "<s>", "boi_token": "<image>", "eoi_token": "</image>"}

SINGLE: dict[str, Recipe] = {
    "fuyu": Recipe(
        ("|SPEAKER|", "|NEWLINE|", "<0x04>"),
        "</s>",
        LLAVA_MESSAGE,
        _fuyu,
        zoo_config("fuyu", {"image_token_id": "|SPEAKER|"}, {"patch_size": 8}),
    ),
    "kosmos-2": Recipe(
        ("<unk>",),
        "</s>",
        LLAVA_MESSAGE,
        _kosmos2,
        zoo_config("kosmos-2", {}, {"latent_query_num": 4}),
    ),
    "kosmos-2.5": Recipe(
        ("<image>", "</image>"),
        "</s>",
        LLAVA_MESSAGE,
        _kosmos2_5,
        zoo_config("kosmos-2.5", {}, {"latent_query_num": 4}),
        _KOSMOS_NAMED,
    ),
    "shieldgemma2": Recipe(
        tuple(_GEMMA_NAMED.values()),
        "</s>",
        LLAVA_MESSAGE._replace(image="<start_of_image>"),
        _shieldgemma2,
        zoo_config(
            "shieldgemma2",
            {
                "image_token_index": "<image_soft_token>",
                "boi_token_index": "<start_of_image>",
                "eoi_token_index": "<end_of_image>",
            },
            {"vision_config.image_size": 32, "mm_tokens_per_image": 16, "vision_config.vision_use_head": False},
        ),
        _GEMMA_NAMED,
    ),
}
"""By family, as `tests.probes.recipes.RECIPES`."""
