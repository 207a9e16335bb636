"""The tokens of one image, or one video, in a prompt: their places, their cells and the lattice that these form.

What the model dropped of them stays known: a span tells which of the written tokens are left. Knows no model, family or
attention, and imports no torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from probes.families.geometry import Box, Tile
from probes.inputs import InputError


@dataclass(frozen=True)
class Cell:
    """One image token and the pixels that it covers."""

    token: int
    """Place among the image's own tokens, from 0: `span.places[token]` is its place in the prompt, and a map over
    the image's tokens has its value at `token`."""
    box: Box
    """In pixels of the original image, cut at the image's edge: its area is 0 where the token saw only padding."""
    tile: int
    """Index into the span's tiles."""
    row: int
    column: int
    thumbnail: bool
    frame: int
    """First frame of a video that the token shows; 0 in still images."""
    kept: bool = True
    """Whether the model kept the token; it has no place in the prompt, and no attention, where it was dropped."""
    frames: int = 1
    """How many frames of a video the token shows, from `frame`."""


@dataclass(frozen=True, repr=False)
class ImageSpan:
    """The tokens of one image in one prompt. Unpacks as `start, stop`.

    Args:
        image: Index of the image in its prompt, from 0.
        start: First image token.
        stop: One past the last image token; text may lie between (separators, row marks).
        runs: Half-open ranges that hold image tokens only, in order.
        tiles: What the vision tower saw, in the order of the tokens.
        size: (width, height) of the original image in pixels; None if not known.
        kept: Of each token that the tiles made, whether the model kept it; None where it kept them all. Tokens that it
            dropped are in no run.

    >>> start, stop = ImageSpan(0, 3, 9, runs=((3, 5), (7, 9)))
    >>> start, stop, ImageSpan(0, 3, 9, runs=((3, 5), (7, 9))).tokens
    (3, 9, array([3, 4, 7, 8]))
    """

    image: int
    start: int
    stop: int
    runs: tuple[tuple[int, int], ...]
    tiles: tuple[Tile, ...] = ()
    size: tuple[int, int] | None = None
    kept: tuple[bool, ...] | None = None

    def __repr__(self) -> str:
        kept = "" if self.kept is None else f", {sum(self.kept)} of {len(self.kept)} tokens kept"
        size = "" if self.size is None else f", {self.size[0]} x {self.size[1]} pixels"
        return (
            f"{type(self).__name__}({self.image}, columns {self.start} to {self.stop - 1}, runs: {len(self.runs)}, "
            f"tiles: {len(self.tiles)}{size}{kept})"
        )

    def __iter__(self) -> Iterator[int]:
        return iter((self.start, self.stop))

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Places in the prompt (tokens,) of the image's tokens, without those that were dropped."""
        return np.concatenate([np.arange(start, stop, dtype=np.int64) for start, stop in self.runs])

    @property
    def retention(self) -> NDArray[np.bool_]:
        """(tokens,), dropped ones included: which of them the model kept."""
        return np.ones(len(self.tokens), dtype=bool) if self.kept is None else np.array(self.kept, dtype=bool)

    @property
    def places(self) -> NDArray[np.int64]:
        """Places in the prompt (tokens,), dropped ones included, whose place is -1."""
        places = np.full(len(self.retention), -1, dtype=np.int64)
        places[self.retention] = self.tokens
        return places

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Put values of the kept tokens, (..., tokens), where they belong among all: NaN where one was dropped.

        >>> ImageSpan(0, 5, 7, ((5, 7),), kept=(True, False, True)).spread(np.array([1.0, 2.0]))
        array([ 1., nan,  2.])
        """
        if self.kept is None:
            return values
        spread = np.full((*values.shape[:-1], len(self.kept)), np.nan, dtype=values.dtype)
        spread[..., self.retention] = values
        return spread

    def thinned(self, columns: NDArray[np.bool_]) -> Self:
        """The span in a prompt of which only some columns are left.

        Args:
            columns: (prompt tokens,) which of them are left.

        Raises:
            InputError: If nothing of the image would be left, or the span lost tokens before.

        >>> thin = ImageSpan(0, 1, 4, ((1, 4),)).thinned(np.array([False, True, False, True, True]))
        >>> thin, thin.runs, thin.kept
        (ImageSpan(0, columns 0 to 1, runs: 1, tiles: 0, 2 of 3 tokens kept), ((0, 2),), (True, False, True))
        """
        left = columns[self.tokens]
        if self.kept is not None or not left.any():
            raise InputError(
                f"image {self.image}: {'it lost tokens before' if left.any() else 'none of its tokens is left'}: give "
                "the span that was found, and keep a token of each image at least"
            )
        runs = runs_of_places((np.cumsum(columns) - 1)[self.tokens[left]].tolist())
        kept = None if left.all() else tuple(left.tolist())
        return replace(self, start=runs[0][0], stop=runs[-1][1], runs=runs, kept=kept)

    @property
    def mixed(self) -> bool:
        """Whether a resampler made each token from the whole picture, so that there are no cells and no map."""
        return any(tile.resampled for tile in self.tiles)

    def cells(self) -> list[Cell]:
        """The tokens that cover pixels, dropped ones too, in order. Tokens without pixels (a class token) have none.

        Raises:
            InputError: If the tokens have no places (`mixed`), or the image's size or the processor was not given when
                the span was found.
        """
        self._refuse_mixed()
        if self.size is None or not self.tiles or not all(tile.box.known for tile in self.tiles):
            raise InputError(
                f"image {self.image}: the pixels of its tokens are not known: give image_sizes and processor "
                "where spans are found"
            )
        cells, first, kept = [], 0, self.retention
        for index, tile in enumerate(self.tiles):
            for row in range(tile.rows):
                for column in range(tile.columns):
                    box = tile.box.cell(row, column, tile.rows, tile.columns).clip(*self.size)
                    token = first + tile.offset(row, column)
                    place = (token, box, index, row, column, tile.thumbnail, tile.frame)
                    cells.append(Cell(*place, kept=bool(kept[token]), frames=tile.frames))
            first += tile.tokens
        return cells

    def grid(self, values: NDArray[Any], thumbnail: bool = False, frame: int = 0) -> NDArray[Any]:
        """Lay values per token out as the image lies.

        Args:
            values: (tokens,) or (..., tokens), one per image token, dropped ones included.
            thumbnail: Take the coarse view of the whole image instead of the tiles.
            frame: Which frame of a video, of those that the processor kept.

        Returns:
            (..., rows, columns): the tiles side by side, or the one tile there is.

        Raises:
            InputError: If the tokens have no places (`mixed`), there is no such tile, the number of values differs from
                that of tokens, or the tiles do not form a lattice.

        >>> span = ImageSpan(0, 0, 4, ((0, 4),), (Tile(2, 2, Box(0, 0, 8, 8)),), (8, 8))
        >>> span.grid(np.arange(4))
        array([[0, 1], [2, 3]])
        """
        self._refuse_mixed()
        expected = sum(tile.tokens for tile in self.tiles)
        if values.shape[-1] != expected:
            raise InputError(f"image {self.image}: {values.shape[-1]} values for {expected} tokens; give one per token")
        placed = []
        first = 0
        for tile in self.tiles:
            if tile.thumbnail == thumbnail and tile.frame <= frame < tile.frame + tile.frames:
                index = first + np.array([[tile.offset(r, c) for c in range(tile.columns)] for r in range(tile.rows)])
                placed.append((tile.box, values[..., index]))
            first += tile.tokens
        return _lattice(placed, f"image {self.image}")

    def _refuse_mixed(self) -> None:
        if self.mixed:
            raise InputError(
                f"image {self.image}: a resampler makes each of its tokens from the whole picture, so that there are "
                "no cells and no map: read factors, or scores per token"
            )


def _lattice(placed: list[tuple[Box, NDArray[Any]]], name: str) -> NDArray[Any]:
    if len(placed) == 1:
        return placed[0][1]
    tops = sorted({box.top for box, _ in placed})
    lefts = sorted({box.left for box, _ in placed})
    if not placed or len(placed) != len(tops) * len(lefts):
        raise InputError(f"{name}: {len(placed)} such tiles do not form one grid; use cells()")
    ordered = sorted(placed, key=lambda item: (item[0].top, item[0].left))
    blocks = [values for _, values in ordered]
    bands = [np.concatenate(blocks[at : at + len(lefts)], axis=-1) for at in range(0, len(blocks), len(lefts))]
    return np.concatenate(bands, axis=-2)


def runs_of_places(places: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Half-open ranges of ascending places.

    >>> runs_of_places([3, 4, 7])
    ((3, 5), (7, 8))
    """
    runs = []
    for _, group in groupby(enumerate(places), key=lambda item: item[1] - item[0]):
        run = [place for _, place in group]
        runs.append((run[0], run[-1] + 1))
    return tuple(runs)
