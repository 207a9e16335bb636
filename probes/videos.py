"""Which prompt tokens belong to which video, and which pixels of which frames each of them covers.

What a model family does with a video is in `probes.families`; the tokens are found as those of images are. This file
knows nothing of attention, and imports no torch. `probes.frames` sums what tokens received over the frames they show.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from probes.families import VIDEOS, family_of
from probes.families.geometry import Tile
from probes.families.view import ImageView, VideoFamily
from probes.inputs import InputError
from probes.spans import ImageSpan, Sizes, find_image_spans, find_spans

VideoSizes = Sequence[Sequence[tuple[int, int, int]]]
"""(frames, width, height) per batch row, per video; frames are those that the processor kept."""


class VideoSpan(ImageSpan):
    """The tokens of one video in one prompt: an ImageSpan whose tiles show frames, and whose `image` is the index of
    the video among those of its prompt.
    """


def find_video_spans(
    inputs: Mapping[str, Any],
    config: Any,
    processor: Any = None,
    video_sizes: VideoSizes | None = None,
    videos_per_row: Sequence[int] | None = None,
) -> list[list[VideoSpan]]:
    """Find the tokens of each video in each prompt of a batch; those of images are `find_image_spans`'s.

    A cell's `frame` and `frames` say which frames its token shows: families that merge frames in time give one token to
    several. Frames count from 0 among those that the processor kept.

    Args:
        inputs: What the processor returned: `input_ids` (batch, tokens), pixel values and grids.
        config: The model's configuration.
        processor: The processor that made the inputs.
        video_sizes: (frames, width, height) of each video, as a list per batch row.
        videos_per_row: Number of videos of each row, where the sizes are not given.

    Returns:
        Per batch row, per video, its span. A row without videos has an empty list.

    Raises:
        InputError: If videos of this model type are not known, tokens are missing (as after truncation) or left over,
            or videos, sizes, placeholders and pixels do not fit each other.
    """
    kind = str(getattr(config, "model_type", ""))
    module: Any = family_of(kind)
    if kind not in VIDEOS:
        raise InputError(
            f"no video spans are known for model type {kind!r}: pass spans by hand to "
            "attention_factors(image_spans=...)"
        )
    if _shares_token(module, config, processor) and inputs.get("pixel_values") is not None:
        raise InputError(
            f"{kind} marks images and videos by one token, and the inputs hold both: give a prompt with videos "
            "only, or spans by hand to attention_factors(image_spans=...)"
        )
    sizes = None if video_sizes is None else [[_checked(size) for size in row] for row in video_sizes]
    frames = iter([size[0] for row in sizes or [] for size in row])
    flat = None if sizes is None else [[size[1:] for size in row] for row in sizes]
    seam = _Videos(cast(VideoFamily, module), frames)
    found = find_spans(seam, inputs, config, processor, flat, videos_per_row)
    return [[VideoSpan(**vars(span)) for span in row] for row in found]


def find_all_spans(
    inputs: Mapping[str, Any], config: Any, processor: Any, image_sizes: Sizes, video_sizes: VideoSizes
) -> list[list[ImageSpan]]:
    """Find the tokens of each image and each video of each prompt: per batch row its images, then its videos.

    Raises:
        InputError: As `find_image_spans` and `find_video_spans`.
    """
    videos: list[list[VideoSpan]] = [[] for _ in video_sizes]
    if any(video_sizes):
        videos = find_video_spans(inputs, config, processor, video_sizes)
        # The videos' tokens would be taken for those of images that are not given.
        if _shares_token(family_of(str(config.model_type)), config, processor):
            return [list(row) for row in videos]
    counts = [len(row) for row in image_sizes]
    images = find_image_spans(inputs, config, processor, image_sizes=image_sizes, images_per_row=counts)
    return [[*row, *moving] for row, moving in zip(images, videos, strict=True)]


def _shares_token(module: Any, config: Any, processor: Any) -> bool:
    """Whether a family marks images and videos by one token."""
    return bool(module.video_token_ids(config, processor) == module.image_token_ids(config, processor))


@dataclass
class _Videos:
    """Shows a family's videos as images to `find_spans`, which asks for each once, in order."""

    family: VideoFamily
    frames: Iterator[int]

    def image_token_ids(self, config: Any, processor: Any) -> Sequence[int]:
        return self.family.video_token_ids(config, processor)

    def tiles(self, image: ImageView) -> list[Tile]:
        name = image.name.replace("image", "video")
        return self.family.video_tiles(replace(image, name=name, frames=next(self.frames, None)))

    def pixel_tiles(self, inputs: Mapping[str, Any]) -> int | None:
        return self.family.video_pixel_tiles(inputs)


def _checked(size: Any) -> tuple[int, int, int]:
    if not (isinstance(size, Sequence) and len(size) == 3 and all(isinstance(side, int) and side > 0 for side in size)):
        raise InputError(f"{size!r} is no size: give video_sizes=[[(frames, width, height), …], …], a list per prompt")
    frames, width, height = size
    return frames, width, height
