"""Efficient Video Sampling: which tokens of a video are kept, those that differ most from the frame before.

Arrays in, a mask out: for any study, whatever its model. The paper (Efficient Video Sampling, arXiv 2510.14624) is
summarised as taking the L1 distance of RGB patches; transformers' Nemotron-H Omni takes one minus the cosine of
consecutive embeddings. Both are here, and neither is the default of the other's. What a model itself drops is told by
`probes.reduction.videos`. Imports no torch.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.errors import InputError, counted

FloatArray = npt.NDArray[np.float64]

_SMALLEST_NORM = 1e-8
"""As torch's cosine similarity: embeddings of no length are like none."""


class OnlyFirstFrameWarning(UserWarning):
    """A video is pruned so far that nothing but its first frame is left."""


@dataclass(frozen=True, eq=False)
class Retention:
    """Which tokens of a video are kept.

    Attributes:
        kept: Bool (frames, tokens).
        change: (frames, tokens) distance to the same place one frame earlier; infinite in the first frame, which is
            always kept whole.
        rate: The pruning rate that was asked for.
        distance: Which distance was taken: "cosine" or "l1".
    """

    kept: npt.NDArray[np.bool_]
    change: FloatArray
    rate: float
    distance: str

    @property
    def share(self) -> float:
        """Share of tokens that are kept."""
        return float(self.kept.mean())

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """(frames,) how many tokens of each frame are kept."""
        return np.asarray(self.kept.sum(axis=1), dtype=np.int64)


def kept_count(frames: int, tokens: int, rate: float) -> int:
    """How many tokens are kept: max(n, floor(T n (1 - q))), in floating point as transformers counts.

    Args:
        frames: T, of the video; where a model merges frames in time, its groups of frames.
        tokens: n, of each frame.
        rate: q, the share to drop, from 0 to 1.

    Raises:
        InputError: If there is a single frame, a frame has no token, or the rate is no share.

    >>> [kept_count(4, 16, rate) for rate in (0, 0.5, 0.75, 0.9)]
    [64, 32, 16, 16]
    """
    check_rate(rate)
    if tokens < 1:
        raise InputError(f"a frame of {tokens} tokens cannot be pruned: give one token or more")
    if frames < 2:
        raise InputError(
            f"a video of {counted(frames, 'frame')} has no earlier frame to be compared with: ask "
            "about it as an image, or give two frames or more"
        )
    return max(tokens, int(frames * tokens * (1 - rate)))


def check_rate(rate: float) -> None:
    """Raise InputError unless a pruning rate is a number from 0 to 1."""
    if not 0 <= rate <= 1:
        raise InputError(f"the pruning rate is {rate!r}: give the share of tokens to drop, from 0 to 1")


def warn_if_first_frame_only(frames: int, tokens: int, rate: float) -> None:
    """Warn where nothing but the first frame is left, as from a rate of 1 - 1 / T on.

    Raises:
        InputError: As `kept_count`.
    """
    if kept_count(frames, tokens, rate) > tokens:
        return
    thousandths = math.floor(1000 * (1 - (tokens + 1) / (frames * tokens)))
    # In floating point a rate may keep a token less than the formula says.
    highest = next(
        each / 1000 for each in range(thousandths, -1, -1) if kept_count(frames, tokens, each / 1000) > tokens
    )
    warnings.warn(
        f"at a pruning rate of {rate:g} only the first of {frames} frames is left, and whatever changes after it is "
        f"lost to the model: give a rate of {highest:g} or less",
        OnlyFirstFrameWarning,
        stacklevel=3,
    )


def efficient_video_sampling(frames: npt.ArrayLike, rate: float, distance: str = "cosine") -> Retention:
    """Choose the tokens of a video that are kept: the first frame's, and of the rest those that changed most.

    Args:
        frames: (frames, tokens, values): embeddings, or the colours of `rgb_patches`.
        rate: Share of tokens to drop.
        distance: "cosine", one minus the cosine of consecutive embeddings (transformers), or "l1", the mean absolute
            difference (the paper's summary, of RGB patches).

    Returns:
        A `Retention` of max(n, floor(T n (1 - q))) tokens; of equal changes the earlier token is kept.

    Raises:
        InputError: If the frames have another shape or hold no numbers, there is a single one, the rate is no share or
            the distance is unknown.

    Warns:
        OnlyFirstFrameWarning: If nothing but the first frame is left.

    >>> still = np.ones((3, 4, 2))
    >>> still[2, 1] = [1.0, -1.0]
    >>> efficient_video_sampling(still, 0.5).kept.astype(int).tolist()
    [[1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 0, 0]]
    """
    if distance not in _DISTANCES:
        raise InputError(f"no distance {distance!r}: give one of {', '.join(_DISTANCES)}")
    values = _checked(frames)
    count, tokens = values.shape[:2]
    kept = kept_count(count, tokens, rate)
    warn_if_first_frame_only(count, tokens, rate)
    change = np.full((count, tokens), np.inf)
    change[1:] = _DISTANCES[distance](values[1:], values[:-1])
    mask = np.zeros(count * tokens, dtype=bool)
    mask[np.argsort(-change.ravel(), kind="stable")[:kept]] = True
    return Retention(mask.reshape(count, tokens), change, float(rate), distance)


def rgb_patches(video: npt.ArrayLike, rows: int, columns: int) -> FloatArray:
    """Cut each frame into an even grid of patches, as colours from 0 to 255.

    Args:
        video: (frames, height, width, 3).
        rows: Of the grid; they divide the height.
        columns: Of the grid; they divide the width.

    Returns:
        (frames, rows * columns, values), row by row.

    Raises:
        InputError: If the frames have another shape, or the grid does not divide them.

    >>> rgb_patches(np.zeros((2, 4, 6, 3)), 2, 3).shape
    (2, 6, 12)
    """
    pixels = np.asarray(video, dtype=np.float64)
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or not pixels.size:
        raise InputError(f"a video's frames have the shape {pixels.shape}: give (frames, height, width, 3)")
    frames, height, width, colours = pixels.shape
    if rows < 1 or columns < 1 or height % rows or width % columns:
        raise InputError(
            f"frames of {width} x {height} pixels are not divided by a grid of {rows} rows and {columns} columns: "
            "resize them first, as the model's processor does"
        )
    cut = pixels.reshape(frames, rows, height // rows, columns, width // columns, colours)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(frames, rows * columns, -1)


def _checked(frames: npt.ArrayLike) -> FloatArray:
    values: npt.NDArray[Any] = np.asarray(frames)
    if values.ndim != 3 or not values.size or values.dtype.kind not in "fiub":
        raise InputError(f"frames have the shape {values.shape}: give numbers (frames, tokens, values)")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError("frames hold values that are not finite: run the tower in a wider dtype")
    return values


def _cosine(now: FloatArray, before: FloatArray) -> FloatArray:
    lengths = [np.maximum(np.linalg.norm(each, axis=-1), _SMALLEST_NORM) for each in (now, before)]
    return np.asarray(1 - (now * before).sum(axis=-1) / (lengths[0] * lengths[1]))


def _l1(now: FloatArray, before: FloatArray) -> FloatArray:
    return np.asarray(np.abs(now - before).mean(axis=-1))


_DISTANCES: Mapping[str, Callable[[FloatArray, FloatArray], FloatArray]] = {"cosine": _cosine, "l1": _l1}

DISTANCES = tuple(_DISTANCES)
"""Names of the distances."""
