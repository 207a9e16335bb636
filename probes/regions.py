"""Does attention inside the target image fall on the region that holds the answer? Map and boxes in, shares out.

A reconstruction: the Implicit visual misunderstanding paper's released code outlines the patches at or above the 90th
percentile of a map, and computes no region accuracy. Knows nothing of models or tokens, and imports no torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from probes.clustering import BoolArray, FloatArray, as_vector
from probes.estimates import Estimate, proportion

Membership = Literal["overlap", "center"]


@dataclass(frozen=True)
class RegionScore:
    """How one map meets one gold box."""

    hit: float
    """Whether the strongest cell is in the region; equal cells share."""
    top_ratio: float
    """Share of the top cells that is in the region."""
    chance: float
    """Share of all cells that is in the region: what a uniform map gets in both."""
    cells: int


@dataclass(frozen=True)
class RegionSummary:
    """Region attention accuracy over samples (reconstruction)."""

    accuracy: Estimate
    """P(strongest cell in the region)."""
    top_ratio: Estimate
    """Mean share of top cells in the region."""
    chance: float
    """Mean share of all cells in the region."""


def region_attention_accuracy(
    scores: npt.ArrayLike,
    boxes: npt.ArrayLike,
    gold: npt.ArrayLike,
    top: float = 0.1,
    inside: Membership = "overlap",
) -> RegionScore:
    """Compare a map with a gold box: argmax hit, top-decile hit ratio, and chance (reconstruction).

    Args:
        scores: (cells,) map of one image; pass the cells of one tiling only, as overlapping thumbnails count twice.
        boxes: (cells, 4) left, top, right, bottom of each cell, in pixels of the original image.
        gold: (4,) box of the region, or (regions, 4) boxes of which any will do.
        top: the top share of cells; a cell is in it when at or above the ``1 - top`` quantile, equal cells included.
        inside: a cell belongs to the region when it shares area with it (``"overlap"``) or when its centre lies in it
            (``"center"``).

    Raises:
        ValueError: if shapes do not match, values are missing, or no cell belongs to the region.

    >>> boxes = [[0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16], [8, 8, 16, 16]]
    >>> region_attention_accuracy([0.1, 0.6, 0.2, 0.1], boxes, gold=[9, 1, 15, 7])
    RegionScore(hit=1.0, top_ratio=1.0, chance=0.25, cells=4)
    """
    values, cells = as_vector(scores, "scores"), _boxes(boxes, "boxes")
    regions = _boxes(np.atleast_2d(np.asarray(gold, dtype=np.float64)), "gold")
    if values.size == 0 or len(cells) != values.size:
        raise ValueError(f"every score needs a cell box: got {values.size} scores and {len(cells)} boxes")
    if not 0.0 < top <= 1.0:
        raise ValueError(f"top is a share in (0, 1], got {top}")
    member = np.any([_members(cells, region, inside) for region in regions], axis=0)
    if not member.any():
        raise ValueError(f"no cell belongs to the gold box {regions.tolist()}: is it in pixels of the original image?")
    strongest, leading = values == values.max(), values >= np.quantile(values, 1.0 - top)
    return RegionScore(
        hit=float(member[strongest].mean()),
        top_ratio=float(member[leading].mean()),
        chance=float(member.mean()),
        cells=values.size,
    )


def region_summary(
    scores: Sequence[RegionScore], clusters: npt.ArrayLike | None = None, level: float = 0.95
) -> RegionSummary:
    """Region attention accuracy over samples, clustered by base sample (reconstruction).

    >>> region_summary([RegionScore(1.0, 0.5, 0.25, 16), RegionScore(0.0, 0.0, 0.25, 16)]).accuracy.value
    0.5
    """
    return RegionSummary(
        accuracy=proportion([score.hit for score in scores], clusters, level),
        top_ratio=proportion([score.top_ratio for score in scores], clusters, level),
        chance=float(np.mean([score.chance for score in scores])) if scores else math.nan,
    )


def _members(cells: FloatArray, region: FloatArray, inside: Membership) -> BoolArray:
    if inside == "overlap":
        shared = np.minimum(cells[:, 2:], region[2:]) - np.maximum(cells[:, :2], region[:2])
        return np.asarray((shared > 0).all(axis=1))
    if inside == "center":
        centres = (cells[:, :2] + cells[:, 2:]) / 2
        return np.asarray(((centres >= region[:2]) & (centres < region[2:])).all(axis=1))
    raise ValueError(f"unknown membership {inside!r}: use 'overlap' or 'center'")


def _boxes(boxes: npt.ArrayLike, name: str) -> FloatArray:
    table = np.asarray(boxes, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != 4 or not np.isfinite(table).all():
        raise ValueError(f"{name} must be (boxes, 4) finite left, top, right, bottom; got the shape {table.shape}")
    if (table[:, 2:] <= table[:, :2]).any():
        raise ValueError(f"{name} holds a box without area: right must lie beyond left, and bottom below top")
    return table
