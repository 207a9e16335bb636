"""Boxes, tiles, and how a processed image's pixels map back to the original's. Knows no model family and no torch."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from probes.inputs import InputError


class Box(NamedTuple):
    """A rectangle in pixels of the original image; edges are floats, right and bottom excluded."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def unknown(cls) -> "Box":
        """The box of a tile whose place in the image cannot be told from what was given."""
        return cls(math.nan, math.nan, math.nan, math.nan)

    @property
    def known(self) -> bool:
        """Whether the edges are numbers."""
        return not any(math.isnan(edge) for edge in self)

    @property
    def area(self) -> float:
        """Square pixels; 0 for a box that lies wholly in padding.

        >>> Box(0, 0, 4, 3).area
        12
        """
        return (self.right - self.left) * (self.bottom - self.top)

    def clip(self, width: float, height: float) -> "Box":
        """Cut off what lies outside a width x height image.

        >>> Box(-2, 1, 5, 9).clip(4, 6)
        Box(left=0, top=1, right=4, bottom=6)
        """
        return Box(
            min(max(self.left, 0), width),
            min(max(self.top, 0), height),
            min(max(self.right, 0), width),
            min(max(self.bottom, 0), height),
        )

    def cell(self, row: int, column: int, rows: int, columns: int) -> "Box":
        """One cell of an even rows x columns grid over this box; neighbours share their edges exactly.

        >>> Box(0, 0, 6, 4).cell(1, 2, rows=2, columns=3)
        Box(left=4.0, top=2.0, right=6, bottom=4)
        """
        return Box(
            _edge(self.left, self.right, column, columns),
            _edge(self.top, self.bottom, row, rows),
            _edge(self.left, self.right, column + 1, columns),
            _edge(self.top, self.bottom, row + 1, rows),
        )

    def cells(self, rows: int, columns: int) -> list["Box"]:
        """Every cell of an even rows x columns grid over this box, row by row."""
        return [self.cell(row, column, rows, columns) for row in range(rows) for column in range(columns)]


def _edge(low: float, high: float, index: int, count: int) -> float:
    return high if index == count else low + (high - low) * index / count


class Tile(NamedTuple):
    """One picture that the vision tower saw, and how its tokens follow each other in the prompt.

    The tokens come in this order: `before` tokens that show no pixels, then each row's `columns` cells from left to
    right followed by `row_end` tokens that show no pixels, then `after` such tokens.
    """

    rows: int
    columns: int
    box: Box
    """Region of the original image that the grid covers; it reaches outside the image where the processor padded."""
    thumbnail: bool = False
    """Whether this is a coarse view of the whole image beside finer tiles."""
    frame: int = 0
    """First frame of a video that the grid shows, 0 for still images."""
    before: int = 0
    """Image tokens before the grid, as a class token."""
    row_end: int = 0
    """Image tokens after each row, as a newline."""
    after: int = 0
    """Image tokens after the grid."""
    frames: int = 1
    """Number of a video's frames that the grid shows together, from `frame`."""
    resampled: bool = False
    """Whether each token was made from the whole picture: then there is no grid."""

    @classmethod
    def mixed(cls, tokens: int, box: Box, thumbnail: bool = False) -> "Tile":
        """A picture whose tokens were each made from all of it, by a resampler: none of them has a place in it."""
        return cls(0, 0, box, thumbnail, before=tokens, resampled=True)

    @classmethod
    def cut(cls, cells: int, box: Box, rows: int, columns: int) -> "list[Tile]":
        """Square tiles of `cells` a side, row by row over a box, and a thumbnail last; one tile where it is not cut.

        >>> [tile.thumbnail for tile in Tile.cut(4, Box(0, 0, 6, 4), 1, 2)]
        [False, False, True]
        """
        grid = [cls(cells, cells, part) for part in box.cells(rows, columns)]
        return grid if len(grid) == 1 else [*grid, cls(cells, cells, box, thumbnail=True)]

    @property
    def tokens(self) -> int:
        """Number of image tokens, those without pixels included.

        >>> Tile(2, 3, Box(0, 0, 9, 9), row_end=1).tokens
        8
        """
        return self.before + self.rows * (self.columns + self.row_end) + self.after

    def offset(self, row: int, column: int) -> int:
        """Place of a cell among the tile's tokens."""
        return self.before + row * (self.columns + self.row_end) + column


