"""A family under one setting, and the settings of published checkpoints: cases of the tests of spans."""

from typing import Any, NamedTuple


class Case(NamedTuple):
    """A family under one setting of its processor and model."""

    name: str
    family: str
    image_settings: dict[str, Any]
    call: dict[str, Any]
    changes: dict[str, Any]
    cell: int = 8
    """Pixels of the processed picture along a token's side."""


def as_published(processor: Any) -> None:
    """Token counts of the published checkpoints."""
    processor.patch_size = 14
    processor.image_seq_len = 169
    processor.num_image_tokens = 27 * 27
    if hasattr(processor, "start_image_token"):
        processor.image_seq_length = 256
    if hasattr(processor.image_processor, "image_seq_length"):
        processor.image_seq_length = 256
    if hasattr(processor, "full_image_sequence"):
        processor.image_seq_length = 256
        tokenizer = processor.tokenizer
        soft = tokenizer.image_token * 256
        processor.full_image_sequence = f"\n\n{tokenizer.boi_token}{soft}{tokenizer.eoi_token}\n\n"


CLIP_336 = {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14}
PINPOINTS_336 = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
PINPOINTS_384 = [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)]
PUBLISHED = (
    Case(
        "molmo2 8b",
        "molmo2",
        {"size": {"height": 378, "width": 378}, "patch_size": 14, "overlap_margins": [4, 4], "max_crops": 8},
        {},
        {"vision_config.patch_size": 14},
        28,
    ),
    Case(
        "llava 1.5",
        "llava",
        {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
        {},
        {"vision_config": CLIP_336},
        14,
    ),
    Case(
        "qwen2.5-vl 7b",
        "qwen2_5_vl",
        {"patch_size": 14, "size": {"shortest_edge": 3136, "longest_edge": 1003520}},
        {},
        {},
    ),
    Case(
        "qwen3-vl 8b",
        "qwen3_vl",
        {"patch_size": 16, "size": {"shortest_edge": 65536, "longest_edge": 16777216}},
        {},
        {},
    ),
    Case(
        "llava-next 7b",
        "llava_next",
        {
            "size": {"shortest_edge": 336},
            "crop_size": {"height": 336, "width": 336},
            "image_grid_pinpoints": PINPOINTS_336,
        },
        {},
        {"vision_config": CLIP_336, "image_grid_pinpoints": PINPOINTS_336},
        14,
    ),
    Case(
        "llava-onevision 7b",
        "llava_onevision",
        {"size": {"height": 384, "width": 384}, "image_grid_pinpoints": PINPOINTS_384},
        {},
        {
            "vision_config": {"model_type": "siglip_vision_model", "image_size": 384, "patch_size": 14},
            "image_grid_pinpoints": PINPOINTS_384,
        },
        14,
    ),
    Case(
        "internvl3 8b",
        "internvl",
        {"size": {"height": 448, "width": 448}, "max_patches": 12},
        {},
        {"vision_config": {"image_size": [448, 448], "patch_size": [14, 14]}},
        28,
    ),
    Case(
        "mistral small 3.1",
        "mistral3",
        {"size": {"longest_edge": 1540}},
        {},
        {"vision_config": {"model_type": "pixtral", "patch_size": 14}},
        28,
    ),
    Case(
        "idefics3 8b",
        "idefics3",
        {"size": {"longest_edge": 1456}, "max_image_size": {"longest_edge": 364}},
        {},
        {"vision_config": {"image_size": 364, "patch_size": 14}},
        28,
    ),
    Case(
        "gemma4 e4b",
        "gemma4",
        {"patch_size": 16, "pooling_kernel_size": 3, "max_soft_tokens": 280},
        {},
        {"vision_config": {"patch_size": 16, "pooling_kernel_size": 3}},
    ),
    Case(
        "llama4 scout",
        "llama4",
        {"size": {"height": 336, "width": 336}, "max_patches": 16},
        {},
        {"vision_config": {"image_size": 336, "patch_size": 14}},
        28,
    ),
    Case(
        "lfm2-vl 1.6b",
        "lfm2_vl",
        {"encoder_patch_size": 16, "tile_size": 512, "min_image_tokens": 64, "max_image_tokens": 256, "max_tiles": 10},
        {},
        {},
    ),
    Case(
        "paligemma 3b 224",
        "paligemma",
        {"size": {"height": 224, "width": 224}},
        {},
        {"vision_config": {"model_type": "siglip_vision_model", "image_size": 224, "patch_size": 14}},
        14,
    ),
    Case(
        "gemma3 4b",
        "gemma3",
        {"size": {"height": 896, "width": 896}},
        {"do_pan_and_scan": True},
        {"vision_config": {"image_size": 896, "patch_size": 14}, "mm_tokens_per_image": 256},
        56,
    ),
)
