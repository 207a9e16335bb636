"""Efficient Video Sampling against transformers' own mask, the formula in whole numbers, and hand-made videos."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.nemotron_h_omni.modeling_nemotron_h_omni import compute_retention_mask

from probes.inputs import InputError
from probes.reduction.sampling import (
    OnlyFirstFrameWarning,
    Retention,
    efficient_video_sampling,
    kept_count,
    rgb_patches,
    warn_if_first_frame_only,
)

FRAMES, TOKENS = st.integers(2, 12), st.integers(1, 20)
RATES = st.floats(0, 1, allow_nan=False)


def quiet(frames: np.ndarray, rate: float, distance: str = "cosine") -> Retention:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OnlyFirstFrameWarning)
        return efficient_video_sampling(frames, rate, distance)


@settings(max_examples=25, deadline=None)
@given(FRAMES, st.integers(1, 4), st.integers(1, 4), RATES, st.integers(0, 99))
def test_the_mask_is_that_of_transformers(frames: int, rows: int, columns: int, rate: float, seed: int) -> None:
    embeddings = np.random.default_rng(seed).normal(size=(frames, rows * columns, 5))
    theirs = compute_retention_mask(
        video_embeds=torch.from_numpy(embeddings), thw=(frames, rows, columns), spatial_merge_size=1, q=rate
    )
    ours = quiet(embeddings, rate)
    assert ours.kept.ravel().tolist() == theirs.tolist()
    assert ours.kept.sum() == quiet(embeddings, rate, "l1").kept.sum() == kept_count(frames, rows * columns, rate)


@settings(max_examples=60, deadline=None)
@given(FRAMES, TOKENS, RATES)
def test_the_count_follows_the_formula(frames: int, tokens: int, rate: float) -> None:
    count = kept_count(frames, tokens, rate)
    exact = frames * tokens * (1 - Fraction(rate))
    # In floating point the product may fall on the other side of a whole number, as it does in transformers.
    near = {math.floor(exact)} | ({round(exact)} if abs(exact - round(exact)) < 1e-9 else set())
    assert count in {max(tokens, each) for each in near}
    assert tokens <= count <= frames * tokens
    assert kept_count(frames, tokens, min(1, rate + 0.1)) <= count


@settings(max_examples=60, deadline=None)
@given(FRAMES, TOKENS, RATES)
def test_it_warns_exactly_where_only_the_first_frame_is_left(frames: int, tokens: int, rate: float) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        warn_if_first_frame_only(frames, tokens, rate)
    assert bool(heard) == (kept_count(frames, tokens, rate) == tokens)
    assert heard or rate < 1 - 1 / frames
    if heard:
        advised = float(str(heard[0].message).split("give a rate of ")[1].split()[0])
        assert kept_count(frames, tokens, advised) > tokens


def test_the_advised_rate_keeps_more_than_the_first_frame_where_floating_point_falls_short() -> None:
    assert kept_count(25, 1, 0.92) == 1, "though 25 (1 - 0.92) is 2"
    with pytest.warns(OnlyFirstFrameWarning, match=r"give a rate of 0\.919 or less"):
        warn_if_first_frame_only(25, 1, 0.95)


@pytest.mark.parametrize("frames", [2, 3, 7, 10, 64])
@pytest.mark.parametrize("tokens", [1, 16, 49, 256])
def test_the_ends_of_the_rates(frames: int, tokens: int) -> None:
    assert kept_count(frames, tokens, 0) == frames * tokens
    assert kept_count(frames, tokens, 1) == kept_count(frames, tokens, 1 - 1 / frames) == tokens
    assert kept_count(frames, tokens, max(0, 1 - (tokens + 1.5) / (frames * tokens))) == tokens + 1


@settings(max_examples=25, deadline=None)
@given(FRAMES, TOKENS, RATES, st.sampled_from(["cosine", "l1"]), st.integers(0, 99))
def test_masks_keep_the_first_frame_and_what_changed_most(
    frames: int, tokens: int, rate: float, distance: str, seed: int
) -> None:
    found = quiet(np.random.default_rng(seed).normal(size=(frames, tokens, 3)), rate, distance)
    assert found.kept[0].all() and found.counts.sum() == kept_count(frames, tokens, rate)
    assert found.share == found.kept.mean()
    if not found.kept.all():
        assert found.change[found.kept].min() >= found.change[~found.kept].max()


def test_what_changed_is_kept_until_only_the_first_frame_is_left() -> None:
    video = np.ones((4, 16, 3))
    video[2:, 5] = [1.0, -2.0, 1.0]
    found = efficient_video_sampling(video, 0.5)
    assert found.kept[2, 5] and found.counts.tolist()[0] == 16 and found.counts.sum() == 32
    with pytest.warns(OnlyFirstFrameWarning, match=r"only the first of 4 frames.*give a rate of 0\.734 or less"):
        lost = efficient_video_sampling(video, 0.75)
    assert lost.counts.tolist() == [16, 0, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert efficient_video_sampling(video, 0.734).counts.tolist() == [16, 0, 1, 0]


def test_the_two_distances_are_told_apart_by_a_change_of_length_alone() -> None:
    video = np.ones((3, 4, 3))
    video[1, 2] *= 5
    video[2] = video[1]
    video[2, 3] = [1.2, 0.8, 1.0]
    cosine, l1 = (quiet(video, 0.5, distance) for distance in ("cosine", "l1"))
    assert cosine.change[1, 2] == pytest.approx(0) and l1.change[1, 2] == pytest.approx(4)
    assert cosine.kept[2, 3] and l1.kept[1, 2]
    assert (cosine.distance, l1.distance, l1.rate) == ("cosine", "l1", 0.5)
    still = np.zeros((2, 1, 3))
    assert (
        quiet(still, 0.0).change[1, 0]
        == 1.0
        == float(1 - torch.cosine_similarity(torch.zeros(1, 3), torch.zeros(1, 3), dim=-1))
    )


def test_patches_are_cut_row_by_row() -> None:
    video = np.zeros((2, 4, 6, 3))
    video[1, 2:4, 4:6] = 255
    patches = rgb_patches(video, 2, 3)
    assert patches.shape == (2, 6, 12)
    assert patches[1, 5].tolist() == [255] * 12 and patches.sum() == 255 * 12
    found = efficient_video_sampling(patches, 0.4, "l1")
    assert found.counts.tolist() == [6, 1] and found.kept[1, 5]


@pytest.mark.parametrize(
    ("frames", "rate", "distance", "message"),
    [
        (np.ones((1, 4, 2)), 0.5, "cosine", "a video of 1 frame has no earlier.*as an image"),
        (np.ones((2, 4)), 0.5, "cosine", r"give numbers \(frames, tokens, values\)"),
        (np.full((2, 4, 2), np.nan), 0.5, "cosine", "not finite.*wider dtype"),
        (np.ones((2, 4, 2)), 1.5, "cosine", "from 0 to 1"),
        (np.ones((2, 4, 2)), float("nan"), "cosine", "from 0 to 1"),
        (np.ones((2, 4, 2)), 0.5, "l2", "give one of cosine, l1"),
    ],
)
def test_bad_input_is_refused(frames: np.ndarray, rate: float, distance: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        efficient_video_sampling(frames, rate, distance)


def test_frames_that_no_grid_divides_are_refused() -> None:
    with pytest.raises(InputError, match=r"not divided by a grid of 3 rows.*resize them"):
        rgb_patches(np.zeros((2, 4, 6, 3)), 3, 3)
    with pytest.raises(InputError, match=r"give \(frames, height, width, 3\)"):
        rgb_patches(np.zeros((2, 4, 6)), 2, 3)
    with pytest.raises(InputError, match="one token or more"):
        kept_count(2, 0, 0.5)
