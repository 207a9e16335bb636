"""Attention to a video by its frames: a video is a sequence of images, some of which share their tokens.

Families that merge frames in time give one token to several; what such a token received belongs to its frames jointly,
and is reported once, for the group. Tokens that the model dropped count for nothing, and a group that lost all of its
tokens has no attention. Numbers only: nothing here knows models or prompts, or imports torch.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

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
        tokens: (groups,) how many tokens each group has, without those that the model dropped; 0 where it dropped all.
        sums: (..., groups) attention summed over the group's tokens. Tokens that show no pixels (a newline) are in no
            group, so that all groups together may sum to a little less than the video.
    """

    frames: tuple[range, ...]
    tokens: NDArray[np.int64]
    sums: FloatArray

    @property
    def factors(self) -> FloatArray:
        """(..., groups) mean over the group's tokens: what an image's attention factor is. NaN without any token."""
        shared = np.full(self.sums.shape, np.nan)
        np.divide(self.sums, self.tokens, out=shared, where=self.tokens > 0)
        return shared.astype(np.float32)

    def focus(self, rule: str = "M-LND", last: int = 4) -> int:
        """The group in focus, by the rules of `probes.focus`: groups of frames stand for images.

        Raises:
            InputError: If there are no layers, or a single group.
            ValueError: If the rule is unknown or `last` is below 1.
        """
        from probes.focusing import focus

        check_several(len(self.frames))
        if self.sums.ndim != 2:
            raise InputError(
                f"frames are in focus over layers, and sums have the shape {self.sums.shape}: give (layers, groups)"
            )
        return focus(self.factors, rule, last)

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
        scores: (..., tokens), one number for each of the video's tokens, as in `Trace.scores`; what stands for dropped
            ones is not read.
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
    kept = span.retention
    cells = [(frames, places[kept[places]]) for frames, places in _cells_by_frames(span.tiles)]
    sums = [scores[..., places].sum(axis=-1, dtype=np.float64) for _, places in cells]
    return FrameAttention(
        tuple(frames for frames, _ in cells),
        np.array([len(places) for _, places in cells], dtype=np.int64),
        np.stack(sums, axis=-1).astype(np.float32),
    )


class FrameCells(NamedTuple):
    """The cells of one frame, as figures take them."""

    boxes: NDArray[np.float64]
    """(cells, 4) left, top, right, bottom in pixels of the frame."""
    scores: FloatArray
    """(..., cells); NaN where the model dropped the token."""
    kept: NDArray[np.bool_]
    """(cells,) which cells have a token."""


def frame_cells(scores: NDArray[Any], span: ImageSpan, frame: int) -> FrameCells:
    """The cells of one frame with their attention: what is laid over the frame, dropped cells among them.

    Args:
        scores: (..., tokens), as `frame_attention`.
        span: The video's.
        frame: Of those that the model was shown; frames that share tokens share cells.

    Raises:
        InputError: If there is no such frame, or the pixels of the tokens are not known.
    """
    cells = [cell for cell in span.cells() if cell.frame <= frame < cell.frame + cell.frames and cell.box.area > 0]
    if not cells:
        raise InputError(f"video {span.image} has no frame {frame} with cells: give one that the model was shown")
    boxes = np.array([cell.box for cell in cells], dtype=np.float64)
    values = np.asarray(scores[..., [cell.token for cell in cells]], dtype=np.float32)
    return FrameCells(boxes, values, np.array([cell.kept for cell in cells], dtype=bool))


def check_several(groups: int) -> None:
    """Refuse to choose among the frames of a video that has one.

    Raises:
        InputError: If there are fewer than two groups of frames.
    """
    if groups < 2:
        raise InputError(
            "a video whose frames share all of their tokens, or of a single frame, leaves nothing to choose: give more "
            "frames, or ask about it as an image"
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
