"""Videos as people hold them: frames in order, and how fast they follow each other.

A video is decoded before it comes here, or by `probes.video_files`. This file knows nothing of models, processors or
tokens, and imports neither torch nor transformers.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from probes.errors import InputError, counted, one_line
from probes.image_decoding import decoded_rgb
from probes.inputs import ImageRef
from probes.video_files import MAX_VIDEO_PIXELS, read_frames

VIDEO_MARK = "<video>"
"""Where a video stands in a question's text."""

VIDEO_FILES = (".mp4", ".webm", ".mkv", ".mov", ".avi")
"""How names of video files end."""


@dataclass(frozen=True, repr=False, eq=False)
class Video:
    """The frames of one video.

    Args:
        frames: uint8 (frames, height, width, 3), RGB, in order; or a list of frames, each an array (height, width, 3)
            or in a form that ImageRef.of takes. Kept as the array.
        fps: Frames per second. Some families write times into the prompt or count positions by them; None has their
            processors assume a rate of their own (24 in transformers 5.23).
        sample: Let the processor choose frames, as its settings say, instead of showing the model all of them.

    Raises:
        InputError: If the frames have another type or shape, differ, cannot be read or are none, or the rate is not
            positive.

    >>> Video(np.zeros((8, 40, 60, 3), dtype=np.uint8), fps=2)
    Video(8 frames of 60 x 40, fps=2)
    """

    frames: NDArray[np.uint8]
    fps: float | None = None
    sample: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", _frames(self.frames))
        shape = self.frames.shape
        if len(shape) != 4 or shape[-1] != 3:
            raise InputError(f"a video's frames have the shape {shape}: give (frames, height, width, 3)")
        if self.frames.dtype != np.uint8:
            raise InputError(f"a video's frames are {self.frames.dtype}: give uint8, 0 to 255")
        if not all(shape):
            raise InputError(f"a video of the shape {shape} shows nothing: give at least one frame with pixels")
        rate: Any = self.fps
        if rate is not None:
            if not isinstance(rate, Real) or not 0 < float(rate) < float("inf"):
                raise InputError(f"a video's fps must be above 0, and is {rate!r}: give frames per second, or None")
            object.__setattr__(self, "fps", float(rate))

    @classmethod
    def of(cls, value: Any, fps: float | None = None, sample: bool = False) -> "Video":
        """Take a video in any form in which people hold one.

        Args:
            value: A Video, frames as the class takes them, or the path of a video file.
            fps: As the class; None takes a file's own.
            sample: As the class. A Video keeps its own rate and choice.

        Raises:
            InputError: As the class, if the value is none of these, or if a file cannot be decoded here.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str | os.PathLike):
            frames, own = read_frames(Path(value))
            return cls(frames, own if fps is None else fps, sample)
        return cls(value, fps, sample)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return int(self.frames.shape[2]), int(self.frames.shape[1])

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        width, height = self.size
        rate = "" if self.fps is None else f", fps={self.fps:g}"
        return (
            f"Video({counted(len(self), 'frame')} of {width} x {height}{rate}{', sample=True' if self.sample else ''})"
        )

    def metadata(self) -> dict[str, Any]:
        """What transformers' processors want to know besides the frames."""
        width, height = self.size
        return {
            "total_num_frames": len(self),
            "fps": self.fps,
            "width": width,
            "height": height,
            "duration": None if self.fps is None else len(self) / self.fps,
            "frames_indices": list(range(len(self))),
        }


class ShownVideo(NamedTuple):
    """What a model was shown of a video.

    Attributes:
        width: Of the original, in pixels.
        height: Of the original, in pixels.
        frames: Which of the given frames the processor kept, from 0; a span's frames count in this list.
    """

    width: int
    height: int
    frames: tuple[int, ...]


def is_video(value: Any) -> bool:
    """Whether a value looks like a video where an image is expected: frames in a list or array, or a file by name."""
    if isinstance(value, str | os.PathLike):
        return str(value).lower().endswith(VIDEO_FILES)
    return isinstance(value, list | tuple | Video) or len(getattr(value, "shape", ())) == 4


def video_list(videos: Any) -> tuple[Video, ...]:
    """The videos of a question.

    Raises:
        InputError: If they are no list, or one of them is no video; of several, the message names it.
    """
    if isinstance(videos, str | bytes | os.PathLike | Mapping | Video | Image.Image) or hasattr(videos, "shape"):
        raise InputError("a question takes a list of videos: put the one video into a list")
    if not isinstance(videos, Sequence):
        raise InputError(f"a question takes a list of videos, and is given a {type(videos).__name__}")
    found = []
    for place, video in enumerate(videos):
        try:
            found.append(Video.of(video))
        except InputError as error:
            raise InputError(f"video {place}: {error}") from error
    return tuple(found)


def _frames(value: Any) -> NDArray[Any]:
    """Frames in any form but a file's path."""
    if isinstance(value, str | os.PathLike):
        raise InputError("a Video holds frames, and is given a path: Video.of(path) reads its file")
    if isinstance(value, list | tuple):
        return _stacked(value)
    if _is_array(value):
        return _array(value)
    raise InputError(
        f"cannot take a {type(value).__name__} as a video: give an array (frames, height, width, 3) of uint8, a "
        "list of frames, a Video or the path of a video file"
    )


def _stacked(frames: Sequence[Any]) -> NDArray[Any]:
    if not frames:
        raise InputError("it has no frames: give at least one")
    arrays: list[NDArray[Any]] = []
    for frame in frames:
        arrays.append(_array(frame) if _is_array(frame) else _decoded(frame, len(frames)))
        first, last = ((array.shape, str(array.dtype)) for array in (arrays[0], arrays[-1]))
        if first != last:
            raise InputError(
                f"its frames have unlike shapes or types ({first[0]} of {first[1]}, {last[0]} of {last[1]}): resize "
                "and convert them to one"
            )
    return np.stack(arrays)


def _decoded(frame: Any, count: int) -> NDArray[np.uint8]:
    """A frame that is a picture, one of `count` of its size."""
    ref = None if isinstance(frame, Image.Image) else ImageRef.of(frame)
    width, height = frame.size if ref is None else ref.size()
    if count * width * height > MAX_VIDEO_PIXELS:
        raise InputError(
            f"its {count:,} frames of {width} x {height} hold more than the {MAX_VIDEO_PIXELS:,} pixels that are "
            "decoded at once; give fewer or smaller frames"
        )
    return np.asarray(decoded_rgb(frame) if ref is None else ref.open())


def _is_array(frame: Any) -> bool:
    return hasattr(frame, "shape") and not isinstance(frame, Image.Image)


def _array(frames: Any) -> NDArray[Any]:
    try:
        return np.asarray(frames)
    # Tensors on another device, or of a type that numpy lacks.
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"its frames make no array ({one_line(error)}): give uint8 in the CPU's memory") from error
