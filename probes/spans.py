"""Which prompt tokens belong to which image, and which pixels of the original image each of them covers.

This file finds, divides and counts the tokens; what a model family does with an image is in `probes.families`.
It knows nothing of attention, imports no torch, and reads tensors through their shapes and `tolist`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import counted
from probes.families import family_of
from probes.families.geometry import Box as Box
from probes.families.geometry import Tile as Tile
from probes.families.view import Family, ImageView, Settings, shape_of
from probes.image_span import Cell as Cell
from probes.image_span import ImageSpan as ImageSpan
from probes.image_span import runs_of_places
from probes.inputs import InputError

Sizes = Sequence[Sequence[tuple[int, int]]]
"""(width, height) in pixels per batch row, per image."""


def find_image_spans(
    inputs: Mapping[str, Any],
    config: Any,
    processor: Any = None,
    image_sizes: Sizes | None = None,
    images_per_row: Sequence[int] | None = None,
    processor_kwargs: Mapping[str, Any] | None = None,
) -> list[list[ImageSpan]]:
    """Find the tokens of each image in each prompt of a batch.

    The geometry is that of transformers' processors and models (read in their source): each family's boxes are
    tested against its real processor and vision tower.

    Args:
        inputs: What the processor returned: `input_ids` (batch, tokens) and, where there are any, `attention_mask`,
            pixel values and grids.
        config: The model's configuration.
        processor: The processor that made the inputs; needed for pixel boxes in most families, and for splitting.
        image_sizes: (width, height) of each original image, as a list per batch row.
        images_per_row: Number of images of each row, where the sizes are not given.
        processor_kwargs: Arguments given to the processor in that call, if they changed how images are processed.

    Returns:
        Per batch row, per image, its span. A row without images has an empty list.

    Raises:
        InputError: If the model type is unknown, image tokens are missing (as after truncation) or left over, or
            images, sizes, placeholders and pixels do not fit each other.
    """
    family = family_of(str(getattr(config, "model_type", "")))
    return find_spans(family, inputs, config, processor, image_sizes, images_per_row, processor_kwargs)


def find_spans(
    family: Family,
    inputs: Mapping[str, Any],
    config: Any,
    processor: Any = None,
    image_sizes: Sizes | None = None,
    images_per_row: Sequence[int] | None = None,
    processor_kwargs: Mapping[str, Any] | None = None,
) -> list[list[ImageSpan]]:
    """As `find_image_spans`, for what `family` takes for its images."""
    rows = _token_rows(inputs["input_ids"])
    counts = _image_counts(len(rows), image_sizes, images_per_row)
    finder = _Finder(
        family=family,
        inputs=inputs,
        config=config,
        processor=processor,
        settings=Settings(processor, dict(processor_kwargs or {})),
        available=family.pixel_tiles(inputs),
    )
    marks = _marks(family, inputs, config, processor, rows)
    kept = _kept_ranges(inputs.get("attention_mask"), rows)
    found = []
    for row, marked in enumerate(marks):
        start, stop = kept[row]
        places = start + np.flatnonzero(marked[start:stop])
        found.append(finder.row(row, places, counts[row], image_sizes[row] if image_sizes is not None else None))
    finder.check_pixels()
    return found


@dataclass
class _Finder:
    """Walks the images of a batch in order, counting the tiles that they use up."""

    family: Family
    inputs: Mapping[str, Any]
    config: Any
    processor: Any
    settings: Settings
    available: int | None
    used: int = 0

    def row(
        self, row: int, places: NDArray[np.int64], count: int | None, sizes: Sequence[tuple[int, int]] | None
    ) -> list[ImageSpan]:
        """Divide one row's image tokens among its images: `count` of them, or as many as the tokens fill."""
        spans: list[ImageSpan] = []
        taken = 0
        while len(spans) < count if count is not None else taken < len(places):
            image = len(spans)
            name = f"row {row}, image {image}"
            if taken == len(places):
                raise InputError(_missing(row, taken, image, count or 0))
            size = None if sizes is None else _checked_size(sizes[image], name)
            tiles = self._tiles(name, size)
            need = sum(tile.tokens for tile in tiles)
            if taken + need > len(places):
                raise InputError(_cut(name, need, len(places) - taken))
            spans.append(_span(image, places[taken : taken + need], tiles, size))
            taken += need
        if taken < len(places):
            raise InputError(
                f"row {row}: {len(places)} image tokens, of which its {count} images account for {taken}: give one "
                "image per placeholder, and the sizes, processor and processor_kwargs that made the inputs"
            )
        return spans

    def _tiles(self, name: str, size: tuple[int, int] | None) -> list[Tile]:
        if self.available is not None and self.used >= self.available:
            raise InputError(
                f"{name}: the prompts place more images than the inputs hold pixels for ({self.available} tiles): "
                "give one image per placeholder"
            )
        view = ImageView(name, self.used, size, self.inputs, self.config, self.processor, self.settings)
        tiles = self.family.tiles(view)
        if sum(tile.tokens for tile in tiles) < 1:
            raise InputError(f"{name}: too small for a single image token; give a larger image")
        self.used += len(tiles)
        return tiles

    def check_pixels(self) -> None:
        """Raise if pixels are left that no prompt places."""
        if self.available is not None and self.used != self.available:
            raise InputError(
                f"the inputs hold pixels of {self.available} tiles, and the prompts place {self.used}: give one image "
                "per placeholder, do not truncate, and give the sizes, processor and processor_kwargs that made the "
                "inputs"
            )


