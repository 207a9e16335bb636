"""Families under settings of their own, and what their tokens really saw: shared by the tests of spans."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from probes.spans import ImageSpan, find_image_spans
from tests.probes.processors import batched, build_config, build_model, build_processor, chat
from tests.probes.published_cases import PUBLISHED, Case, as_published
from tests.probes.recipes_codes import CODES
from tests.probes.recipes_grids import GRIDS
from tests.probes.recipes_squares import SQUARES
from tests.probes.recipes_tiles import TILES
from tests.probes.recipes_zoo import ZOO

Size = tuple[int, int]
Floats = NDArray[np.float64]

torch.set_num_threads(1)


def _full(processor: Any) -> None:
    processor.vision_feature_select_strategy = "full"


def _padding(processor: Any) -> None:
    from transformers import LlavaImageProcessor

    processor.image_processor = LlavaImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_pad=True
    )


def _siglip(processor: Any) -> None:
    from transformers import SiglipImageProcessor

    _full(processor)
    processor.num_additional_image_tokens = 0
    processor.image_processor = SiglipImageProcessor(size={"height": 32, "width": 32})


def _thinned(processor: Any) -> None:
    processor.vision_aspect_ratio = "anyres_max_2"


SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "vision_use_head": False,
}


CELLS = {"got_ocr2": 16, "granite4_vision": 16, "step3p7": 16, "unlimited_ocr": 16}
"""Pixels along a token's side where they are not 8."""
SCAN = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 16}
ADAPT: dict[str, Callable[[Any], None]] = {
    "llava, class token": _full,
    "llava, padded": _padding,
    "llava, siglip": _siglip,
    "llava_onevision, thinned": _thinned,
}
CASES = {
    case.name: case
    for case in (
        Case("llava", "llava", {}, {}, {}),
        Case("llava, class token", "llava", {}, {}, {"vision_feature_select_strategy": "full"}),
        Case("llava, padded", "llava", {}, {}, {}),
        Case("llava, siglip", "llava", {}, {}, {"vision_feature_select_strategy": "full", "vision_config": SIGLIP}),
        Case("llava, wide crop", "llava", {"size": {"shortest_edge": 27}}, {}, {}),
        Case("qwen2_vl", "qwen2_vl", {}, {}, {}),
        Case("qwen2_5_vl", "qwen2_5_vl", {}, {}, {}),
        Case("idefics3", "idefics3", {}, {}, {}),
        Case("idefics3, odd edge", "idefics3", {"size": {"longest_edge": 80}}, {}, {}),
        Case("idefics3, whole", "idefics3", {"do_image_splitting": False}, {}, {}),
        Case("smolvlm", "smolvlm", {}, {}, {}),
        Case("gemma3", "gemma3", {}, {}, {}),
        Case("gemma3, pan and scan", "gemma3", {}, SCAN, {}),
        Case("qwen3_vl", "qwen3_vl", {}, {}, {}),
        Case("qwen3_vl_moe", "qwen3_vl_moe", {}, {}, {}),
        Case("glm4v", "glm4v", {}, {}, {}),
        Case("glm46v", "glm46v", {}, {}, {}),
        Case("internvl", "internvl", {}, {}, {}),
        Case("internvl, whole", "internvl", {}, {"crop_to_patches": False}, {}),
        Case("internvl, at least two", "internvl", {"min_patches": 2}, {}, {}),
        Case("aya_vision", "aya_vision", {}, {}, {}),
        Case("cohere2_vision", "cohere2_vision", {}, {}, {}),
        Case("mistral3", "mistral3", {}, {}, {}),
        Case("pixtral", "pixtral", {}, {}, {}),
        Case("glm4v_moe", "glm4v_moe", {}, {}, {}),
        Case("qwen3_5", "qwen3_5", {}, {}, {}),
        Case("qwen3_5_moe", "qwen3_5_moe", {}, {}, {}),
        Case("vipllava", "vipllava", {}, {}, {}),
        Case("llava_next", "llava_next", {}, {}, {}),
        Case("llava_next_video", "llava_next_video", {}, {}, {}),
        Case("llava_onevision", "llava_onevision", {}, {}, {}),
        Case("llava_onevision, thinned", "llava_onevision", {}, {}, {"vision_aspect_ratio": "anyres_max_2"}),
        Case("granite_docling, denser", "granite_docling", {"dense_max_patches": 3, "dense_min_aspect": 1.2}, {}, {}),
        Case("granite_docling, fine", "granite_docling", {}, {"fine_route": True}, {}, 4),
        Case("llama4, largest canvas", "llama4", {"resize_to_max_canvas": True}, {}, {}),
        Case("ovis2, nearest ratio", "ovis2", {"use_covering_area_grid": False, "min_patches": 2}, {}, {}),
        Case("ovis2, whole", "ovis2", {"crop_to_patches": False}, {}, {}),
        Case("lfm2_vl, whole", "lfm2_vl", {"do_image_splitting": False}, {}, {}),
        Case("inkling_mm_model, shrunk", "inkling_mm_model", {"rescale_image_frac": 0.6}, {}, {}),
        Case("lfm2_vl, no thumbnail", "lfm2_vl", {"use_thumbnail": False}, {}, {}),
        Case("minicpm_ocr, merged twice", "minicpm_ocr", {"downsample_mode": "16x"}, {}, {"downsample_mode": "16x"}),
        Case("got_ocr2, cut", "got_ocr2", {}, {"crop_to_patches": True}, {}, 16),
        Case("unlimited_ocr, whole", "unlimited_ocr", {"crop_to_patches": False}, {}, {}, 16),
        Case("molmo2, odd patches", "molmo2", {"overlap_margins": [1, 2]}, {}, {}),
        Case("fast_vlm", "fast_vlm", {}, {}, {}, 64),
        Case("gemma3n", "gemma3n", {}, {}, {}, 32),
        Case("perception_lm", "perception_lm", {}, {}, {}),
        Case("perception_lm, whole", "perception_lm", {"vision_input_type": "vanilla"}, {}, {}),
        *(
            Case(family, family, {}, {}, {}, CELLS.get(family, 8))
            for family in (*GRIDS, *SQUARES, *TILES, *ZOO, *CODES)
        ),
    )
}
FITTED = {"deepseek_vl", "deepseek_vl_hybrid", "janus"}
PADDED = ("glm5_next", "inkling2", "inkling_mm_model", "inkling_mm_model, shrunk", "kimi_k25")
"""Cases whose grid reaches outside the image on the right and below."""
PADS = {
    "fast_vlm",
    "llava, padded",
    "llava, wide crop",
    "llava_onevision",
    "llava_onevision, thinned",
    *FITTED,
    "llama4",
    "llama4, largest canvas",
    *PADDED,
    "pp_chart2table",
    "step3p7",
    "unlimited_ocr",
}
SHARES = {
    "gemma3n",
    "llava_onevision, thinned",
    "got_ocr2",
    "got_ocr2, cut",
    "step3p7",
    "unlimited_ocr",
    "unlimited_ocr, whole",
}
"""Cases whose neighbouring tokens see some of the same patches."""
ALONE = {"perception_lm"}
"""Cases whose processor takes no images together that it cuts into unequal numbers of tiles."""
NATIVE = {"lighton_ocr", "mistral3", "mistral_large4", "pixtral"}
RASTER = {"hunyuan_vl", "kimi_k25", "muse_glimmer", "muse_spark", "paddleocr_vl"}
"""Families whose processor leaves patches in rows, and whose model merges them."""
FRAMES_FIRST = {"muse_glimmer", "muse_spark"}
"""Families whose patches hold the repeated frames one after the other, and not channel by channel."""
WINDOWED = {"fast_vlm"}
"""Families whose cells lie under the windows of convolutions: half a cell up and to the left of an even grid."""
ANYRES = {"granite4_vision", "llava_next", "llava_next_video", "llava_onevision"}


