"""Videos as people hold them: frames in order, and how fast they follow each other.

A video is decoded before it comes here, or by transformers with whatever decoder is installed. This file knows nothing
of models, processors or tokens, and imports neither torch nor transformers unless a video file is to be read.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from probes.errors import InputError, one_line
from probes.inputs import ImageRef

VIDEO_MARK = "<video>"
"""Where a video stands in a question's text."""

VIDEO_FILES = (".mp4", ".webm", ".mkv", ".mov", ".avi")
"""How names of video files end."""

MAX_VIDEO_PIXELS = 500_000_000
"""Most pixels, of all frames together, that are decoded from a video file."""

_DECODERS = {"torchcodec": "torchcodec", "pyav": "av", "opencv": "cv2"}
"""Decoders that transformers can use and that tell a video's size beforehand, and their packages; best first."""


@dataclass(frozen=True, repr=False, eq=False)
class Video:
    """The frames of one video.

    Args:
        frames: uint8 (frames, height, width, 3), RGB, in order.
        fps: Frames per second. Some families write times into the prompt or count positions by them; None has their
            processors assume a rate of their own (24 in transformers 5.23).
        sample: Let the processor choose frames, as its settings say, instead of showing the model all of them.

    Raises:
        InputError: If the frames have another type or shape, there are none, or the rate is not positive.

    >>> Video(np.zeros((8, 40, 60, 3), dtype=np.uint8), fps=2)
    Video(8 frames of 60 x 40, fps=2)
    """

    frames: NDArray[np.uint8]
    fps: float | None = None
    sample: bool = False

    def __post_init__(self) -> None:
        shape = self.frames.shape
        if len(shape) != 4 or shape[-1] != 3:
            raise InputError(f"a video's frames have the shape {shape}: give (frames, height, width, 3)")
        if self.frames.dtype != np.uint8:
            raise InputError(f"a video's frames are {self.frames.dtype}: give uint8, 0 to 255")
        if not all(shape):
            raise InputError(f"a video of the shape {shape} shows nothing: give at least one frame with pixels")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise InputError(f"a video's fps must be above 0, and is {self.fps}: give frames per second, or None")

    @classmethod
    def of(cls, value: Any, fps: float | None = None, sample: bool = False) -> "Video":
        """Take a video in any form in which people hold one.

        Args:
            value: A Video, an array (frames, height, width, 3) of uint8, a list of frames, each an array (height,
                width, 3) or in a form that ImageRef.of takes, or the path of a video file.
            fps: As the class; None takes a file's own.
            sample: As the class. A Video keeps its own rate and choice.

        Raises:
            InputError: If the value is none of these, frames differ in size or cannot be read, or a file cannot be
                decoded here.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str | os.PathLike):
            frames, own = _read(Path(value))
            return cls(frames, own if fps is None else fps, sample)
        if isinstance(value, list | tuple):
            return cls(_stacked(value), fps, sample)
        if _is_array(value):
            return cls(_array(value), fps, sample)
        raise InputError(
            f"cannot take a {type(value).__name__} as a video: give an array (frames, height, width, 3) of uint8, a "
            "list of frames, a Video or the path of a video file"
        )

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return int(self.frames.shape[2]), int(self.frames.shape[1])

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        width, height = self.size
        rate = "" if self.fps is None else f", fps={self.fps:g}"
        return f"Video({len(self)} frames of {width} x {height}{rate}{', sample=True' if self.sample else ''})"

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


def _stacked(frames: Sequence[Any]) -> NDArray[Any]:
    if not frames:
        raise InputError("it has no frames: give at least one")
    arrays = [_array(frame) if _is_array(frame) else np.asarray(ImageRef.of(frame).open()) for frame in frames]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise InputError(f"its frames have unlike shapes ({shapes[0]}, {shapes[1]}): resize them to one size")
    return np.stack(arrays)


def _is_array(frame: Any) -> bool:
    return hasattr(frame, "shape") and not isinstance(frame, Image.Image)


def _array(frames: Any) -> NDArray[Any]:
    try:
        return np.asarray(frames)
    # Tensors on another device, or of a type that numpy lacks.
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"its frames make no array ({one_line(error)}): give uint8 in the CPU's memory") from error


def _read(path: Path) -> tuple[NDArray[Any], float | None]:
    """All frames of a video file, and how many it shows a second."""
    name = f"file {str(path)!r}"
    if str(path).lower().startswith(("http:", "https:")):
        raise InputError(f"{name}: nothing is downloaded here; save it to a file and give the path")
    if not path.is_file():
        raise InputError(f"{name}: no such file; check the path, or give the frames")
    decoder = next((name for name in _DECODERS if _installed(name)), None)
    if decoder is None:
        raise InputError(
            f"{name}: no decoder of video files that transformers can use is installed ({', '.join(_DECODERS)}); "
            "install one, or read the file yourself and give its frames as an array (frames, height, width, 3)"
        )
    from transformers.video_utils import load_video

    try:
        frames, metadata = load_video(str(path), backend=decoder, sample_indices_fn=_all_frames)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    # A decoder fed a broken file raises nearly anything.
    except Exception as error:
        raise InputError(
            f"{name}: {decoder} cannot decode it ({one_line(error)[:300]}); save it again, or give the frames"
        ) from error
    array = np.asarray(frames)
    # torchcodec alone puts colours before rows.
    return np.moveaxis(array, 1, -1) if decoder == "torchcodec" else array, metadata.fps or None


def _installed(decoder: str) -> bool:
    from transformers import utils

    return bool(getattr(utils, f"is_{_DECODERS[decoder]}_available")())


def _all_frames(metadata: Any, **_: Any) -> NDArray[np.int64]:
    count = int(metadata.total_num_frames or 0)
    if count < 1:
        raise InputError("it does not say how many frames it has; read it yourself and give them")
    pixels = count * int(metadata.width) * int(metadata.height)
    if pixels > MAX_VIDEO_PIXELS:
        raise InputError(
            f"its {count:,} frames hold {pixels:,} pixels, and at most {MAX_VIDEO_PIXELS:,} are decoded; give the "
            "frames that matter"
        )
    return np.arange(count)
