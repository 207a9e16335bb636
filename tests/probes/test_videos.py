"""Tokens of videos: what one shows is found by painting into a frame; attention is held to eager attentions."""

from typing import Any

import numpy as np
import pytest
import torch

from probes.attention import attention_factors
from probes.inputs import InputError
from probes.spans import find_image_spans
from probes.videos import VideoSpan, find_video_spans
from tests.probes.hooked import picture
from tests.probes.moving import MOVING, SIZE, TOGETHER, Frames
from tests.probes.processors import build_config, build_model, build_processor, chat
from tests.probes.test_spans_model import embeddings
from tests.probes.tiny_models import enlarge_weights

_QWEN, _GLM = "<|vision_start|><|video_pad|><|vision_end|>", "<|begin_of_video|><|video|><|end_of_video|>"
MARKS = {
    "qwen3_vl": "<|video_pad|>",
    "qwen3_vl_moe": "<|video_pad|>",
    "qwen3_5": "<|video_pad|>",
    "qwen3_5_moe": "<|video_pad|>",
    "llava_onevision": "<video>",
    **dict.fromkeys(("glm4v", "glm4v_moe", "glm46v", "glm_ocr"), _GLM),
}
TOLERANCE = 1e-6


def clip(frames: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Frames:
    """(frames, height, width, 3) of dark noise."""
    noise = np.random.default_rng(seed).integers(40, 90, (frames, size[1], size[0], 3))
    return noise.astype(np.uint8)


def encode(family: str, rows: list[list[Frames]]) -> tuple[Any, Any, Any]:
    """Processor, configuration and inputs of prompts that hold videos."""
    processor = build_processor(family)
    mark = MARKS.get(family, _QWEN)
    texts = [" and ".join([f"{mark}"] * len(videos)) + " Which?" + "?" * row for row, videos in enumerate(rows)]
    inputs = processor(text=texts, videos=rows, return_tensors="pt", padding=True, do_sample_frames=False)
    return processor, build_config(family, processor), inputs


def sizes_of(rows: list[list[Frames]]) -> list[list[tuple[int, int, int]]]:
    return [[(len(video), video.shape[2], video.shape[1]) for video in videos] for videos in rows]


def spans_of(family: str, rows: list[list[Frames]]) -> tuple[Any, list[list[VideoSpan]]]:
    processor, config, inputs = encode(family, rows)
    return inputs, find_video_spans(inputs, config, processor, sizes_of(rows))


@pytest.mark.parametrize("family", MOVING)
def test_a_patch_painted_into_one_frame_changes_the_token_of_its_cell(family: str) -> None:
    together = TOGETHER.get(family, 2)
    frames = 5 if together == 2 else 4
    rows = [[clip(frames), clip(frames, seed=1)], [clip(frames, seed=2)]]
    inputs, spans = spans_of(family, rows)
    model = build_model(family, build_processor(family))
    before = embeddings(model, inputs)
    for row, number, frame in ((0, 1, 0), (0, 0, frames - 1), (1, 0, 2)):
        span = spans[row][number]
        cells = [cell for cell in span.cells() if cell.frame <= frame < cell.frame + cell.frames]
        assert {cell.frame for cell in cells} == {frame // together * together}
        cell = cells[len(cells) // 2 + 1]
        changed = [[video.copy() for video in videos] for videos in rows]
        left, top, right, bottom = (round(edge) for edge in cell.box)
        changed[row][number][frame, top + 2 : bottom - 2, left + 2 : right - 2] = 255
        change = (embeddings(model, encode(family, changed)[2]) - before).norm(dim=-1).numpy()
        touched = {(int(r), int(t)) for r, t in np.argwhere(change > 0)}
        assert touched <= {(row, int(span.tokens[each.token])) for each in cells}
        assert max(cells, key=lambda each: change[row, span.tokens[each.token]]) == cell


@pytest.mark.parametrize("family", MOVING)
def test_frames_are_covered_once_and_the_last_may_stand_alone(family: str) -> None:
    together = TOGETHER.get(family, 2)
    _, [[span]] = spans_of(family, [[clip(5)]])
    shown = [(tile.frame, tile.frames) for tile in span.tiles]
    assert shown == [(first, min(together, 5 - first)) for first in range(0, 5, together)]
    assert len(span.tokens) == sum(tile.tokens for tile in span.tiles)
    for frame in range(5):
        cells = [cell for cell in span.cells() if cell.frame <= frame < cell.frame + cell.frames]
        assert sum(cell.box.area for cell in cells) == pytest.approx(SIZE[0] * SIZE[1])
        grid = span.grid(np.arange(len(span.tokens)), frame=frame)
        assert grid.flatten().tolist() == [cell.token for cell in cells]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "glm4v", "llava_onevision", "exaone4_5", "qwen3_5"])
def test_factors_of_videos_equal_eager_attentions(family: str) -> None:
    inputs, [spans] = spans_of(family, [[clip(4), clip(4, seed=1)]])
    model = build_model(family, build_processor(family))
    enlarge_weights(model)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        seen = model(**inputs, output_attentions=True, use_cache=False).attentions
    model.set_attn_implementation("sdpa")
    found = attention_factors(model, dict(inputs), [-1, -2], [spans])[0].numpy()
    eager = np.stack([layer[0, :, -2:].mean((0, 1)).numpy() for layer in seen])
    expected = np.stack([eager[:, span.tokens].mean(-1) for span in spans], axis=-1)
    with_text = np.stack([eager[:, span.start : span.stop].mean(-1) for span in spans], axis=-1)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    assert np.abs(expected[:, :1] - expected[:, 1:]).max() > 100 * TOLERANCE
    assert len(spans[0].runs) == 1 or np.abs(with_text - expected).max() > 100 * TOLERANCE


def test_what_does_not_fit_is_refused() -> None:
    processor, config, inputs = encode("qwen2_5_vl", [[clip(4)]])
    refused: list[tuple[Any, str]] = [
        ([[(9, *SIZE)]], "9 frames are given, and the inputs hold 4.*do_sample_frames=False"),
        ([[(4, *SIZE[::-1])]], r"\(width, height\)"),
        ([[SIZE]], "give video_sizes"),
        ([[(4, *SIZE)] * 2], "give one image per placeholder"),
    ]
    for sizes, message in refused:
        with pytest.raises(InputError, match=message) as error:
            find_video_spans(inputs, config, processor, sizes)
        assert "\n" not in str(error.value)
    cut = dict(inputs) | {name: inputs[name][:, :20] for name in ("input_ids", "attention_mask")}
    with pytest.raises(InputError, match="trunca"):
        find_video_spans(cut, config, processor, [[(4, *SIZE)]])
    bare = {"input_ids": inputs["input_ids"]}
    with pytest.raises(InputError, match="video_grid_thw: pass everything"):
        find_video_spans(bare, config, processor, [[(4, *SIZE)]])
    _, config, inputs = encode("llava_onevision", [[clip(4)]])
    with pytest.raises(InputError, match="5 frames are given, and the inputs hold 4"):
        find_video_spans(inputs, config, None, [[(5, *SIZE)]])


@pytest.mark.parametrize("family", ["smolvlm", "internvl", "video_llama_3", "gemma3"])
def test_other_families_videos_are_refused_by_name(family: str) -> None:
    with pytest.raises(InputError, match=rf"'{family}'.*attention_factors\(image_spans="):
        find_video_spans({"input_ids": [[1]]}, build_config(family, build_processor(family)))


def test_one_token_for_images_and_videos_cannot_be_told_apart() -> None:
    processor, config, inputs = encode("glm4v", [[clip(4)]])
    mixed = dict(inputs) | {"pixel_values": torch.zeros(4, 96)}
    with pytest.raises(InputError, match="the inputs hold both"):
        find_video_spans(mixed, config, processor, [[(4, *SIZE)]])


def test_images_beside_a_video_keep_their_tokens() -> None:
    processor = build_processor("qwen2_5_vl")
    config = build_config("qwen2_5_vl", processor)
    image = picture(32, 32)
    text = chat(processor, [image], "<image> or " + _QWEN)
    inputs = processor(text=[text], images=[image], videos=[clip(4)], return_tensors="pt", do_sample_frames=False)
    [[still]] = find_image_spans(inputs, config, processor, [[image.size]])
    [[moving]] = find_video_spans(inputs, config, processor, [[(4, *SIZE)]])
    assert still.stop <= moving.start and len(still.tokens) == 16
