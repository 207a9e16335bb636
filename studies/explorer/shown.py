"""What both views draw: images as pictures, factors, maps and focus as arrays, made once and then only redrawn.

Knows nothing of Gradio, of models or of run folders; the views fill these records in.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from probes.errors import counted

ROW_NAMES = {
    "paper": "Paper's rows",
    "predicting": "Predicting rows",
    "answer": "Answer rows",
    "anchor": "Last image",
    "scoring-a": "Scoring token of A",
    "scoring-b": "Scoring token of B",
}
"""Row sets in words. The paper's rows are the text after the last image and the generated tokens; a reward model reads
the score of an answer at its scoring token."""

_SIDE = 224


Edges = tuple[float, float, float, float]
"""Left, top, right and bottom of a box, in pixels of the original image."""


@dataclass(frozen=True)
class Picture:
    """One image, ready for the page.

    Attributes:
        address: The image as a `data:` address, so that the page asks no server for a file.
        size: Width and height on the page, in pixels.
        raster: Cell index of every pixel on the page (height, width); -1 where no cell lies.
        missing: Whether a plain stand-in is shown, because the image itself is not held.
    """

    address: str
    size: tuple[int, int]
    raster: NDArray[np.int32]
    missing: bool = False


@dataclass(frozen=True)
class Shown:
    """One question with its images and what was measured on them.

    Attributes:
        pictures: One per image.
        layers: True indices of the layers that have attention.
        factors: Row set to factors, shape (layers, images).
        maps: Row set to one array (layers, cells) per image; None where no map is held.
        focus: Row set to the focused image, 0-based; None where there is none.
        rule: How the focus was picked, in words.
        pairwise: Image to image, shape (layers, images + 1, images + 1); the last row and column are the text.
        target: The image that holds the answer, 0-based, where known.
        regions: Where in the target the answer lies: left, top, right and bottom as shares of width and height.
        averaged: Whether factors and maps have one row more, behind the layers: the mean over them.
    """

    pictures: tuple[Picture, ...]
    layers: tuple[int, ...]
    factors: Mapping[str, NDArray[np.floating[Any]]]
    maps: Mapping[str, tuple[NDArray[np.floating[Any]] | None, ...]] = field(default_factory=dict)
    focus: Mapping[str, int | None] = field(default_factory=dict)
    rule: str = ""
    pairwise: NDArray[np.floating[Any]] | None = None
    target: int | None = None
    regions: tuple[Edges, ...] = ()
    averaged: bool = False

    @property
    def steps(self) -> tuple[str, ...]:
        """What the layer slider steps through, in words."""
        named = tuple(f"Layer {layer}" for layer in self.layers)
        return (*named, "Mean over layers") if self.averaged else named


def page_size(width: int, height: int, side: int = _SIDE) -> tuple[int, int]:
    """Scale so that the longer side is `side` pixels; small images grow, no side falls below one pixel.

    >>> page_size(64, 32)
    (224, 112)
    """
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def raster_cells(boxes: Sequence[Edges], original: tuple[int, int], size: tuple[int, int]) -> NDArray[np.int32]:
    """Paint each cell's index over its box. Later cells win where boxes overlap.

    Args:
        boxes: One box per cell, in pixels of the original image.
        original: Width and height of the original image.
        size: Width and height on the page.

    Returns:
        Cell indices, shape (height, width) of the page; -1 where no cell lies.
    """
    raster = np.full((size[1], size[0]), -1, dtype=np.int32)
    across, down = size[0] / original[0], size[1] / original[1]
    for index, (left, top, right, bottom) in enumerate(boxes):
        rows = slice(max(0, round(top * down)), max(0, round(bottom * down)))
        columns = slice(max(0, round(left * across)), max(0, round(right * across)))
        raster[rows, columns] = index
    return raster


def painting_order(thumbnail: Iterable[bool], kept: Iterable[bool]) -> list[int]:
    """Cells worth painting: those kept; thumbnails only where there are no finer tiles.

    >>> painting_order([True, False, False], [True, True, False])
    [1]
    >>> painting_order([True, True], [True, True])
    [0, 1]
    """
    flags = list(zip(thumbnail, kept, strict=True))
    fine = [index for index, (small, keep) in enumerate(flags) if keep and not small]
    return fine or [index for index, (_, keep) in enumerate(flags) if keep]


def picture(
    image: Image.Image,
    boxes: Sequence[Edges] = (),
    order: Sequence[int] | None = None,
    original: tuple[int, int] | None = None,
) -> Picture:
    """Make an image ready for the page.

    Args:
        image: The original, or a smaller copy of it.
        boxes: One box per cell, in pixels of the original.
        order: Indices of the cells to paint; all where None.
        original: Width and height of the original, where `image` is a copy of another size.
    """
    size = page_size(*image.size)
    chosen = list(range(len(boxes))) if order is None else list(order)
    local = raster_cells([boxes[index] for index in chosen], original or image.size, size)
    lookup = np.asarray([*chosen, -1], dtype=np.int32)
    grown = size[0] > image.width
    resized = image.convert("RGB").resize(size, Image.Resampling.BICUBIC if grown else Image.Resampling.LANCZOS)
    return Picture(data_address(resized, "WEBP"), size, lookup[local])


def data_address(image: Image.Image, form: str = "PNG") -> str:
    """Encode an image as a `data:` address. PNG is written fast rather than small."""
    buffer = io.BytesIO()
    image.save(buffer, form, **({"compress_level": 1} if form == "PNG" else {"quality": 88}))
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def in_nats(log_probability: float, tokens: int) -> str:
    """An answer's log-probability in words.

    >>> in_nats(-0.0004, 1)
    '0.000 over 1 token'
    """
    return f"{log_probability:z.3f} over {counted(tokens, 'token')}"
