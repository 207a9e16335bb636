"""Videos that the model prunes: everything at the right positions, against the model's own forward that prunes."""

from typing import Any

import numpy as np
import pytest
import torch

from probes.attention import attention_factors
from probes.clips import Video
from probes.experts.effects import expert_effects
from probes.inputs import InputError
from probes.instruments.contribution_reading import contributions
from probes.interventions import knocked_out, knockout_effects
from probes.model import HookedModel, Question
from probes.reduction.sampling import OnlyFirstFrameWarning, kept_count
from probes.reduction.videos import prepare_videos
from probes.state_space import trace_mixers
from probes.videos import VideoSpan, find_video_spans
from tests.probes.hooked import hooked, picture
from tests.probes.moving import encoded
from tests.probes.reduction.pruned import ANSWER, FAMILY, RATE, SIDE, Own, asked, moving, own, rate

TOLERANCE = 1e-5
TOLD_APART = 10 * TOLERANCE


def by_hand(seen: Own, rows: list[int], columns: list[int]) -> np.ndarray[Any, Any]:
    """(layers, columns): mean over heads and rows."""
    return np.asarray(seen.attentions[:, :, rows].mean(axis=(1, 2))[:, columns])


def paper_rows(model: HookedModel, seen: Own) -> list[int]:
    """Text behind the video without the template's tail, and the answer, in the shortened sequence."""
    tail = len(model.processor.tokenizer(" ASSISTANT:", add_special_tokens=False)["input_ids"])
    return [*range(seen.left[-1] + 1, seen.prompt - tail), *range(seen.prompt, seen.prompt + len(ANSWER))]


@pytest.mark.parametrize("pruning", [0.0, RATE, 0.6])
def test_traces_equal_the_models_own_pruned_forward(pruning: float) -> None:
    question, seen = asked(moving()), own(asked(moving()), ANSWER, pruning)
    with rate(hooked(FAMILY), pruning) as model:
        trace = model.trace_batch([question], [ANSWER], rows=("paper", "predicting"))[0]
        encoded_here = model.encode([question], [ANSWER])
        logits = model._answer_logits(encoded_here)[0]
    assert len(seen.left) == (kept_count(3, 16, pruning) if pruning else 48) == int(trace.spans[0].retention.sum())
    assert trace.spans[0].retention.tolist() == seen.kept.tolist()
    assert trace.spans[0].tokens.tolist() == seen.left
    assert trace.prompt_tokens == seen.prompt
    np.testing.assert_allclose(logits, seen.logits[seen.prompt - 1 :], atol=1e-4)
    scores = seen.logits[seen.prompt - 1 : -1].log_softmax(-1)[range(len(ANSWER)), list(ANSWER)]
    assert trace.log_probability == pytest.approx(float(scores.sum()), abs=1e-4)
    predicting = list(range(seen.prompt - 1, seen.prompt - 1 + len(ANSWER)))
    for name, rows in (("paper", paper_rows(model, seen)), ("predicting", predicting)):
        expected = by_hand(seen, rows, seen.left)
        np.testing.assert_allclose(trace.factors_by_rows[name][:, 0], expected.mean(axis=-1), atol=TOLERANCE)
        maps = trace.maps_by_rows[name][0]
        assert maps.shape == (2, 48) and np.isnan(maps[:, ~seen.kept]).all()
        np.testing.assert_allclose(maps[:, seen.kept], expected, atol=TOLERANCE)


