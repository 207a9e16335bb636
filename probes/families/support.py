"""Which families of transformers' image-text-to-text mapping the engine reads, and why it refuses the others.

A family is verified where recorded factors of a tiny random model equal its own eager attentions to 1e-5 in fp32, alone
and left-padded in a batch (`tests/probes/test_families.py` holds this table to it). That proves the mechanics, nothing
about released checkpoints. `python -m probes.families.support` prints the table of the docs. Imports no torch.
"""

from probes.families import FAMILIES

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

_HEAD = """# Which families can be read

One row for each entry of transformers' image-text-to-text mapping (5.23). **Engine**: recorded attention factors equal
the model's own eager attentions to 1e-5 in fp32, on tiny random weights: one forward alone, one left-padded batch, and
(but for evolla and qwen4_exp) a greedy generation with a cache; mllama's cross-attention layers over the image
features. Text tokens stand for images there, but for blip-2, instructblip, kosmos-2 and mllama, so masks that only
images bring are checked where image tokens are known, and nowhere else. **Image tokens**: which tokens belong to which
image, and which pixels each covers, is known too; for the others `attention_factors` and `AttentionRecorder` take
spans by hand. Nothing here says anything about released checkpoints.

| model type | engine | image tokens |
| --- | --- | --- |
"""


def table() -> str:
    """The table of the docs, as Markdown."""
    rows = [
        f"| {name} | {'verified' if name in VERIFIED else f'refused: {REFUSED[name]}'} | "
        f"{'known' if name in FAMILIES else 'by hand' if name in VERIFIED else '–'} |"
        for name in sorted(VERIFIED | set(REFUSED))
    ]
    verified = f"{len(VERIFIED)} of {len(rows)} are verified, {len(REFUSED)} are refused by name."
    return _HEAD + "\n".join(rows) + f"\n\n{verified}\n"


if __name__ == "__main__":
    print(table(), end="")
