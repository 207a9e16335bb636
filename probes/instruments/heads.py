"""Localisation heads: the few heads whose attention says best which image it was, chosen on dev samples.

After Kang et al. 2025, "Your large vision-language model only needs a few attention heads for visual grounding"; there
heads are chosen by how much they see of the image and how compact their maps are, here by agreement with known images
of other samples: a reconstruction. Arrays only, no torch.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.clustering import as_targets
from probes.focusing import focus_shares, image_counts
from probes.inputs import InputError

FloatArray = npt.NDArray[np.float64]
SIZES = (1, 2, 3, 5, 8)
"""How many heads a choice may take."""


@dataclass(frozen=True)
class LocalisationHeads:
    """The heads that were chosen, best first."""

    heads: tuple[tuple[int, int], ...]
    """Pairs of indices into the layer and head axes."""
    agreement: float
    """With the wanted images, on the samples they were chosen on."""

    def scores(self, factors: npt.ArrayLike) -> FloatArray:
        """Per-head factors (samples, layers, heads, images) -> (samples, 1, images).

        Each chosen head's factors as shares of its own sum over images, and the mean over heads: loud heads do not
        drown quiet ones. A head that sees no image has a vote for none.
        """
        table = _checked(factors)
        chosen = np.stack([table[:, layer, head] for layer, head in self.heads], axis=1)
        total = np.nansum(chosen, axis=-1, keepdims=True)
        shares = np.divide(chosen, total, out=np.where(np.isnan(chosen), np.nan, 0.0), where=total > 0)
        return np.asarray(shares.mean(axis=1, keepdims=True))


def head_agreement(factors: npt.ArrayLike, wanted: npt.ArrayLike) -> FloatArray:
    """Of each head, the share of samples whose largest factor is on the wanted image, ties shared, (layers, heads).

    Args:
        factors: (samples, layers, heads, images), padded with NaN.
        wanted: (samples,) 0-based: the target, or the image that a knock-out hurts most.
    """
    hits = head_hits(factors, wanted)
    return np.asarray(hits.mean(axis=0))


def head_hits(factors: npt.ArrayLike, wanted: npt.ArrayLike) -> FloatArray:
    """(samples, layers, heads): how much of each head's focus is on the wanted image; see `head_agreement`."""
    table = _checked(factors)
    samples, layers, heads, images = table.shape
    goal = as_targets(wanted, image_counts(table[:, :, 0]))
    flat = table.transpose(1, 2, 0, 3).reshape(layers * heads, samples, 1, images)
    hits = [focus_shares(each, "LND", 1)[np.arange(samples), goal] for each in flat]
    return np.stack(hits, axis=-1).reshape(samples, layers, heads)


def choose_heads(factors: npt.ArrayLike, wanted: npt.ArrayLike, sizes: tuple[int, ...] = SIZES) -> LocalisationHeads:
    """Choose heads on dev samples: ranked by agreement alone, and as many of the best as agree best together.

    Among equals the fewest heads, and the earliest layer.

    Args:
        factors: (samples, layers, heads, images) of the dev samples, padded with NaN.
        wanted: (samples,) 0-based image that a head should find.
        sizes: numbers of heads to try; those above the number of heads are passed over.

    Raises:
        InputError: If there are no samples, or no size to try.
    """
    table = _checked(factors)
    if not len(table):
        raise InputError("heads are chosen on samples, and there are none")
    agreement = head_agreement(table, wanted)
    order = np.argsort(-agreement, axis=None, kind="stable")
    ranked = [(int(place) // agreement.shape[1], int(place) % agreement.shape[1]) for place in order]
    goal, rows = as_targets(wanted, image_counts(table[:, :, 0])), np.arange(len(table))
    tried = []
    for size in sorted({size for size in sizes if 1 <= size <= len(ranked)}):
        heads = tuple(ranked[:size])
        shares = focus_shares(LocalisationHeads(heads, 0.0).scores(table), "LND", 1)
        tried.append(LocalisationHeads(heads, float(shares[rows, goal].mean())))
    if not tried:
        raise InputError(f"no number of heads to try: sizes are {sizes}, and there are {len(ranked)} heads")
    return max(tried, key=lambda each: each.agreement)


def _checked(factors: npt.ArrayLike) -> FloatArray:
    table = np.asarray(factors, dtype=np.float64)
    if table.ndim != 4:
        raise InputError(f"per-head factors must be (samples, layers, heads, images), got the shape {table.shape}")
    return table
