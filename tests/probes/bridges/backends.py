"""The three back ends over one tiny model of each family, made once."""

from functools import cache

from probes.bridges import BridgedModel, NNsightModel, TransformerLensModel
from probes.bridges.support import PATTERNLESS
from probes.model import HookedModel
from tests.probes.hooked import FAMILIES, FURTHER, hooked

BRIDGES: dict[str, type[BridgedModel]] = {"transformer_lens": TransformerLensModel, "nnsight": NNsightModel}
BACKENDS = ("ours", *BRIDGES)
WITHOUT_ADAPTER = (
    "smolvlm",
    "qwen2_vl",
    "glm46v",
    "internvl",
    "aya_vision",
    "cohere2_vision",
    "glm4v_moe",
    "vipllava",
    "chameleon",
    "cohere_compass",
    "cosmos3_edge",
    "cosmos3_omni",
    "deepseek_vl",
    "deepseek_vl_hybrid",
    "dots3_note",
    "ernie4_5_vl_moe",
    "exaone4_5",
    "glm5_next",
    "fast_vlm",
    "glm_ocr",
    "glmga",
    "got_ocr2",
    "granite4_vision",
    "granite_docling",
    "hyperclovax_vision_v2",
    "inkling2",
    "inkling_mm_model",
    "janus",
    "kimi_k25",
    "lfm2_vl",
    "lfm3_vl",
    "lighton_ocr",
    "llava_next_video",
    "minicpm_ocr",
    "minicpmv4_6",
    "minicpmv4_7",
    "mistral_large4",
    "molmo2",
    "muse_spark",
    "nemotron_h_omni",
    "ovis2",
    "paddleocr_vl",
    "paligemma",
    "pp_chart2table",
    "qianfan_ocr",
    "qwen2_5_omni_thinker",
    "qwen3_omni_moe_thinker",
    "step3p7",
    "unlimited_ocr",
    "video_llama_3",
    "video_llava",
)
"""Families that TransformerLens has no adapter for."""
OTHER_TOWER = ("pixtral",)
"""A LLaVA by name, whose vision tower is not LLaVA's."""
CASES = [
    (bridge, family)
    for family in (*FAMILIES, *FURTHER)
    for bridge in BRIDGES
    if bridge == "nnsight" or family not in (*WITHOUT_ADAPTER, *PATTERNLESS, *OTHER_TOWER)
]
"""Bridge and family, where the bridge takes the family."""
ANSWER = [120, 121, 122]
TOLERANCE = 1e-4


@cache
def backend(name: str, family: str) -> HookedModel:
    """A back end over the family's sharp tiny model. Shared: leave it as found."""
    model = hooked(family)
    return model if name == "ours" else BRIDGES[name].of(model)
