"""What pruning a video costs: answers, frames and cells in focus, against the pruning rate.

Each video has something planted in one of its frames, that its question asks for. At each rate the model answers again,
and its maps are read where tokens are left. With random weights this shows the mechanics, and nothing of what a trained
model loses.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from probes.clips import Video
from probes.errors import InputError, counted
from probes.estimates import Estimate, proportion
from probes.families.geometry import Box
from probes.frame_scores import FrameScores, frame_attention_accuracy
from probes.model import HookedModel
from probes.query_rows import ROW_SETS
from probes.reduction.sampling import check_rate
from probes.trace import Trace


class PlantedVideo(NamedTuple):
    """A video in one frame of which stands what its question asks for."""

    video: Any
    """In any form that `probes.Video.of` takes."""
    question: str
    answer: str
    frame: int
    """The frame that holds the answer, of those given."""
    box: tuple[float, float, float, float] | None = None
    """Where in that frame: left, top, right, bottom in its pixels."""


@dataclass(frozen=True)
class SweepPoint:
    """What is left at one pruning rate.

    Attributes:
        rate: The share of tokens to drop.
        kept: Mean share of tokens that was kept.
        answers: P(answer right).
        frames: Map accuracy by frame: attention accuracy over frames, its chance, and how often the frame that holds
            the answer lost all of its tokens.
        cells: Map accuracy by cell, over the videos with a box: P(the strongest cell, on the mean of the last layers'
            maps, is one of the planted frame that shares area with the box); equal cells share.
        cell_chance: The same of a blind choice among the cells that are left; NaN without boxes.
        first_frame_only: Share of videos of which nothing but the first frame, or group of frames, is left.
    """

    rate: float
    kept: float
    answers: Estimate
    frames: FrameScores
    cells: Estimate
    cell_chance: float
    first_frame_only: float


def pruning_sweep(
    model: HookedModel,
    samples: Sequence[PlantedVideo],
    rates: Sequence[float] | npt.NDArray[np.float64],
    rows: str = "paper",
    rule: str = "M-LND",
    last: int = 4,
    max_new_tokens: int = 8,
    is_right: Callable[[str, str], bool] | None = None,
    level: float = 0.95,
) -> tuple[SweepPoint, ...]:
    """Ask about each video at each pruning rate.

    Args:
        model: One that prunes its videos (`video_pruning_rate`); its own rate is put back.
        samples: Videos with something planted.
        rates: Pruning rates, from 0 to 1.
        rows: Row set of the maps; see `probes.encoding.row_sets`. Not "anchor": there is no image besides the video.
        rule: Focus rule over frames.
        last: How many of the last layers count, for frames and for cells.
        max_new_tokens: Most tokens of an answer.
        is_right: Judges what the model said (first) by the sample's answer; None takes equal words, whatever their
            case.
        level: Confidence level in (0, 1).

    Returns:
        One point for each rate, in the order given.

    Raises:
        InputError: If the model prunes nothing, there are no samples or rates, a rate is no share, rows are unknown or
            "anchor", a planted frame was not shown, or a box has no pixel of its frame.

    Warns:
        OnlyFirstFrameWarning: At each rate at which nothing but a video's first frame is left.
    """
    if len(samples) == 0 or len(rates) == 0:
        raise InputError(f"{counted(len(samples), 'video')} at {counted(len(rates), 'rate')}: give one or more of each")
    _check_rows(rows)
    for rate in rates:
        check_rate(rate)
    for number, sample in enumerate(samples):
        _check_box(number, sample)
    judge = is_right or _same_words
    points = []
    for rate in map(float, rates):
        with pruned_at(model, rate):
            seen = [_look(model, sample, rows, last, max_new_tokens, judge) for sample in samples]
        points.append(_point(rate, seen, rule, last, level))
    return tuple(points)


@contextmanager
def pruned_at(model: HookedModel, rate: float) -> Iterator[None]:
    """Let a model prune its videos at another rate for a while.

    Raises:
        InputError: If the model prunes nothing, or the rate is no share.
    """
    if not hasattr(model.model, "video_pruning_rate"):
        raise InputError(
            f"{type(model.model).__name__} prunes no videos: take nemotron_h_omni, or "
            "probes.reduction.sampling.efficient_video_sampling on embeddings or colours of your own"
        )
    check_rate(rate)
    before = model.model.video_pruning_rate
    model.model.video_pruning_rate = rate
    try:
        yield
    finally:
        model.model.video_pruning_rate = before


class _Seen(NamedTuple):
    trace: Trace
    frame: int
    right: bool
    cell: tuple[float, float] | None
    """Hit of the strongest cell and its chance; None without a box."""


def _check_rows(rows: str) -> None:
    able = [name for name in ROW_SETS if name != "anchor"]
    if rows not in able:
        reason = (
            "compares the last image with others, and each question has one video" if rows == "anchor" else "unknown"
        )
        raise InputError(f"rows {rows!r} cannot be swept ({reason}): give one of {', '.join(able)}")


def _check_box(number: int, sample: PlantedVideo) -> None:
    if sample.box is None:
        return
    width, height = Video.of(sample.video).size
    if not _share_area(Box(*sample.box), Box(0, 0, width, height)):
        raise InputError(
            f"video {number}: the box {sample.box} has no pixel of its frames of {width} x {height}: give left, top, "
            "right, bottom in pixels"
        )


def _look(
    model: HookedModel,
    sample: PlantedVideo,
    rows: str,
    last: int,
    max_new_tokens: int,
    judge: Callable[[str, str], bool],
) -> _Seen:
    video = Video.of(sample.video)
    trace = model.trace([], sample.question, max_new_tokens=max_new_tokens, rows=rows, videos=[video])
    shown = trace.videos[0].frames
    if sample.frame not in shown:
        raise InputError(
            f"frame {sample.frame} of a video holds the answer, and the model was shown {len(shown)} of {len(video)} "
            "frames without it: give Video(sample=False), or another frame"
        )
    frame = shown.index(sample.frame)
    cell = None if sample.box is None else _strongest_cell(trace, frame, Box(*sample.box), last)
    return _Seen(trace, frame, judge(trace.answer, sample.answer), cell)


def _strongest_cell(trace: Trace, frame: int, box: Box, last: int) -> tuple[float, float]:
    """How much of the strongest cells, and of all cells, is in the planted frame and box."""
    column = trace.video_columns[0]
    cells = [cell for cell in trace.cells(column) if cell.kept and cell.box.area > 0]
    member = np.array(
        [cell.frame <= frame < cell.frame + cell.frames and _share_area(cell.box, box) for cell in cells], dtype=float
    )
    layers = [trace.scores(column, layer) for layer in trace.layers[-last:]]
    scores = np.mean(layers, axis=0)[[cell.token for cell in cells]]
    return float(member[scores == scores.max()].mean()), float(member.mean())


def _share_area(one: Box, other: Box) -> bool:
    return min(one.right, other.right) > max(one.left, other.left) and min(one.bottom, other.bottom) > max(
        one.top, other.top
    )


def _point(rate: float, seen: Sequence[_Seen], rule: str, last: int, level: float) -> SweepPoint:
    frames = [each.trace.frames() for each in seen]
    right = [each.right for each in seen]
    cells = [each.cell for each in seen if each.cell is not None]
    spans = [each.trace.spans[each.trace.video_columns[0]] for each in seen]
    return SweepPoint(
        rate=rate,
        kept=float(np.mean([span.retention.mean() for span in spans])),
        answers=proportion(right, level=level),
        frames=frame_attention_accuracy(frames, [each.frame for each in seen], right, rule, last, level=level),
        cells=proportion([hit for hit, _ in cells], level=level),
        cell_chance=float(np.mean([chance for _, chance in cells])) if cells else float("nan"),
        first_frame_only=float(np.mean([not video.tokens[1:].any() for video in frames])),
    )


def _same_words(said: str, answer: str) -> bool:
    return said.casefold().split() == answer.casefold().split()
