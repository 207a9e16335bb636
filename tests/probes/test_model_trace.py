"""Traces against eager attentions computed by hand, alone and in batches, given and generated."""

from typing import Any

import numpy as np
import pytest
import torch

from probes.attention import AttentionRecorder, UnsupportedAttention
from probes.encoding import row_sets
from probes.model import HookedModel, Question
from probes.scores import region_attention_accuracy
from probes.spans import Box
from tests.probes import processors
from tests.probes.hooked import FAMILIES, FURTHER, NEVER, Reference, hooked, picture, questions, reference, sharp_model
from tests.probes.recipes_codes import CODES
from tests.probes.recipes_grids import GRIDS
from tests.probes.recipes_patches import PATCHES
from tests.probes.recipes_squares import SQUARES
from tests.probes.recipes_tiles import TILES
from tests.probes.recipes_zoo import ZOO

TOLERANCE = 1e-6
ANSWER = [120, 121, 122, 123]
TAILS = {
    "llava": " ASSISTANT:",
    "qwen2_vl": "<|im_end|>\n<|im_start|>assistant\n",
    "qwen2_5_vl": "<|im_end|>\n<|im_start|>assistant\n",
    "idefics3": "<end_of_utterance>\nAssistant:",
    "smolvlm": "<end_of_utterance>\nAssistant:",
    "gemma3": "<end_of_turn>\n<start_of_turn>model\n",
    "qwen3_5": "<|im_end|>\n<|im_start|>assistant\n",
    "qwen3_5_moe": "<|im_end|>\n<|im_start|>assistant\n",
    "qwen3_vl": "<|im_end|>\n<|im_start|>assistant\n",
    "qwen3_vl_moe": "<|im_end|>\n<|im_start|>assistant\n",
    "glm4v": "<|assistant|>\n",
    "glm46v": "<|assistant|>\n",
    "llava_next": " ASSISTANT:",
    "llava_next_video": " ASSISTANT:",
    "llava_onevision": " ASSISTANT:",
    "mistral3": "[/INST]",
    "glm4v_moe": "<|assistant|>\n",
    "vipllava": " ASSISTANT:",
    "internvl": "<|im_end|>\n<|im_start|>assistant\n",
    "aya_vision": "<|END_OF_TURN|><|START_OF_TURN|>assistant: ",
    "cohere2_vision": "<|END_OF_TURN|><|START_OF_TURN|>assistant: ",
    **dict.fromkeys(GRIDS, "<|im_end|>\n<|im_start|>assistant\n"),
    **dict.fromkeys(SQUARES, " ASSISTANT:"),
    **dict.fromkeys(TILES, " ASSISTANT:"),
    "qianfan_ocr": "<|im_end|>\n<|im_start|>assistant\n",
    "paligemma": "\n",
    **dict.fromkeys(ZOO, "<|im_end|>\n<|im_start|>assistant\n"),
    "glmga": "<|assistant|>\n",
    "mistral_large4": "[/INST]",
    "minimax_m3_vl": "<|turn|>assistant: ",
    "cohere_compass": "<|END|><|START|>assistant: ",
    "gemma4": "<turn|>\n<|turn>model\n",
    "glm_ocr": "<|assistant|>\n",
    "ernie4_5_vl_moe": "\nAssistant: ",
    **dict.fromkeys(CODES, " ASSISTANT:"),
    **dict.fromkeys(PATCHES, " ASSISTANT:"),
    "chameleon": " ASSISTANT:<reserved08706>",
    "gemma4_unified": "<turn|>\n<|turn>model\n",
    "glm5_next": "<|assistant|>\n",
    "fast_vlm": " ASSISTANT:",
    "gemma3n": "<end_of_turn>\n<start_of_turn>model\n",
}
"""The templates' tails, as written in the test processors."""
NOISE = {"qwen3_5_moe": 5e-6, "glm5_next": 5e-6}
"""How far sdpa's own rounding strays from eager's, where linear layers and experts make it grow."""
LAYERS = {
    "glm5_next": [1, 2],
    "lfm2_vl": [0, 2],
    "minicpm_ocr": [0, 2],
    "minicpmv4_6": [0, 2],
    "minicpmv4_7": [0, 2],
    "lfm3_vl": [0, 2],
    "nemotron_h_omni": [1, 3],
    "qwen3_5": [0, 2],
    "qwen3_5_moe": [0, 2],
}
"""Layers with attention, where not all three have it."""