class Encoded(NamedTuple):
    processor: Any
    config: Any
    inputs: Any
    spans: list[list[ImageSpan]]


_processors: dict[tuple[str, str], Any] = {}
_models: dict[str, Any] = {}


def processor_of(case: Case, side: str = "left") -> Any:
    """The case's processor, made once."""
    if (case.name, side) not in _processors:
        processor = build_processor(case.family, side, **case.image_settings)
        ADAPT.get(case.name, as_published if case in PUBLISHED else lambda _: None)(processor)
        _processors[case.name, side] = processor
    return _processors[case.name, side]


def model_of(case: Case) -> Any:
    """The case's tiny random model, made once."""
    if case.name not in _models:
        _models[case.name] = build_model(case.family, processor_of(case), **case.changes)
        if case.family == "fast_vlm":
            _see_middles(_models[case.name].model.vision_tower)
    return _models[case.name]


def _see_middles(tower: torch.nn.Module) -> None:
    """Leave of each window its middle: random windows, one upon the other, show every pixel to every token."""
    for module in tower.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size > (1, 1):
            middle = module.weight.shape[-1] // 2
            kept = module.weight.data[..., middle, middle].clone()
            module.weight.data.zero_()
            module.weight.data[..., middle, middle] = kept


def encode(case: Case, rows: list[list[Image.Image]], side: str = "left") -> Encoded:
    processor = processor_of(case, side)
    config = build_config(case.family, processor, **case.changes)
    texts = [
        chat(processor, images, " and ".join(["<image>"] * len(images)) + "?" * row) for row, images in enumerate(rows)
    ]
    images = batched(case.family, rows)
    inputs = processor(text=texts, images=images, return_tensors="pt", padding=True, **case.call)
    sizes = [[image.size for image in images] for images in rows]
    spans = find_image_spans(inputs, config, processor, sizes, processor_kwargs=case.call)
    return Encoded(processor, config, inputs, spans)


def coordinates(size: Size) -> Image.Image:
    """Red is x and green is y, from 0 at one edge to 255 at the other."""
    width, height = size
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return Image.fromarray(np.rint(np.stack([x, y, np.zeros_like(x)], -1) * 255).astype(np.uint8))
