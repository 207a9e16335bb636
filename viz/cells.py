"""Pictures with cells to lay over them: checked, parted into a tiling and the rest, and turned into tables.

Knows nothing of models or tokens, nor of a plotting library.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from viz.shapes import BoolArray, FigureError, FloatArray, check_image, numbers


@dataclass(frozen=True)
class Panel:
    """One picture with cells to lay over it."""

    image: npt.NDArray[np.uint8]
    """(height, width, 3)"""
    boxes: FloatArray
    """(cells, 4) left, top, right, bottom in pixels"""
    scores: FloatArray
    """(cells,)"""
    label: str
    index: int
    """0-based image."""
    missing: BoolArray
    """(cells,) which cells have no token; their scores are NaN."""

    def only(self, cells: BoolArray) -> "Panel":
        """The same picture under some of the cells."""
        return replace(self, boxes=self.boxes[cells], scores=self.scores[cells], missing=self.missing[cells])


def panels(
    images: object,
    boxes: object,
    scores: object,
    labels: Sequence[str],
    primary: object = None,
    kept: object = None,
) -> tuple[list[Panel], list[Panel]]:
    """Check pictures with their cells, and part cells that overlap others (a thumbnail's) from the primary tiling.

    Args:
        images: one (height, width, 3) picture, or a sequence of them; grey, alpha and floats in [0, 1] are taken too.
        boxes: (cells, 4) for one picture, or one such table for each.
        scores: (cells,) for one picture, or one such list for each; NaN cells are left bare.
        labels: one for each picture.
        primary: (cells,) booleans (or one such list for each picture) saying which cells form the primary tiling; None
            takes the smallest cells first, as long as they overlap no other.
        kept: (cells,) booleans (or one such list for each picture) saying which cells have a token; None: all.

    Returns:
        The panels of the primary tiling, and those of the rest for pictures that have any.

    Raises:
        FigureError: if lengths do not match, or a box has no area or misses the picture.
    """
    pictures, single = _pictures(images)
    tables = [boxes] if single else _listed(boxes, "boxes", len(pictures))
    lists = [scores] if single else _listed(scores, "scores", len(pictures))
    masks = _optional(primary, "primary", len(pictures), single)
    tokens = _optional(kept, "kept", len(pictures), single)
    if len(labels) != len(pictures):
        raise FigureError(f"labels must name each of the {len(pictures)} images, got {len(labels)}")
    first, rest = [], []
    for index, (picture, table, values, mask) in enumerate(zip(pictures, tables, lists, masks, strict=True)):
        cells, marks = _cells(picture, table, values, index)
        chosen = non_overlapping(cells) if mask is None else _mask(mask, len(cells), index, "primary cells")
        if mask is not None and not chosen.any():
            raise FigureError(f"image {index + 1} needs a primary cell: at least one boolean that is true")
        given = tokens[index]
        missing = np.zeros(len(cells), bool) if given is None else ~_mask(given, len(cells), index, "kept cells")
        marks = np.where(missing, np.nan, marks)
        whole = Panel(picture, cells, marks, labels[index], index, missing)
        first.append(whole.only(chosen))
        if not chosen.all():
            rest.append(whole.only(~chosen))
    if not any(np.isfinite(panel.scores).any() for panel in first):
        lost = all(panel.missing.all() for panel in first)
        why = "all cells are without a token: lay them beside a picture that has some" if lost else "give some"
        raise FigureError(f"scores hold no finite number, and nothing can be laid over the images: {why}")
    return first, rest


def non_overlapping(boxes: FloatArray) -> BoolArray:
    """Choose cells that do not overlap: the smallest first, in the given order among equals.

    >>> non_overlapping(np.array([[0.0, 0, 8, 8], [0, 0, 4, 4], [4, 0, 8, 4]]))
    array([False,  True,  True])
    """
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    slack = 1e-3 * np.sqrt(area.min()) if len(boxes) else 0.0
    chosen = np.zeros(len(boxes), dtype=bool)
    for cell in np.argsort(np.round(area / max(area.min(initial=1.0), 1e-9), 3), kind="stable"):
        taken = boxes[chosen]
        shared = np.minimum(taken[:, 2:], boxes[cell, 2:]) - np.maximum(taken[:, :2], boxes[cell, :2])
        chosen[cell] = not (shared > slack).all(axis=1).any()
    return chosen


def raster(boxes: FloatArray, scores: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Turn cells into a table with uneven columns and rows.

    Returns:
        (columns + 1,) x edges, (rows + 1,) y edges, and (rows, columns) scores, NaN where there is no cell.

    >>> x, y, table = raster(np.array([[0.0, 0, 2, 2], [2, 0, 4, 1]]), np.array([0.1, 0.9]))
    >>> x.tolist(), y.tolist(), table.tolist()
    ([0.0, 2.0, 4.0], [0.0, 1.0, 2.0], [[0.1, 0.9], [0.1, nan]])
    """
    rounded = np.round(boxes, 3)
    x, y = (np.unique(rounded[:, [start, start + 2]]) for start in (0, 1))
    left, right = np.searchsorted(x, rounded[:, 0]), np.searchsorted(x, rounded[:, 2])
    top, bottom = np.searchsorted(y, rounded[:, 1]), np.searchsorted(y, rounded[:, 3])
    table = np.full((y.size - 1, x.size - 1), np.nan)
    for cell, score in enumerate(scores):
        table[top[cell] : bottom[cell], left[cell] : right[cell]] = score
    return x, y, table


def picture_count(images: object) -> int:
    """Count the pictures of an overlay: 1 for a single array."""
    return len(_pictures(images)[0])


def gold_regions(gold: object, target: int | None, focus: int | None, count: int) -> tuple[int | None, FloatArray]:
    """Return the 0-based image that gold boxes lie in, and the boxes (regions, 4).

    The image is the target, or the only one; None without a gold box.

    Raises:
        FigureError: if target or focus is not an image, a box has no area, or a box has no image to lie in.
    """
    check_image(target, count, "target")
    check_image(focus, count, "focus")
    regions = np.zeros((0, 4)) if gold is None else np.atleast_2d(numbers(gold, "gold"))
    if not regions.size:
        return None, np.zeros((0, 4))
    if regions.ndim != 2 or regions.shape[1] != 4 or not (regions[:, 2:] > regions[:, :2]).all():
        raise FigureError("gold is one box, or a list of them: left, top, right, bottom in pixels of the target image")
    if target is None and count > 1:
        raise FigureError("a gold box lies in the target image: say which one is the target")
    return target or 0, regions


def _pictures(images: object) -> tuple[list[npt.NDArray[np.uint8]], bool]:
    single = isinstance(images, np.ndarray) and (images.ndim == 2 or (images.ndim == 3 and images.shape[2] in (3, 4)))
    listed = [images] if single else list(images) if isinstance(images, (Sequence, np.ndarray)) else None
    if not listed:
        raise FigureError("an overlay needs an image array, or a list of them")
    return [_picture(image, index) for index, image in enumerate(listed)], single


def _picture(image: object, index: int) -> npt.NDArray[np.uint8]:
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or pixels.size == 0:
        raise FigureError(f"image {index + 1} must be (height, width, 3), got the shape {pixels.shape}")
    pixels = pixels[..., :3]
    if pixels.dtype == np.uint8:
        return pixels
    if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > (1 if pixels.dtype.kind == "f" else 255):
        raise FigureError(f"image {index + 1} must hold bytes, or floats from 0 to 1")
    return np.asarray(np.round(pixels * 255) if pixels.dtype.kind == "f" else pixels, dtype=np.uint8)


def _cells(picture: npt.NDArray[np.uint8], boxes: object, scores: object, index: int) -> tuple[FloatArray, FloatArray]:
    cells, values = numbers(boxes, "boxes"), numbers(scores, "scores")
    if cells.ndim != 2 or cells.shape[1] != 4 or values.shape != (len(cells),):
        raise FigureError(
            f"image {index + 1} needs boxes (cells, 4) and scores (cells,), "
            f"got the shapes {cells.shape} and {values.shape}"
        )
    height, width = picture.shape[:2]
    bounded = (cells[:, :2] < [width, height]).all() and (cells[:, 2:] > 0).all()
    if not np.isfinite(cells).all() or (cells[:, 2:] <= cells[:, :2]).any() or not bounded:
        raise FigureError(f"image {index + 1} has a box without area, or outside its {width} x {height} pixels")
    return cells, values


def _mask(mask: object, count: int, index: int, name: str) -> BoolArray:
    chosen = np.asarray(mask)
    if chosen.shape != (count,) or chosen.dtype != np.bool_:
        raise FigureError(f"image {index + 1} needs {count} booleans for its {name}")
    return chosen


def _optional(values: object, name: str, count: int, single: bool) -> list[object]:
    if values is None:
        return [None] * count
    return [values] if single else _listed(values, name, count)


def _listed(values: object, name: str, count: int) -> list[object]:
    listed = list(values) if isinstance(values, (Sequence, np.ndarray)) else []
    if len(listed) != count:
        raise FigureError(f"{name} must hold one entry for each of the {count} images, got {len(listed)}")
    return listed
