"""Every way in which prompts, images, sizes and settings can disagree is one clear line, never a wrong span."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from probes.families import FAMILIES, PREPENDED, family_of
from probes.families.geometry import Box, Canvas, Tile, resized
from probes.inputs import InputError
from probes.spans import ImageSpan, find_image_spans
from tests.probes.processors import batched, build_config, build_processor, chat
from tests.probes.recipes_single import SINGLE

WIDE = Image.new("RGB", (60, 40), "teal")
TALL = Image.new("RGB", (30, 50), "olive")
SIZES = [[WIDE.size, TALL.size], [WIDE.size]]
MANY = sorted(set(FAMILIES) - set(SINGLE))
"""Families that take several images in a prompt."""
TRUNCATED = sorted(set(MANY) - PREPENDED)
"""Those of them whose prompts hold places of images, which truncation can cut."""


def encode(family: str, **call: Any) -> tuple[Any, Any, dict[str, Any]]:
    processor = build_processor(family)
    rows = [[WIDE, TALL], [WIDE]]
    texts = [chat(processor, images, "Which image?") for images in rows]
    images = batched(family, rows)
    inputs = processor(text=texts, images=images, return_tensors="pt", padding=True, **call)
    return processor, build_config(family, processor), dict(inputs)


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    return message


@pytest.mark.parametrize("family", TRUNCATED)
def test_image_tokens_cut_by_truncation(family: str) -> None:
    processor, config, inputs = encode(family)
    full = find_image_spans(inputs, config, processor, SIZES)
    for stop in (full[0][1].stop - 1, full[0][1].start + 1, full[0][1].start, full[0][0].stop - 3):
        cut = inputs | {name: inputs[name][:, :stop] for name in ("input_ids", "attention_mask")}
        with pytest.raises(InputError, match=r"row 0(, image \d: it needs|: 2 images are given)") as error:
            find_image_spans(cut, config, processor, SIZES)
        assert "trunca" in one_line(error) or "holds no image tokens" in one_line(error)


@pytest.mark.parametrize("family", TRUNCATED)
def test_truncation_is_seen_without_sizes_too(family: str) -> None:
    processor, config, inputs = encode(family)
    last = find_image_spans(inputs, config, processor, SIZES)[0][1].stop
    cut = inputs | {name: inputs[name][:, : last - 1] for name in ("input_ids", "attention_mask")}
    with pytest.raises(InputError):
        find_image_spans(cut, config, processor)


def test_unknown_model_type_points_to_spans_by_hand() -> None:
    with pytest.raises(InputError, match=r"'mistral4'.*image_spans=") as error:
        find_image_spans({"input_ids": [[1]]}, SimpleNamespace(model_type="mistral4"))
    one_line(error)
    with pytest.raises(InputError, match="image_spans="):
        find_image_spans({"input_ids": [[1]]}, object())


@pytest.mark.parametrize("family", MANY)
def test_more_or_fewer_images_than_placeholders(family: str) -> None:
    processor, config, inputs = encode(family)
    with pytest.raises(InputError) as error:
        find_image_spans(inputs, config, processor, [[*SIZES[0], WIDE.size], [WIDE.size]])
    assert "image per placeholder" in one_line(error) or "image tokens and" in one_line(error)
    with pytest.raises(InputError, match="image per placeholder") as error:
        find_image_spans(inputs, config, processor, [[WIDE.size], [WIDE.size]])
    one_line(error)


def test_no_image_tokens_at_all() -> None:
    processor, config, inputs = encode("llava")
    text = inputs | {"input_ids": torch.ones_like(inputs["input_ids"])}
    with pytest.raises(InputError, match="holds no image tokens"):
        find_image_spans(text, config, processor, SIZES)


def test_text_without_images_has_no_spans() -> None:
    processor, config, _ = encode("llava")
    assert find_image_spans(processor(text=["hi"]), config, processor) == [[]]


def test_pixels_that_no_prompt_places() -> None:
    processor, config, inputs = encode("llava")
    with pytest.raises(InputError, match="hold pixels of 4 tiles, and the prompts place 3"):
        find_image_spans(inputs | {"pixel_values": torch.zeros(4, 3, 32, 32)}, config, processor)


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "mistral3", "pixtral"])
def test_spans_without_sizes_or_processor_have_no_boxes(family: str) -> None:
    processor, config, inputs = encode(family)
    bare = find_image_spans(inputs, config)
    full = find_image_spans(inputs, config, processor, SIZES)
    assert [[tuple(span) for span in row] for row in bare] == [[tuple(span) for span in row] for row in full]
    with pytest.raises(InputError, match="give image_sizes and processor"):
        bare[0][0].cells()


@pytest.mark.parametrize("family", ["idefics3", "smolvlm", "internvl", "aya_vision", "cohere2_vision"])
def test_split_images_need_sizes_and_processor(family: str) -> None:
    processor, config, inputs = encode(family)
    with pytest.raises(InputError, match="pass image_sizes"):
        find_image_spans(inputs, config, processor)
    with pytest.raises(InputError, match="pass processor"):
        find_image_spans(inputs, config, None, SIZES)


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "glm4v", "mistral3", "gemma4", "muse_glimmer"])
def test_swapped_sizes_are_refused(family: str) -> None:
    uncropped: dict[str, Any] = {"do_center_crop": False} if family == "llava" else {}
    processor = build_processor(family, **uncropped)
    inputs = processor(text=[chat(processor, [TALL], "?")], images=[TALL], return_tensors="pt")
    config = build_config(family, processor)
    find_image_spans(inputs, config, processor, [[TALL.size]])
    with pytest.raises(InputError, match=r"\(width, height\)") as error:
        find_image_spans(inputs, config, processor, [[TALL.size[::-1]]])
    one_line(error)


def test_settings_of_the_call_must_be_told() -> None:
    processor, config, inputs = encode("gemma3", do_pan_and_scan=True, pan_and_scan_min_crop_size=12)
    with pytest.raises(InputError, match="processor_kwargs"):
        find_image_spans(inputs, config, processor, SIZES)
    call = {"images_kwargs": {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 12}}
    spans = find_image_spans(inputs, config, processor, SIZES, processor_kwargs=call)
    assert [len(span.tiles) for row in spans for span in row] == [3, 3, 3]
    with pytest.raises(InputError, match="pass processor= or image_sizes="):
        find_image_spans(inputs, config)


def test_a_processor_that_did_not_make_the_inputs() -> None:
    _, config, inputs = encode("llava")
    other = build_processor("llava", crop_size={"height": 24, "width": 24})
    with pytest.raises(InputError, match=r"24 x 24 pixels, and the inputs hold 32 x 32"):
        find_image_spans(inputs, config, other, SIZES)
    _, config, inputs = encode("idefics3")
    other = build_processor("idefics3", max_image_size={"longest_edge": 16})
    with pytest.raises(InputError, match=r"tiles of 16 x 16"):
        find_image_spans(inputs, config, other, SIZES)
    processor = build_processor("idefics3")
    processor.image_seq_len = 4
    with pytest.raises(InputError, match="writes 4 tokens per tile"):
        find_image_spans(inputs, config, processor, SIZES)


def test_llava_towers() -> None:
    processor, config, inputs = encode("llava")
    config.vision_config.model_type = "dinov2"
    with pytest.raises(InputError, match="'dinov2' is not known"):
        find_image_spans(inputs, config, processor, SIZES)
    config.vision_config.model_type = "siglip_vision_model"
    with pytest.raises(InputError, match="drops the first patch"):
        find_image_spans(inputs, config, processor, SIZES)


def test_missing_grid_and_missing_token_id() -> None:
    processor, config, inputs = encode("qwen2_vl")
    with pytest.raises(InputError, match="image_grid_thw"):
        find_image_spans({"input_ids": inputs["input_ids"]}, config, processor, SIZES)
    nameless = SimpleNamespace(model_type="qwen2_vl", vision_config=config.vision_config)
    with pytest.raises(InputError, match="names no image_token_id"):
        find_image_spans(inputs, nameless, processor, SIZES)


@pytest.mark.parametrize(
    "sizes", [[WIDE.size, TALL.size], [[(60, 40), (30, 0)], [(60, 40)]], [[(60.5, 40), (1, 1)], [(1, 1)]]]
)
def test_sizes_in_another_shape(sizes: Any) -> None:
    processor, config, inputs = encode("llava")
    with pytest.raises(InputError, match="is no size: give image_sizes"):
        find_image_spans(inputs, config, processor, sizes)


def test_counts_that_disagree() -> None:
    processor, config, inputs = encode("llava")
    with pytest.raises(InputError, match="1 entry for 2 prompts"):
        find_image_spans(inputs, config, processor, images_per_row=[3])
    with pytest.raises(InputError, match="give one of them"):
        find_image_spans(inputs, config, processor, SIZES, images_per_row=[1, 1])
    with pytest.raises(InputError, match="batch of one"):
        find_image_spans({"input_ids": inputs["input_ids"][0]}, config, processor)
    assert [len(row) for row in find_image_spans(inputs, config, processor, images_per_row=[2, 1])] == [2, 1]


def test_padding_with_the_image_token_is_no_image() -> None:
    processor, config, inputs = encode("llava")
    padding = inputs["attention_mask"] == 0
    assert padding.any()
    ids = inputs["input_ids"].masked_fill(padding, config.image_token_id)
    spans = find_image_spans(inputs | {"input_ids": ids}, config, processor, SIZES)
    assert spans == find_image_spans(inputs, config, processor, SIZES)
    masked = inputs | {"attention_mask": torch.zeros(2, 1, *[inputs["input_ids"].shape[1]] * 2)}
    assert find_image_spans(masked, config, processor, SIZES) == spans


def test_inputs_as_plain_lists_and_arrays() -> None:
    processor, config, inputs = encode("llava")
    expected = find_image_spans(inputs, config, processor, SIZES)
    lists = {"input_ids": inputs["input_ids"].tolist(), "pixel_values": inputs["pixel_values"].numpy()}
    assert find_image_spans(lists, config, processor, np.array(SIZES[:1]).tolist() + SIZES[1:]) == expected
    assert find_image_spans({"input_ids": list(inputs["input_ids"])}, config, processor, SIZES) == expected


def test_a_family_has_the_functions_of_the_seam() -> None:
    for model_type in FAMILIES:
        module = family_of(model_type)
        assert all(callable(getattr(module, name)) for name in ("image_token_ids", "tiles", "pixel_tiles"))


def test_grid_refuses_what_is_no_grid() -> None:
    span = ImageSpan(0, 0, 2, ((0, 2),), (Tile(1, 1, Box(0, 0, 2, 2)), Tile(1, 1, Box(1, 1, 3, 3))), (3, 3))
    with pytest.raises(InputError, match="do not form one grid"):
        span.grid(np.zeros(2))
    with pytest.raises(InputError, match="3 values for 2 tokens"):
        span.grid(np.zeros(3))
    with pytest.raises(InputError, match="do not form one grid"):
        span.grid(np.zeros(2), thumbnail=True)


def test_tokens_without_pixels_get_no_cell_and_shift_the_others() -> None:
    tile = Tile(2, 2, Box(0, 0, 4, 4), before=1, row_end=1, after=1)
    span = ImageSpan(0, 5, 13, ((5, 13),), (tile,), (4, 4))
    assert tile.tokens == 8
    assert [cell.token for cell in span.cells()] == [1, 2, 4, 5]
    assert span.grid(np.arange(8)).tolist() == [[1, 2], [4, 5]]


def test_canvas_pads_and_crops_as_transformers_does() -> None:
    canvas = Canvas(10, 5).crop(8, 8)
    assert canvas.region(8, 8) == Box(1, -1, 9, 7)
    assert Canvas(10, 5).crop(8, 8, pad_first=True).region(8, 8) == Box(1, -2, 9, 6)
    assert Canvas(10, 4).pad_to_square().resize(5, 5).region(5, 5) == Box(0, -3, 10, 7)
    with pytest.raises(InputError, match="longest_edge"):
        resized(3, 4, {"longest_edge": 5})
