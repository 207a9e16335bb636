"""Families beyond the first ones: from a saved folder to a trace, and what their own modules refuse."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from probes import encoding
from probes.families import family_of
from probes.families.view import ImageView, Settings
from probes.inputs import InputError
from probes.model import HookedModel, Question
from probes.spans import find_image_spans
from tests.probes import processors
from tests.probes.hooked import FURTHER, hooked, picture
from tests.probes.processors import build_config, build_model, build_processor
from tests.probes.test_spans_errors import SIZES, encode, one_line

SHOWN = {"fast_vlm": (224.5 / 256) ** 2, "pp_chart2table": (61 / 64) ** 2}
"""Share of an image in cells, where it is not all: a grid begins 3 of 64 pixels before the picture, or ends at the
middles of its last windows."""
LOSES_ITS_TEMPLATE = "chameleon"
"""Its processor takes no chat template, so that a saved one comes back without."""


@pytest.mark.parametrize("family", [name for name in FURTHER if name != LOSES_ITS_TEMPLATE])
def test_a_saved_checkpoint_is_loaded_and_traced(family: str, tmp_path: Path) -> None:
    processor = build_processor(family)
    build_model(family, processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model = HookedModel.from_pretrained(tmp_path, device="cpu")
    if family == "got_ocr2":
        # No setting that is saved: transformers' class says 256, as its one checkpoint has.
        model.processor.num_image_tokens = processor.num_image_tokens
    assert model.model.config.model_type == {"pixtral": "llava"}.get(family, family)
    cropped = family in ("fast_vlm", "video_llava", "vipllava")
    images = [picture(40, 40 if cropped else 56, 1), picture(64, 64 if cropped else 32, 2)]
    trace = model.trace(images, "1 <image> 2 <image> Which image shows the red ball?", max_new_tokens=3)
    assert trace.factors.shape == (len(model.layers), 2) and np.isfinite(trace.factors).all()
    for image, (width, height) in enumerate(each.size for each in images):
        cells = trace.cells(image)
        tiled = [cell for cell in cells if cell.thumbnail] or cells
        assert sum(cell.box.area for cell in tiled) == pytest.approx(width * height * SHOWN.get(family, 1.0))
        assert np.isfinite(trace.map(image, -1)).all()


def test_an_answer_that_sees_ahead_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """PaliGemma's prompt is read in both directions, and its answer must not be."""
    model, images = hooked("paligemma"), [picture(32, 32, 1), picture(64, 32, 2)]
    asked = (images, "1 <image> 2 <image> Which image?", (300, 120, 77, 250))
    right = model.trace(*asked, rows="answer")
    monkeypatch.setattr(encoding, "ANSWER_TYPES", {})
    wrong = model.trace(*asked, rows="answer")
    assert np.abs(right.factors - wrong.factors).max() > 1e-4
    assert abs(right.log_probability - wrong.log_probability) > 1e-3


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"])
def test_sizes_of_any_resolution_come_with_the_inputs(family: str) -> None:
    processor, config, inputs = encode(family)
    full = find_image_spans(inputs, config, processor, SIZES)
    bare = find_image_spans(inputs, config)
    assert [[tuple(span) for span in row] for row in bare] == [[tuple(span) for span in row] for row in full]
    swapped = [[size[::-1] for size in row] for row in SIZES]
    with pytest.raises(InputError, match=r"\(width, height\)") as error:
        find_image_spans(inputs, config, processor, swapped)
    one_line(error)
    del inputs["image_sizes"]
    with pytest.raises(InputError, match="image_sizes: pass everything"):
        find_image_spans(inputs, config, processor, SIZES)


def test_images_that_share_a_prompt_are_not_split_by_onevision() -> None:
    processor, config, inputs = encode("llava_onevision")
    first, second = find_image_spans(inputs, config, processor, SIZES)
    assert [[tile.thumbnail for tile in span.tiles] for span in first] == [[False], [False]]
    assert [len(span.tokens) for span in first] == [17, 17]
    assert [tile.thumbnail for tile in second[0].tiles] == [True, False]
    config.vision_aspect_ratio = "square"
    with pytest.raises(InputError, match="'square' is not understood"):
        find_image_spans(inputs, config, processor, SIZES)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image_grid_pinpoints": [[32, 64]]}, "different image_grid_pinpoints"),
        ({"vision_feature_select_strategy": "full"}, "set it to 'default'"),
        ({"vision_config": SimpleNamespace(model_type="pixtral")}, "'pixtral' is not known"),
        (
            {"vision_config": SimpleNamespace(model_type="clip_vision_model", image_size=64, patch_size=8)},
            "tiles of 64 x 64 pixels and the inputs hold 32 x 32",
        ),
    ],
)
def test_models_that_divide_otherwise_than_the_processor(change: dict[str, Any], message: str) -> None:
    processor, config, inputs = encode("llava_next")
    for name, value in change.items():
        object.__setattr__(config, name, value)
    with pytest.raises(InputError, match=message) as error:
        find_image_spans(inputs, config, processor, SIZES)
    one_line(error)


def test_tiles_that_are_resized_once_more_are_refused() -> None:
    processor, config, inputs = encode("llava_next")
    with pytest.raises(InputError, match="set its size and crop_size to 32") as error:
        find_image_spans(inputs, config, processor, SIZES, processor_kwargs={"size": {"shortest_edge": 40}})
    one_line(error)