def factors_by_hand(seen: Reference, rows: list[int]) -> np.ndarray:
    """Mean over heads, rows and image tokens, one number at a time."""
    table = np.zeros((len(seen.attentions), len(seen.images)))
    for layer, attention in enumerate(seen.attentions):
        for image, columns in enumerate(seen.images):
            values = [
                attention[head, row, column] for head in range(len(attention)) for row in rows for column in columns
            ]
            table[layer, image] = float(np.mean(np.asarray(values, dtype=np.float64)))
    return table


def rows_by_hand(model: HookedModel, question: Question, seen: Reference, name: str) -> list[int]:
    """Rows counted from the end of the prompt."""
    tail = len(model.processor.tokenizer(TAILS[model.model.config.model_type], add_special_tokens=False)["input_ids"])
    answer = list(range(seen.prompt, seen.prompt + len(ANSWER)))
    after = max(max(columns) for columns in seen.images) + 1
    return {
        "paper": [*range(after, seen.prompt - tail), *answer],
        "predicting": [seen.prompt - 1, *answer[:-1]],
        "answer": answer,
        "anchor": seen.images[-1],
        "after": [*range(after, seen.prompt), *answer],
    }[name]


@pytest.mark.parametrize("family", (*FAMILIES, *FURTHER))
def test_factors_equal_those_of_eager_attentions(family: str) -> None:
    model = hooked(family)
    asked = questions()
    traces = model.trace_batch(asked, [ANSWER] * 3, rows=("paper", "predicting", "answer", "after"))
    for question, trace in zip(asked, traces, strict=True):
        seen = reference(family, question, ANSWER)
        assert trace.layers == LAYERS.get(family, [0, 1, 2])
        for name, factors in trace.factors_by_rows.items():
            expected = factors_by_hand(seen, rows_by_hand(model, question, seen, name))
            assert factors.shape == (len(trace.layers), len(question.images))
            np.testing.assert_allclose(factors, expected, atol=NOISE.get(family, TOLERANCE))


@pytest.mark.parametrize("family", (*FAMILIES, *FURTHER))
def test_attention_is_sharp_enough_to_tell_images_and_rows_apart(family: str) -> None:
    model, question = hooked(family), questions()[0]
    seen = reference(family, question, ANSWER)
    entropies = []
    for attention in seen.attentions:
        row = attention[:, seen.prompt - 1 :].astype(np.float64)
        entropies.append(float(-(row * np.log(np.maximum(row, 1e-30))).sum(axis=-1).mean()))
    assert np.mean(entropies) < 0.8 * np.log(seen.prompt)
    right = rows_by_hand(model, question, seen, "paper")
    factors = factors_by_hand(seen, right)
    swapped = factors_by_hand(seen._replace(images=[seen.images[1], seen.images[0], seen.images[2]]), right)
    with_tail = factors_by_hand(seen, rows_by_hand(model, question, seen, "after"))
    assert np.abs(factors - swapped).max() > 100 * TOLERANCE
    assert np.abs(factors - with_tail).max() > 100 * TOLERANCE


