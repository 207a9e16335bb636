"""Traces of videos against eager attentions computed by hand, alone and in padded batches, whole and by frame."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probes.clips import Video
from probes.families import VIDEOS
from probes.instruments.sample import generic_factors, generic_text
from probes.interventions import blank_effects, knocked_out, knockout_effects
from probes.model import HookedModel, Question
from probes.videos import VideoSpan
from tests.probes.bridges.backends import BRIDGES, backend
from tests.probes.hooked import Reference, hooked, picture, sharp_model
from tests.probes.moving import MOVING, SIZE, TOGETHER, clip, moving_questions, moving_reference
from tests.probes.processors import build_processor
from tests.probes.test_model_trace import ANSWER, factors_by_hand, rows_by_hand

TOLERANCE = 1e-5
TOLD_APART = 10 * TOLERANCE


def sums_by_hand(seen: Reference, rows: list[int], columns: list[int], groups: int) -> np.ndarray[Any, Any]:
    """(layers, groups): attention summed over each group's tokens, which follow each other; a newline comes last."""
    mean = np.stack([attention[:, rows].mean(axis=(0, 1), dtype=np.float64) for attention in seen.attentions])
    size = len(columns) // groups
    cells = [columns[group * size : (group + 1) * size] for group in range(groups)]
    return np.stack([mean[:, part].sum(axis=-1) for part in cells], axis=-1)


@pytest.mark.parametrize("family", MOVING)
def test_factors_and_frames_equal_those_of_eager_attentions(family: str) -> None:
    model, asked, together = hooked(family), moving_questions(family), TOGETHER.get(family, 2)
    padded = model.trace_batch(asked, [ANSWER] * len(asked), rows=("paper", "predicting", "after"))
    assert len({trace.prompt_tokens for trace in padded}) == len(asked)
    for question, trace in zip(asked, padded, strict=True):
        seen = moving_reference(family, question, ANSWER)
        images = len(question.images)
        assert list(trace.image_columns) == list(range(images))
        assert list(trace.video_columns) == list(range(images, images + len(question.videos)))
        assert [isinstance(span, VideoSpan) for span in trace.spans] == [False] * images + [True] * len(question.videos)
        for name, factors in trace.factors_by_rows.items():
            rows = rows_by_hand(model, question, seen, name)
            np.testing.assert_allclose(factors, factors_by_hand(seen, rows), atol=TOLERANCE)
            for video, frames in enumerate(question.videos):
                found = trace.frames(video, rows=name)
                firsts = range(0, len(frames), together)
                assert [(each.start, each.stop) for each in found.frames] == [
                    (first, min(first + together, len(frames))) for first in firsts
                ]
                expected = sums_by_hand(seen, rows, seen.images[images + video], len(firsts))
                np.testing.assert_allclose(found.sums, expected, atol=5 * TOLERANCE)
                np.testing.assert_allclose(found.factors, expected / found.tokens, atol=TOLERANCE)
        alone = model.trace(question.images, question.text, ANSWER, videos=question.videos)
        np.testing.assert_allclose(alone.factors, trace.factors, atol=TOLERANCE)
        np.testing.assert_allclose(alone.frames().factors, trace.frames().factors, atol=TOLERANCE)


@pytest.mark.parametrize("family", MOVING)
def test_attention_is_sharp_enough_to_tell_frames_apart(family: str) -> None:
    """What a span off by one frame, or frames in another order, would give is far from what is right."""
    model, question = hooked(family), moving_questions(family)[0]
    seen = moving_reference(family, question, ANSWER)
    rows = rows_by_hand(model, question, seen, "paper")
    columns, groups = seen.images[0], 4 // TOGETHER.get(family, 2)
    size = len(columns) // groups
    right = sums_by_hand(seen, rows, columns, groups)
    shifted = [*columns[size:], *seen.images[1][: len(columns) - len(columns[size:])]]
    assert np.abs(right - sums_by_hand(seen, rows, shifted, groups)).max() > TOLD_APART
    assert np.abs(right - right[:, ::-1]).max() > TOLD_APART
    off = factors_by_hand(seen._replace(images=[shifted, seen.images[1]]), rows)
    assert np.abs(off - factors_by_hand(seen, rows)).max() > TOLD_APART


