"""Spans against the model: a bright patch painted into a cell changes the embedding of that cell's token most."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from probes.spans import Box, Cell, find_image_spans
from tests.probes.recipes_codes import CODES
from tests.probes.recipes_grids import GRIDS
from tests.probes.recipes_squares import SQUARES
from tests.probes.recipes_tiles import TILES
from tests.probes.recipes_timm import TIMM
from tests.probes.recipes_zoo import ZOO
from tests.probes.span_cases import CASES, SHARES, Size, encode, model_of, processor_of
from tests.probes.span_checks import assert_tokens

RAGGED = (
    "llava",
    "qwen2_vl",
    "qwen2_5_vl",
    "idefics3",
    "smolvlm",
    "gemma3, pan and scan",
    "qwen3_vl",
    "qwen3_vl_moe",
    "glm4v",
    "glm46v",
    "llava_next",
    "llava_next_video",
    "llava_onevision",
    "internvl",
    "aya_vision",
    "cohere2_vision",
    "mistral3",
    "pixtral",
    "glm4v_moe",
    "qwen3_5",
    "qwen3_5_moe",
    "vipllava",
    *GRIDS,
    *SQUARES,
    *TILES,
    *ZOO,
)
SIZES: tuple[Size, ...] = ((32, 32), (64, 32), (37, 90), (150, 61))
LATER = {*GRIDS, *SQUARES, *TILES, *ZOO, *TIMM}
"""Families whose models run at two of the sizes, and padded on one side only: their boxes are tested at many sizes."""


def embeddings(model: Any, inputs: Any) -> torch.Tensor:
    """(batch, tokens, hidden): what the decoder is fed, image features in place."""
    seen: list[torch.Tensor] = []

    def keep(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        fed, deep = kwargs["inputs_embeds"].detach(), kwargs.get("deepstack_features")
        # Granite 4 Vision leaves the places of images empty, and adds features to them layer by layer.
        seen.append(fed.masked_scatter(kwargs["vision_mask"], deep[min(deep)]) if deep else fed)

    parts = getattr(model, "model", model)
    decoder = getattr(parts, "language_model", None) or parts.text_model
    handle = decoder.register_forward_pre_hook(keep, with_kwargs=True)
    # Some processors give pixels in half precision.
    cast = {
        key: value.float() if torch.is_tensor(value) and value.is_floating_point() else value
        for key, value in inputs.items()
    }
    try:
        with torch.no_grad():
            model(**cast, use_cache=False)
    finally:
        handle.remove()
    return seen[0]


def painted(image: Image.Image, box: Box) -> Image.Image:
    """The image with the middle of a box made white."""
    width, height = (box.right - box.left) / 5, (box.bottom - box.top) / 5
    corners = [box.left + width, box.top + height, box.right - width, box.bottom - height]
    left, top, right, bottom = (round(corner) for corner in corners)
    copy = image.copy()
    copy.paste((255, 255, 255), (left, top, max(right, left + 1), max(bottom, top + 1)))
    return copy


def apart(one: Cell, other: Cell) -> int:
    """How many cells of their grid lie between two, diagonals counted as one."""
    return max(abs(one.row - other.row), abs(one.column - other.column))


def background(size: Size, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(40, 90, (size[1], size[0], 3))
    return Image.fromarray(noise.astype(np.uint8))


@pytest.mark.parametrize(
    "name, size",
    [(name, size) for name in CASES if name not in CODES for size in (SIZES[1::2] if name in LATER else SIZES)],
    ids=str,
)
def test_a_bright_patch_changes_the_token_of_its_cell(name: str, size: Size) -> None:
    case = CASES[name]
    model = model_of(case)
    plain = background(size)
    encoded = encode(case, [[plain]])
    span = encoded.spans[0][0]
    before = embeddings(model, encoded.inputs)[0]
    largest = [max(c.box.area for c in span.cells() if c.tile == index) for index in range(len(span.tiles))]
    cells = [cell for cell in span.cells() if cell.box.area > 0.9 * largest[cell.tile]]
    chosen = [cells[index] for index in np.random.default_rng(1).choice(len(cells), 3, replace=False)]
    for cell in chosen:
        after = embeddings(model, encode(case, [[painted(plain, cell.box)]]).inputs)[0]
        change = (after - before).norm(dim=-1).numpy()
        assert set(np.flatnonzero(change)) <= set(span.tokens.tolist())
        in_tile = [c for c in span.cells() if c.tile == cell.tile]
        strongest = max(in_tile, key=lambda c: change[span.tokens[c.token]])
        assert apart(strongest, cell) <= (name in SHARES)


@pytest.mark.parametrize(
    "name, side", [(name, side) for name in RAGGED for side in (("left",) if name in LATER else ("left", "right"))]
)
def test_padding_and_ragged_counts_keep_images_apart(name: str, side: str) -> None:
    case = CASES[name]
    model = model_of(case)
    rows = [[background((40, 70), 1)], [background((80, 40), 2), background((32, 50), 3), background((60, 60), 4)]]
    encoded = encode(case, rows, side)
    assert_tokens(encoded)
    assert [len(row) for row in encoded.spans] == [1, 3]
    before = embeddings(model, encoded.inputs)
    for row, image in ((0, 0), (1, 1), (1, 2)):
        cell = next(c for c in encoded.spans[row][image].cells() if (c.row, c.column) == (2, 1))
        changed = [list(images) for images in rows]
        changed[row][image] = painted(rows[row][image], cell.box)
        change = (embeddings(model, encode(case, changed, side).inputs) - before).norm(dim=-1).numpy()
        touched = {(int(r), int(t)) for r, t in np.argwhere(change > 0)}
        assert touched <= {(row, int(token)) for token in encoded.spans[row][image].tokens}
        tile = [c for c in encoded.spans[row][image].cells() if c.tile == cell.tile]
        tokens = encoded.spans[row][image].tokens
        strongest = max(tile, key=lambda c: change[row, tokens[c.token]])
        assert apart(strongest, cell) <= (name in SHARES)


def test_what_lies_outside_the_crop_reaches_no_token() -> None:
    case, size = CASES["llava"], (150, 61)
    plain = background(size)
    encoded = encode(case, [[plain]])
    left = min(cell.box.left for cell in encoded.spans[0][0].cells())
    assert left == pytest.approx((150 - 61) / 2, abs=1.5)
    outside = painted(plain, Box(0, 0, left - 8, 61))
    model = model_of(case)
    assert torch.equal(embeddings(model, encoded.inputs), embeddings(model, encode(case, [[outside]]).inputs))


def test_adjacent_images_without_text_between_are_divided() -> None:
    case = CASES["llava"]
    processor = processor_of(case)
    images = [background((40, 40)), background((50, 40))]
    inputs = processor(text=["<image><image>hi"], images=images, return_tensors="pt")
    first, second = find_image_spans(inputs, model_of(case).config, processor, [[image.size for image in images]])[0]
    assert first.stop == second.start and len(first.tokens) == len(second.tokens) == 16
