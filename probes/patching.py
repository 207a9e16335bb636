"""Activation patching of images: what the answer loses when one image's tokens carry another image's residual stream.

Knock-outs (`probes.interventions`) cut what rows read; a patch changes what there is to read, from one layer on. It is
written against `probes.backend.Backend`, so it runs alike on every back end.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from probes.backend import Backend
from probes.changes import Patch
from probes.encoding import Answer, Encoded
from probes.inputs import InputError
from probes.interventions import baseline_score, blanked, chunks, decoded, replaced_one_by_one, swapped, unchanged
from probes.prompts import Question


def patch_effects(
    model: Backend,
    question: Question,
    answer: Answer,
    others: Sequence[Any] | None = None,
    neutral: str = "gray",
    windows: Sequence[Collection[int]] | None = None,
    batch_size: int = 16,
) -> npt.NDArray[np.float64]:
    """Drop in the answer's log-probability when one image's tokens carry the residual stream of another image.

    Each image in turn is replaced, and what then enters a layer at its tokens is put in the place of what enters there
    with the image itself; the rest of the run is the plain one (activation patching or interchange intervention: Vig et
    al. 2020, Geiger et al. 2021; here from the replaced run into the plain one, over a whole span). A patch of all
    layers equals the replacement itself, and so does one of the first layer in models that bring images in with the
    embeddings alone. What other tokens have taken from the image before the patched layer stays.

    Args:
        model: The model: `probes.HookedModel`, or another back end.
        question: Images and text.
        answer: Text, or the token ids of a trace.
        others: Images of another sample to take the residual stream from, as in `swap_effects`; None blanks.
        neutral: "gray", "white" or "mean", where `others` is None.
        windows: Sets of true layer indices that are patched together, one set per row of the result; None patches
            every layer alone. See `probes.interventions.layer_windows`.
        batch_size: Most images in one forward pass.

    Returns:
        (windows, images) nats, positive where the image spoke for the answer; NaN for an image that is the neutral one
        itself.

    Raises:
        InputError: If a window is empty or names a layer that is none, the neutral is unknown, another image shows the
            same, a replaced image takes other tokens, the answer has no tokens, or the residual stream of the decoder
            cannot be patched.
    """
    chosen = [sorted(set(window)) for window in (_each(model.residual_layers) if windows is None else windows)]
    if not chosen or not all(chosen):
        raise InputError(f"each window needs at least one layer; this model's are {model.residual_layers}")
    layers = sorted({layer for window in chosen for layer in window})
    images = decoded(question)
    replacements = [blanked(each, neutral) for each in images] if others is None else swapped(images, others)
    variants = replaced_one_by_one(question, images, replacements)
    baseline = baseline_score(model, question, answer)
    effects = np.full((len(chosen), len(images)), np.nan)
    for places in chunks(len(images), batch_size):
        plain = model.encode([question] * len(places), [answer] * len(places))
        replaced = model.encode([variants[place] for place in places], [answer] * len(places))
        _check_same_places(plain, replaced)
        tokens = image_tokens(plain, places)
        residuals = model.residuals(replaced, tokens, layers)
        for window, together in enumerate(chosen):
            patch = Patch(tokens, {layer: residuals[layer] for layer in together})
            effects[window, places] = baseline - model.score(plain, [patch]).log_probability
    effects[:, unchanged(images, replacements)] = np.nan
    return effects


def image_tokens(encoded: Encoded, images: Sequence[int]) -> Tensor:
    """Bool (batch, tokens): per batch row the tokens of one image, 0-based.

    Raises:
        InputError: If the model's images are no tokens of its prompt.
    """
    encoded.need_image_tokens("a patch of an image")
    tokens = torch.zeros((len(encoded), encoded.columns), dtype=torch.bool)
    for row, image in enumerate(images):
        for start, stop in encoded.spans[row][image].runs:
            tokens[row, start:stop] = True
    return tokens


def _each(layers: Sequence[int]) -> list[list[int]]:
    return [[layer] for layer in layers]


def _check_same_places(plain: Encoded, replaced: Encoded) -> None:
    places = [[[span.runs for span in row] for row in encoded.spans] for encoded in (plain, replaced)]
    if places[0] != places[1] or plain.columns != replaced.columns:
        raise InputError("a replaced image takes other tokens than the image itself: patch by one of the same size")
