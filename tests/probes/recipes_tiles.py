"""Recipes of further families that cut images into tiles. See `tests.probes.recipes`. Knows nothing of spans."""

from typing import Any

from tests.probes.recipes import (
    INTERNVL_MESSAGE,
    INTERNVL_NAMED,
    LLAVA_MESSAGE,
    TILED,
    Ids,
    Recipe,
    Settings,
)
from tests.probes.recipes_cut import CUT
from tests.probes.recipes_zoo import zoo_config

_LLAMA4_MARKS = (
    "<|image|>",
    "<|image_start|>",
    "<|image_end|>",
    "<|patch|>",
    "<|tile_x_separator|>",
    "<|tile_y_separator|>",
)


def _llama4(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Llama4ImageProcessor, Llama4Processor

    small = {"size": {"height": 32, "width": 32}, "max_patches": 6}
    return Llama4Processor(
        image_processor=Llama4ImageProcessor(**(small | settings)),
        tokenizer=tokenizer,
        patch_size=4,
        pixel_shuffle_ratio=0.5,
        chat_template=template,
    )


def _llama4_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Llama4Config

    experts = {"num_local_experts": 2, "intermediate_size_mlp": 64, "head_dim": 8, "use_qk_norm": False}
    vision = {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32}
    return Llama4Config, {
        "text_config": {**text, **experts, "attention_chunk_size": 512},
        "vision_config": {**tower, **vision, "intermediate_size": 128},
        "image_token_index": ids("<|patch|>"),
        "boi_token_index": ids("<|image_start|>"),
        "eoi_token_index": ids("<|image_end|>"),
    }


_LFM2_TAGS = tuple(f"<|img_row_{row}_col_{column}|>" for row in range(1, 7) for column in range(1, 7))
_LFM2_MARKS = ("<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>", *_LFM2_TAGS)


def _lfm2_vl(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Lfm2VlImageProcessor, Lfm2VlProcessor

    small = {
        "encoder_patch_size": 4,
        "tile_size": 32,
        "min_image_tokens": 4,
        "max_image_tokens": 16,
        "max_tiles": 6,
        "size": {"height": 32, "width": 32},
    }
    return Lfm2VlProcessor(
        image_processor=Lfm2VlImageProcessor(**(small | settings)), tokenizer=tokenizer, chat_template=template
    )


def _lfm2_vl_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Lfm2VlConfig

    kinds = {"layer_types": ["full_attention", "conv", "full_attention"], "block_auto_adjust_ff_dim": False}
    patches = {key: value for key, value in tower.items() if key != "image_size"}
    return Lfm2VlConfig, {
        "text_config": {"model_type": "lfm2", **text, **kinds},
        "vision_config": {
            "model_type": "siglip2_vision_model",
            **patches,
            "num_patches": 64,
            "vision_use_head": False,
        },
        "image_token_id": ids("<image>"),
        "projector_hidden_size": 32,
    }


_OVIS_MARKS = ("<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")


def _ovis2(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Ovis2ImageProcessor, Ovis2Processor

    small = {"size": {"height": 32, "width": 32}, "crop_to_patches": True, "max_patches": 6}
    return Ovis2Processor(
        image_processor=Ovis2ImageProcessor(**(small | settings)),
        tokenizer=tokenizer,
        image_seq_length=16,
        chat_template=template,
    )


def _ovis2_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Ovis2Config

    return Ovis2Config, {
        "text_config": {"model_type": "qwen2", **text},
        "vision_config": {**tower, "hidden_stride": 2, "vocab_size": 64},
        "image_token_id": ids("<IMG_ATOM>"),
        "visual_indicator_token_ids": [ids(mark) for mark in _OVIS_MARKS[1:]],
        "vocab_size": text["vocab_size"],
        "hidden_size": 32,
    }


def _qianfan_ocr(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import GotOcr2ImageProcessor, QianfanOCRProcessor

    return QianfanOCRProcessor(
        image_processor=GotOcr2ImageProcessor(**(TILED | settings)),
        tokenizer=tokenizer,
        image_seq_length=16,
        chat_template=template,
    )


def _qianfan_ocr_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import QianfanOCRConfig

    return QianfanOCRConfig, {
        "text_config": {"model_type": "qwen3", **text, "head_dim": 8},
        "vision_config": {**tower, "image_size": [32, 32], "patch_size": [4, 4]},
        "image_token_id": ids("<IMG_CONTEXT>"),
        "image_seq_length": 16,
    }


_MINICPM_NAMED = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}


def _minicpm(model_type: str, kind: str, pictures: str) -> Recipe:
    """MiniCPM-V's versions differ in their decoder's positions only, MiniCPM-OCR in what its processor may do."""

    def processor(tokenizer: Any, template: str, settings: Settings) -> Any:
        import transformers

        small = {"patch_size": 4, "scale_resolution": 64, "max_slice_nums": 6}
        return getattr(transformers, f"{kind}Processor")(
            image_processor=getattr(transformers, f"{pictures}ImageProcessor")(**(small | settings)),
            video_processor=getattr(transformers, f"{pictures}VideoProcessor")(**small),
            tokenizer=tokenizer,
            chat_template=template,
        )

    changes = {
        "text_config.layer_types": ["full_attention", "linear_attention", "full_attention"],
        "vision_config.insert_layer_id": 1,
        "insert_layer_id": 1,
        "vision_config.image_size": 64,
        "image_size": 64,
    }
    tokens = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    return Recipe(
        tuple(_MINICPM_NAMED.values()),
        "</s>",
        LLAVA_MESSAGE._replace(image="<|image_pad|>"),
        processor,
        zoo_config(model_type, tokens, changes),
        _MINICPM_NAMED,
    )


def _granite_docling(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import GraniteDoclingImageProcessor, GraniteDoclingProcessor

    small = {"size": {"height": 32, "width": 32}, "min_patches": 1, "max_patches": 6}
    return GraniteDoclingProcessor(
        image_processor=GraniteDoclingImageProcessor(**(small | settings)),
        tokenizer=tokenizer,
        image_seq_len=16,
        chat_template=template,
    )


def _granite_docling_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import GraniteDoclingConfig

    vision = {"out_hidden_size": 32, "scale_factor": 2, "deepstack_visual_indexes": [0, 1]}
    return GraniteDoclingConfig, {
        "text_config": {**text, "attention_multiplier": 8**-0.5},
        "vision_config": {**tower, **vision},
        "image_token_id": ids("<image>"),
        "pad_token_id": text["pad_token_id"],
    }


_GRANITE_TAGS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))

TILES: dict[str, Recipe] = {
    **CUT,
    "llama4": Recipe(_LLAMA4_MARKS, "</s>", LLAVA_MESSAGE._replace(image="<|image|>"), _llama4, _llama4_config),
    "lfm2_vl": Recipe(_LFM2_MARKS, "</s>", LLAVA_MESSAGE, _lfm2_vl, _lfm2_vl_config),
    "granite_docling": Recipe(
        ("<image>", "<fake_token_around_image>", "<global-img>", *_GRANITE_TAGS),
        "</s>",
        LLAVA_MESSAGE,
        _granite_docling,
        _granite_docling_config,
    ),
    "minicpm_ocr": _minicpm("minicpm_ocr", "MiniCPMOcr", "MiniCPMOcr"),
    "minicpmv4_6": _minicpm("minicpmv4_6", "MiniCPMV4_6", "MiniCPMV4_6"),
    "minicpmv4_7": _minicpm("minicpmv4_7", "MiniCPMV4_7", "MiniCPMV4_6"),
    "ovis2": Recipe(("<image>", *_OVIS_MARKS), "</s>", LLAVA_MESSAGE, _ovis2, _ovis2_config),
    "qianfan_ocr": Recipe(
        ("<image>", "<|im_start|>", "<|im_end|>", *INTERNVL_NAMED.values()),
        "<|im_end|>",
        INTERNVL_MESSAGE._replace(image="<image>{{ '\n' }}"),
        _qianfan_ocr,
        _qianfan_ocr_config,
        INTERNVL_NAMED,
    ),
}
"""By family, as `tests.probes.recipes.RECIPES`."""
