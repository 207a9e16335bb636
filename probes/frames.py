"""Attention to a video by its frames: a video is a sequence of images, some of which share their tokens.

Families that merge frames in time give one token to several; what such a token received belongs to its frames jointly,
and is reported once, for the group. Numbers only: nothing here knows models or prompts, or imports torch.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError
from probes.families.geometry import Tile
from probes.spans import ImageSpan

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FrameAttention:
    """Attention to each group of frames that share their tokens; a group of one where frames are not merged.

    Attributes:
        frames: Per group, which frames it shows, of those that the processor kept; in order, each frame in one group.
        tokens: (groups,) how many tokens each group has.
        sums: (..., groups) attention summed over the group's tokens. Tokens that show no pixels (a newline) are in no
            group, so that all groups together may sum to a little less than the video.
    """

    frames: tuple[range, ...]
    tokens: NDArray[np.int64]
    sums: FloatArray

    @property
    def factors(self) -> FloatArray:
        """(..., groups) mean over the group's tokens: what an image's attention factor is."""
        return np.asarray(self.sums / self.tokens, dtype=np.float32)

    def group(self, frame: int) -> int:
        """The group that shows a frame.

        Raises:
            InputError: If the video has no such frame.
        """
        for place, frames in enumerate(self.frames):
            if frame in frames:
                return place
        raise InputError(f"no frame {frame}: the model was shown {self.frames[-1].stop}, counted from 0")


def frame_attention(scores: NDArray[Any], span: ImageSpan) -> FrameAttention:
    """Sum attention per token of a video over the tokens of each group of frames.

    Args:
        scores: (..., tokens), one number for each of the video's tokens, as in `Trace.scores`.
        span: The video's, of `probes.find_video_spans`.

    Raises:
        InputError: If the span has no tiles, or another number of tokens.

    >>> from probes.families.geometry import Box
    >>> tiles = tuple(Tile(1, 2, Box(0, 0, 16, 8), frame=first, frames=2) for first in (0, 2))
    >>> found = frame_attention(np.array([0.25, 0.75, 0.5, 0.0]), ImageSpan(0, 5, 9, ((5, 9),), tiles))
    >>> found.frames, found.sums.tolist(), found.factors.tolist()
    ((range(0, 2), range(2, 4)), [1.0, 0.5], [0.5, 0.25])
    """
    expected = sum(tile.tokens for tile in span.tiles)
    if not span.tiles or scores.shape[-1] != expected:
        raise InputError(
            f"video {span.image}: {scores.shape[-1]} values for {expected} tokens of tiles; give one per token, and a "
            "span of find_video_spans"
        )
    cells = _cells_by_frames(span.tiles)
    sums = [scores[..., places].sum(axis=-1, dtype=np.float64) for _, places in cells]
    return FrameAttention(
        tuple(frames for frames, _ in cells),
        np.array([len(places) for _, places in cells], dtype=np.int64),
        np.stack(sums, axis=-1).astype(np.float32),
    )


def _cells_by_frames(tiles: tuple[Tile, ...]) -> list[tuple[range, NDArray[np.int64]]]:
    """Per group of frames, the places of its cells among the video's tokens."""
    placed = []
    first = 0
    for tile in tiles:
        offsets = [tile.offset(row, column) for row in range(tile.rows) for column in range(tile.columns)]
        if tile.resampled:
            offsets = list(range(tile.tokens))
        placed.append((range(tile.frame, tile.frame + tile.frames), first + np.array(offsets, dtype=np.int64)))
        first += tile.tokens
    return [
        (frames, np.concatenate([places for _, places in group]))
        for frames, group in groupby(placed, key=lambda item: item[0])
    ]
