"""Which families of transformers' image-text-to-text mapping the engine reads, and why it refuses the others.

A family is verified where recorded factors of a tiny random model equal its own eager attentions to 1e-5 in fp32, alone
and left-padded in a batch (`tests/probes/test_families.py` holds this table to it). That proves the mechanics, nothing
about released checkpoints. `python -m probes.families.support` prints the table of the docs. Imports no torch.
"""

from probes.families import FAMILIES, RESAMPLED, UNBATCHED, VIDEOS

VERIFIED = frozenset(
    [
        "aria",
        "aya_vision",
        "blip-2",
        "chameleon",
        "cohere2_vision",
        "cohere_compass",
        "cosmos3_edge",
        "cosmos3_omni",
        "deepseek_ocr2",
        "deepseek_vl",
        "deepseek_vl_hybrid",
        "dots3_note",
        "emu3",
        "ernie4_5_vl_moe",
        "evolla",
        "exaone4_5",
        "fast_vlm",
        "fuyu",
        "gemma3",
        "gemma3n",
        "gemma4",
        "gemma4_unified",
        "glm46v",
        "glm4v",
        "glm4v_moe",
        "glm5_next",
        "glm_ocr",
        "glmga",
        "got_ocr2",
        "granite4_vision",
        "granite_docling",
        "hunyuan_vl",
        "hyperclovax_vision_v2",
        "idefics2",
        "idefics3",
        "inkling2",
        "inkling_mm_model",
        "instructblip",
        "instructblipvideo",
        "internvl",
        "janus",
        "kimi_k25",
        "kosmos-2",
        "kosmos-2.5",
        "lfm2_vl",
        "lfm3_vl",
        "lighton_ocr",
        "llama4",
        "llava",
        "llava_next",
        "llava_next_video",
        "llava_onevision",
        "minicpm_ocr",
        "minicpmv4_6",
        "minicpmv4_7",
        "minimax_m3_vl",
        "mllama",
        "mistral3",
        "mistral4",
        "mistral_large4",
        "molmo2",
        "muse_glimmer",
        "muse_spark",
        "nemotron_h_omni",
        "ovis2",
        "paddleocr_vl",
        "paligemma",
        "perception_lm",
        "pp_chart2table",
        "qianfan_ocr",
        "qwen2_5_omni_thinker",
        "qwen2_5_vl",
        "qwen2_vl",
        "qwen3_5",
        "qwen3_5_moe",
        "qwen3_omni_moe_thinker",
        "qwen3_vl",
        "qwen3_vl_moe",
        "qwen4_exp",
        "shieldgemma2",
        "smolvlm",
        "step3p7",
        "unlimited_ocr",
        "video_llama_3",
        "video_llava",
        "vipllava",
    ]
)
"""Model types that are verified."""

_TWO_STACKS = "an encoder-decoder: its decoder layers hold several attentions"
_BY_HAND = "its attention is written by hand and never calls transformers' attention interface"

REFUSED: dict[str, str] = {
    "blip": _BY_HAND,
    "diffusion_gemma": "block diffusion: its decoder reads a cache that an encoder filled before",
    "florence2": _TWO_STACKS,
    "git": _BY_HAND,
    "idefics": "its layers hold gated cross-attentions beside their own attention",
    "pi0": "two decoders share each layer, one for text and one for actions",
    "pix2struct": _TWO_STACKS,
    "pp_formulanet": _TWO_STACKS,
    "t5gemma2": _TWO_STACKS,
    "udop": _TWO_STACKS,
    "vision-encoder-decoder": _TWO_STACKS,
}
"""Model types that are refused by name, with the reason."""

_LIBRARY = "its vision tower needs timm, which is not among the dependencies"
_RESAMPLED = "not attempted; a resampler mixes the whole picture into its tokens, so no token has a place in it"
_PREPENDED = "not attempted; its processor puts one image before a text without marks, and a resampler mixes it"
_TILED = "not attempted: tiles of its own"
_PADDED = "not attempted: pads pictures in its own way"
_NO_PROCESSOR = "transformers ships no processor for it"