class Canvas(NamedTuple):
    """A processed picture and its affine way back: its pixel (x, y) shows (left + x * x_scale, top + y * y_scale)."""

    width: float
    height: float
    left: float = 0.0
    top: float = 0.0
    x_scale: float = 1.0
    y_scale: float = 1.0

    def pad_to_square(self) -> "Canvas":
        """Pad evenly to the longer side; an odd pixel goes right or below."""
        side = max(self.width, self.height)
        return self.crop(side, side)

    def resize(self, width: float, height: float) -> "Canvas":
        """Stretch to width x height."""
        return self._replace(
            width=width,
            height=height,
            x_scale=self.x_scale * self.width / width,
            y_scale=self.y_scale * self.height / height,
        )

    def fit(self, width: int, height: int) -> "Canvas":
        """Shrink or enlarge into width x height at the same shape, the shorter side rounded down to no less than 1."""
        across, down = width / self.width, height / self.height
        if across < down:
            return self.resize(width, max(min(int(self.height * across), height), 1))
        return self.resize(max(min(int(self.width * down), width), 1), height)

    def crop(self, width: float, height: float, pad_first: bool = False) -> "Canvas":
        """Take the middle; where the picture is smaller, pad (`pad_first`: the odd pixel goes left or above)."""
        return self._replace(
            width=width,
            height=height,
            left=self.left + _margin(self.width - width, pad_first) * self.x_scale,
            top=self.top + _margin(self.height - height, pad_first) * self.y_scale,
        )

    def moved(self, right: float, down: float) -> "Canvas":
        """Begin so many pixels further right and down, or before the picture where they are negative."""
        return self._replace(left=self.left + right * self.x_scale, top=self.top + down * self.y_scale)

    def region(self, width: float, height: float) -> Box:
        """Original box of the upper left width x height pixels of this picture."""
        return Box(self.left, self.top, self.left + width * self.x_scale, self.top + height * self.y_scale)


def _margin(spare: float, pad_first: bool) -> int:
    """Pixels cut off before a centre crop; negative where pixels are added."""
    if spare >= 0:
        return int(spare / 2)
    return -(math.ceil(-spare / 2) if pad_first else math.floor(-spare / 2))


def resized(width: int, height: int, size: Mapping[str, int]) -> tuple[int, int]:
    """(width, height) after a processor's resize to `size`, with transformers' rounding.

    Args:
        width: Pixels before.
        height: Pixels before.
        size: Either `height` and `width`, or `shortest_edge` alone.

    Raises:
        InputError: If `size` names anything else.

    >>> resized(100, 50, {"shortest_edge": 20})
    (40, 20)
    """
    match dict(size):
        case {"height": new_height, "width": new_width}:
            return new_width, new_height
        case {"shortest_edge": edge, **others} if not others:
            if width <= height:
                return edge, int(edge * height / width)
            return int(edge * width / height), edge
    raise InputError(
        f"resizing to {dict(size)} is not understood: pass spans by hand to attention_factors(image_spans=...)"
    )


class Convolution(NamedTuple):
    """Side of a square window, its step, and the padding before it."""

    window: int
    stride: int
    padding: int


def under_windows(whole: Box, pixels: int, convolutions: Sequence[Convolution]) -> tuple[int, Box]:
    """Cells a side that convolutions over a square picture leave, and the box whose even cells lie under the windows.

    Windows overlap, and their middles lie up and to the left of where an even grid over the picture would have them:
    so cells reach beyond its upper left edge, and leave a strip at the others to no cell.

    >>> under_windows(Box(0, 0, 8, 8), 8, [Convolution(3, 2, 1)])
    (4, Box(left=-0.5, top=-0.5, right=7.5, bottom=7.5))
    """
    cells, middle, step = pixels, 0.5, 1
    for window, stride, padding in convolutions:
        cells = (cells + 2 * padding - window) // stride + 1
        middle += step * ((window - 1) / 2 - padding)
        step *= stride
    low, high = middle - step / 2, middle + step * (cells - 0.5)
    across, down = ((stop - start) / pixels for start, stop in ((whole.left, whole.right), (whole.top, whole.bottom)))
    return cells, Box(
        whole.left + low * across, whole.top + low * down, whole.left + high * across, whole.top + high * down
    )