def test_positions_that_ignore_the_mask_are_far_off() -> None:
    """The written columns in the shortened sequence, and values without gaps, are both seen to be wrong."""
    seen = own(asked(moving()), ANSWER, RATE)
    rows = [*range(seen.prompt - 1, seen.prompt + 2)]
    right = by_hand(seen, rows, seen.left)
    ignoring = [column for column in seen.written if column < seen.attentions.shape[-1]]
    assert np.abs(by_hand(seen, rows, ignoring).mean(-1) - right.mean(-1)).max() > TOLD_APART
    spread = np.full((2, len(seen.kept)), np.nan)
    spread[:, seen.kept] = right
    packed = np.full((2, len(seen.kept)), np.nan)
    packed[:, : right.shape[1]] = right
    by_frame = [np.nansum(values.reshape(2, 3, 16), axis=-1) for values in (spread, packed)]
    assert np.abs(by_frame[0] - by_frame[1]).max() > TOLD_APART


def test_maps_frames_and_cells_say_which_tokens_are_left() -> None:
    with rate(hooked(FAMILY), RATE) as model:
        trace = model.trace([], asked(moving()).text, ANSWER, videos=[moving()])
    span = trace.spans[0]
    assert isinstance(span, VideoSpan) and span.kept is not None
    kept = np.array(span.kept).reshape(3, 4, 4)
    assert kept[0].all() and kept[2, 1, 2], "the first group and the changed patch are kept"
    for frame in range(6):
        grid = trace.map(0, -1, frame=frame)
        assert np.isnan(grid).tolist() == (~kept[frame // 2]).tolist() == (~trace.retained(0, frame)).tolist()
    for asked_of in (trace.map, trace.retained):
        with pytest.raises(InputError, match="has 6 frames and no single map: give frame=0"):
            asked_of(0)
        with pytest.raises(InputError, match="no frame 6: the model was shown 6"):
            asked_of(0, frame=6)
    assert repr(span).startswith("VideoSpan(0, columns ") and "tiles: 3, 40 x 40 pixels, 24 of 48" in repr(span)
    cells = trace.cells(0)
    assert [cell.kept for cell in cells] == list(span.kept)
    assert sum(cell.box.area for cell in cells) == 3 * SIDE * SIDE
    assert [span.places[cell.token] >= 0 for cell in cells] == list(span.kept)
    assert len(trace.visible(0).scores) == kept.sum() and np.isfinite(trace.visible(0).scores).all()
    frames = trace.frames()
    assert frames.tokens.tolist() == kept.sum(axis=(1, 2)).tolist()
    assert float(frames.sums[-1].sum()) == pytest.approx(float(np.nansum(trace.scores(0))), abs=1e-6)
    assert frames.sums[-1].sum() / kept.sum() == pytest.approx(float(trace.factors[-1, 0]), abs=1e-7)


def test_a_frame_without_tokens_has_no_attention_and_no_focus() -> None:
    with rate(hooked(FAMILY), 0.9) as model, pytest.warns(OnlyFirstFrameWarning, match="only the first of 3"):
        trace = model.trace([], asked(moving()).text, ANSWER, videos=[moving()])
    frames = trace.frames()
    assert frames.tokens.tolist() == [16, 0, 0]
    assert np.isnan(frames.factors).tolist() == [[False, True, True]] * 2
    assert frames.focus() == 0 and np.isnan(trace.map(0, -1, frame=5)).all()
    with rate(model, 0.5), pytest.warns(OnlyFirstFrameWarning, match="merges the video's 2 frames into one"):
        whole = model.encode([asked(moving(2))])
    assert whole.spans[0][0].kept is None and len(whole.spans[0][0].tokens) == 16


def test_generation_follows_the_models_own_pruned_forward() -> None:
    question = asked(moving())
    with rate(hooked(FAMILY), RATE) as model:
        free = model.trace([], question.text, max_new_tokens=3, videos=question.videos)
    barred = model._encoder.placeholders
    answer: tuple[int, ...] = ()
    for _ in range(3):
        logits = own(question, answer, RATE).logits[-1].clone()
        logits[list(barred)] = -torch.inf
        answer = (*answer, int(logits.argmax()))
    assert free.answer_ids == answer


def test_a_patch_painted_into_one_frame_changes_the_token_of_its_cell() -> None:
    model = hooked(FAMILY)
    span = model.encode([asked(moving())]).spans[0][0]
    before, cell = _features(model, moving()), span.cells()[2 * 16 + 4 * 3 + 1]
    assert (cell.frame, cell.frames, cell.row, cell.column) == (4, 2, 3, 1)
    painted = moving()
    left, top, right, bottom = (round(edge) for edge in cell.box)
    painted[5, top + 1 : bottom - 1, left + 1 : right - 1] = 255
    change = (_features(model, painted) - before).norm(dim=-1)
    assert int(change.argmax()) == cell.token and (change[:32] < 1e-5).all()


def _features(model: HookedModel, video: Any) -> torch.Tensor:
    made: torch.Tensor = model.encode([asked(video)]).inputs["mm_encoder_outputs"]["image"].pooler_output[0]
    return made


def test_frames_that_are_no_squares_keep_their_grid() -> None:
    with rate(hooked(FAMILY), RATE) as model:
        trace = model.trace([], "Which?", ANSWER, videos=[moving(6, (60, 30))])
    tile = trace.spans[0].tiles[0]
    assert (tile.rows, tile.columns) == (3, 5) == trace.map(0, -1, frame=0).shape
    assert int(trace.spans[0].retention.sum()) == kept_count(3, 15, RATE) == 22


def test_a_map_shows_the_painted_pixels_of_their_own_frame_and_no_others() -> None:
    """The painted cell's column is found by what the decoder is given, and its attention eagerly: by no span."""
    text, videos = "See <video> Which?", [moving(6, (60, 30)) for _ in range(2)]
    for video, colour in zip(videos, (0, 60), strict=True):
        video[5, 10:20, 24:36] = colour
    with rate(hooked(FAMILY), RATE) as model:
        questions = [Question([], text, [video]) for video in videos]
        trace = model.trace_batch(questions[:1], [ANSWER], rows=("predicting",))[0]
        given = [model.encode([question], [ANSWER]) for question in questions]
        every = torch.ones(1, given[0].columns, dtype=torch.bool)
        streams = [model.residuals(each, every, [0])[0] for each in given]
    with rate(model, 0.0):
        written = model.encode(questions[:1]).spans[0][0].tokens
    assert given[0].spans[0][0].kept == given[1].spans[0][0].kept
    column = int((streams[0] - streams[1]).norm(dim=-1).argmax())
    with torch.no_grad():
        attentions = (
            hooked(FAMILY, "eager").model(**given[0].inputs, output_attentions=True, use_cache=False).attentions
        )
    rows = [trace.prompt_tokens - 1 + place for place in range(len(ANSWER))]
    seen = attentions[-1][0, :, rows].mean((0, 1)).numpy()
    maps = np.stack([trace.map(0, -1, frame=frame) for frame in range(6)])
    shown = np.argwhere(np.isclose(maps, seen[column], rtol=1e-4, atol=0)).tolist()
    assert shown == [[4, 1, 2], [5, 1, 2]], "both frames of the group, second row, third column"
    ignoring = written[2 * 15 + 1 * 5 + 2]
    assert ignoring != column and not np.isclose(seen[ignoring], seen[column], rtol=1e-2)


def test_every_probe_counts_in_the_shortened_sequence() -> None:
    question = asked(moving())
    with rate(hooked(FAMILY), RATE) as model:
        encoded_here = model.encode([question], [ANSWER])
        length, span = encoded_here.columns, encoded_here.spans[0][0]
        routing = model.routing(encoded_here)
        assert routing.indices.shape[1] == length and (routing.images == 0).sum() == 24
        mixers = trace_mixers(model, [question], [ANSWER], maps=True, forms=("absolute",))[0]
        maps = mixers.maps_by_rows["paper", "absolute"][0]
        assert np.isnan(maps[0]).tolist() == (~span.retention).tolist()
        np.testing.assert_allclose(np.nanmean(maps, axis=-1), mixers.factors("absolute")[:, 0], rtol=1e-5)
        tokens = torch.zeros(1, length, dtype=torch.bool)
        tokens[0, span.tokens] = True
        stream = model.residuals(encoded_here, tokens, [0])[0]
        torch.testing.assert_close(stream, _features(model, moving()))
        effects = knockout_effects(model, question, ANSWER)
        whole = model.score(encoded_here).log_probability[0]
        cut = model.score(encoded_here, [knocked_out(encoded_here, "after", [0])]).log_probability[0]
        assert effects[0, 0] == pytest.approx(whole - cut, abs=1e-4)
        assert abs(whole - cut) > 1e-3
        assert contributions(model, question, ANSWER).log_probability == pytest.approx(whole, abs=1e-4)
        layer = routing.layers[0]
        assert expert_effects(model, question, ANSWER, [(layer, 0)], tokens="images")
        encoded_blank = model.encode([asked(np.full_like(moving(), 127))], [ANSWER])
        assert encoded_blank.columns == length


def test_the_engine_takes_prepared_inputs_and_refuses_others() -> None:
    question, seen = asked(moving()), own(asked(moving()), (), RATE)
    with rate(hooked(FAMILY), RATE) as model:
        inputs = encoded(model.processor, question)
        spans = find_video_spans(inputs, model.model.config, model.processor, [[(6, SIDE, SIDE)]])
        prepared = prepare_videos(model.model, inputs, spans)
        found = attention_factors(model.model, prepared.inputs, [-1], prepared.spans)[0, :, 0]
        with pytest.raises(InputError, match=r"drops tokens of its video inside its forward.*prepare_videos"):
            attention_factors(model.model, inputs, [-1], spans)
        with pytest.raises(InputError, match="makes 3 x 16 tokens of the video, and its span has 32"):
            prepare_videos(model.model, inputs, [[VideoSpan(0, 0, 32, ((0, 32),))]])
        with pytest.raises(InputError, match="takes one video"):
            prepare_videos(model.model, inputs, [[]])
    np.testing.assert_allclose(found, by_hand(seen, [seen.prompt - 1], seen.left).mean(-1), atol=TOLERANCE)
    untouched = {"input_ids": torch.zeros(1, 4, dtype=torch.long)}
    assert prepare_videos(model.model, untouched, [[]]).columns.all()


def test_what_the_processor_does_not_take_is_refused() -> None:
    model, video = hooked(FAMILY), moving(4)
    for questions in (
        [Question([picture()], "Is <video> like <image>?", [video])],
        [Question([], "Which?", [video, video])],
        [Question([], "Which?", [video])] * 2,
    ):
        with pytest.raises(InputError, match=r"one video, in a question of its own.*batch_size=1"):
            model.encode(questions)
    with pytest.raises(InputError, match=r"a single frame.*as an image, or give two frames or more"):
        model.encode([Question([], "Which?", [moving(2)[:1]])])
    with rate(model, 1.5), pytest.raises(InputError, match="from 0 to 1"):
        model.encode([Question([], "Which?", [video])])


def test_the_rate_of_frames_reaches_the_prompt_and_lost_tokens_leave_the_length() -> None:
    model = hooked(FAMILY)
    texts = [
        model.processor.tokenizer.decode(model.encode([asked(Video(moving(4), fps=fps))]).inputs["input_ids"][0])
        for fps in (None, 2)
    ]
    assert "Frame 1 and frame 2: " in texts[0] and "frame 4 sampled at 1.50 seconds" in texts[1]
    context, needed = model._encoder._context, model.encode([asked(moving())]).prompt_lengths[0]
    try:
        model._encoder._context = needed - 1
        with pytest.raises(InputError, match=r"1 video: 48.*fewer frames"):
            model.encode([asked(moving())])
        with rate(model, RATE):
            assert model.encode([asked(moving())]).prompt_lengths[0] == needed - 24
    finally:
        model._encoder._context = context
