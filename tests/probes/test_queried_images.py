"""BLIP-2 and InstructBLIP: one image before the text, as the Q-Former's queries; spans and factors known, no cells."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor

from probes.inputs import InputError
from probes.interventions import blank_effects
from probes.model import HookedModel, Question
from probes.patching import patch_effects
from probes.spans import Box, find_image_spans
from tests.probes.hooked import hooked, picture, reference, sharp_model
from tests.probes.processors import build_config, build_model, build_processor, chat
from tests.probes.recipes_mixed import QUERIED
from tests.probes.test_spans_errors import one_line
from tests.probes.test_spans_model import embeddings

ANSWER = (200, 120, 77, 250)
QUESTION = "Which image shows the red ball?"


def inputs_of(processor: Any, images: list[Any]) -> Any:
    texts = [chat(processor, [image], QUESTION) for image in images]
    return processor(text=texts, images=[[image] for image in images], return_tensors="pt", padding=True)


@pytest.mark.parametrize("family", QUERIED)
def test_an_images_tokens_see_that_image_and_no_other(family: str) -> None:
    processor = build_processor(family)
    model = sharp_model(family)
    images = [picture(61, 40, 1), picture(32, 48, 2)]
    inputs = inputs_of(processor, images)
    spans = find_image_spans(inputs, model.config, processor, [[image.size] for image in images])
    assert [[tuple(span) for span in row] for row in spans] == [[(0, 4)]] * 2
    assert [tile.box for tile in spans[0][0].tiles] == [Box(0, 0, 61, 40)] and spans[0][0].mixed
    before = embeddings(model, inputs)
    images[1] = picture(32, 48, 3)
    changed = (embeddings(model, inputs_of(processor, images)) - before).norm(dim=-1)
    assert np.argwhere(changed.numpy() > 0).tolist() == [[1, token] for token in spans[1][0].tokens]


@pytest.mark.parametrize("family", QUERIED)
def test_factors_equal_eager_attentions_and_maps_are_refused(family: str) -> None:
    asked = Question([picture(61, 40, 1)], QUESTION)
    trace = hooked(family).trace(asked.images, asked.text, ANSWER, rows="predicting")
    seen = reference(family, asked, ANSWER)
    assert seen.images == [[0, 1, 2, 3]] and len(seen.attentions) == len(trace.layers)
    rows = [seen.prompt - 1, *range(seen.prompt, seen.prompt + len(ANSWER) - 1)]
    for place, attention in enumerate(seen.attentions):
        by_column = attention[:, rows].astype(np.float64).mean((0, 1))
        np.testing.assert_allclose(trace.factors[place], by_column[:4].mean(keepdims=True), atol=1e-6)
        assert abs(by_column[1:5].mean() - by_column[:4].mean()) > 1e-5
        np.testing.assert_allclose(trace.scores(0, place), by_column[:4], atol=1e-6)
    with pytest.raises(InputError, match="resampler"):
        trace.map(0, -1)


@pytest.mark.parametrize("family", QUERIED)
def test_patching_the_image_equals_running_the_blank(family: str) -> None:
    model, asked = hooked(family), Question([picture(61, 40, 1)], QUESTION)
    expected = blank_effects(model, asked, ANSWER)
    effects = patch_effects(model, asked, ANSWER, windows=[model.residual_layers, model.residual_layers[-1:]])
    np.testing.assert_allclose(effects[0], expected, atol=2e-4)
    assert np.abs(effects[1] - expected).max() > 1e-3


@pytest.mark.parametrize("family", QUERIED)
def test_a_saved_checkpoint_is_traced_once_its_prompt_format_is_given(family: str, tmp_path: Path) -> None:
    """Their processors' classes take no template, saved or not."""
    processor = build_processor(family)
    build_model(family, processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"no chat template, .*: set processor\.chat_template"):
        HookedModel.from_pretrained(tmp_path, device="cpu")
    loaded = AutoProcessor.from_pretrained(tmp_path)
    loaded.chat_template = processor.chat_template
    model = HookedModel(AutoModelForImageTextToText.from_pretrained(tmp_path), loaded)
    trace = model.trace([picture()], QUESTION, max_new_tokens=2)
    assert trace.factors.shape == (len(model.layers), 1) and np.isfinite(trace.factors).all()


@pytest.mark.parametrize("family", QUERIED)
def test_what_cannot_be_asked_is_refused(family: str) -> None:
    model = hooked(family)
    video = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    for question in (
        Question([picture(), picture()], QUESTION),
        Question([picture()], "Which is it: <image>?"),
        Question([], QUESTION, [video]),
        Question([picture()], QUESTION, [video]),
    ):
        with pytest.raises(InputError, match="puts one image before the text: ask about one, without marks") as error:
            model.encode([question])
        one_line(error)


@pytest.mark.parametrize("family", QUERIED)
def test_other_numbers_of_queries_are_refused(family: str) -> None:
    processor = build_processor(family)
    config = build_config(family, processor)
    inputs = inputs_of(processor, [picture()])
    for written in (None, 8):
        processor.num_query_tokens = written
        with pytest.raises(InputError, match=f"num_query_tokens is {written} and the model has 4 queries") as error:
            find_image_spans(inputs, config, processor, [[(32, 32)]])
        one_line(error)


@pytest.mark.parametrize("family", QUERIED)
def test_image_tokens_cut_by_truncation(family: str) -> None:
    processor = build_processor(family)
    inputs = inputs_of(processor, [picture()])
    cut = {**inputs, **{name: inputs[name][:, :3] for name in ("input_ids", "attention_mask")}}
    with pytest.raises(InputError, match=r"row 0, image 0: it needs 4 .*truncat") as error:
        find_image_spans(cut, build_config(family, processor), processor, [[(32, 32)]])
    one_line(error)


@pytest.mark.parametrize("family", QUERIED)
def test_the_reason_against_batches_still_holds(family: str) -> None:
    """Once the padding stands before the image, the families belong among the batched."""
    processor = build_processor(family)
    texts = ["Which?", QUESTION]
    inputs = processor(text=texts, images=[[picture()]] * 2, return_tensors="pt", padding=True)
    assert inputs["attention_mask"][0, :4].all() and not inputs["attention_mask"][0, 4]


def test_no_answer_is_put_behind_the_q_formers_question() -> None:
    """Not even where its tokens happen to be as many as the decoder's."""
    model = hooked("instructblip")
    encoded = model.encode([Question([picture()], QUESTION)])
    same = dict.fromkeys(("qformer_input_ids", "qformer_attention_mask"), encoded.inputs["input_ids"])
    longer = model._encoder.append(replace(encoded, inputs={**encoded.inputs, **same}), [ANSWER])
    assert longer.inputs["input_ids"].shape[1] == longer.inputs["attention_mask"].shape[1] == encoded.columns + 4
    assert all(longer.inputs[key].shape[1] == encoded.columns for key in same)
