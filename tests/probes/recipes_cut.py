"""Recipes of families that cut images into windows, crops or resolutions of their own.

See `tests.probes.recipes_tiles`, which holds them among its own. Knows nothing of spans.
"""

from typing import Any

from tests.probes.recipes import LLAVA_MESSAGE, Ids, Recipe, Settings
from tests.probes.recipes_zoo import zoo_config

SAM_SPREAD: Settings = {"initializer_range": 0.02}
"""Weights as of other towers: the default of SAM's, 1e-10, would leave nothing of the pixels."""
_PINPOINTS = [[64, 64], [64, 128], [128, 64], [128, 128], [64, 192], [192, 64]]


def _got_ocr2(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import GotOcr2ImageProcessor, GotOcr2Processor

    small = {"size": {"height": 64, "width": 64}, "max_patches": 6}
    processor = GotOcr2Processor(
        image_processor=GotOcr2ImageProcessor(**(small | settings)), tokenizer=tokenizer, chat_template=template
    )
    processor.num_image_tokens = 16
    return processor


def _got_ocr2_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import GotOcr2Config

    sam = {name: tower[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size")}
    return GotOcr2Config, {
        "text_config": {"model_type": "qwen2", **text},
        "vision_config": {**sam, "image_size": 64, "output_channels": 8, "window_size": 4, "mlp_dim": 64, **SAM_SPREAD},
        "image_token_index": ids("<imgpad>"),
    }


def _granite4_vision(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Granite4VisionProcessor, LlavaNextImageProcessor

    small = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
    return Granite4VisionProcessor(
        image_processor=LlavaNextImageProcessor(**(small | {"image_grid_pinpoints": _PINPOINTS} | settings)),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        downsample_rate="1/2",
        chat_template=template,
    )


def _granite4_vision_config(ids: Ids, text: Settings, tower: Settings) -> tuple[Any, Settings]:
    from transformers import Granite4VisionConfig

    vision = {"hidden_size": 64, "image_size": 64, "patch_size": 8, "projection_dim": 32}
    return Granite4VisionConfig, {
        "text_config": text,
        "vision_config": {"model_type": "clip_vision_model", **tower, **vision},
        "qformer_config": {
            "model_type": "blip_2_qformer",
            "num_hidden_layers": 1,
            "intermediate_size": 64,
            "cross_attention_frequency": 1,
            "use_qformer_text_input": False,
        },
        "image_token_index": ids("<image>"),
        "image_grid_pinpoints": _PINPOINTS,
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[1, 0]],
        "spatial_target_layers": [1],
    }


def _molmo2(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Molmo2ImageProcessor, Molmo2Processor, Molmo2VideoProcessor

    small = {"size": {"height": 32, "width": 32}, "patch_size": 4, "overlap_margins": [1, 1], "max_crops": 6}
    return Molmo2Processor(
        image_processor=Molmo2ImageProcessor(**(small | settings)),
        video_processor=Molmo2VideoProcessor(),
        tokenizer=tokenizer,
        chat_template=template,
    )


_MOLMO2_MARKS = {
    "image_patch_id": "<im_patch>",
    "image_start_token_id": "<im_start>",
    "image_end_token_id": "<im_end>",
    "low_res_image_start_token_id": "<low_res_im_start>",
    "frame_start_token_id": "<frame_start>",
    "frame_end_token_id": "<frame_end>",
}


def _step3p7(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import Step3p7ImageProcessor, Step3p7Processor

    small = {"size": {"height": 64, "width": 64}, "patch_size": 32, "max_image_size": 160}
    image_processor = Step3p7ImageProcessor(**(small | settings))
    image_processor.vision_patch_size = 4
    return Step3p7Processor(image_processor=image_processor, tokenizer=tokenizer, chat_template=template)


def _unlimited_ocr(tokenizer: Any, template: str, settings: Settings) -> Any:
    from transformers import UnlimitedOcrImageProcessor, UnlimitedOcrProcessor

    small = {"size": {"height": 64, "width": 64}, "tile_size": 48, "max_patches": 6}
    return UnlimitedOcrProcessor(
        image_processor=UnlimitedOcrImageProcessor(**(small | settings)),
        tokenizer=tokenizer,
        patch_size=4,
        downsample_ratio=4,
        chat_template=template,
    )


CUT: dict[str, Recipe] = {
    "got_ocr2": Recipe(
        ("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<imgpad>"),
        "</s>",
        LLAVA_MESSAGE._replace(image="<img><imgpad></img>"),
        _got_ocr2,
        _got_ocr2_config,
    ),
    "granite4_vision": Recipe(("<image>",), "</s>", LLAVA_MESSAGE, _granite4_vision, _granite4_vision_config),
    "molmo2": Recipe(
        ("<|image|>", "<|video|>", "<im_col>", "<im_low>", *_MOLMO2_MARKS.values()),
        "</s>",
        LLAVA_MESSAGE._replace(image="<|image|>"),
        _molmo2,
        zoo_config(
            "molmo2",
            _MOLMO2_MARKS,
            {
                "vision_config.image_size": [32, 32],
                "vision_config.num_position_embeddings": 64,
                "adapter_config.vision_feature_layer": [2, 0],
                "adapter_config.text_hidden_size": 32,
                "adapter_config.initializer_range": 0.3,
            },
        ),
    ),
    "step3p7": Recipe(
        ("<im_patch>", "<patch_start>", "<patch_end>", "<patch_newline>", "<im_start>", "<im_end>"),
        "</s>",
        LLAVA_MESSAGE._replace(image="<im_patch>"),
        _step3p7,
        zoo_config(
            "step3p7",
            {"image_token_id": "<im_patch>"},
            {"vision_config.image_size": 64, "vision_config.mlp_ratio": 1.5},
        ),
    ),
    "unlimited_ocr": Recipe(
        ("<image>",),
        "</s>",
        LLAVA_MESSAGE,
        _unlimited_ocr,
        zoo_config(
            "unlimited_ocr",
            {"image_token_id": "<image>"},
            {
                "vision_config.sam_config.image_size": 64,
                "vision_config.sam_config.output_channels": 8,
                "vision_config.sam_config.window_size": 4,
                "vision_config.sam_config.initializer_range": SAM_SPREAD["initializer_range"],
                "vision_config.sam_config.downsample_channels": [16, 32],
                "text_config.sliding_window": 128,
                "text_config.mlp_layer_types": ["dense", "sparse", "sparse"],
            },
        ),
    ),
}
"""By family, as `tests.probes.recipes.RECIPES`."""
