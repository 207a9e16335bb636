"""The frames of video files, by transformers with whatever decoder is installed; all of them or none, with a cap.

Imports neither torch nor transformers unless a file is to be read.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError, counted, one_line, short

MAX_VIDEO_PIXELS = 500_000_000
"""Most pixels, of all frames together, that are decoded for one video."""

_DECODERS = {"torchcodec": "torchcodec", "pyav": "av", "opencv": "cv2"}
"""Decoders that transformers can use and that tell a video's size beforehand, and their packages; best first."""


def read_frames(path: Path) -> tuple[NDArray[Any], float | None]:
    """All frames of a video file (frames, height, width, 3), and how many it shows a second; None if it does not say.

    That a file is cut off is noticed where it says how many frames it has, as WebM and Matroska do not to PyAV.

    Raises:
        InputError: If there is no such file, no decoder is installed, the file is broken or cut off, or it holds more
            than `MAX_VIDEO_PIXELS`.
    """
    name = f"file {short(str(path), 200)}"
    if str(path).lower().startswith(("http:", "https:")):
        raise InputError(f"{name}: nothing is downloaded here; save it to a file and give the path")
    if not _is_file(path):
        raise InputError(f"{name}: no such file; check the path, or give the frames")
    decoder = next((name for name in _DECODERS if _installed(name)), None)
    if decoder is None:
        raise InputError(
            f"{name}: no decoder of video files that transformers can use is installed ({', '.join(_DECODERS)}); "
            "install one, or read the file yourself and give its frames as an array (frames, height, width, 3)"
        )
    from transformers.video_utils import load_video

    try:
        frames, metadata = load_video(str(path), backend=decoder, sample_indices_fn=partial(_all_frames, decoder))
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    # A decoder fed a broken file raises nearly anything.
    except Exception as error:
        raise InputError(
            f"{name}: {decoder} cannot decode it ({one_line(error)[:300]}); save it again, or give the frames"
        ) from error
    array = np.asarray(frames)
    # torchcodec alone puts colours before rows.
    array = np.moveaxis(array, 1, -1) if decoder == "torchcodec" else array
    _check_whole(name, array, int(metadata.total_num_frames or 0))
    return array, metadata.fps or None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long to be a path
        return False


def _installed(decoder: str) -> bool:
    from transformers import utils

    return bool(getattr(utils, f"is_{_DECODERS[decoder]}_available")())


def _all_frames(decoder: str, metadata: Any, **_: Any) -> Sequence[int] | NDArray[np.int64]:
    """Which frames to read: as many as the file says it has, or up to the cap where PyAV does not know (WebM)."""
    count, pixels = int(metadata.total_num_frames or 0), int(metadata.width) * int(metadata.height)
    if count < 1 and (decoder != "pyav" or pixels < 1):
        raise InputError("it does not say how many frames it has; read it yourself and give them")
    if count * pixels > MAX_VIDEO_PIXELS:
        raise InputError(
            f"its {count:,} frames hold {count * pixels:,} pixels, and at most {MAX_VIDEO_PIXELS:,} are decoded; give "
            "the frames that matter"
        )
    # A range tells at once whether it holds a number, which PyAV and OpenCV ask it at each frame.
    places = range(count or MAX_VIDEO_PIXELS // pixels + 1)
    return np.asarray(places) if decoder == "torchcodec" else places


def _check_whole(name: str, frames: NDArray[Any], count: int) -> None:
    """Refuse a file of which a decoder gave a part and kept silent."""
    if frames.size // 3 > MAX_VIDEO_PIXELS:
        raise InputError(f"{name}: it holds more than {MAX_VIDEO_PIXELS:,} pixels; give the frames that matter")
    if count and len(frames) != count:
        raise InputError(
            f"{name}: it says that it has {counted(count, 'frame', ',')}, and {len(frames):,} can be decoded, so that "
            "it is broken or cut off; save it again, or give the frames"
        )
