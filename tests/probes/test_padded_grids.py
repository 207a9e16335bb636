"""Families whose processors hand patches over in their own ways: how far padding reaches, and what is refused."""

from typing import Any

import pytest
import torch

from probes.inputs import InputError
from probes.spans import Box, find_image_spans
from tests.probes.hooked import picture
from tests.probes.processors import build_config, build_processor, chat
from tests.probes.span_cases import PADDED
from tests.probes.test_spans_errors import SIZES, encode, one_line

SIDES = [(640, 480), (333, 1000), (61, 40), (9, 200), (4000, 3000)]
RELEASED: dict[str, Any] = {"patch_size": 14, "merge_size": 2}
GRIDS = {
    "gemma4_unified": "image_position_ids",
    "glm5_next": "image_grid_thw",
    "inkling2": "image_grid_thw",
    "kimi_k25": "image_grid_thw",
    "muse_spark": "image_grid_thw",
    "nemotron_h_omni": "image_grid_hw",
}
"""What the inputs call the grid of each image."""


def box_of(family: str, processor: Any, size: tuple[int, int], grid: tuple[int, int]) -> Box:
    """The box of an image whose grid of patches, down and across, the inputs name."""
    config = build_config(family, processor)
    tokens = grid[0] * grid[1] // 4
    inputs = {
        "input_ids": torch.full((1, tokens), config.image_token_id),
        "image_grid_thw": torch.tensor([[1, *grid]]),
    }
    (span,) = find_image_spans(inputs, config, processor, [[size]])[0]
    return span.tiles[0].box


@pytest.mark.parametrize("size", SIDES)
def test_kimis_padding_reaches_as_far_as_its_processor_pads(size: tuple[int, int]) -> None:
    from transformers.models.kimi_k25.image_processing_kimi_k25 import navit_resize

    processor = build_processor("kimi_k25", **RELEASED, max_patches=4096)
    (height, width), (down, across) = navit_resize(size[1], size[0], 14, 2, 4096, 512)
    box = box_of("kimi_k25", processor, size, (down // 14, across // 14))
    assert box == pytest.approx((0, 0, across * size[0] / width, down * size[1] / height))


@pytest.mark.parametrize("size", SIDES)
def test_glms_padding_reaches_as_far_as_its_processor_pads(size: tuple[int, int]) -> None:
    limits: dict[str, Any] = {"min_image_tokens": 16, "max_image_tokens": 8000}
    processor = build_processor("glm5_next", **RELEASED, **limits)
    white = torch.ones(1, 1, size[1], size[0])
    seen = processor.image_processor.resize(white, resample=2, factor=28, temporal_factor=2, **limits)[0, 0]
    down, across = seen.shape
    height, width = (int(seen.any(axis).sum()) for axis in (1, 0))
    box = box_of("glm5_next", processor, size, (down // 14, across // 14))
    assert box == pytest.approx((0, 0, across * size[0] / width, down * size[1] / height))


@pytest.mark.parametrize("family", ["glm5_next", "kimi_k25"])
def test_a_picture_that_is_not_resized_is_not_padded(family: str) -> None:
    processor = build_processor(family, do_resize=False)
    image = picture(160, 24)
    inputs = processor(text=[chat(processor, [image], "?")], images=[image], return_tensors="pt")
    (span,) = find_image_spans(inputs, build_config(family, processor), processor, [[image.size]])[0]
    assert span.tiles[0].box == Box(0, 0, 160, 24) and len(span.tokens) == 20 * 3


@pytest.mark.parametrize("family", GRIDS)
def test_the_grid_is_needed_and_fits_the_size(family: str) -> None:
    processor, config, inputs = encode(family)
    swapped = [[(size[1], size[0]) for size in row] for row in SIZES]
    with pytest.raises(InputError, match=r"does not fit a grid of .* \(width, height\)") as error:
        find_image_spans(inputs, config, processor, swapped)
    one_line(error)
    del inputs[GRIDS[family]]
    with pytest.raises(InputError, match=f"hold no {GRIDS[family]}: pass everything") as error:
        find_image_spans(inputs, config, processor, SIZES)
    one_line(error)


@pytest.mark.parametrize("family", [name for name in PADDED if name in GRIDS])
def test_without_sizes_spans_are_known_and_boxes_are_not(family: str) -> None:
    processor, config, inputs = encode(family)
    bare, full = find_image_spans(inputs, config), find_image_spans(inputs, config, processor, SIZES)
    assert [[tuple(span) for span in row] for row in bare] == [[tuple(span) for span in row] for row in full]
    assert not bare[0][0].tiles[0].box.known


def test_inklings_cells_cannot_be_counted_without_size_and_processor() -> None:
    processor, config, inputs = encode("inkling_mm_model")
    with pytest.raises(InputError, match="pass image_sizes"):
        find_image_spans(inputs, config, processor)
    with pytest.raises(InputError, match="pass processor="):
        find_image_spans(inputs, config, None, SIZES)