@pytest.mark.parametrize("family", NOISE)
def test_the_noise_is_that_of_sdpa(family: str) -> None:
    question, eager = questions()[0], hooked(family, "eager")
    seen = reference(family, question, ANSWER)
    trace = eager.trace(question.images, question.text, ANSWER)
    expected = factors_by_hand(seen, rows_by_hand(eager, question, seen, "paper"))
    np.testing.assert_allclose(trace.factors, expected, atol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_anchor_rows_are_the_last_image_and_leave_its_own_column_out(family: str) -> None:
    question = questions()[0]
    trace = hooked(family).trace(question.images, question.text, ANSWER, rows="anchor")
    seen = reference(family, question, ANSWER)
    expected = factors_by_hand(seen, seen.images[-1])
    np.testing.assert_allclose(trace.factors[:, :2], expected[:, :2], atol=TOLERANCE)
    assert np.isnan(trace.factors[:, 2]).all()
    assert trace.focus() in (0, 1)


@pytest.mark.parametrize("family", (*FAMILIES, *FURTHER))
def test_maps_hold_the_attention_to_each_image_token(family: str) -> None:
    question = questions()[0]
    model = hooked(family)
    trace = model.trace(question.images, question.text, ANSWER)
    seen = reference(family, question, ANSWER)
    rows = rows_by_hand(model, question, seen, "paper")
    for image, columns in enumerate(seen.images):
        for place, layer in enumerate(trace.layers):
            expected = seen.attentions[place][:, rows][:, :, columns].mean(axis=(0, 1))
            scores = trace.scores(image, layer)
            np.testing.assert_allclose(scores, expected, atol=NOISE.get(family, TOLERANCE))
            cells = [cell for cell in trace.cells(image) if not cell.thumbnail]
            grid = trace.map(image, layer)
            assert sorted(grid.flatten().tolist()) == sorted(float(scores[cell.token]) for cell in cells)
            top_left = min(cells, key=lambda cell: (cell.box.top, cell.box.left, cell.row, cell.column))
            lowest = max(cells, key=lambda cell: (cell.box.bottom, cell.box.right, cell.row, cell.column))
            assert grid[0, 0] == scores[top_left.token]
            assert grid[-1, -1] == scores[lowest.token]


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probability_is_the_sum_over_the_answers_tokens(family: str) -> None:
    model, asked = hooked(family), questions()
    scores = model.log_probability(asked, [ANSWER, ANSWER[:1], ANSWER[:3]])
    for place, length in enumerate((4, 1, 3)):
        seen = reference(family, asked[place], ANSWER[:length])
        rows = seen.logits[seen.prompt - 1 : seen.prompt - 1 + length].log_softmax(-1)
        expected = sum(float(rows[step, ANSWER[step]]) for step in range(length))
        assert scores.log_probability[place] == pytest.approx(expected, abs=1e-4)
    assert scores.tokens.tolist() == [4, 1, 3]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trace_alone_equals_its_trace_in_a_padded_batch(family: str) -> None:
    model, asked = hooked(family), questions()
    names = ("paper", "predicting", "answer")
    together = model.trace_batch(asked, max_new_tokens=5, rows=names, image_to_image=True)
    assert len({trace.prompt_tokens for trace in together}) == 3
    for question, padded in zip(asked, together, strict=True):
        (alone,) = model.trace_batch([question], max_new_tokens=5, rows=names, image_to_image=True)
        assert padded.answer_ids == alone.answer_ids
        assert (padded.answer, padded.prompt_tokens) == (alone.answer, alone.prompt_tokens)
        assert padded.log_probability == pytest.approx(alone.log_probability, abs=1e-4)
        for name in names:
            np.testing.assert_allclose(padded.factors_by_rows[name], alone.factors_by_rows[name], atol=TOLERANCE)
            for one, other in zip(padded.maps_by_rows[name], alone.maps_by_rows[name], strict=True):
                np.testing.assert_allclose(one, other, atol=TOLERANCE)
        assert padded.pairwise is not None and alone.pairwise is not None
        assert padded.pairwise.shape == (3, len(question.images) + 1, len(question.images) + 1)
        np.testing.assert_allclose(padded.pairwise, alone.pairwise, atol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_teacher_forcing_what_was_generated_gives_the_same_trace(family: str) -> None:
    model, question = hooked(family), questions()[0]
    generated = model.trace(question.images, question.text, max_new_tokens=5)
    forced = model.trace(question.images, question.text, generated.answer_ids)
    assert generated.answer_tokens == forced.answer_tokens == 5
    assert forced.answer == generated.answer
    assert forced.log_probability == generated.log_probability
    np.testing.assert_array_equal(forced.factors, generated.factors)


@pytest.mark.parametrize(
    "family",
    (*FAMILIES, "ernie4_5_vl_moe", "lfm2_vl", "llama4", "minicpmv4_6", "molmo2", "paligemma", "step3p7"),
)
def test_the_forward_pass_reads_what_a_recorder_on_the_generation_reads(family: str) -> None:
    """The last token written never becomes a row of a generation, so that writes one token more."""
    model, asked = hooked(family), questions()
    traces = model.trace_batch(asked, max_new_tokens=4, rows=("paper", "answer"))
    encoded = model.encode(asked)
    masks = row_sets(encoded, ("paper", "answer"))
    recorder = AttentionRecorder(model.model, encoded.spans, masks, generated=("paper", "answer"))
    with torch.no_grad(), recorder:
        model.model.generate(**encoded.inputs, do_sample=False, max_new_tokens=5, eos_token_id=NEVER)
    for row, trace in enumerate(traces):
        for name in ("paper", "answer"):
            during = recorder.factors(name)[row, :, : len(asked[row].images)].numpy()
            np.testing.assert_allclose(trace.factors_by_rows[name], during, atol=TOLERANCE)


def test_layers_that_share_keys_are_read_from_a_forward_and_refused_on_a_generation() -> None:
    """Generation runs such layers on one row of the prompt; ours runs them on every row."""
    model, asked = hooked("gemma4"), questions()
    assert model.model.config.text_config.num_kv_shared_layers == 1
    encoded = model.encode(asked)
    recorder = AttentionRecorder(model.model, encoded.spans, row_sets(encoded, ("paper",)), generated=("paper",))
    with torch.no_grad(), pytest.raises(UnsupportedAttention, match="enter before the first forward"), recorder:
        model.model.generate(**encoded.inputs, do_sample=False, max_new_tokens=2)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_rows_behind_an_end_of_sequence_are_not_counted(family: str) -> None:
    asked = questions()
    free = hooked(family).trace_batch(asked, max_new_tokens=6)
    model = HookedModel(sharp_model(family), hooked(family).processor)
    model.model.generation_config.eos_token_id = [free[0].answer_ids[2], NEVER]
    traces = model.trace_batch(asked, max_new_tokens=6)
    assert traces[0].answer_ids == free[0].answer_ids[: free[0].answer_ids.index(free[0].answer_ids[2])]
    assert max(trace.answer_tokens for trace in traces) > traces[0].answer_tokens
    for question, trace in zip(asked, traces, strict=True):
        alone = model.trace(question.images, question.text, max_new_tokens=6)
        assert alone.answer_ids == trace.answer_ids
        np.testing.assert_allclose(alone.factors, trace.factors, atol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_padded_prompts_get_the_positions_that_generation_gives_them(family: str) -> None:
    """Rotary positions would hide a shift; learned ones would not."""
    model, asked = hooked(family), questions()
    given: list[torch.Tensor] = []

    def note(_: torch.nn.Module, __: tuple[object, ...], keywords: dict[str, torch.Tensor]) -> None:
        given.append(keywords["position_ids"])

    handle = model.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        model.trace_batch(asked, max_new_tokens=2)
    finally:
        handle.remove()
    prefill, forward = given[0], given[-1]
    encoded = model.encode(asked)
    real = encoded.inputs["attention_mask"].bool()
    assert not real.all() and forward.shape[-1] == encoded.columns + 2
    assert torch.equal(forward[..., : encoded.columns][..., real], prefill[..., real])
    assert (forward[..., 0, encoded.columns] == prefill[..., 0, -1] + 1).all()


def test_an_answer_that_ends_at_once_is_empty_and_still_traced() -> None:
    question = questions()[0]
    free = hooked("llava").trace(question.images, question.text, max_new_tokens=1)
    model = HookedModel(sharp_model("llava"), hooked("llava").processor)
    model.model.generation_config.eos_token_id = free.answer_ids[0]
    trace = model.trace_batch([question], max_new_tokens=4, rows=("paper", "predicting", "answer"))[0]
    assert (trace.answer, trace.answer_ids, trace.answer_tokens) == ("", (), 0)
    assert np.isnan(trace.log_probability)
    assert np.isfinite(trace.factors_by_rows["paper"]).all()
    assert np.isnan(trace.factors_by_rows["answer"]).all()
    seen = reference("llava", question, ())
    np.testing.assert_allclose(
        trace.factors_by_rows["predicting"], factors_by_hand(seen, [seen.prompt - 1]), atol=TOLERANCE
    )


def test_heads_kept_apart_average_to_the_factors() -> None:
    question = questions()[0]
    model = hooked("llava")
    whole = model.trace(question.images, question.text, ANSWER)
    apart = model.trace(question.images, question.text, ANSWER, per_head=True)
    assert apart.factors.shape == (3, 4, 3)
    np.testing.assert_allclose(apart.factors.mean(axis=1), whole.factors, atol=1e-7)
    assert np.abs(apart.factors - whole.factors[:, None]).max() > 1e-3
    assert apart.focus() == whole.focus()


def test_pairwise_factors_are_rows_of_images_and_text() -> None:
    question = questions()[0]
    trace = hooked("llava").trace(question.images, question.text, ANSWER, image_to_image=True)
    seen = reference("llava", question, ANSWER)
    assert trace.pairwise is not None
    for image, rows in enumerate(seen.images):
        expected = factors_by_hand(seen, rows)
        np.testing.assert_allclose(trace.pairwise[:, image, :3], expected, atol=TOLERANCE)
    assert (trace.pairwise[:, 0, 1:3] == 0).all()
    after = list(range(max(seen.images[-1]) + 1, seen.prompt + len(ANSWER)))
    np.testing.assert_allclose(trace.pairwise[:, 3, :3], factors_by_hand(seen, after), atol=TOLERANCE)


def test_the_model_is_left_as_it_was_found() -> None:
    model, question = hooked("llava"), questions()[0]
    inputs = model.encode([question]).inputs
    with torch.no_grad():
        before = model.model(**inputs).logits
    model.trace(question.images, question.text, max_new_tokens=2)
    with torch.no_grad():
        torch.testing.assert_close(model.model(**inputs).logits, before, rtol=0, atol=0)
    assert not model.model.training


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 3e-4), (torch.float16, 3e-5)])
def test_half_precision_stays_near_full_precision(family: str, dtype: torch.dtype, tolerance: float) -> None:
    question = questions()[0]
    full = hooked(family).trace(question.images, question.text, ANSWER)
    model = HookedModel(sharp_model(family).to(dtype), hooked(family).processor)
    half = model.trace(question.images, question.text, ANSWER)
    assert half.factors.dtype == np.float32
    np.testing.assert_allclose(half.factors, full.factors, atol=tolerance, rtol=0)
    assert np.abs(full.factors - full.factors[:, ::-1]).max() > tolerance


