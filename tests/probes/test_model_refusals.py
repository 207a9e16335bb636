"""What a hooked model refuses: one clear line, naming the thing and the way forward."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from probes.inputs import InputError
from probes.model import HookedModel, Question
from probes.spans import Box, ImageSpan, Tile
from probes.trace import Trace
from tests.probes import processors
from tests.probes.hooked import hooked, picture, questions, sharp_model


def refusal(images: Any, text: Any, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        hooked("llava").trace(images, text, **{"max_new_tokens": 2, **settings})
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


def test_questions_that_cannot_be_asked() -> None:
    assert "at least one image" in refusal([], "Which?")
    assert "the question is empty" in refusal([picture()], " ")
    assert "the question is empty" in refusal([picture()], "<image> ")
    assert "3 <image> marks for 2 images" in refusal([picture()] * 2, "<image> <image> <image> which?")
    assert "must be a string" in refusal([picture()], None)
    assert "into a list" in refusal(picture(), "Which?")
    assert "into a list" in refusal("cat.png", "Which?")


def test_images_that_cannot_be_read(tmp_path: Any) -> None:
    (tmp_path / "half.png").write_bytes(hooked_png()[:60])
    (tmp_path / "text.png").write_text("no image")
    assert "nowhere.png" in refusal([tmp_path / "nowhere.png"], "Which?")
    assert "half.png" in refusal([tmp_path / "half.png"], "Which?")
    assert "text.png" in refusal([tmp_path / "text.png"], "Which?")
    assert "pixels" in refusal([Image.new("1", (9000, 9000))], "Which?")


def hooked_png() -> bytes:
    from probes.inputs import ImageRef

    return ImageRef.of(picture()).read()


def test_answers_and_settings_that_make_no_sense() -> None:
    assert "empty" in refusal([picture()], "Which?", answer="  ")
    assert "stands for an image" in refusal([picture()], "Which?", answer="an <image>")
    assert "max_new_tokens" in refusal([picture()], "Which?", max_new_tokens=0)
    assert "unknown rows" in refusal([picture()], "Which?", rows="all")
    assert "only one image" in refusal([picture()], "Which?", rows="anchor")
    with pytest.raises(InputError, match="2 questions need as many answers, and 1"):
        hooked("llava").log_probability(questions()[:2], ["one"])
    with pytest.raises(InputError, match="no questions"):
        hooked("llava").trace_batch([])
    with pytest.raises(InputError, match="at least one row set"):
        hooked("llava").trace_batch(questions(), rows=())


def test_a_batch_names_the_question_at_fault() -> None:
    asked = [*questions(), Question([picture()], "")]
    with pytest.raises(InputError, match=r"question 3: the question is empty"):
        hooked("llava").trace_batch(asked, max_new_tokens=1)


def test_placeholders_smuggled_into_the_text_are_refused() -> None:
    with pytest.raises(InputError):
        hooked("qwen2_5_vl").trace([picture()], "Which <|image_pad|> is it?", max_new_tokens=1)


def short(context: int) -> HookedModel:
    processor = processors.build_processor("llava")
    config = processors.build_config("llava", processor)
    config.text_config.max_position_embeddings = context
    from transformers import LlavaForConditionalGeneration

    return HookedModel(LlavaForConditionalGeneration(config), processor)


def test_prompts_longer_than_the_context_are_refused() -> None:
    images: Sequence[Image.Image] = [picture()] * 8
    with pytest.raises(InputError, match=r"8 images: 128.*positions for 100") as caught:
        short(100).trace(images, "Which?", max_new_tokens=1)
    assert "fewer or smaller images" in str(caught.value)
    length = hooked("llava").encode([Question([picture()], "Which?")]).prompt_lengths[0]
    assert short(length + 3).trace([picture()], "Which?", max_new_tokens=3).answer_tokens <= 3
    with pytest.raises(InputError, match="4 for the new tokens"):
        short(length + 3).trace([picture()], "Which?", max_new_tokens=4)
    with pytest.raises(InputError, match="positions for"):
        short(length + 1).trace([picture()], "Which?", answer="many more words than fit")


@pytest.mark.parametrize("given", [None, "one"])
def test_logits_that_are_not_numbers_are_refused(given: str | None) -> None:
    broken = sharp_model("llava")
    with torch.no_grad():
        broken.lm_head.weight[5] = float("nan")
    model = HookedModel(broken, processors.build_processor("llava"))
    with pytest.raises(InputError, match="not numbers"):
        model.trace([picture()], "Which?", answer=given, max_new_tokens=2)
    with pytest.raises(InputError, match="not numbers"):
        model.generate([picture()], "Which?", 2)


def test_pairs_that_do_not_belong_together_are_refused() -> None:
    llava, qwen = processors.build_processor("llava"), processors.build_processor("qwen2_5_vl")
    model = sharp_model("llava")
    with pytest.raises(InputError, match="no image processor"):
        HookedModel(model, _only_tokenizer(llava))
    with pytest.raises(InputError, match="has no tokenizer"):
        HookedModel(model, llava.tokenizer)
    with pytest.raises(InputError, match="takes no images"):
        HookedModel(model.model.language_model, llava)
    with pytest.raises(InputError, match="give a transformers model"):
        HookedModel("llava-hf/llava-1.5-7b-hf", llava)
    with pytest.raises(InputError, match="do not match"):
        HookedModel(model, qwen)
    other = sharp_model("llava")
    other.config.image_token_index = other.config.image_token_id = 7
    with pytest.raises(InputError, match=r"marks images by token 7, the processor by \d+"):
        HookedModel(other, llava)
    llava.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        HookedModel(model, llava)


class _only_tokenizer:  # noqa: N801
    def __init__(self, processor: Any) -> None:
        self.tokenizer = processor.tokenizer


def test_a_processor_that_makes_other_tiles_than_the_model_takes_is_refused() -> None:
    processor = processors.build_processor("llava", crop_size={"height": 64, "width": 64}, size={"shortest_edge": 64})
    model = HookedModel(sharp_model("llava"), processor)
    for answer in (None, "one"):
        with pytest.raises(InputError, match=r"refuses these inputs.*belong together"):
            model.trace([picture()], "Which?", answer=answer, max_new_tokens=1)


def test_a_trace_names_what_it_does_not_have() -> None:
    question = questions()[0]
    trace = hooked("llava").trace(question.images, question.text, answer="one")
    assert trace.map(0, -1) is not None
    np.testing.assert_array_equal(trace.map(0, -1), trace.map(-3, 2))
    with pytest.raises(InputError, match="no image 3: this trace has 3"):
        trace.map(3)
    for layer in (3, -4):
        with pytest.raises(InputError, match="layers 0, 1, 2"):
            trace.map(0, layer)
    with pytest.raises(InputError, match="no maps for rows 'answer'"):
        trace.map(0, rows="answer")
    with pytest.raises(ValueError, match="rule"):
        trace.focus("LAST")
    bare: Trace = hooked("llava").trace(question.images, question.text, answer="one", maps=False)
    with pytest.raises(InputError, match="maps=True"):
        bare.map(0)


def with_tiles(*tiles: Tile) -> Trace:
    """A trace whose first image has these tiles of 2 x 2 tokens, attended 0, 1, 2, …"""
    count = 4 * len(tiles)
    trace = hooked("llava").trace([picture(), picture()], "Which?", answer="one")
    span = ImageSpan(0, 3, 3 + count, ((3, 3 + count),), tiles, (64, 64))
    maps = (np.tile(np.arange(count, dtype=np.float32), (3, 1)), trace.maps_by_rows["paper"][1])
    return replace(trace, spans=(span, trace.spans[1]), maps_by_rows={"paper": maps})


def test_tiles_are_stitched_and_thumbnails_left_out() -> None:
    left, right, whole = Box(0, 0, 32, 64), Box(32, 0, 64, 64), Box(0, 0, 64, 64)
    trace = with_tiles(Tile(2, 2, right), Tile(2, 2, left), Tile(2, 2, whole, thumbnail=True))
    np.testing.assert_array_equal(trace.map(0), [[4, 5, 0, 1], [6, 7, 2, 3]])
    assert len(trace.cells(0)) == len(trace.scores(0)) == 12


def test_images_without_a_single_grid_point_to_their_cells() -> None:
    whole = Box(0, 0, 64, 64)
    frames = with_tiles(Tile(2, 2, whole, frame=0), Tile(2, 2, whole, frame=1))
    ragged = with_tiles(Tile(2, 2, Box(0, 0, 32, 32)), Tile(2, 2, Box(32, 0, 64, 32)), Tile(2, 2, Box(0, 32, 64, 64)))
    for trace in (frames, ragged):
        with pytest.raises(InputError, match=r"cells\("):
            trace.map(0)
        assert len(trace.cells(0)) == len(trace.scores(0))


@pytest.mark.parametrize("layer", [3, 99, -4, 1.5, "1"])
def test_layers_that_a_trace_does_not_have(layer: Any) -> None:
    trace = hooked("llava").trace([picture()], "Which?", answer="1")
    for read in (trace.map, trace.scores, trace.visible):
        with pytest.raises(
            InputError, match=rf"no attention in layer {layer!r}.*0, 1, 2; give one of them, or -1 to -3"
        ):
            read(image=0, layer=layer)


@pytest.mark.parametrize("last", [0, -1, 1.5, "4"])
def test_numbers_of_last_layers_that_are_none(last: Any) -> None:
    trace = hooked("llava").trace([picture(), picture(seed=1)], "Which?", answer="1")
    with pytest.raises(ValueError, match=r"at least 1 last layer.*give last=1, 2"):
        trace.focus(last=last)
    assert trace.focus(last=99) == trace.focus(last=3)


def test_a_family_without_spans_points_to_spans_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    from probes import attention_factors
    from probes.families import FAMILIES

    model = hooked("llava")
    encoded = model.encode(questions()[:1])
    factors = attention_factors(model.model, encoded.inputs, [-1], [tuple(span) for span in encoded.spans[0]])
    monkeypatch.delitem(FAMILIES, "llava")
    message = refusal(questions()[0].images, questions()[0].text)
    assert "no image spans are known for model type 'llava'" in message and "attention_factors(image_spans=" in message
    assert factors.shape == (1, 3, 3)