@pytest.mark.parametrize("family", ["mistral3", "pixtral"])
def test_rows_are_runs_and_the_tokens_between_them_are_text(family: str) -> None:
    processor, config, inputs = encode(family)
    spans = find_image_spans(inputs, config, processor, SIZES)
    for row, found in enumerate(spans):
        for span in found:
            (tile,) = span.tiles
            assert [stop - start for start, stop in span.runs] == [tile.columns] * tile.rows
            ids = inputs["input_ids"][row]
            between = {int(ids[stop]) for _, stop in span.runs[:-1]}
            assert between == {processor.image_break_token_id}
            assert int(ids[span.stop]) == processor.image_end_token_id
    del inputs["image_sizes"]
    with pytest.raises(InputError, match="image_sizes: pass everything"):
        find_image_spans(inputs, config, processor, SIZES)


def test_a_tower_without_class_token_keeps_its_first_patch() -> None:
    processor, config, inputs = encode("vipllava")
    config.vision_config.model_type = "siglip_vision_model"
    with pytest.raises(InputError, match="use a CLIP tower"):
        find_image_spans(inputs, config, processor, SIZES)
    processor, config, inputs = encode("pixtral")
    config.vision_feature_select_strategy = "default"
    with pytest.raises(InputError, match="set it to 'full'"):
        find_image_spans(inputs, config, processor, SIZES)


@pytest.mark.parametrize("family", ["internvl", "aya_vision", "cohere2_vision"])
def test_tiles_that_do_not_fit_the_model_are_refused(family: str) -> None:
    processor, config, inputs = encode(family)
    for size, message in (({"height": 32, "width": 16}, "no square"), ({"height": 16, "width": 16}, "hold 32 x 32")):
        with pytest.raises(InputError, match=message) as error:
            find_image_spans(inputs, config, processor, SIZES, processor_kwargs={"size": size})
        one_line(error)
    config.vision_config.patch_size = 8
    with pytest.raises(InputError, match="writes 16 tokens per tile and the model makes 4") as error:
        find_image_spans(inputs, config, processor, SIZES)
    one_line(error)


def test_the_tile_counts_are_those_of_the_processors() -> None:
    """Every size of a coarse lattice, against the processors' own counting."""
    for family in ("internvl", "aya_vision", "cohere2_vision"):
        processor = build_processor(family)
        config = build_config(family, processor)
        for size in ((width, height) for width in range(8, 200, 24) for height in range(8, 200, 20)):
            view = ImageView("image", 0, size, {}, config, processor, Settings(processor))
            written = processor.image_processor.get_number_of_image_patches(size[1], size[0], {"crop_to_patches": True})
            assert len(family_of(family).tiles(view)) == written


def test_a_processor_is_asked_for_what_the_model_wants() -> None:
    processor = build_processor("cosmos3_edge")
    processor.return_mm_token_type_ids = False
    model = HookedModel(build_model("cosmos3_edge", processor), processor)
    assert "mm_token_type_ids" not in processor(text=["<|image_pad|>"], images=[picture()])
    trace = model.trace([picture()], "Which?", max_new_tokens=2)
    assert np.isfinite(trace.factors).all()


def test_sizes_that_lead_to_other_crops_are_refused() -> None:
    processor, config, inputs = encode("molmo2")
    full = find_image_spans(inputs, config, processor, SIZES)
    bare = find_image_spans(inputs, config)
    assert [[tuple(span) for span in row] for row in bare] == [[tuple(span) for span in row] for row in full]
    swapped = [[size[::-1] for size in row] for row in SIZES]
    with pytest.raises(InputError, match=r"would get grids of .*\(width, height\)") as error:
        find_image_spans(inputs, config, processor, swapped)
    one_line(error)
    config.vision_config.patch_size = 8
    with pytest.raises(InputError, match="patches of 4 pixels and the model's have 8"):
        find_image_spans(inputs, config, processor, SIZES)
    del inputs["image_grids"]
    with pytest.raises(InputError, match="image_grids: pass everything"):
        find_image_spans(inputs, config, processor, SIZES)


def test_windows_that_do_not_fit_the_model_are_refused() -> None:
    processor, config, inputs = encode("step3p7")
    with pytest.raises(InputError, match="pass processor="):
        find_image_spans(inputs, config, None, SIZES)
    with pytest.raises(InputError, match="pass image_sizes"):
        find_image_spans(inputs, config, processor)
    processor.num_patch_feature_size = 9
    with pytest.raises(InputError, match="writes 9 tokens for 32 x 32 pixels and the model makes 4") as error:
        find_image_spans(inputs, config, processor, SIZES)
    one_line(error)


def test_the_windows_are_those_of_the_processor() -> None:
    """Every size of a coarse lattice, strips and very large images among them, against the processor's own counting."""
    processor = build_processor("step3p7")
    config = build_config("step3p7", processor)
    for size in ((width, height) for width in range(8, 400, 24) for height in range(8, 400, 20)):
        view = ImageView("image", 0, size, {}, config, processor, Settings(processor))
        written = processor.image_processor.get_number_of_image_patches(size[1], size[0])
        assert len(family_of("step3p7").tiles(view)) == written + 1


def test_tokens_of_a_window_that_are_not_the_models_are_refused() -> None:
    processor, config, inputs = encode("granite4_vision")
    processor.downsample_rate = "1/4"
    with pytest.raises(InputError, match="downsample_rate is '1/4' and the model's '1/2'") as error:
        find_image_spans(inputs, config, processor, SIZES)
    one_line(error)


def test_images_of_a_batch_in_one_list() -> None:
    """GOT-OCR 2's processor refuses a list for each prompt."""
    model, asked = hooked("got_ocr2"), [([picture(32, 32, 1), picture(64, 32, 2)], "Which?"), ([picture()], "What?")]
    traces = model.trace_batch([Question(*each) for each in asked], [(120, 121)] * 2)
    assert [trace.factors.shape for trace in traces] == [(3, 2), (3, 1)]
    text = processors.chat(model.processor, asked[1][0], "What?")
    with pytest.raises(ValueError, match="Nested images"):
        model.processor(text=[text], images=[asked[1][0]])
