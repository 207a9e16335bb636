"""The figures of a routing study, from its arrays: the same ones for its report and for the explorer.

It chooses what is drawn; how is `viz.papers` and `viz.screens`. No torch.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from studies.routing.along import NO_STEP
from studies.routing.command import LAST
from studies.routing.shards import Arrays
from studies.routing.specialising import IMAGE, MODALITY, SHOWN, TASK
from viz.expert_shapes import evenly

LABEL_LENGTH = 18
"""Characters of a checkpoint's name on an axis."""

PAIRS = ("pairs", "pairs_expected")
"""Arrays of layers, experts and experts, of which some layers are drawn."""
LEAST_EXPECTED = 20
"""Tokens at which two experts have to be expected together: the ratio of fewer is mostly chance."""
MOST_LAYERS = 6
"""Layers whose pairs of experts are drawn."""


class Figure(NamedTuple):
    """One figure: its file's stem, its caption, and the figure itself, of matplotlib or plotly."""

    name: str
    caption: str
    drawing: Any


def figures(arrays: Arrays, library: Any) -> Iterator[Figure]:
    """Draw every figure that the arrays have the numbers for.

    Args:
        arrays: Of `measures.npz`.
        library: `viz.papers` or `viz.screens`.
    """
    layers = arrays["layers"].tolist()
    even = float(arrays["k"] / arrays["experts"])
    difference = _image_minus_text(arrays)
    beside = "" if difference is None else " Right: the load of image tokens minus that of text."
    yield Figure(
        "load",
        f"Share of tokens that go to each expert; each layer's sum to {arrays['k']}.{beside}",
        library.expert_load(arrays["load"][..., 0], layers, difference, even=even),
    )
    kinds = [kind for kind in (MODALITY, IMAGE, TASK) if f"{kind}_information" in arrays]
    if kinds:
        yield Figure(
            "specialisation",
            "What one of a token's experts tells of its kind, beside what it tells of labels shuffled by sample.",
            library.specialisation(
                layers,
                np.stack([arrays[f"{kind}_information"] for kind in kinds]),
                np.stack([arrays[f"{kind}_chance"] for kind in kinds]),
                [SHOWN[kind] for kind in kinds],
            ),
        )
    chosen = evenly(len(layers), MOST_LAYERS)
    together = _together(arrays, chosen)
    if together is not None:
        yield Figure(
            "co-activation",
            "How much oftener a token goes to both of two experts than were experts called at random with their loads; "
            f"1 is twice as often. Grey: pairs expected at fewer than {LEAST_EXPECTED} tokens"
            + (f"; {len(chosen)} of {len(layers)} layers." if len(layers) > len(chosen) else "."),
            library.co_activation(together, [layers[place] for place in chosen]),
        )
    if "overlap" in arrays:
        yield Figure(
            "stability",
            "Share of a token's experts that a checkpoint has in common with the model. Dotted: what two routings with "
            "these loads share that have nothing else to do with each other.",
            library.training_course(
                point_names(arrays), arrays["overlap"], layers, arrays["overlap_floor_of_loads"],
                floor=float(arrays["overlap_floor"]), quantity="experts shared with the model",
            ),
        )  # fmt: skip
    if "information_along" in arrays and np.isfinite(arrays["information_along"]).any():
        information = arrays["information_along"]
        yield Figure(
            "specialisation-along-training",
            "How far experts tell image from text, in bits, at each checkpoint. Dotted: what shuffled labels give.",
            library.training_course(
                point_names(arrays), np.stack([information] * 3, axis=-1), layers, arrays["chance_along"],
                quantity="image or text, bits", floor_name="shuffled labels", is_share=False,
            ),
        )  # fmt: skip
    if "knockout" in arrays:
        yield Figure(
            "knockout",
            f"What right answers lose without each expert, mean of {arrays['knockouts']} questions, and without the "
            "shared experts of each layer (95 % interval).",
            library.expert_effects(arrays["knockout"][..., 0], layers, arrays["knockout_shared"]),
        )


def point_names(arrays: Arrays) -> list[str]:
    """Short names of the checkpoints: their steps where all but the model's are known, else the ends of their paths."""
    names, steps = arrays["checkpoints"].tolist(), arrays["steps"].tolist()
    if all(step != NO_STEP for step in steps[:-1]):
        return [*map(str, steps[:-1]), LAST]
    ends = [Path(name).stem if name.endswith(".npz") else Path(name).name for name in names]
    # Names are texts of others: signs that either library takes for markup are left out.
    plain = [re.sub(r"[<>&$\\]", "_", end) for end in ends]
    return [end if len(end) <= LABEL_LENGTH else f"…{end[1 - LABEL_LENGTH :]}" for end in plain]


def _image_minus_text(arrays: Arrays) -> Any:
    loads = arrays.get(f"{MODALITY}_load")
    if loads is None:
        return None
    labels = arrays[f"{MODALITY}_labels"].tolist()
    return loads[labels.index("image"), ..., 0] - loads[labels.index("text"), ..., 0]


def _together(arrays: Arrays, chosen: list[int]) -> Any:
    """(layers, experts, experts) pairs over those expected; None where nothing is common enough to be drawn."""
    if not all(name in arrays for name in PAIRS):
        return None
    found, expected = (arrays[name][chosen] for name in PAIRS)
    common = expected >= LEAST_EXPECTED
    ratio = np.where(common, found / np.where(common, expected, 1.0), np.nan)
    return ratio if (ratio > 0).any() else None
