"""What a model did with the images of one question: attention factors, maps and the answer, as plain arrays.

Videos stand behind images wherever a trace counts images: `image` is an index into both, and `image_columns` and
`video_columns` tell them apart. A trace is a record: it holds no model and no tensor, and everything here is arithmetic
on arrays and boxes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from probes.clips import ShownVideo
from probes.errors import counted
from probes.inputs import InputError

if TYPE_CHECKING:
    from probes.frames import FrameAttention
    from probes.mixers.trace import MixerTrace
    from probes.spans import Cell, ImageSpan

FloatArray = npt.NDArray[np.float32]


class Visible(NamedTuple):
    """The cells of one image that show pixels, with their attention in the same order."""

    boxes: npt.NDArray[np.float64]
    """(cells, 4) left, top, right, bottom in pixels of the image; every box has an area."""
    scores: FloatArray
    """(cells,), or (layers, cells) for all layers."""


@dataclass(frozen=True, repr=False, eq=False)
class Trace:
    """One question, its answer, and how strongly the answer's rows attended to each image and video.

    Attributes:
        answer: The text that was generated, or given.
        answer_ids: Its tokens, without the end of sequence. Give them back as `answer` to score the very same tokens.
        layers: Decoder layers whose attention reaches images, true indices; the layer axis of all arrays.
        rows: Name of the query rows behind `factors`.
        factors_by_rows: Per row set, attention factors (layers, images): the mean over heads, rows and the image's
            tokens of the attention probability [with `per_head`: (layers, heads, images), not averaged over heads].
            Tokens that the model dropped count for nothing.
            NaN where a row set is empty, and for the anchor image itself under "anchor". A video's column, behind those
            of images, is the mean over all of its tokens.
        maps_by_rows: Per row set and image, (layers, image tokens): the mean over heads and rows, per image token; NaN
            where the model dropped a token of a video (`ImageSpan.retention`). Empty without maps.
        log_probability: Natural logarithm of the answer's probability given the prompt, summed over its tokens. The
            end of sequence is not counted, so that a cut answer and a finished one compare; NaN for an empty answer.
        prompt_tokens: Length of the prompt, images included.
        answer_tokens: Length of the answer.
        spans: Token range of each image, then of each video (a `probes.videos.VideoSpan`); columns of the model's
            input, left padding included. Of a model whose images are on a vision axis, columns of that.
        image_sizes: (width, height) of each image in pixels.
        pairwise: (layers, images + 1, images + 1) attention from image j to image k; the last index is text. None
            unless asked for.
        videos: What the model was shown of each video: its size, and which of the given frames.
        mixers: Hidden attention of layers without softmax, from the same pass; None unless asked for.
    """

    answer: str
    answer_ids: tuple[int, ...]
    layers: list[int]
    rows: str
    factors_by_rows: Mapping[str, FloatArray]
    maps_by_rows: Mapping[str, tuple[FloatArray, ...]]
    log_probability: float
    prompt_tokens: int
    answer_tokens: int
    spans: tuple["ImageSpan", ...]
    image_sizes: tuple[tuple[int, int], ...]
    pairwise: FloatArray | None = None
    videos: tuple[ShownVideo, ...] = ()
    mixers: "MixerTrace | None" = None

    @property
    def image_columns(self) -> range:
        """Which columns of `factors` and which `spans` are images."""
        return range(len(self.spans) - len(self.videos))

    @property
    def video_columns(self) -> range:
        """Which columns of `factors` and which `spans` are videos."""
        return range(len(self.spans) - len(self.videos), len(self.spans))

    @property
    def factors(self) -> FloatArray:
        """Attention factors of the chosen rows, (layers, images) [with `per_head`: (layers, heads, images)]."""
        return self.factors_by_rows[self.rows]

    def __repr__(self) -> str:
        videos = f", {counted(len(self.videos), 'video')}" if self.videos else ""
        return (
            f"Trace({counted(len(self.image_columns), 'image')}{videos}, answer={self.answer!r}, "
            f"{counted(len(self.layers), 'layer')}, "
            f"rows={self.rows!r}, log_probability={self.log_probability:.3f})"
        )

    def focus(self, rule: str = "M-LND", last: int = 4) -> int:
        """Return the 0-based index of the image that the rule picks from the last layers; see `probes.focus`.

        Raises:
            ValueError: If the rule is unknown or `last` is below 1.
        """
        from probes.scores import focus

        factors = self.factors if self.factors.ndim == 2 else self.factors.mean(axis=1)
        return focus(factors, rule, last)

    def frames(self, video: int = 0, layer: int | None = None, rows: str | None = None) -> "FrameAttention":
        """Return a video's attention by frame; frames that share their tokens are one group.

        Args:
            video: 0-based, among the videos.
            layer: As in `map`; None gives all layers.
            rows: Row set; None takes the trace's own.

        Returns:
            Per group its frames, number of tokens, and attention (groups,), or (layers, groups) for all layers: summed
            over its tokens, and as factors, the mean over heads, rows and its tokens.

        Raises:
            InputError: If there is no such video, layer or row set, or the trace was made without maps.
        """
        from probes.frames import frame_attention

        if not -len(self.videos) <= video < len(self.videos):
            raise InputError(
                f"no video {video}: this trace has {len(self.videos)}, counted from 0; frames are of videos, and "
                "images stand in factors and map"
            )
        column = self.video_columns[video]
        return frame_attention(
            self._all_scores(column, rows) if layer is None else self.scores(column, layer, rows), self.spans[column]
        )

    def cells(self, image: int = 0) -> list["Cell"]:
        """Return the place of each token of an image in its grids: the primary form for tiles and frames.

        `scores(image)[cell.token]` is the attention to a cell: an image may have tokens that are no cell (a class
        token), and cells that saw nothing but padding, whose box has no area. `visible` leaves both out.

        Raises:
            InputError: If there is no such image.
        """
        return self.spans[self._image(image)].cells()

    def scores(self, image: int = 0, layer: int = -1, rows: str | None = None) -> FloatArray:
        """Return the attention to each token of an image, (image tokens,); NaN for tokens that the model dropped.

        Raises:
            InputError: If there is no such image, layer or row set, or the trace was made without maps.
        """
        name = rows or self.rows
        if not self.maps_by_rows:
            raise InputError("this trace holds no maps: trace with maps=True")
        if name not in self.maps_by_rows:
            raise InputError(f"no maps for rows {name!r}: this trace has {', '.join(self.maps_by_rows)}")
        scores: FloatArray = self.maps_by_rows[name][self._image(image)][self._layer(layer)]
        return scores

    def visible(
        self, image: int = 0, layer: int | None = -1, rows: str | None = None, thumbnails: bool = False
    ) -> Visible:
        """Return boxes and attention of the cells that show pixels: what overlays and gold regions are compared with.

        Left out are tokens without a cell, cells that saw only padding, and tokens that the model pruned.

        Args:
            image: 0-based.
            layer: As in `map`; None gives all layers.
            rows: Row set; None takes the trace's own.
            thumbnails: Keep the coarse view of an image that also has tiles; its cells overlap theirs.

        Raises:
            InputError: As `scores`.
        """
        shown = [cell for cell in self.cells(image) if cell.kept and cell.box.area > 0]
        finest = [cell for cell in shown if thumbnails or not cell.thumbnail] or shown
        scores = self._all_scores(image, rows) if layer is None else self.scores(image, layer, rows)
        boxes = np.asarray([cell.box for cell in finest], dtype=np.float64).reshape(-1, 4)
        return Visible(boxes, scores[..., [cell.token for cell in finest]])

    def map(self, image: int = 0, layer: int = -1, rows: str | None = None, frame: int | None = None) -> FloatArray:
        """Return an image's attention in the image's own frame.

        Args:
            image: 0-based.
            layer: Negative numbers count from the end of `layers`; others are true layer indices.
            rows: Row set; None takes the trace's own.
            frame: Which frame of a video, of those that the model was shown; frames that share tokens share a map.

        Returns:
            (rows, cols), top left first. Tiles are stitched by their boxes and a thumbnail is left out. NaN where the
            model dropped the token; `retained` tells the same by itself.

        Raises:
            InputError: If there is no such image, frame or layer, the trace was made without maps, or the image's
                tokens form no single grid (several frames, tiles of unlike size): read `cells` and `scores` then.
        """
        return self._grid(image, self.scores(image, layer, rows), frame)

    def retained(self, image: int = 0, frame: int | None = None) -> npt.NDArray[np.bool_]:
        """Return which cells of a map have a token, (rows, cols); the model dropped those of the others.

        Args:
            image: 0-based.
            frame: As in `map`.

        Raises:
            InputError: If there is no such image or frame, or the image's tokens form no single grid.
        """
        return self._grid(image, self.spans[self._image(image)].retention, frame)

    def _grid(self, image: int, values: npt.NDArray[Any], frame: int | None) -> npt.NDArray[Any]:
        """Values per token of an image, or of one frame of a video, as these lie."""
        span = self.spans[self._image(image)]
        shown = {each for tile in span.tiles for each in range(tile.frame, tile.frame + tile.frames)}
        first = {tile.frame for tile in span.tiles if not tile.thumbnail}
        if frame is None and len(first) > 1:
            raise InputError(
                f"image {image} has {len(shown)} frames and no single map: give frame=0, or read trace.cells({image}) "
                f"and trace.scores({image})"
            )
        if frame is not None and frame not in shown:
            raise InputError(f"image {image} has no frame {frame}: the model was shown {len(shown)}, counted from 0")
        return span.grid(values, frame=frame or 0)

    def _all_scores(self, image: int, rows: str | None) -> FloatArray:
        """(layers, tokens)."""
        return np.stack([self.scores(image, each, rows) for each in self.layers])

    def _image(self, image: int) -> int:
        if -len(self.spans) <= image < len(self.spans):
            return image % len(self.spans)
        raise InputError(f"no image {image}: this trace has {len(self.spans)}, counted from 0")

    def _layer(self, layer: int) -> int:
        if layer in self.layers:
            return self.layers.index(layer)
        if isinstance(layer, int | np.integer) and -len(self.layers) <= layer < 0:
            return layer % len(self.layers)
        raise InputError(
            f"no attention in layer {layer!r}: this trace has layers {', '.join(map(str, self.layers))}; give one of "
            f"them, or -1 to -{len(self.layers)} from the end (layers without softmax: trace_mixers)"
        )