@pytest.mark.parametrize("family", ["qwen2_5_vl", "glm4v", "llava_onevision"])
def test_frames_make_up_the_video(family: str) -> None:
    trace = hooked(family).trace([], "Which?", ANSWER, videos=[clip(4)])
    found, span = trace.frames(), trace.spans[0]
    newline = trace.scores(0)[-1] if family == "llava_onevision" else 0.0
    assert int(found.tokens.sum()) == len(span.cells()) == len(span.tokens) - (family == "llava_onevision")
    total = found.sums[-1].sum() + newline
    assert total / len(span.tokens) == pytest.approx(float(trace.factors[-1, 0]), abs=1e-7)
    np.testing.assert_allclose(found.factors * found.tokens, found.sums, rtol=1e-6)
    for frame in range(4):
        group = found.group(frame)
        assert frame in found.frames[group]
        grid = trace.map(0, -1, frame=frame)
        assert grid.sum() == pytest.approx(float(trace.frames(layer=-1).sums[group]), abs=1e-6)
    assert "0 images, 1 video" in repr(trace)
    assert trace.videos[0] == (*SIZE, (0, 1, 2, 3))


def test_answers_that_were_generated_are_traced_as_those_that_were_given() -> None:
    model, question = hooked("qwen2_5_vl"), moving_questions("qwen2_5_vl")[0]
    free = model.trace(question.images, question.text, max_new_tokens=4, videos=question.videos)
    forced = model.trace(question.images, question.text, free.answer_ids, videos=question.videos)
    assert model.generate(question.images, question.text, 4, videos=question.videos) == free.answer
    np.testing.assert_array_equal(forced.factors, free.factors)
    assert forced.log_probability == free.log_probability


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl", "llava_onevision"])
def test_images_and_videos_share_a_batch_and_a_prompt(family: str) -> None:
    model = hooked(family)
    asked = [
        Question([picture(32, 32), picture(64, 32)], "Which image shows the red ball?"),
        Question([picture(32, 32)], "<image> or <video> or what?", [clip(2)]),
        Question([], "Which?", [clip(2, seed=1)]),
    ]
    for question, trace in zip(asked, model.trace_batch(asked, [ANSWER] * 3), strict=True):
        (alone,) = model.trace_batch([question], [ANSWER])
        assert trace.factors.shape == alone.factors.shape
        np.testing.assert_allclose(trace.factors, alone.factors, atol=TOLERANCE)
    first = model.encode([Question([picture()], "Which?", [clip(2)])]).spans[0]
    assert first[0].start < first[1].start
    video_first = model.encode([Question([picture()], "<video> or <image> it", [clip(2)])]).spans[0]
    assert video_first[1].start < video_first[0].start


def test_pairwise_and_anchor_rows_take_videos_for_images() -> None:
    question = moving_questions("qwen2_5_vl")[0]
    model = hooked("qwen2_5_vl")
    trace = model.trace([], question.text, ANSWER, rows="anchor", image_to_image=True, videos=question.videos)
    seen = moving_reference("qwen2_5_vl", question, ANSWER)
    expected = factors_by_hand(seen, seen.images[1])
    np.testing.assert_allclose(trace.factors[:, 0], expected[:, 0], atol=TOLERANCE)
    assert np.isnan(trace.factors[:, 1]).all()
    assert trace.pairwise is not None and trace.pairwise.shape == (3, 3, 3)
    np.testing.assert_allclose(trace.pairwise[:, 1, :2], expected, atol=TOLERANCE)


def test_a_video_is_hidden_as_an_image_is_and_is_not_replaced() -> None:
    model, question = hooked("qwen2_5_vl"), moving_questions("qwen2_5_vl")[2]
    effects = knockout_effects(model, question, ANSWER)
    encoded = model.encode([question], [ANSWER])
    cut = model.score(encoded, [knocked_out(encoded, "after", [1])]).log_probability[0]
    whole = model.score(encoded).log_probability[0]
    assert effects.shape == (1, 2)
    assert effects[0, 1] == pytest.approx(whole - cut, abs=1e-4) and abs(effects[0, 1]) > 1e-3
    blank = blank_effects(model, question, ANSWER)
    without = Question([picture(32, 32, 9)], question.text, question.videos)
    assert blank.shape == (1,) and blank[0] != 0
    assert model.log_probability([without], [ANSWER]).log_probability[0] != whole
    with pytest.raises(ValueError, match="knockout_effects"):
        blank_effects(model, moving_questions("qwen2_5_vl")[0], ANSWER)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "glm4v"])
