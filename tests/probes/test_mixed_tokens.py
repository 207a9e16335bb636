"""Families whose resampler mixes a picture into its tokens: spans and factors are known, cells and maps refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.inputs import InputError
from probes.model import HookedModel, Question
from probes.spans import Box, ImageSpan, find_image_spans
from studies.auditing.tables import cell_rows, map_rows
from tests.probes.hooked import hooked, picture, reference
from tests.probes.processors import build_config, build_model, build_processor
from tests.probes.recipes_mixed import MIXED
from tests.probes.test_spans_errors import SIZES, encode, one_line
from tests.probes.test_spans_model import embeddings

ANSWER = (300, 120, 77, 250)


def questions() -> list[Question]:
    first, second = picture(32, 32, 1), picture(64, 32, 2)
    return [
        Question([first, second], "1 <image> 2 <image> Which image shows the red ball?"),
        Question([second], "How many digits?"),
    ]


@pytest.mark.parametrize("split", [False, True], ids=["whole", "quarters"])
def test_a_pictures_tokens_see_that_picture_and_no_other(split: bool) -> None:
    processor = build_processor("idefics2", do_image_splitting=split)
    model = build_model("idefics2", processor)
    images = [picture(61, 40, 1), picture(32, 48, 2)]
    sizes = [[image.size for image in images]]

    def encoded() -> Any:
        return processor(text=["<image> and <image>?"], images=[images], return_tensors="pt")

    inputs = encoded()
    spans = find_image_spans(inputs, model.config, processor, sizes)[0]
    assert [len(span.tokens) for span in spans] == [20 if split else 4] * 2
    before = embeddings(model, inputs)[0]
    if split:
        assert [tile.box for tile in spans[0].tiles] == [
            Box(0, 0, 30, 20),
            Box(30, 0, 61, 20),
            Box(0, 20, 30, 40),
            Box(30, 20, 61, 40),
            Box(0, 0, 61, 40),
        ]
    images[0] = images[0].copy()
    images[0].paste((255, 255, 255), (2, 22, 28, 38))
    changed = np.flatnonzero((embeddings(model, encoded())[0] - before).norm(dim=-1).numpy())
    expected = spans[0].tokens.reshape(-1, 4)
    seen = expected[[2, 4]] if split else expected
    assert changed.tolist() == sorted(seen.flatten().tolist())


def test_queries_of_a_tile_see_that_tile_and_the_separator_sees_none() -> None:
    processor = build_processor("deepseek_ocr2")
    model = build_model("deepseek_ocr2", processor)
    images = [picture(120, 40, 1), picture(32, 48, 2)]
    sizes = [[image.size for image in images]]

    def encoded() -> Any:
        return processor(text=["<image> and <image>?"], images=[images], return_tensors="pt")

    inputs = encoded()
    cut, whole = find_image_spans(inputs, model.config, processor, sizes)[0]
    assert [tile.box for tile in cut.tiles] == [
        Box(0, 0, 40, 40),
        Box(40, 0, 80, 40),
        Box(80, 0, 120, 40),
        Box(0, 0, 120, 40),
    ]
    assert [tile.tokens for tile in cut.tiles] == [144] * 3 + [257] and [tile.tokens for tile in whole.tiles] == [257]
    before = embeddings(model, inputs)[0]
    images[0] = images[0].copy()
    images[0].paste((255, 255, 255), (50, 10, 70, 30))
    changed = np.flatnonzero((embeddings(model, encoded())[0] - before).norm(dim=-1).numpy())
    assert changed.tolist() == [*cut.tokens[144:288], *cut.tokens[432:-1]]


def test_queries_that_do_not_fit_are_refused() -> None:
    processor, config, inputs = encode("deepseek_ocr2")
    with pytest.raises(InputError, match="pass processor="):
        find_image_spans(inputs, config, None, SIZES)
    with pytest.raises(InputError, match="would be cut into 3 tiles, and the inputs hold 6") as error:
        find_image_spans(inputs, config, processor, [[(90, 30), SIZES[0][1]], SIZES[1]])
    one_line(error)
    processor.downsample_ratio = 8
    with pytest.raises(InputError, match="writes 64 tokens for 64 x 64 pixels and the model makes 144") as error:
        find_image_spans(inputs, config, processor, SIZES)
    one_line(error)
    with pytest.raises(InputError, match="num_local_patches: pass everything"):
        find_image_spans({"input_ids": inputs["input_ids"]}, config, processor, SIZES)


@pytest.mark.parametrize("family", MIXED)
def test_factors_equal_eager_attentions_and_maps_are_refused(family: str) -> None:
    asked = questions()
    traces = hooked(family).trace_batch(asked, [ANSWER] * 2, rows=("predicting",))
    for question, trace in zip(asked, traces, strict=True):
        seen = reference(family, question, ANSWER)
        rows = [seen.prompt - 1, *range(seen.prompt, seen.prompt + len(ANSWER) - 1)]
        for place, attention in enumerate(seen.attentions):
            by_column = attention[:, rows].astype(np.float64).mean((0, 1))
            expected = [by_column[columns].mean() for columns in seen.images]
            np.testing.assert_allclose(trace.factors[place], expected, atol=1e-6)
            for image, columns in enumerate(seen.images):
                np.testing.assert_allclose(trace.scores(image, place), by_column[columns], atol=1e-6)
        for refused in (trace.cells, trace.map, trace.visible):
            with pytest.raises(InputError, match="no cells and no map: read factors") as error:
                refused()
            one_line(error)
        assert cell_rows("sample", trace) == map_rows("sample", trace) == []


@pytest.mark.parametrize("family", MIXED)
def test_a_saved_checkpoint_is_loaded_and_traced(family: str, tmp_path: Path) -> None:
    processor = build_processor(family)
    build_model(family, processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model = HookedModel.from_pretrained(tmp_path, device="cpu")
    if family == "aria":
        # Not saved: the class itself asks for 980 pixels, which the tiny model has no queries for.
        model.processor.images_kwargs = processor.images_kwargs
    trace = model.trace([picture()], "Which?", max_new_tokens=2)
    assert trace.factors.shape == (3, 1) and np.isfinite(trace.factors).all()


def test_what_does_not_fit_is_refused() -> None:
    processor, config, inputs = encode("idefics2")
    with pytest.raises(InputError, match="pass processor="):
        find_image_spans(inputs, config, None, SIZES)
    processor.image_seq_len = 8
    with pytest.raises(InputError, match="writes 8 tokens per picture and the model makes 4") as error:
        find_image_spans(inputs, build_config("idefics2", processor), processor, SIZES)
    one_line(error)
    assert not ImageSpan(0, 0, 2, ((0, 2),)).mixed
