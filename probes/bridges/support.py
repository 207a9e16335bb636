"""Which families of transformers' image-text-to-text mapping each bridge takes, and why it refuses the others.

Verified on tiny random models, text tokens standing for images: attention factors equal the model's own eager ones, and
knock-outs and patches equal those of `HookedModel` (`tests/probes/bridges/test_bridge_families.py` holds this table to
it). `python -m probes.bridges.support` prints the table of docs/bridges.md. Imports no torch.
"""

from probes.families.support import CROSSING, REFUSED, VERIFIED

TRANSFORMER_LENS: dict[str, str] = {
    "emu3": "scores",
    "gemma3": "scores",
    "gemma4": "mask",
    "gemma4_unified": "mask",
    "glm4v": "mask",
    "idefics3": "scores",
    "llama4": "mask",
    "llava": "scores",
    "llava_next": "scores",
    "llava_onevision": "scores",
    "mistral3": "scores",
    "muse_glimmer": "mask",
    "qwen2_5_vl": "mask",
    "qwen3_5": "scores",
    "qwen3_5_moe": "scores",
    "qwen3_vl": "mask",
    "qwen3_vl_moe": "mask",
    "shieldgemma2": "scores",
}
"""Model types that TransformerLens takes, and where knock-outs act there: see `TransformerLensRunner`."""

PATTERNLESS = {"gemma3n": "refused: no attention pattern of its layers"}
"""Model types that TransformerLens has an adapter for, and does not show the attention of."""

NNSIGHT = VERIFIED - set(CROSSING)
"""Model types that nnsight takes."""

_CROSSING = "refused: its cross-attention is over features and not over tokens"
_LOOKING_BACK = "layers look back at the streams of earlier ones"
NO_PATCH = {"gemma3n": "four residual streams", "glm5_next": "four residual streams", "inkling2": _LOOKING_BACK}
"""Model types whose residual stream is not one of (batch, tokens, hidden size), on every back end."""
_CHOOSING = "sparse: it would choose other columns"
NO_KNOCKOUT = dict.fromkeys(("dots3_note", "glm5_next", "mistral_large4", "qwen4_exp"), _CHOOSING)
"""Model types that nnsight reads and does not knock out."""

_HEAD = """| model type | TransformerLens | nnsight |
| --- | --- | --- |
"""


def table() -> str:
    """The table of the docs, as Markdown."""
    rows = [f"| {name} | {_lens(name)} | {_nnsight(name)} |" for name in sorted(VERIFIED | set(REFUSED))]
    return (
        _HEAD
        + "\n".join(rows)
        + f"\n\nOf {len(rows)} entries, TransformerLens takes {len(TRANSFORMER_LENS)} and nnsight {len(NNSIGHT)}.\n"
    )


def _lens(name: str) -> str:
    if name in TRANSFORMER_LENS:
        return f"verified, knock-out by {TRANSFORMER_LENS[name]}"
    if name in PATTERNLESS:
        return PATTERNLESS[name]
    return "refused: the engine refuses it" if name in REFUSED else "refused: no adapter"


def _nnsight(name: str) -> str:
    if name not in NNSIGHT:
        return _CROSSING if name in CROSSING else "refused: the engine refuses it"
    lacks = [f"no knock-out ({NO_KNOCKOUT[name]})"] if name in NO_KNOCKOUT else []
    lacks += [f"no patch ({NO_PATCH[name]})"] if name in NO_PATCH else []
    return ", ".join(["verified", *lacks])


if __name__ == "__main__":
    print(table(), end="")
