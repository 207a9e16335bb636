"""Token reduction of every model: masks, maps, factors, frames, tiles and rates, and refusals where there is none."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from probes.frame_scores import frame_attention_accuracy
from probes.inputs import InputError
from probes.model import HookedModel, Question
from probes.reduction.sampling import OnlyFirstFrameWarning, efficient_video_sampling, kept_count
from probes.reduction.sweep import PlantedVideo, pruned_at, pruning_sweep
from probes.reduction.tile_scores import image_shares, tile_attention
from probes.reduction.tiles import TiledProcessor, Tiling
from probes.state_space import trace_mixers
from probes.trace import Trace
from tests.probes.hooked import picture
from tests.probes.inside.cases import ANSWER, EVERY, VIDEO, image_columns, model_of, own, question_of, rows_after
from tests.probes.reduction.pruned import RATE, moving

GROUPS, CELLS = 3, 16
"""Groups of two frames in the video, and tokens of each."""


def traced(name: str) -> Trace:
    return model_of(name).trace_batch([question_of(name)], [ANSWER], rows=("after",))[0]


@EVERY
def test_the_mask_travels_with_maps_and_factors(name: str) -> None:
    trace = traced(name)
    for image, columns in enumerate(image_columns(name)):
        kept = trace.spans[image].retention
        assert int(kept.sum()) == len(columns) and bool(kept.all()) == (name != VIDEO)
        for place, layer in enumerate(trace.layers):
            scores = trace.scores(image, layer)
            assert (np.isnan(scores) == ~kept).all()
            shares = own(name).attentions[layer][:, rows_after(name)].mean((0, 1))[columns]
            np.testing.assert_allclose(scores[kept], shares, atol=1e-5)
            assert float(trace.factors[place, image]) == pytest.approx(float(np.nanmean(scores)), abs=1e-6)
    if name == VIDEO:
        grids = [trace.map(0, -1, frame=frame) for frame in range(6)]
        masks = [trace.retained(0, frame) for frame in range(6)]
        assert all((np.isnan(grid) == ~mask).all() for grid, mask in zip(grids, masks, strict=True))
    else:
        assert np.isfinite(trace.map(0, -1)).all() and trace.retained(0).all()


def test_the_mask_is_the_rules_and_travels_with_hidden_attention() -> None:
    model, question = model_of(VIDEO), question_of(VIDEO)
    kept = traced(VIDEO).spans[0].retention
    with pruned_at(model, 0.0):
        whole = model.encode([question]).inputs["mm_encoder_outputs"]["image"].pooler_output[0]
    features = whole.view(GROUPS, CELLS, -1).numpy()
    np.testing.assert_array_equal(efficient_video_sampling(features, RATE).kept.ravel(), kept)
    change = 1 - torch.nn.functional.cosine_similarity(whole[CELLS:], whole[:-CELLS]).numpy()
    dropped = change[~kept[CELLS:]]
    assert kept[:CELLS].all() and dropped.max() <= change[kept[CELLS:]].min()
    assert kept.sum() == kept_count(GROUPS, CELLS, RATE) == max(CELLS, int(GROUPS * CELLS * (1 - RATE)))
    hidden = trace_mixers(model, [question], [ANSWER], rows=("after",), maps=True)[0]
    for maps in hidden.maps_by_rows.values():
        assert (np.isnan(maps[0]) == ~kept).all()


@EVERY
def test_frames_are_scored_as_images_are(name: str) -> None:
    trace = traced(name)
    if name != VIDEO:
        with pytest.raises(InputError, match="no video"):
            trace.frames()
        return
    frames, kept = trace.frames(), trace.spans[0].retention.reshape(GROUPS, CELLS)
    by_group = [own(name).attentions[layer][:, rows_after(name)].mean((0, 1)) for layer in trace.layers]
    columns, counts = image_columns(name)[0], kept.sum(axis=1)
    edges = np.cumsum([0, *counts])
    right = [[float(each[columns[a:b]].mean()) for a, b in pairwise(edges)] for each in by_group]
    np.testing.assert_allclose(frames.factors, right, atol=1e-5)
    seen = int(np.mean(right, axis=0).argmax())
    for target in range(2 * GROUPS):
        scores = frame_attention_accuracy([frames], [target], [True])
        assert scores.board.attention_accuracy.value == float(frames.focus() == target // 2)
        assert scores.board.chance == pytest.approx(1 / GROUPS) and scores.lost.value == 0
    assert frames.focus() == seen


@EVERY
def test_rates_are_swept_where_tokens_are_dropped(name: str) -> None:
    model, planted = model_of(name), PlantedVideo(moving(), "See <video> Which?", "no such word", frame=4)
    if name.startswith("omni"):
        with pytest.warns(OnlyFirstFrameWarning, match="only the first of 3"):
            points = pruning_sweep(model, [planted], [0.0, 0.5, 1 - 1 / GROUPS], max_new_tokens=2)
        wanted = [kept_count(GROUPS, CELLS, point.rate) / (GROUPS * CELLS) for point in points]
        assert [point.kept for point in points] == wanted == [1.0, 0.5, 1 / 3]
        assert [point.first_frame_only for point in points] == [0, 0, 1]
        assert [point.frames.lost.value for point in points] == [0, 0, 1]
        assert [point.answers.value for point in points] == [0, 0, 0]
        return
    with pytest.raises(InputError, match="LlavaForConditionalGeneration prunes no videos: take nemotron_h_omni"):
        pruning_sweep(model, [planted], [0.5])


@EVERY
def test_tiles_with_a_thumbnail_keep_every_pixel_once(name: str) -> None:
    model = model_of(name)
    if not name.startswith("omni"):
        with pytest.raises(
            InputError, match=r"LlavaProcessor packs no patches .* other families cut images themselves"
        ):
            TiledProcessor(model.processor, Tiling(side=16, most=4))
        return
    tiled: Any = HookedModel(model.model, TiledProcessor(model.processor, Tiling(side=16, most=4)))
    images = Question([picture(32, 32, 1), picture(32, 16, 2)], "1 <image> 2 <image> Which?")
    trace = tiled.trace_batch([images], [ANSWER], rows=("after",))[0]
    found = [tile_attention(trace.scores(image), trace.spans[image]) for image in range(2)]
    assert [each.thumbnail.tolist() for each in found] == [[False] * 4 + [True], [False] * 2 + [True]]
    for image, each in enumerate(found):
        cells = [cell for cell in trace.spans[image].cells() if not cell.thumbnail]
        width, height = trace.image_sizes[image]
        assert sum(cell.box.area for cell in cells) == width * height and len(cells) == each.tokens[:-1].sum()
        np.testing.assert_allclose(each.sums.sum(), trace.scores(image).sum(), rtol=1e-5)
        assert float(each.image()) == pytest.approx(float(trace.factors[-1, image]), rel=1e-4)
    assert sum(image_shares(found)) == pytest.approx(1)


def test_a_single_frame_is_refused() -> None:
    with pytest.raises(InputError, match=r"a single frame.*as an image, or give two frames or more"):
        model_of(VIDEO).encode([Question([], "Which?", [moving(2)[:1]])])
    with pytest.raises(InputError, match=r"a video of 1 frame has no earlier frame.*as an image, or give two frames"):
        kept_count(1, CELLS, RATE)
