"""Frame-level attention accuracy: of the right answers about a video, how many looked at the frame that holds them.

A video is a sequence of images, and the focus falls on one of its frames by the rules of `probes.focus`; frames that
share their tokens count as one. A frame of which the model dropped every token cannot be in focus: it counts as missed,
and how often that happened stands beside the numbers. Numbers only, no torch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from probes.clustering import BoolArray, as_flags
from probes.errors import InputError, counted
from probes.estimates import Estimate, proportion
from probes.frames import FrameAttention
from probes.scores import Scoreboard, attention_accuracy, attention_accuracy_when_wrong, focus_rate


class FrameScores(NamedTuple):
    """Attention accuracy over frames with everything that it must be read beside."""

    board: Scoreboard
    """As of images, groups of frames standing for these; chance is that of a blind choice among the groups that have
    tokens, and nothing where the target has none."""
    lost: Estimate
    """Share of videos whose target frame has no token left."""


def frame_attention_accuracy(
    videos: Sequence[FrameAttention],
    target: Sequence[int],
    correct: npt.ArrayLike,
    rule: str = "M-LND",
    last: int = 4,
    clusters: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> FrameScores:
    """P(focus = target frame | answer correct), and what stands beside it.

    Args:
        videos: Per question, the attention to its video's frames in all layers (`Trace.frames`).
        target: Per question the frame that holds the answer, of those that the model was shown.
        correct: (questions,) whether the answer was right.
        rule: Focus rule.
        last: How many of the last layers count.
        clusters: (questions,) base sample of each; None takes them as independent.
        level: Confidence level in (0, 1).

    Raises:
        InputError: If there are no videos, lengths differ, a video has a single frame or group of frames, or a target
            is none of its frames.
        ValueError: If the rule is unknown or `last` is below 1.
    """
    if not videos or len(target) != len(videos):
        raise InputError(
            f"{counted(len(videos), 'video')} and {counted(len(target), 'target frame')}: give one of each for every "
            "question"
        )
    right = as_flags(correct, "correct")
    if right.size != len(videos):
        raise InputError(
            f"{counted(len(videos), 'video')} and {counted(right.size, 'answer')}: give one for every question"
        )
    focused = [video.focus(rule, last) for video in videos]
    wanted = [video.group(frame) for video, frame in zip(videos, target, strict=True)]
    left = np.array([int((video.tokens > 0).sum()) for video in videos])
    lost = np.array([video.tokens[group] == 0 for video, group in zip(videos, wanted, strict=True)], dtype=bool)
    blind = np.where(lost, 0.0, 1.0 / left)
    headline = attention_accuracy(focused, wanted, right, clusters, level)
    board = Scoreboard(
        answer_accuracy=proportion(right, clusters, level),
        attention_accuracy=headline,
        ivm_rate=headline.complement(),
        attention_when_wrong=attention_accuracy_when_wrong(focused, wanted, right, clusters, level),
        attention_overall=focus_rate(focused, wanted, clusters, level),
        chance=float(blind.mean()),
        chance_when_right=_mean(blind, right),
        chance_when_wrong=_mean(blind, ~right),
    )
    return FrameScores(board, proportion(lost, clusters, level))


def _mean(values: npt.NDArray[np.float64], chosen: BoolArray) -> float:
    return float(values[chosen].mean()) if chosen.any() else float("nan")
