"""Which families of transformers' image-text-to-text mapping the engine reads, and why it refuses the others.

A family is verified where recorded factors of a tiny random model equal its own eager attentions to 1e-5 in fp32, alone
and left-padded in a batch (`tests/probes/test_families.py` holds this table to it). That proves the mechanics, nothing
about released checkpoints. `python -m probes.families.support` prints the table of the docs. Imports no torch.
"""

from probes.axes import AXIS_NOTES, has_axis
from probes.families import FAMILIES, NO_TEMPLATE, OWN_QUESTIONS, RESAMPLED, UNBATCHED, VIDEOS

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
        "florence2",
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
        "idefics",
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
        "pix2struct",
        "pp_chart2table",
        "pp_formulanet",
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
        "t5gemma2",
        "udop",
        "unlimited_ocr",
        "video_llama_3",
        "video_llava",
        "vision-encoder-decoder",
        "vipllava",
    ]
)
"""Model types that are verified."""

CROSSING: dict[str, str] = {
    "florence2": "every decoder layer's, to the encoder's output",
    "idefics": "its gated layers, numbered on their own",
    "mllama": "some layers, beside layers over tokens",
    "pix2struct": "every decoder layer's, to the encoder's output",
    "pp_formulanet": "every decoder layer's, to the encoder's output",
    "t5gemma2": "every decoder layer's, one softmax over tokens and encoder's output",
    "udop": "every decoder layer's, to the encoder's output",
    "vision-encoder-decoder": "every decoder layer's, to the encoder's output (with an MBart decoder)",
}
"""Families that reach images by cross-attention, whose columns `cross_spans` gives, and which layers are read."""

MASKS: dict[str, str] = {
    "aya_vision": "sliding",
    "cohere2_vision": "sliding",
    "cohere_compass": "sliding",
    "dots3_note": "sliding, sparse",
    "exaone4_5": "sliding",
    "gemma3": "bidirectional, sliding",
    "gemma3n": "sliding",
    "gemma4": "bidirectional, sliding",
    "gemma4_unified": "bidirectional, sliding",
    "glm5_next": "sparse",
    "idefics2": "sliding",
    "inkling2": "sliding",
    "inkling_mm_model": "sliding",
    "lfm3_vl": "sliding",
    "llama4": "chunked",
    "minimax_m3_vl": "sparse",
    "mistral_large4": "sparse",
    "molmo2": "bidirectional",
    "muse_glimmer": "sliding",
    "muse_spark": "sliding",
    "paligemma": "bidirectional",
    "qwen4_exp": "sparse",
    "shieldgemma2": "bidirectional, sliding",
    "step3p7": "sliding",
}
"""Masks that act in the verification besides the causal one."""

TERMS: dict[str, str] = {
    "inkling2": "position bias, sinks",
    "inkling_mm_model": "position bias",
}
"""What their softmax has besides queries, keys and masks."""

HALF_REFUSED: dict[str, str] = {"inkling2": "expected m1 and m2 to have the same dtype"}
"""Families that do not run in half precision on a CPU, and what their own forward says there."""

_BY_HAND = "its attention is written by hand and never calls transformers' attention interface"

REFUSED: dict[str, str] = {
    "blip": _BY_HAND,
    "diffusion_gemma": "block diffusion: its rows are a canvas, rewritten at each step; `model.model.encoder` is read",
    "git": _BY_HAND,
    "pi0": "two decoders, one for actions, which reads the other's cache; `model.model.vlm` is read",
}
"""Model types that are refused by name, with the reason."""

BY_HAND: dict[str, str] = {
    "evolla": "reads proteins, and no images",
    "instructblipvideo": "reads videos of four frames only, whose tokens come before the text and before its padding",
    "mistral4": "transformers ships no processor for it",
}
"""Verified model types whose image tokens are not known, with the reason."""

_HEAD = """# Which families can be read

One row for each entry of transformers' image-text-to-text mapping (5.23). **Engine**: recorded attention factors equal
the model's own eager attentions to 1e-5 in fp32, on tiny random weights: one forward alone, one left-padded batch, and
a greedy generation with a cache (evolla and pix2struct with `use_cache=True`, which is not their default). Every wrong
formula that was tried (scale, mask, cap, sinks, bias, sum for mean, spans off by one, images or layers swapped) shows.
**Masks and terms** are those that acted there besides a causal mask. **Half precision**: in bfloat16 to 1e-3 and in
float16 to 1e-4. Text tokens stand for images, except in the families with cross-attention, blip-2, instructblip and
kosmos-2; where a mask depends on what is an image, the tokens are marked as one. **Cross-attention**: the layers whose
columns are `cross_spans`, among image features or an encoder's output; their masks hide the encoder's padding, or
images from the rows before them. **Image tokens**: which tokens belong to which image, and which pixels each covers, is
known too, from the family's own processor; for the others `attention_factors` and `AttentionRecorder` take spans by
hand. "On the vision axis" are columns that `probes.find_vision_spans` gives for `cross_spans`; "videos" are traced by
`HookedModel`, and found by `probes.find_video_spans`. Nothing here says anything about released checkpoints.
[How to add a family](adding-a-family.md) shows what a row takes.

Two families do more with padding than hide it. In a padded batch minimax_m3_vl chooses other blocks under sdpa than
under eager, so it is compared under eager; unlimited_ocr shows padding once the window over its generated tokens is
passed, so that is compared without padding.

| model type | engine | masks and terms | half precision | cross-attention | image tokens |
| --- | --- | --- | --- | --- | --- |
"""


def table() -> str:
    """The table of the docs, as Markdown."""
    names = sorted(VERIFIED | set(REFUSED))
    rows = [f"| {' | '.join(_row(name))} |" for name in names]
    known = len([name for name in VERIFIED if name in FAMILIES or has_axis(name)])
    counts = (
        f"{len(VERIFIED)} of {len(rows)} are verified, {len(REFUSED)} are refused by name; "
        f"the image tokens of {known} are known."
    )
    return _HEAD + "\n".join(rows) + f"\n\n{counts}\n"


def _tokens(name: str) -> str:
    if has_axis(name):
        return ", ".join(["known, on the vision axis", *AXIS_NOTES.get(name, ())])
    if name not in FAMILIES:
        return f"by hand: {BY_HAND[name]}"
    notes = [
        *(["videos too"] if name in VIDEOS else []),
        *(["no cells: resampled"] if name in RESAMPLED else []),
        *([f"one question at a time: {UNBATCHED[name]}"] if name in UNBATCHED else []),
        *([f"spans alone: {OWN_QUESTIONS[name]}"] if name in OWN_QUESTIONS else []),
        *(["spans alone: its processor has no chat template"] if name in NO_TEMPLATE else []),
    ]
    return ", ".join(["known", *notes])


def _row(name: str) -> tuple[str, ...]:
    if name in REFUSED:
        return (name, f"refused: {REFUSED[name]}", "–", "–", "–", "–")
    acting = ", ".join(each for each in (MASKS.get(name), TERMS.get(name)) if each)
    half = "does not run" if name in HALF_REFUSED else "verified"
    return (
        name,
        "verified",
        acting or ("–" if name in CROSSING else "causal"),
        half,
        CROSSING.get(name, "–"),
        _tokens(name),
    )


if __name__ == "__main__":
    print(table(), end="")
