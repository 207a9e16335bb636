"""Recipes of families whose images are sentences of discrete codes. See `tests.probes.recipes`. Knows no spans."""

from typing import Any

from tests.probes.recipes import LLAVA_MESSAGE, Ids, Recipe, Settings

_CODES = 16
_CODEBOOK: Settings = {"base_channels": 32, "num_res_blocks": 1}
_EMU3_CODES = tuple(f"<|visual token {code:06d}|>" for code in range(_CODES))
_EMU3_NAMED = {
    "image_token": "<image>",
    "boi_token": "<|image start|>",
    "eoi_token": "<|image end|>",
    "image_wrapper_token": "<|image token|>",
    "eof_token": "<|extra_201|>",
}
_DIGITS = str.maketrans("0123456789", "ABCDEFGHIJ")
_CHAMELEON_CODES = tuple(f"IMGIMG{str(code).translate(_DIGITS)}Z" for code in range(_CODES))
_CHAMELEON_NAMED = {"image_token": "<image>", "boi_token": "<racm3:break>", "eoi_token": "<eoss>"}
_SEPARATOR = "<reserved08706>"


def _emu3(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Emu3ImageProcessor, Emu3Processor

    small = {"min_pixels": 16 * 16, "max_pixels": 64 * 64}
    return Emu3Processor(
        image_processor=Emu3ImageProcessor(**(small | settings)), tokenizer=tokenizer, chat_template=template
    )


def _emu3_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Emu3Config

    codes = {"channel_multiplier": [1, 1, 1, 1], "codebook_size": _CODES, "hidden_size": 32}
    return Emu3Config, {
        "text_config": text,
        "vq_config": {**_CODEBOOK, **codes},
        "vocabulary_map": {token: ids(token) for token in ("<image>", "<|extra_200|>", *_EMU3_CODES)},
    }


def _chameleon(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import ChameleonImageProcessor, ChameleonProcessor

    tokenizer.sep_token = _SEPARATOR
    # Colours from -1 to 0, for the tests that read them; released processors have 0.0078.
    small = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "rescale_factor": 1 / 255}
    processor = ChameleonProcessor(
        image_processor=ChameleonImageProcessor(**(small | settings)), tokenizer=tokenizer, image_seq_length=16
    )
    processor.chat_template = template
    return processor


def _chameleon_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import ChameleonConfig

    codes = {"channel_multiplier": [1, 1, 1, 1], "num_embeddings": _CODES, "embed_dim": 8, "latent_channels": 8}
    return ChameleonConfig, {
        **text,
        "vq_config": {**_CODEBOOK, **codes, "resolution": 32},
        "vocabulary_map": {token: ids(token) for token in ("<image>", *_CHAMELEON_CODES)},
    }


CODES: dict[str, Recipe] = {
    "emu3": Recipe(
        (*_EMU3_NAMED.values(), "<|extra_200|>", *_EMU3_CODES), "</s>", LLAVA_MESSAGE, _emu3, _emu3_config, _EMU3_NAMED
    ),
    "chameleon": Recipe(
        (*_CHAMELEON_NAMED.values(), _SEPARATOR, *_CHAMELEON_CODES),
        "</s>",
        LLAVA_MESSAGE,
        _chameleon,
        _chameleon_config,
        _CHAMELEON_NAMED,
    ),
}
"""By family, as `tests.probes.recipes.RECIPES`."""
