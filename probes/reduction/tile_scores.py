"""Attention to an image by its tiles, and to images that have unlike numbers of tiles.

A sum over an image's tokens grows with its tiles, whatever the model looks at; their mean does not. A thumbnail shows
the whole image a second time: it is a tile of its own, that can be left out. Numbers only, no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.errors import InputError
from probes.image_span import ImageSpan

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TileAttention:
    """Attention to each tile of one image.

    Attributes:
        thumbnail: (tiles,) whether a tile is the coarse view of the whole image.
        tokens: (tiles,) how many tokens each has.
        sums: (..., tiles) attention summed over its tokens; all tiles together are the image's.
    """

    thumbnail: npt.NDArray[np.bool_]
    tokens: npt.NDArray[np.int64]
    sums: FloatArray

    @property
    def factors(self) -> FloatArray:
        """(..., tiles) mean over each tile's tokens."""
        return np.asarray(self.sums / self.tokens)

    def image(self, per_token: bool = True, thumbnail: bool = True) -> FloatArray:
        """Attention to the whole image, (...).

        Args:
            per_token: The mean over its tokens, its attention factor; False is the sum, which grows with its tiles.
            thumbnail: Count the thumbnail among its tiles; an image that has no other is never without.
        """
        taken = np.ones(len(self.tokens), dtype=bool) if thumbnail or self.thumbnail.all() else ~self.thumbnail
        total = self.sums[..., taken].sum(axis=-1)
        return np.asarray(total / self.tokens[taken].sum() if per_token else total)


def tile_attention(scores: npt.NDArray[Any], span: ImageSpan) -> TileAttention:
    """Sum attention per token of an image over the tokens of each of its tiles.

    Args:
        scores: (..., tokens), one number for each of the image's tokens, as in `Trace.scores`.
        span: The image's, of `find_image_spans`.

    Raises:
        InputError: If the span has no tiles, or another number of tokens, or lost some.

    >>> from probes.families.geometry import Box, Tile
    >>> tiles = tuple(Tile.cut(1, Box(0, 0, 16, 8), 1, 2))
    >>> found = tile_attention(np.array([0.25, 0.5, 0.75]), ImageSpan(0, 5, 8, ((5, 8),), tiles))
    >>> found.thumbnail.tolist(), found.sums.tolist(), float(found.image()), float(found.image(False, False))
    ([False, False, True], [0.25, 0.5, 0.75], 0.5, 0.75)
    """
    counts = [tile.tokens for tile in span.tiles]
    if span.kept is not None:
        raise InputError(f"image {span.image} lost tokens and its tiles differ by them: read probes.frame_attention")
    if not counts or scores.shape[-1] != sum(counts):
        raise InputError(
            f"image {span.image}: {scores.shape[-1]} values for {sum(counts)} tokens of tiles; give one per token, and "
            "a span of find_image_spans"
        )
    parts = np.split(np.asarray(scores, dtype=np.float64), np.cumsum(counts)[:-1], axis=-1)
    return TileAttention(
        np.array([tile.thumbnail for tile in span.tiles], dtype=bool),
        np.array(counts, dtype=np.int64),
        np.stack([part.sum(axis=-1) for part in parts], axis=-1),
    )


def image_shares(images: Sequence[TileAttention], per_token: bool = True, thumbnail: bool = True) -> FloatArray:
    """How attention to images is shared among them, (..., images); the shares of all images sum to 1.

    Where no image gets any, as in a layer whose window reaches none, there is nothing to share: NaN.

    Per token a share does not depend on how many tiles an image was cut into, as long as they are attended to alike:
    exactly so in one head and row, since softmax weighs every token against every other. Without, it favours large
    images.

    Args:
        images: Of one question.
        per_token: As `TileAttention.image`.
        thumbnail: As `TileAttention.image`.

    Raises:
        InputError: If there are no images.
    """
    if not images:
        raise InputError("no images are given: nothing is shared")
    values = np.stack([image.image(per_token, thumbnail) for image in images], axis=-1)
    total = values.sum(axis=-1, keepdims=True)
    shares = np.full(values.shape, np.nan)
    np.divide(values, total, out=shares, where=total != 0)
    return shares