BY_HAND: dict[str, str] = {
    "aria": f"{_RESAMPLED}; its processor takes squares of 490 or 980 pixels only",
    "blip-2": _PREPENDED,
    "chameleon": "not attempted: an image is a sentence of discrete codes",
    "cosmos3_edge": "its processor leaves out the mm_token_type_ids that the model wants, unless asked",
    "deepseek_ocr2": "not attempted: learned queries read each tile",
    "dots3_note": "not attempted: a tower of experts with an adapter",
    "emu3": "not attempted: an image is a sentence of discrete codes",
    "evolla": "reads proteins, and no images",
    "fast_vlm": _LIBRARY,
    "fuyu": "not attempted: patches are projected without a vision tower",
    "gemma3n": _LIBRARY,
    "gemma4_unified": "not attempted: patches are projected without a vision tower",
    "glm5_next": _PADDED,
    "got_ocr2": "not attempted: its processor takes one image a prompt, or pages",
    "granite4_vision": "not attempted: features of several depths, and any-resolution tiles of its own",
    "inkling2": "not attempted: a grid of its own",
    "inkling_mm_model": "not attempted: a grid of its own",
    "instructblip": _PREPENDED,
    "instructblipvideo": _RESAMPLED,
    "kimi_k25": _PADDED,
    "kosmos-2": _RESAMPLED,
    "kosmos-2.5": _RESAMPLED,
    "minicpm_ocr": _TILED,
    "mistral4": _NO_PROCESSOR,
    "mllama": "probes.find_vision_spans gives its images' columns for cross_spans",
    "molmo2": _TILED,
    "muse_glimmer": "not attempted: a grid of its own",
    "muse_spark": "not attempted: a grid of its own",
    "nemotron_h_omni": "not attempted: a grid of its own",
    "perception_lm": _LIBRARY,
    "pp_chart2table": "not attempted: a fixed grid of its own",
    "shieldgemma2": "not attempted: Gemma 3 that classifies one image",
    "step3p7": _TILED,
    "unlimited_ocr": _TILED,
    "video_llava": "not attempted: images and videos share a tower",
}
"""Verified model types whose image tokens are not known, with the reason."""

_HEAD = """# Which families can be read

One row for each entry of transformers' image-text-to-text mapping (5.23). **Engine**: recorded attention factors equal
the model's own eager attentions to 1e-5 in fp32, on tiny random weights: one forward alone, one left-padded batch, and
(but for evolla and qwen4_exp) a greedy generation with a cache; mllama's cross-attention layers over the image
features. Text tokens stand for images there, but for blip-2, instructblip, kosmos-2 and mllama, so masks that only
images bring are checked where image tokens are known, and nowhere else. **Image tokens**: which tokens belong to which
image, and which pixels each covers, is known too, from the family's own processor; for the others `attention_factors`
and `AttentionRecorder` take spans by hand. "Videos" are read by `probes.find_video_spans`. Nothing here says
anything about released checkpoints. [How to add a family](adding-a-family.md) shows what a row takes.

| model type | engine | image tokens |
| --- | --- | --- |
"""


def table() -> str:
    """The table of the docs, as Markdown."""
    names = sorted(VERIFIED | set(REFUSED))
    rows = [f"| {name} | {_engine(name)} | {_tokens(name)} |" for name in names]
    known = len(VERIFIED & set(FAMILIES))
    counts = (
        f"{len(VERIFIED)} of {len(rows)} are verified, {len(REFUSED)} are refused by name; "
        f"the image tokens of {known} are known."
    )
    return _HEAD + "\n".join(rows) + f"\n\n{counts}\n"


def _engine(name: str) -> str:
    return "verified" if name in VERIFIED else f"refused: {REFUSED[name]}"


def _tokens(name: str) -> str:
    if name not in VERIFIED:
        return "–"
    if name not in FAMILIES:
        return f"by hand: {BY_HAND[name]}"
    notes = [
        *(["videos too"] if name in VIDEOS else []),
        *(["no cells: resampled"] if name in RESAMPLED else []),
        *([f"one question at a time: {UNBATCHED[name]}"] if name in UNBATCHED else []),
    ]
    return ", ".join(["known", *notes])


if __name__ == "__main__":
    print(table(), end="")