def test_frames_are_sampled_only_when_asked(family: str) -> None:
    model, frames = hooked(family), clip(12)
    whole = model.trace([], "Which?", ANSWER, videos=[Video(frames, fps=6)])
    assert whole.videos[0].frames == tuple(range(12)) and whole.frames().frames[-1].stop == 12
    chosen = {"qwen2_5_vl": {"num_frames": 4}, "qwen3_vl": {"fps": 3}, "glm4v": {}}[family]
    processor = build_processor(family)
    for name, value in chosen.items():
        setattr(processor.video_processor, name, value)
    some = HookedModel(model.model, processor).trace([], "Which?", ANSWER, videos=[Video(frames, fps=6, sample=True)])
    metadata = {"total_num_frames": 12, "fps": 6, "duration": 2.0, "frames_indices": list(range(12))}
    sampling: dict[str, Any] = {"do_sample_frames": True, "video_metadata": [metadata], **chosen}
    seen = moving_reference(family, Question([], "Which?", [frames]), ANSWER, **sampling)
    kept = some.videos[0].frames
    assert 0 < len(kept) < 12 and set(kept) <= set(range(12))
    rows = rows_by_hand(model, Question([], "Which?"), seen, "paper")
    np.testing.assert_allclose(some.factors, factors_by_hand(seen, rows), atol=TOLERANCE)
    groups = len(some.frames().frames)
    np.testing.assert_allclose(some.frames().sums, sums_by_hand(seen, rows, seen.images[0], groups), atol=TOLERANCE)


def test_the_rate_reaches_prompts_and_positions_and_half_precision_keeps_it() -> None:
    model = hooked("qwen2_5_vl")
    slow, fast = (model.encode([Question([], "Which?", [Video(clip(4), fps=fps)])]) for fps in (0.7, 30))
    assert float(slow.inputs["second_per_grid_ts"]) == pytest.approx(2 / 0.7)
    assert float(fast.inputs["second_per_grid_ts"]) == pytest.approx(2 / 30)
    half = HookedModel(sharp_model("qwen2_5_vl").to(torch.bfloat16), model.processor)
    encoded = half.encode([Question([], "Which?", [Video(clip(4), fps=0.7)])])
    assert torch.equal(encoded.inputs["second_per_grid_ts"], slow.inputs["second_per_grid_ts"])
    assert encoded.inputs["pixel_values_videos"].dtype == torch.bfloat16
    written = hooked("qwen3_vl")
    ids = [
        written.encode([Question([], "Which?", [Video(clip(4), fps=fps)])]).inputs["input_ids"].tolist()
        for fps in (1, 2)
    ]
    assert ids[0] != ids[1]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
@pytest.mark.parametrize("bridge", BRIDGES)
def test_bridges_trace_videos_as_the_plain_model_does(bridge: str, family: str) -> None:
    asked = moving_questions(family)
    expected = hooked(family).trace_batch(asked, [ANSWER] * 3)
    for ours, theirs in zip(expected, backend(bridge, family).trace_batch(asked, [ANSWER] * 3), strict=True):
        np.testing.assert_allclose(theirs.factors, ours.factors, atol=TOLERANCE)
        np.testing.assert_allclose(theirs.frames().sums, ours.frames().sums, atol=TOLERANCE)


def test_the_generic_question_keeps_what_stands_before_the_last_video() -> None:
    model, question = hooked("glm4v"), moving_questions("glm4v")[0]
    asked = generic_text(question.text, "Describe them.", videos=True)
    assert asked == "1 <video> 2 <video> Describe them."
    unasked = generic_factors(model, question, "Describe them.")
    trace = model.trace_batch([Question([], asked, question.videos)], [()], rows=("paper",))[0]
    np.testing.assert_allclose(unasked["paper"], trace.factors, atol=TOLERANCE)


def test_the_example_of_the_readme_runs() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    code = text.split("<!-- video example -->\n```python\n")[1].split("```")[0]
    names: dict[str, Any] = {"model": hooked("qwen2_5_vl"), "frames": clip(6)}
    for line in code.splitlines():
        exec(line, names) if line.startswith("trace = ") else names.update(shown=eval(line.strip() or "None", names))
    assert names["trace"].factors.shape == (3, 1)
    assert names["trace"].frames().frames == (range(0, 2), range(2, 4), range(4, 6))
    assert names["shown"].shape == (5, 8)
    assert f"Of {len(VIDEOS)} the tokens of videos are known too" in text
