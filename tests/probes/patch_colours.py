"""The colour behind each image token where a family lays its patches out in a way of its own.

See `tests.probes.colours`, which takes a family from `LAYOUTS` before its own rules.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from tests.probes.span_cases import Floats

Layout = Callable[[Floats, Mapping[str, Any]], Floats]
"""(pixel values, what the processor returned) to (tokens, 3), in the prompt's order."""


def merge_order(patches: Floats, grids: list[list[int]]) -> Floats:
    """Patches of rows, four of a token together."""
    found, first = [], 0
    for _, rows, columns in grids:
        own = patches[first : first + rows * columns].reshape(rows // 2, 2, columns // 2, 2, -1)
        found.append(own.transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1))
        first += rows * columns
    return np.concatenate(found)


def _grid_of_two(pixels: Floats, inputs: Mapping[str, Any]) -> Floats:
    """Rows of patches (channels, height, width), which the model merges; a grid without frames."""
    patches = pixels.reshape(len(pixels), 3, -1).mean(-1)
    grids = [[1, rows, columns] for rows, columns in inputs["image_grid_hw"].tolist()]
    return np.asarray(merge_order(patches, grids).reshape(-1, 4, 3).mean(1))


def _cells(pixels: Floats, inputs: Mapping[str, Any]) -> Floats:
    """One picture for each token, channels last."""
    return np.asarray(pixels.reshape(len(pixels), -1, 3).mean(1))


def _placed_cells(pixels: Floats, inputs: Mapping[str, Any]) -> Floats:
    """The same, padded to the longest image of a batch."""
    kept = (inputs["image_position_ids"].numpy() >= 0).all(-1)
    return _cells(pixels[kept], inputs)


def _rows_of_codes(pixels: Floats, inputs: Mapping[str, Any]) -> Floats:
    """Pictures padded to the largest of a batch, a code for 8 x 8 pixels, and a mark without pixels behind each row."""
    found = []
    for picture, (height, width) in zip(pixels, inputs["image_sizes"].tolist(), strict=True):
        blocks = picture[:, :height, :width].reshape(3, height // 8, 8, width // 8, 8).mean((2, 4)).transpose(1, 2, 0)
        found.append(np.pad(blocks, ((0, 0), (0, 1), (0, 0)), constant_values=np.nan).reshape(-1, 3))
    return np.concatenate(found)


def _strided(pixels: Floats, inputs: Mapping[str, Any]) -> Floats:
    """Means over patches of 2 pixels, and over what convolutions of side 3 and strides 1, 2 and 2 take from them."""
    seen = avg_pool2d(torch.from_numpy(pixels), 2)
    for stride in (1, 2, 2):
        seen = avg_pool2d(seen, 3, stride, padding=1, count_include_pad=False)
    return np.asarray(seen.flatten(2).transpose(1, 2).reshape(-1, 3).numpy())


LAYOUTS: dict[str, Layout] = {
    "emu3": _rows_of_codes,
    "gemma4_unified": _placed_cells,
    "inkling2": _cells,
    "inkling_mm_model": _cells,
    "nemotron_h_omni": _grid_of_two,
    "pp_chart2table": _strided,
}
