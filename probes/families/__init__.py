"""The table of model families whose image tokens are understood; one small module each, loaded on first use.

To add a family, write a module with the three functions of `probes.families.view.Family` and give its model types
a row in `FAMILIES`. Everything generic (finding the tokens, dividing them among images, counting, errors, cells)
lives in `probes.spans` and knows no family.
"""

from importlib import import_module
from typing import cast

from probes.families.view import Family
from probes.inputs import InputError

FAMILIES: dict[str, str] = {
    "aria": "aria",
    "aya_vision": "internvl",
    "blip-2": "blip2",
    "chameleon": "chameleon",
    "cohere2_vision": "internvl",
    "cohere_compass": "qwen2_vl",
    "cosmos3_edge": "qwen2_vl",
    "cosmos3_omni": "qwen2_vl",
    "deepseek_ocr2": "deepseek_ocr2",
    "deepseek_vl": "square",
    "deepseek_vl_hybrid": "square",
    "dots3_note": "qwen2_vl",
    "emu3": "emu3",
    "ernie4_5_vl_moe": "qwen2_vl",
    "exaone4_5": "qwen2_vl",
    "fuyu": "fuyu",
    "fast_vlm": "fast_vlm",
    "gemma3": "gemma3",
    "gemma3n": "gemma3n",
    "gemma4": "gemma4",
    "gemma4_unified": "gemma4_unified",
    "glm46v": "qwen2_vl",
    "glm4v": "qwen2_vl",
    "glm4v_moe": "qwen2_vl",
    "glm5_next": "padded",
    "glm_ocr": "qwen2_vl",
    "glmga": "qwen2_vl",
    "got_ocr2": "internvl",
    "granite4_vision": "llava_next",
    "granite_docling": "granite_docling",
    "hunyuan_vl": "hunyuan_vl",
    "hyperclovax_vision_v2": "qwen2_vl",
    "idefics2": "idefics2",
    "idefics3": "idefics3",
    "inkling2": "padded",
    "inkling_mm_model": "inkling",
    "instructblip": "blip2",
    "internvl": "internvl",
    "janus": "square",
    "kimi_k25": "padded",
    "kosmos-2": "kosmos",
    "kosmos-2.5": "kosmos",
    "lfm2_vl": "lfm2_vl",
    "lfm3_vl": "qwen2_vl",
    "lighton_ocr": "pixtral",
    "llama4": "llama4",
    "llava": "llava",
    "llava_next": "llava_next",
    "llava_next_video": "llava_next",
    "llava_onevision": "llava_next",
    "minicpm_ocr": "minicpmv",
    "minicpmv4_6": "minicpmv",
    "minicpmv4_7": "minicpmv",
    "minimax_m3_vl": "qwen2_vl",
    "mistral3": "pixtral",
    "mistral_large4": "pixtral",
    "molmo2": "molmo2",
    "muse_glimmer": "muse_glimmer",
    "muse_spark": "muse_glimmer",
    "nemotron_h_omni": "nemotron_h_omni",
    "ovis2": "ovis2",
    "paddleocr_vl": "qwen2_vl",
    "paligemma": "square",
    "pp_chart2table": "square",
    "perception_lm": "perception_lm",
    "qianfan_ocr": "internvl",
    "qwen2_5_omni_thinker": "qwen2_vl",
    "qwen2_5_vl": "qwen2_vl",
    "qwen2_vl": "qwen2_vl",
    "qwen3_5": "qwen2_vl",
    "qwen3_5_moe": "qwen2_vl",
    "qwen3_omni_moe_thinker": "qwen2_vl",
    "qwen3_vl": "qwen2_vl",
    "qwen3_vl_moe": "qwen2_vl",
    "qwen4_exp": "qwen2_vl",
    "shieldgemma2": "gemma3",
    "smolvlm": "idefics3",
    "step3p7": "step3p7",
    "unlimited_ocr": "unlimited_ocr",
    "video_llama_3": "qwen2_vl",
    "video_llava": "llava",
    "vipllava": "llava",
}
"""From `config.model_type` to the module of this package that knows it."""

