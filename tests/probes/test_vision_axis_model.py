"""Questions put to Mllama: traces over its vision axis equal eager cross-attentions; its like are refused."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from probes.axes import AXES, ENCODER_TEXTS, MARKED, check_marked
from probes.bridges.nnsight import NNsightModel
from probes.bridges.runner import UnsupportedBridge
from probes.encoding import Encoded, Encoder
from probes.inputs import InputError
from probes.instruments.reading import read
from probes.interventions import blank_effects, knockout_effects
from probes.model import HookedModel, Question
from probes.patching import patch_effects
from probes.recorder import AttentionRecorder
from tests.probes.axis_cases import FLORENCE, build
from tests.probes.dense_reference import TOLERANCE
from tests.probes.hooked import NEVER, picture
from tests.probes.test_vision_axis import model, processor

ANSWER = (40, 90, 17)
CROSSING = 1
"""The one layer of the tiny Mllama that has a cross-attention."""
Floats = NDArray[np.float64]


@cache
def hooked() -> HookedModel:
    made = HookedModel(model(), processor())
    made.model.set_attn_implementation("sdpa")
    made.model.generation_config.eos_token_id = NEVER
    return made


def side_by_side() -> Question:
    return Question([picture(60, 40, 1), picture(20, 70, 2)], "Which image shows the red ball?")


def questions() -> list[Question]:
    return [side_by_side(), Question([picture(150, 61, 3), picture(32, 32, 4)], "How many digits?")]


def eager(question: Question, rows: list[int]) -> tuple[list[Floats], Floats]:
    """One question alone through eager attention: per image the mean over heads and rows per column, and the logits.

    The inputs and the columns are made here by hand: the answer sees what the last token of the prompt sees, and an
    image has room for four tiles of a class token and 16 patches, of which its own come first.
    """
    plain = hooked()
    content = [{"type": "image"}] * len(question.images) + [{"type": "text", "text": question.text}]
    text = processor().apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = dict(processor()(text=[text], images=[list(question.images)], return_tensors="pt"))
    answer = torch.tensor([ANSWER])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    mask = inputs["cross_attention_mask"]
    inputs["cross_attention_mask"] = torch.cat([mask, mask[:, -1:].repeat(1, len(ANSWER), 1, 1)], 1)
    plain.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            output = plain.model(**inputs, output_attentions=True, use_cache=False)
    finally:
        plain.model.set_attn_implementation("sdpa")
    seen = output.attentions[CROSSING][0].double().numpy()[:, rows].mean((0, 1))
    tiles = [int((image != 0).sum()) for image in inputs["aspect_ratio_mask"][0]]
    columns = [seen[image * 68 : image * 68 + count * 17] for image, count in enumerate(tiles)]
    return columns, output.logits[0].double().numpy()


@pytest.mark.parametrize("together", [False, True])
def test_traces_equal_eager_cross_attentions(together: bool) -> None:
    """Alone, and left-padded in a batch."""
    asked = questions()
    batches = [asked] if together else [[each] for each in asked]
    traces = [
        trace
        for batch in batches
        for trace in hooked().trace_batch(batch, [ANSWER] * len(batch), rows=("predicting", "answer"))
    ]
    assert len({trace.prompt_tokens for trace in traces}) == 2
    for question, trace in zip(asked, traces, strict=True):
        assert trace.layers == [CROSSING] == hooked().layers
        for name, rows in (("predicting", [-4, -3, -2]), ("answer", [-3, -2, -1])):
            columns, logits = eager(question, rows)
            expected = [each.mean() for each in columns]
            assert np.abs(trace.factors_by_rows[name][0] - expected).max() < TOLERANCE
            others, _ = eager(question, [each - 1 for each in rows])
            moved = np.abs(trace.factors_by_rows[name][0] - [each.mean() for each in others]).max()
            assert moved > 10 * TOLERANCE
            for image, own in enumerate(columns):
                assert np.abs(trace.scores(image, CROSSING, name) - own).max() < TOLERANCE
                assert np.abs(trace.scores(image, CROSSING, name) - np.roll(own, 1)).max() > 100 * TOLERANCE
        chosen = torch.tensor(logits)[-4:-1].log_softmax(-1).gather(1, torch.tensor(ANSWER)[:, None])
        assert trace.log_probability == pytest.approx(float(chosen.sum()), abs=1e-3)


def test_an_only_image_has_all_the_attention() -> None:
    trace = hooked().trace([picture(60, 40, 1)], "How many digits?", answer=ANSWER)
    assert trace.factors[0, 0] * len(trace.scores(0)) == pytest.approx(1, abs=1e-5)


def test_questions_with_unequal_numbers_of_images_are_asked_apart() -> None:
    """Rows before an image attend to padding, so that together they are not what they are alone."""
    unequal = [side_by_side(), Question([picture(150, 61, 3)], "How many digits?")]
    with pytest.raises(InputError, match=r"equally many images together \(here 1 to 2\), or give batch_size=1"):
        hooked().trace_batch(unequal, [ANSWER, ANSWER])


def test_heads_are_kept_apart() -> None:
    whole, apart = (hooked().trace(*side_by_side(), answer=ANSWER, per_head=each) for each in (False, True))
    assert apart.factors.shape == (1, 4, 2)
    np.testing.assert_allclose(apart.factors.mean(1), whole.factors, atol=1e-7)
    assert apart.factors.std(1).max() > 1e-4


def test_a_generated_answer_is_traced_as_the_same_one_given() -> None:
    free = hooked().trace(*side_by_side(), max_new_tokens=4)
    given = hooked().trace(*side_by_side(), answer=free.answer_ids)
    assert len(free.answer_ids) == 4
    np.testing.assert_array_equal(free.factors, given.factors)
    assert free.log_probability == given.log_probability


def test_an_answer_that_sees_no_image_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = hooked().trace(*side_by_side(), answer=ANSWER, rows="answer")
    append = Encoder.append

    def blind(self: Encoder, encoded: Encoded, answer_ids: Any) -> Encoded:
        made = append(self, encoded, answer_ids)
        made.inputs["cross_attention_mask"][:, encoded.prompt_stop :] = 0
        return made

    monkeypatch.setattr(Encoder, "append", blind)
    wrong = hooked().trace(*side_by_side(), answer=ANSWER, rows="answer")
    assert np.abs(right.factors - wrong.factors).max() > 1e-3
    assert abs(right.log_probability - wrong.log_probability) > 1e-2


def test_of_images_with_text_between_them_the_mask_shows_the_last() -> None:
    images = side_by_side().images
    trace = hooked().trace(images, "1 <image> 2 <image> Which one?", answer=ANSWER)
    assert trace.factors[0, 0] == 0 and trace.factors[0, 1] > 0
    assert hooked().trace(images, "<image><image> Which one?", answer=ANSWER).factors.min() > 1e-3


def test_maps_lie_in_the_pictures_own_frame() -> None:
    trace = hooked().trace(*side_by_side(), answer=ANSWER)
    assert trace.map(0).shape == (8, 8) and trace.map(1).shape == (12, 4)
    for image, (width, height) in enumerate(trace.image_sizes):
        assert sum(cell.box.area for cell in trace.cells(image)) == pytest.approx(width * height)
    assert trace.scores(0).shape == (4 * 17,)
    assert trace.focus() == int(np.argmax(trace.factors[0]))


def test_a_blanked_image_changes_the_answers_probability() -> None:
    effects = blank_effects(hooked(), side_by_side(), ANSWER)
    assert effects.shape == (2,) and np.abs(effects).min() > 1e-3


def test_what_needs_image_tokens_is_refused() -> None:
    asked: tuple[HookedModel, Question, tuple[int, ...]] = (hooked(), side_by_side(), ANSWER)
    for act, wanted in (
        (lambda: hooked().trace(*side_by_side(), answer=ANSWER, rows="anchor"), "rows='anchor'"),
        (lambda: hooked().trace(*side_by_side(), answer=ANSWER, image_to_image=True), "image_to_image"),
        (lambda: knockout_effects(*asked), "a knock-out of an image"),
        (lambda: patch_effects(*asked), "a patch of an image"),
        (lambda: read(*asked), "a reading of instruments"),
    ):
        with pytest.raises(InputError, match=f"{wanted} needs tokens that hold images.*blank or swap") as error:
            act()
        assert "\n" not in str(error.value)
    with pytest.raises(UnsupportedBridge, match=r"does not read 'mllama' models.*use HookedModel"):
        NNsightModel.of(hooked())


def test_layers_that_are_recorded_can_be_chosen() -> None:
    encoded = hooked().encode([side_by_side()], [ANSWER])
    rows = {"all": torch.ones_like(encoded.inputs["input_ids"], dtype=torch.bool)}
    both = AttentionRecorder(hooked().model, encoded.spans, rows, cross_spans=encoded.cross_spans)
    some = AttentionRecorder(hooked().model, encoded.spans, rows, layers=[0, 2])
    with torch.no_grad(), both, some:
        hooked().model(**encoded.inputs, use_cache=False)
    assert some.layers == [0, 2] and torch.equal(some.factors("all"), both.factors("all")[:, [0, 2]])
    for layers in ([], [7]):
        with pytest.raises(InputError, match=r"record some of \[0, 1, 2\]"):
            AttentionRecorder(hooked().model, encoded.spans, rows, layers=layers)


def test_families_whose_prompt_holds_no_images_are_refused_by_name() -> None:
    for model_type in sorted({*AXES, *ENCODER_TEXTS} - set(MARKED)):
        with pytest.raises(InputError, match=f"does not trace '{model_type}'.*cross_spans=") as error:
            check_marked(model_type)
        assert "\n" not in str(error.value)
    for model_type in ("mllama", "llava"):
        check_marked(model_type)
    with pytest.raises(InputError, match="does not trace 'florence2' models: its encoder reads images"):
        HookedModel(build(FLORENCE, mixing=True), FLORENCE.processor())


def test_a_saved_checkpoint_is_loaded_and_traced(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    loaded = HookedModel.from_pretrained(tmp_path, device="cpu")
    assert loaded.layers == [CROSSING] and "attention in 1 layer," in repr(loaded)
    trace = loaded.trace(*side_by_side(), answer=ANSWER)
    assert np.abs(trace.factors - hooked().trace(*side_by_side(), answer=ANSWER).factors).max() < TOLERANCE
