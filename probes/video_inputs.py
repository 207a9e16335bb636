"""What a processor is told about the videos of a batch, what it keeps of them, and what is said when it refuses.

Frames are the user's: unless asked, a processor chooses none of its own. This file knows nothing of tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from probes.checkpoints import first_line
from probes.clips import ShownVideo, Video
from probes.errors import InputError


def video_arguments(videos: Sequence[Sequence[Video]], single: bool = False) -> dict[str, Any]:
    """Keyword arguments of a processor's call for the videos of each prompt; none where there are no videos.

    Args:
        videos: Of each prompt.
        single: Whether the processor takes one video, and what is known of it as a record instead of a list.

    Raises:
        InputError: If a processor is to choose frames of some videos and not of others: it chooses for a whole batch.
    """
    listed = [video for row in videos for video in row]
    if not listed:
        return {}
    choices = {video.sample for video in listed}
    if len(choices) > 1:
        raise InputError(
            "of the videos of a batch, some are to be sampled and some are not: ask about those in questions of a "
            "batch of their own"
        )
    known: Any = [video.metadata() for video in listed]
    if single:
        from transformers.video_utils import VideoMetadata

        known = VideoMetadata(**known[0])
    return {
        # Of frames 1 or 3 pixels high, processors take rows for colours unless these come first.
        "videos": [video.frames.transpose(0, 3, 1, 2) for video in listed],
        "video_metadata": known,
        "do_sample_frames": choices.pop(),
        "return_metadata": True,
    }


def check_one_video(kind: str, prompts: Sequence[tuple[int, Sequence[Video]]]) -> None:
    """Refuse what a processor that takes one video does not take.

    Args:
        kind: The model type.
        prompts: Per prompt, its number of images and its videos.

    Raises:
        InputError: If there is a video beside another, beside an image or in a batch, or one of a single frame.
    """
    for images, videos in prompts:
        if videos and (images or len(videos) > 1 or len(prompts) > 1):
            raise InputError(
                f"{kind} takes one video, in a question of its own: ask about each video alone, without images, and "
                "one question at a time (batch_size=1); or give the frames as images"
            )
        if videos and len(videos[0]) < 2:
            raise InputError(
                f"a video of a single frame shows {kind} nothing that moves: ask about it as an image, or give two "
                "frames or more"
            )


def shown_videos(videos: Sequence[Sequence[Video]], made: Mapping[str, Any]) -> tuple[tuple[ShownVideo, ...], ...]:
    """Per prompt, what the processor kept of each video.

    Args:
        videos: Of each prompt.
        made: What the processor returned, asked by `video_arguments`.
    """
    told = iter(made.get("video_metadata") or ())
    return tuple(tuple(_shown(video, next(told, None)) for video in row) for row in videos)


def _shown(video: Video, metadata: Any) -> ShownVideo:
    """All frames of a video that was not sampled: some processors write repeats of the last into their own count."""
    chosen = getattr(metadata, "frames_indices", None) if video.sample else range(len(video))
    if chosen is None:
        raise InputError("the processor does not say which frames of a video it chose: give Video(sample=False)")
    return ShownVideo(*video.size, tuple(int(frame) for frame in chosen))


def refusal(error: Exception, videos: Sequence[Sequence[Video]]) -> InputError:
    """What to say when a processor cannot take a batch."""
    listed = [video for row in videos for video in row]
    what = "images, videos or texts" if listed else "images or texts"
    hint = ""
    if any(video.sample for video in listed):
        hint = ": to be sampled, videos need their fps, and processor.video_processor an fps or num_frames of its own"
    elif min(map(len, listed), default=2) < 2:
        hint = ": some take no video of a single frame; give it as an image, or give more frames"
    elif len({len(video) for video in listed}) > 1:
        hint = ": some take videos of one number of frames only; ask about those of another separately"
    return InputError(f"the processor refuses these {what} ({first_line(error)}){hint}")
