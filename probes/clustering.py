"""Samples in clusters: checked vectors, cluster numbers, and the bootstrap that draws whole clusters.

Knows nothing of what the numbers mean, and imports no torch.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
SpreadKind = Literal["range", "std"]

_CHUNK = 4_000_000


def check_level(level: float) -> None:
    """Raise ValueError unless a confidence level lies between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"a confidence level lies between 0 and 1, got {level}")


def as_vector(values: npt.ArrayLike, name: str) -> FloatArray:
    """Return values as a float vector.

    Raises:
        ValueError: if they are not one-dimensional numbers, or some are missing.
    """
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must hold numbers or booleans only; leave out samples without one first") from None
    if vector.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional (samples,), got the shape {vector.shape}")
    if not np.isfinite(vector).all():
        missing = int((~np.isfinite(vector)).sum())
        raise ValueError(f"{name} holds {missing} missing or infinite values; leave out these samples first")
    return vector


def as_indices(values: npt.ArrayLike, name: str) -> IntArray:
    """Return values as 0-based indices.

    Raises:
        ValueError: if they are not one-dimensional whole numbers from 0, or some are missing.
    """
    vector = as_vector(values, name)
    if vector.size and (vector.min() < 0 or (vector != np.floor(vector)).any()):
        raise ValueError(f"{name} must hold 0-based image indices; leave out samples without one first")
    return vector.astype(np.int64)


def as_targets(target: npt.ArrayLike, images: FloatArray | IntArray) -> IntArray:
    """Return (samples,) image indices, each below its sample's number of images.

    Raises:
        ValueError: naming the first sample that points past its images.
    """
    wanted = as_indices(target, "target")
    if wanted.size != images.size:
        raise ValueError(f"lengths differ: {wanted.size} image indices, {images.size} samples with images")
    if (wanted >= images).any():
        sample = int((wanted >= images).argmax())
        raise ValueError(f"sample {sample} points at image {wanted[sample]}, 0-based, of {images[sample]:g} images")
    return wanted


def as_flags(values: npt.ArrayLike, name: str) -> BoolArray:
    """Return values as booleans.

    Raises:
        ValueError: if they are not one-dimensional booleans (or zeros and ones), or some are missing.
    """
    vector = as_vector(values, name)
    if not np.isin(vector, (0.0, 1.0)).all():
        raise ValueError(f"{name} must hold True or False for each sample")
    return vector.astype(bool)


def cluster_index(clusters: npt.ArrayLike | None, n: int) -> tuple[IntArray, int]:
    """Number the clusters 0, 1, ... by sorted label, and count them; None makes every sample a cluster.

    Raises:
        ValueError: if the length is not ``n``, or a label is missing.
    """
    if clusters is None:
        return np.arange(n, dtype=np.int64), n
    labels = np.asarray(clusters)
    if labels.shape != (n,):
        raise ValueError(f"clusters must hold one label for each of the {n} samples, got the shape {labels.shape}")
    if any(label is None or label != label for label in labels.tolist()):
        raise ValueError("clusters holds missing labels; give each sample the id of its base sample")
    unique, index = np.unique(labels.astype(str) if labels.dtype == object else labels, return_inverse=True)
    return index.astype(np.int64), len(unique)


def group_table(
    values_by_group: Sequence[npt.ArrayLike], clusters: Sequence[npt.ArrayLike] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Add up values by cluster and group: two (clusters, groups) tables, of sums and of counts.

    Raises:
        ValueError: if fewer than two groups are given, values are missing, or lengths differ.
    """
    groups = [as_vector(values, f"group {number}") for number, values in enumerate(values_by_group)]
    if len(groups) < 2:
        raise ValueError(f"a spread needs at least two groups, got {len(groups)}")
    if clusters is not None and [np.size(ids) for ids in map(np.asarray, clusters)] != [len(g) for g in groups]:
        raise ValueError("a spread needs one array of clusters for each group, as long as the group's values")
    flat = None if clusters is None else [label for ids in clusters for label in np.asarray(ids).tolist()]
    values = np.concatenate(groups)
    index, count = cluster_index(flat, values.size)
    cell = index * len(groups) + np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    shape = (count, len(groups))
    sums = np.bincount(cell, weights=values, minlength=count * len(groups)).astype(np.float64)
    counts = np.bincount(cell, minlength=count * len(groups)).astype(np.float64)
    return sums.reshape(shape), counts.reshape(shape)


def spread_of_means(sums: FloatArray, counts: FloatArray, kind: SpreadKind) -> FloatArray:
    """Spread of the means ``sums / counts`` over the last axis; NaN where a group is empty."""
    if kind not in ("range", "std"):
        raise ValueError(f"unknown kind of spread {kind!r}: use 'range' or 'std'")
    means = np.divide(sums, counts, out=np.full(np.shape(sums), math.nan), where=counts > 0)
    return np.asarray(np.ptp(means, axis=-1) if kind == "range" else np.std(means, axis=-1))


def resampled_totals(
    sums: FloatArray, counts: FloatArray, resamples: int, seed: int
) -> list[tuple[FloatArray, FloatArray]]:
    """Draw clusters with replacement; chunks of (draws, groups) totals of sums and counts, memory kept bounded."""
    if resamples < 1:
        raise ValueError(f"a bootstrap needs at least one resample, got {resamples}")
    clusters, rng = len(sums), np.random.default_rng(seed)
    per_chunk = max(1, _CHUNK // clusters)
    chunks = []
    for start in range(0, resamples, per_chunk):
        draws = min(per_chunk, resamples - start)
        weights = rng.multinomial(clusters, np.full(clusters, 1.0 / clusters), size=draws).astype(np.float64)
        chunks.append((weights @ sums, weights @ counts))
    return chunks


def deviation_quantile(draws: FloatArray, level: float) -> float:
    """Quantile of bootstrap deviations at ``level``; infinite if half of the draws are NaN."""
    check_level(level)
    usable = draws[~np.isnan(draws)]
    return float(np.quantile(usable, level)) if usable.size > draws.size / 2 else math.inf
