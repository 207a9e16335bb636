"""Which image a model focuses on: the three rules of the Implicit visual misunderstanding paper's released code.

Attention factors in, image indices or shares out. Knows nothing of models, targets or answers, and imports no torch.

A rule walks from the last layer backwards and scores the images; the focus is the image of largest score, the lowest
index among equals. ``LND`` scores an image by its largest factor, ``M-LND`` by the sum over layers (the order of the
means), and ``MC-LND`` by how many layers it leads, equal leaders by the sum of their factors over those layers only.

Where all factors are equal (a layer whose sliding window reaches no image has zeros only) there is no focus, and an
index still comes out: the lowest. What counts hits over such layers takes :func:`focus_shares` instead.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from probes.clustering import BoolArray, FloatArray, IntArray

RULES = ("LND", "M-LND", "MC-LND")
"""Focus rules, simplest first."""

_VOTE_SLACK = 1e-9


def focus(factors: npt.ArrayLike, rule: str = "M-LND", last: int = 4) -> int:
    """Pick the image in focus from the last layers' attention factors.

    The rules are those of the Implicit visual misunderstanding paper's released code.

    Args:
        factors: (layers, images) attention factors; a column of NaN is padding, not an image.
        rule: ``"LND"``, ``"M-LND"`` or ``"MC-LND"``.
        last: how many of the last layers count; all of them when there are fewer.

    Returns:
        0-based image index; among equals the lowest.

    Raises:
        ValueError: if the rule is unknown, ``last`` is below 1, no image has factors, or an image has some NaN factors
            without all of them being NaN.

    >>> factors = [[0.0, 0.9, 0.0], [0.5, 0.2, 0.3], [0.4, 0.2, 0.3]]
    >>> [focus(factors, rule, last=3) for rule in RULES]
    [1, 1, 0]
    """
    table = np.asarray(factors, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(
            f"focus needs factors (layers, images), got the shape {table.shape}; see focus_all for samples"
        )
    return int(focus_all(table[None], rule, last)[0])


def focus_all(factors: npt.ArrayLike, rule: str = "M-LND", last: int = 4) -> IntArray:
    """Pick the image in focus for every sample at once; the rules of :func:`focus`.

    Args:
        factors: (samples, layers, images), samples with fewer images padded with NaN.
        rule: ``"LND"``, ``"M-LND"`` or ``"MC-LND"``.
        last: how many of the last layers count; all of them when there are fewer.

    Returns:
        (samples,) 0-based image indices.

    Raises:
        ValueError: as :func:`focus`, naming the first sample at fault.
    """
    return focus_by_depth(factors, rule, last)[:, -1]


def focus_by_depth(factors: npt.ArrayLike, rule: str = "M-LND", deepest: int | None = None) -> IntArray:
    """Pick the image in focus for each number of last layers, 1 to ``deepest``, in one pass.

    Args:
        factors: (samples, layers, images), padded with NaN.
        rule: ``"LND"``, ``"M-LND"`` or ``"MC-LND"``.
        deepest: largest number of last layers; None or a larger one takes all layers.

    Returns:
        (samples, depths) image indices; column ``d`` is the focus over the last ``d + 1`` layers.

    Raises:
        ValueError: as :func:`focus_all`.
    """
    backwards = _checked(factors, rule, deepest)
    return np.stack([scores.argmax(axis=-1) for scores in _walk(backwards, rule, shared=False)], axis=1)


def focus_shares(factors: npt.ArrayLike, rule: str = "M-LND", last: int = 4, tolerance: float = 0.0) -> FloatArray:
    """Share the focus equally among tied images, so that uniform attention sits at chance.

    Under ``MC-LND`` a layer's vote is shared among its leaders too. Without ties the shares are 1 at :func:`focus`.
    Sharing ties is ours; the released code takes the first.

    Args:
        factors: (layers, images) or (samples, layers, images), padded with NaN.
        rule: ``"LND"``, ``"M-LND"`` or ``"MC-LND"``.
        last: how many of the last layers count; all of them when there are fewer.
        tolerance: relative distance from the largest score within which images count as tied.

    Returns:
        (images,) or (samples, images) shares that sum to 1; padding has 0.

    Raises:
        ValueError: as :func:`focus`, and if the tolerance is negative.

    >>> focus_shares([[0.2, 0.2, 0.1]])
    array([0.5, 0.5, 0. ])
    """
    if tolerance < 0.0:
        raise ValueError(f"a tolerance is at least 0, got {tolerance}")
    table = np.asarray(factors, dtype=np.float64)
    backwards = _checked(table[None] if table.ndim == 2 else table, rule, last)
    *_, scores = _walk(backwards, rule, shared=True, tolerance=tolerance)
    shares = _leaders(scores, tolerance)
    return shares[0] if table.ndim == 2 else shares


def image_counts(factors: npt.ArrayLike) -> IntArray:
    """Count the images of each sample: the columns of (samples, layers, images) factors that are not NaN padding.

    >>> image_counts([[[0.1, 0.2, float("nan")]], [[0.1, 0.2, 0.3]]])
    array([2, 3])
    """
    table = np.asarray(factors, dtype=np.float64)
    if table.ndim != 3:
        raise ValueError(f"factors must be (samples, layers, images), got the shape {table.shape}")
    return np.asarray((~np.isnan(table).all(axis=1)).sum(axis=-1), dtype=np.int64)


def focus_histogram(factors: npt.ArrayLike, rule: str = "M-LND", last: int = 4) -> FloatArray:
    """Mean focus share of each image position: the control for recency and sink effects of raw attention.

    Args:
        factors: (samples, layers, images), padded with NaN; use samples of one image count, or read the columns so.
        rule: ``"LND"``, ``"M-LND"`` or ``"MC-LND"``.
        last: how many of the last layers count.

    Returns:
        (images,) shares that sum to 1.

    Raises:
        ValueError: as :func:`focus_all`, and if there are no samples.
    """
    shares = focus_shares(factors, rule, last)
    if shares.ndim != 2 or len(shares) == 0:
        raise ValueError("a focus histogram needs factors (samples, layers, images) of at least one sample")
    return np.asarray(shares.mean(axis=0))


def check_rule(rule: str, last: int | None = None) -> None:
    """Raise ValueError for an unknown rule, or a number of last layers that is no whole number from 1 on."""
    if rule not in RULES:
        raise ValueError(f"unknown focus rule {rule!r}: use one of {', '.join(RULES)}")
    if last is not None and (not isinstance(last, int | np.integer) or last < 1):
        raise ValueError(f"a focus rule needs at least 1 last layer, got {last!r}: give last=1, 2, ...")


def _checked(factors: npt.ArrayLike, rule: str, last: int | None) -> Sequence[FloatArray]:
    """The counted layers from the last one backwards, each (samples, images), padding at minus infinity."""
    check_rule(rule, last)
    table = np.asarray(factors, dtype=np.float64)
    if table.ndim != 3:
        raise ValueError(f"factors must be (samples, layers, images), got the shape {table.shape}")
    if table.shape[1] == 0 or table.shape[2] == 0:
        raise ValueError(f"factors of shape {table.shape} hold no layer or no image: there is no image to focus on")
    table = table if last is None else table[:, -last:]
    if np.isinf(table).any():
        raise ValueError("factors hold infinite values; attention factors are finite, or NaN where an image is missing")
    absent = np.isnan(table)
    empty = absent.all(axis=(1, 2))
    if empty.any():
        raise ValueError(f"sample {int(empty.argmax())} has no image with factors: all are NaN; leave it out first")
    torn = absent.any(axis=1) & ~absent.all(axis=1)
    if torn.any():
        sample, image = np.argwhere(torn)[0]
        raise ValueError(
            f"image {image} of sample {sample} has NaN factors in some layers only, so this is no padding: "
            "the attention overflowed there; run the model in a wider dtype"
        )
    filled = np.where(absent, -np.inf, table)
    return [filled[:, layer] for layer in range(filled.shape[1] - 1, -1, -1)]


def _walk(backwards: Sequence[FloatArray], rule: str, shared: bool, tolerance: float = 0.0) -> Iterator[FloatArray]:
    """Scores (samples, images) of the images after 1, 2, ... layers from the last one."""
    if rule == "MC-LND":
        yield from _majorities(backwards, shared, tolerance)
        return
    combine = np.maximum if rule == "LND" else np.add
    scores = backwards[0]
    yield scores
    for layer in backwards[1:]:
        scores = combine(scores, layer)
        yield scores


def _majorities(backwards: Sequence[FloatArray], shared: bool, tolerance: float) -> Iterator[FloatArray]:
    votes, support = np.zeros_like(backwards[0]), np.zeros_like(backwards[0])
    for layer in backwards:
        vote = _leaders(layer, tolerance) if shared else _first_leader(layer)
        votes = votes + vote
        support = support + vote * np.where(np.isneginf(layer), 0.0, layer)
        most = votes.max(axis=-1, keepdims=True)
        yield np.where(votes >= most - _VOTE_SLACK, support, -np.inf)


def _first_leader(scores: FloatArray) -> FloatArray:
    return np.asarray(np.arange(scores.shape[-1]) == scores.argmax(axis=-1)[:, None], dtype=np.float64)


def _leaders(scores: FloatArray, tolerance: float) -> FloatArray:
    largest = scores.max(axis=-1, keepdims=True)
    tied: BoolArray = scores >= largest - tolerance * np.abs(largest)
    return np.asarray(tied / tied.sum(axis=-1, keepdims=True))