RESAMPLED: frozenset[str] = frozenset(
    {"aria", "blip-2", "deepseek_ocr2", "idefics2", "instructblip", "kosmos-2", "kosmos-2.5"}
)
"""Model types whose image tokens have no places in the image (`probes.families.geometry.Tile.mixed`)."""

_PADS_INSIDE = "has a batch's padding between its image and the text"
UNBATCHED: dict[str, str] = {
    "blip-2": _PADS_INSIDE,
    "emu3": "pads pictures to the largest of a batch, which its encoder sees, so that questions change each other",
    "hunyuan_vl": "numbers images over the whole batch, so that questions change each other",
    "instructblip": _PADS_INSIDE,
    "minimax_m3_vl": "chooses other blocks under sdpa in a padded batch, down to none at all",
}
"""Model types whose batches are not their questions side by side, with the reason."""

PREPENDED: frozenset[str] = frozenset({"blip-2", "instructblip"})
"""Model types whose processor takes one image a prompt and puts its tokens before the text, which has no mark of it."""

OWN_QUESTIONS: dict[str, str] = {"shieldgemma2": "its processor asks questions of its own, one for each policy"}
"""Model types that cannot be asked anything; their spans are found in what the processor made."""

NO_TEMPLATE: frozenset[str] = frozenset({"fuyu", "kosmos-2", "kosmos-2.5"})
"""Model types whose processors come without a chat template, so that nothing but their spans was tested."""

ANSWER_TYPES: dict[str, int] = {"paligemma": 1}
"""Token type of an answer where it is not 0: PaliGemma's tokens of type 0 see each other in both directions."""

TEXT_ENDS: dict[str, str] = {"chameleon": "<reserved08706>", "paligemma": "\n"}
"""What a processor itself puts behind the prompt's text."""

PATCH_TOKENS: dict[str, str] = {"llama4": "<|patch|>", "molmo2": "<im_patch>", "ovis2": "<IMG_ATOM>"}
"""What the processor writes for image features where it is not the processor's own image token."""

ASKED: dict[str, dict[str, bool]] = {"cosmos3_edge": {"return_mm_token_type_ids": True}}
"""What a processor must be asked for besides, where the model wants inputs that it leaves out."""

FLAT: frozenset[str] = frozenset({"got_ocr2"})
"""Model types whose processors take the images of all prompts in one list."""

LISTS: dict[str, tuple[str, ...]] = {"unlimited_ocr": ("num_local_patches", "patches_grid")}
"""Inputs that a model takes as lists and no tensors."""

OTHER_READERS: frozenset[str] = frozenset({"qformer_input_ids", "qformer_attention_mask"})
"""Inputs that hold the question for another part than the decoder: no answer is put behind them."""

VIDEOS: frozenset[str] = frozenset(
    [
        "exaone4_5",
        "glm46v",
        "glm4v",
        "glm4v_moe",
        "glm_ocr",
        "llava_onevision",
        "nemotron_h_omni",
        "qwen2_5_vl",
        "qwen2_vl",
        "qwen3_5",
        "qwen3_5_moe",
        "qwen3_vl",
        "qwen3_vl_moe",
    ]
)
"""Model types whose videos' tokens are known too; see `probes.families.view.VideoFamily`."""

ONE_VIDEO: frozenset[str] = frozenset({"nemotron_h_omni"})
"""Model types that take one video, in a prompt of its own without images; see `probes.reduction.videos`."""


def family_of(model_type: str) -> Family:
    """Return the module for a model type.

    Raises:
        InputError: If no module knows it.
    """
    if model_type not in FAMILIES:
        from probes.axes import has_axis
        from probes.families.support import BY_HAND

        if has_axis(model_type):
            raise InputError(
                f"the images of model type {model_type!r} are no tokens of its prompt: find their columns with "
                "find_vision_spans, and pass them to attention_factors(image_spans=[], cross_spans=...)"
            )
        reason = BY_HAND.get(model_type, "docs/families.md has those that are")
        raise InputError(
            f"no image spans are known for model type {model_type!r} ({reason}): pass spans by hand to "
            "attention_factors(image_spans=...)"
        )
    return cast(Family, import_module(f"probes.families.{FAMILIES[model_type]}"))
