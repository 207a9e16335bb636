"""The table of model families whose decoder reaches images by cross-attention; one small module each.

The columns of such layers are features of images, or an encoder's output: the vision axis. `probes.vision_axis` finds
each image's columns there with what a module here knows of its family. Imports no torch.
"""

from importlib import import_module
from typing import cast

from probes.axes.view import Axis
from probes.families.view import Family

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


def axis_of(model_type: str) -> Axis:
    """The module of a model type of `AXES`."""
    return cast(Axis, import_module(f"probes.axes.{AXES[model_type]}"))


def encoder_text_of(model_type: str) -> Family:
    """The module of a model type of `ENCODER_TEXTS`."""
    return cast(Family, import_module(f"probes.axes.{ENCODER_TEXTS[model_type]}"))