def _missing(row: int, taken: int, found: int, count: int) -> str:
    if taken == 0:
        return (
            f"row {row}: {count} images are given, and the prompt holds no image tokens: put the images into the "
            "chat template's message, or <image> marks into the text"
        )
    return (
        f"row {row}: {count} images are given, and the prompt holds the tokens of {found}: give one image per "
        "placeholder, and do not truncate"
    )


def _cut(name: str, need: int, left: int) -> str:
    return (
        f"{name}: it needs {need} image tokens and {left} are left: the prompt was truncated, or was made with other "
        "sizes or processor settings: raise max_length, use fewer or smaller images, or pass what made the inputs, "
        "the processor of this very model"
    )


def _span(image: int, places: NDArray[np.int64], tiles: list[Tile], size: tuple[int, int] | None) -> ImageSpan:
    runs = runs_of_places(places.tolist())
    return ImageSpan(image, runs[0][0], runs[-1][1], runs, tuple(tiles), size)


def _to_list(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _token_rows(input_ids: Any) -> list[NDArray[np.int64]]:
    ids = [_to_list(row) for row in _to_list(input_ids)]
    if ids and not isinstance(ids[0], Sequence):
        raise InputError("input_ids must be (batch, tokens): put a single prompt into a batch of one")
    return [np.asarray(row, dtype=np.int64) for row in ids]


def _marks(
    family: Family, inputs: Mapping[str, Any], config: Any, processor: Any, rows: Sequence[NDArray[np.int64]]
) -> list[NDArray[np.bool_]]:
    """Per row, which tokens stand for image features: by their ids, or as the inputs say."""
    told = getattr(family, "image_marks", None)
    if told is not None:
        return [np.asarray(marks) == 1 for marks in _to_list(told(inputs))]
    wanted = list(family.image_token_ids(config, processor))
    return [np.isin(ids, wanted) for ids in rows]


def _kept_ranges(mask: Any, rows: list[NDArray[np.int64]]) -> list[tuple[int, int]]:
    """From the first to the last token that is no padding; some tokenizers pad with the image token."""
    shape = shape_of(mask)
    if mask is None or (shape is not None and len(shape) != 2) or len(mask) != len(rows):
        return [(0, len(row)) for row in rows]
    ranges = []
    for row, kept in zip(rows, _to_list(mask), strict=True):
        places = np.flatnonzero(np.asarray(kept)) if len(kept) == len(row) else np.arange(len(row))
        ranges.append((int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0))
    return ranges


def _image_counts(rows: int, sizes: Sizes | None, counts: Sequence[int] | None) -> list[int | None]:
    for name, given in (("image_sizes", sizes), ("images_per_row", counts)):
        if given is not None and len(given) != rows:
            raise InputError(
                f"{name} has {counted(len(given), 'entry')} for {counted(rows, 'prompt')}: give one per prompt"
            )
    if sizes is None:
        return [None] * rows if counts is None else [int(count) for count in counts]
    from_sizes: list[int | None] = [len(row) for row in sizes]
    if counts is not None and from_sizes != [int(count) for count in counts]:
        raise InputError(f"image_sizes count {from_sizes} images and images_per_row {list(counts)}: give one of them")
    return from_sizes


def _checked_size(size: Any, name: str) -> tuple[int, int]:
    values = tuple(_to_list(size)) if hasattr(size, "tolist") or isinstance(size, Sequence) else ()
    if len(values) != 2 or not all(isinstance(side, int) and math.isfinite(side) and side > 0 for side in values):
        raise InputError(f"{name}: {size!r} is no size: give image_sizes=[[(width, height), …], …], a list per prompt")
    return int(values[0]), int(values[1])