def llava_with(strategy: str = "default", padded: bool = False) -> HookedModel:
    """A LLaVA that keeps its tower's class token ("full"), or whose processor pads images to squares."""
    from transformers import LlavaImageProcessor

    processor = processors.build_processor("llava")
    processor.vision_feature_select_strategy = strategy
    if padded:
        sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        processor.image_processor = LlavaImageProcessor(**sizes, do_pad=True)
    tokens = 17 if strategy == "full" else 16
    changes: dict[str, Any] = {"vision_feature_select_strategy": strategy, "image_seq_length": tokens}
    return HookedModel(processors.build_model("llava", processor, **changes), processor)


def test_visible_leaves_out_what_saw_only_padding() -> None:
    trace = llava_with(padded=True).trace([picture(90, 40)], "Which?", ANSWER)
    boxes, scores = trace.visible()
    assert len(trace.cells()) == len(trace.scores()) == 16
    assert boxes.shape == (8, 4) and scores.shape == (8,)
    assert ((boxes[:, 2:] - boxes[:, :2]) > 0).all()
    by_token = {cell.box: float(trace.scores()[cell.token]) for cell in trace.cells() if cell.box.area}
    assert {Box(*box): float(score) for box, score in zip(boxes.tolist(), scores, strict=True)} == by_token
    assert region_attention_accuracy(scores, boxes, [0, 0, 45, 40]).chance == 0.5


def test_visible_pairs_boxes_with_scores_past_a_class_token() -> None:
    trace = llava_with("full").trace([picture()], "Which?", ANSWER)
    assert (len(trace.cells()), len(trace.scores())) == (16, 17)
    boxes, scores = trace.visible()
    np.testing.assert_array_equal(scores, trace.scores()[1:])
    assert boxes[0].tolist() == [0, 0, 8, 8]
    everywhere = trace.visible(layer=None)
    assert everywhere.scores.shape == (3, 16)
    np.testing.assert_array_equal(everywhere.scores[1], trace.scores(layer=1)[1:])


def test_visible_takes_tiles_before_a_thumbnail() -> None:
    trace = hooked("idefics3").trace([picture(64, 64)], "Which?", ANSWER)
    cells = trace.cells()
    tiles = sum(not cell.thumbnail for cell in cells)
    assert 0 < tiles < len(cells)
    assert len(trace.visible().boxes) == tiles
    assert len(trace.visible(thumbnails=True).scores) == len(cells)
