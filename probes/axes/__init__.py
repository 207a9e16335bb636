"""The table of model families whose decoder reaches images by cross-attention; one small module each.

The columns of such layers are features of images, or an encoder's output: the vision axis. `probes.vision_axis` finds
each image's columns there with what a module here knows of its family. Imports no torch.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import cast

from probes.axes.view import Axis
from probes.families import family_of
from probes.families.view import Family
from probes.inputs import InputError

AXES: dict[str, str] = {
    "idefics": "idefics",
    "mllama": "mllama",
    "pix2struct": "pix2struct",
    "pp_formulanet": "pp_formulanet",
    "udop": "udop",
    "vision-encoder-decoder": "vision_encoder_decoder",
}
"""From `config.model_type` to the module of this package that knows where images lie on the axis."""

ENCODER_TEXTS: dict[str, str] = {
    "florence2": "florence2",
    "t5gemma2": "t5gemma2",
}
"""The same, where image tokens lie among the text that the encoder reads; modules have a family's functions."""

MARKED: dict[str, tuple[str, ...]] = {"mllama": ("cross_attention_mask",)}
"""Model types whose prompts mark each image by one token, and their inputs by (batch, tokens, …) that say what a token
sees: these `probes.HookedModel` traces. In generation a new token sees what the last one of the prompt does."""

AXIS_NOTES: dict[str, tuple[str, ...]] = {
    "florence2": ("windows overlap",),
    "idefics": ("no cells where resampled", "a token sees one image"),
    "pix2struct": ("no cells under a drawn question",),
    "pp_formulanet": ("no cells where margins are cut", "windows overlap"),
    "udop": ("patches under words are text",),
    "vision-encoder-decoder": ("with a BEiT, DeiT, Donut, Swin or ViT encoder",),
}
"""What the docs' table says of them beside."""


def has_axis(model_type: str) -> bool:
    """Whether images of this model type lie on a vision axis that is known."""
    return model_type in AXES or model_type in ENCODER_TEXTS


def check_batch(model_type: str, counts: Sequence[int]) -> None:
    """Refuse a batch that is not its questions side by side.

    A token of Mllama's before any image attends to all columns alike, those of images that others have included.

    Raises:
        InputError: If images are on a vision axis and questions differ in their number of images.
    """
    if has_axis(model_type) and len(set(counts)) > 1:
        raise InputError(
            f"{model_type} pads questions to as many images as the batch's most, and tokens before an image attend to "
            f"the padding too: ask questions with equally many images together (here {min(counts)} to {max(counts)}), "
            "or give batch_size=1"
        )


def check_marked(model_type: str) -> None:
    """Refuse to ask a model whose prompt does not hold its images' places.

    Raises:
        InputError: If its images are on a vision axis alone.
    """
    if not has_axis(model_type) or model_type in MARKED:
        return
    reason = (
        "each of its tokens sees a single image, and its processor puts images behind the question"
        if model_type == "idefics"
        else "its encoder reads images, and question if any, and its decoder starts from neither"
    )
    raise InputError(
        f"HookedModel does not trace {model_type!r} models: {reason}. Find the images' columns with find_vision_spans, "
        "and give them to attention_factors(model, inputs, query_rows, [], cross_spans=...)"
    )


def images_known_by(model_type: str) -> str:
    """Name of the module by which `probes.HookedModel` knows where a model type's images are.

    Raises:
        InputError: If there is none.

    >>> images_known_by("mllama"), images_known_by("qwen3_vl")
    ('probes.axes.mllama', 'probes.families.qwen2_vl')
    """
    check_marked(model_type)
    if model_type in MARKED:
        return axis_of(model_type).__name__  # type: ignore[attr-defined, no-any-return]
    return family_of(model_type).__name__  # type: ignore[attr-defined, no-any-return]


def axis_of(model_type: str) -> Axis:
    """The module of a model type of `AXES`."""
    return cast(Axis, import_module(f"probes.axes.{AXES[model_type]}"))


def encoder_text_of(model_type: str) -> Family:
    """The module of a model type of `ENCODER_TEXTS`."""
    return cast(Family, import_module(f"probes.axes.{ENCODER_TEXTS[model_type]}"))
