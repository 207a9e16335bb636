"""Videos in every form in which people hold them, and what is refused, in one line."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import video_utils

from probes.clips import VIDEO_FILES, Video, is_video
from probes.frames import frame_attention
from probes.inputs import ImageRef, InputError
from probes.model import HookedModel, Question
from probes.prompts import PromptWriter
from probes.spans import Box, ImageSpan, Tile, find_image_spans
from probes.trace import Trace
from probes.videos import find_video_spans
from tests.probes import processors
from tests.probes.hooked import hooked, picture, sharp_model
from tests.probes.moving import SIZE, clip, encoded


def refusal(videos: Any, text: str = "Which?", images: Any = (), family: str = "qwen2_5_vl", **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        hooked(family).trace(images, text, **{"max_new_tokens": 1, "videos": videos, **settings})
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


def test_every_form_gives_the_same_frames(tmp_path: Path) -> None:
    frames = clip(3)
    pictures = [Image.fromarray(frame) for frame in frames]
    for place, each in enumerate(pictures):
        each.save(tmp_path / f"{place}.png")
    forms: list[Any] = [
        frames,
        torch.from_numpy(frames),
        list(frames),
        pictures,
        tuple(pictures),
        [str(tmp_path / f"{place}.png") for place in range(3)],
        [ImageRef.of(each) for each in pictures],
        Video(frames),
    ]
    for form in forms:
        np.testing.assert_array_equal(Video.of(form).frames, frames)
        if not isinstance(form, Video):
            np.testing.assert_array_equal(Video(form, fps=2, sample=True).frames, frames)
        assert (len(Video.of(form)), Video.of(form).size) == (3, SIZE)
    assert (Video.of(frames, 2, True).fps, Video.of(frames, 2, True).sample) == (2, True)
    assert repr(Video.of(Video(frames, 5), 2)) == "Video(3 frames of 60 x 40, fps=5)"
    assert repr(Video(frames, sample=True)) == "Video(3 frames of 60 x 40, sample=True)"
    one, other = (hooked("qwen2_5_vl").encode([Question([], "Which?", [form])]) for form in (frames, pictures))
    assert torch.equal(one.inputs["pixel_values_videos"], other.inputs["pixel_values_videos"])


def test_what_is_no_video_is_refused() -> None:
    refused: list[tuple[Any, str]] = [
        ([clip(4).astype(np.float32)], "video 0: a video's frames are float32: give uint8"),
        ([clip(4), clip(4).astype(np.int64)], "video 1: .* int64"),
        ([clip(4).transpose(0, 3, 1, 2)], r"\(4, 3, 40, 60\): give \(frames, height, width, 3\)"),
        ([clip(4)[..., :1]], r"give \(frames, height, width, 3\)"),
        ([clip(1)[0]], r"give \(frames, height, width, 3\)"),
        ([clip(0)], "at least one frame"),
        ([clip(4)[:, :0]], "at least one frame"),
        ([[]], "no frames"),
        ([[picture(32, 32), picture(32, 16)]], "unlike shapes.*resize"),
        ([[clip(1)[0], np.ones((40, 60, 3), bool)]], "unlike shapes or types .*of uint8.*of bool"),
        ([["nowhere.png"]], "nowhere.png"),
        ([picture()], "cannot take a Image as a video"),
        ([7], "cannot take a int as a video"),
        ([torch.zeros(2, 4, 4, 3, dtype=torch.bfloat16)], "make no array"),
        (clip(4), "put the one video into a list"),
        ("clip.mp4", "put the one video into a list"),
        (7, "takes a list of videos"),
        ([], "at least one image or video"),
    ]
    for videos, message in refused:
        with pytest.raises(InputError, match=message):
            refused_by = refusal(videos)
            raise InputError(refused_by)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="fps must be above 0"):
            Video(clip(2), fps)
    unread: Any = "25"
    with pytest.raises(InputError, match="fps must be above 0, and is '25'"):
        Video(clip(2), unread)
    unread = "clip.mp4"
    with pytest.raises(InputError, match=r"Video.of\(path\)"):
        Video(unread)


@given(shape=st.lists(st.integers(0, 4), min_size=0, max_size=5), dtype=st.sampled_from(["uint8", "float64", "bool"]))
def test_a_video_is_four_axes_of_bytes_or_nothing(shape: list[int], dtype: str) -> None:
    fits = len(shape) == 4 and shape[-1] == 3 and all(shape) and dtype == "uint8"
    if fits:
        assert len(Video.of(np.zeros(shape, dtype))) == shape[0]
    else:
        with pytest.raises(InputError):
            Video.of(np.zeros(shape, dtype))


def test_marks_fit_videos() -> None:
    assert "2 <video> marks for 1 video" in refusal([clip(2)], "<video> <video> Which?")
    assert "1 <image> mark for 0 images" in refusal([clip(2)], "<image> Which?")
    assert "the question is empty" in refusal([clip(2)], "<video> ")
    writer = PromptWriter(processors.build_processor("llava_onevision"))
    moving, still = [clip(2)], [picture()]
    written = {
        text: writer.write(Question(still, text, moving)).text
        for text in ("Which?", "a <image> b", "a <video> b", "a <video> b <image> c")
    }
    assert written == {
        "Which?": "USER: <image><video>Which? ASSISTANT:",
        "a <image> b": "USER: <video>a <image> b ASSISTANT:",
        "a <video> b": "USER: <image>a <video> b ASSISTANT:",
        "a <video> b <image> c": "USER: a <video> b <image> c ASSISTANT:",
    }
    # Without videos the mark is a word.
    tag = PromptWriter(processors.build_processor("llava")).write(Question(still, "Is <video> a tag?"))
    assert tag.text == "USER: <image>Is <video> a tag? ASSISTANT:"


def test_a_template_that_knows_no_videos_is_given_their_token() -> None:
    processor = processors.build_processor("llava_onevision")
    processor.chat_template = processors.build_processor("llava").chat_template
    text = PromptWriter(processor).write(Question([picture()], "a <video> b <image> c", [clip(2)])).text
    assert text == "USER: a <video> b <image> c ASSISTANT:"
    processor.chat_template = "{% for message in messages %}{{ message['role'] }}{% endfor %}"
    with pytest.raises(InputError, match="order"):
        PromptWriter(processor).write(Question([], "a <video> b", [clip(2)]))


@pytest.mark.parametrize("video", [[picture(), picture()], "clip.mp4", Path("clip.webm"), clip(4), Video(clip(4))])
def test_a_video_among_images_is_told_where_it_belongs(video: Any) -> None:
    assert is_video(video)
    assert "give it as videos=[video]" in refusal([], images=[video])


def test_families_and_processors_without_videos_are_refused_by_name() -> None:
    message = refusal([clip(2)], family="llava")
    assert "LlavaProcessor has no video processor" in message and "frames as images" in message
    for family in ("internvl", "smolvlm"):
        message = refusal([clip(2)], family=family)
        assert f"'{family}'" in message and "attention_factors(image_spans=...)" in message


def test_one_token_for_images_and_videos_is_refused_in_a_prompt_and_in_a_batch() -> None:
    assert "one token, and the inputs hold both" in refusal([clip(2)], "Which?", [picture()], "glm4v")
    with pytest.raises(InputError, match="the inputs hold both"):
        asked = [Question([picture()], "Which?"), Question([], "Which?", [clip(2)])]
        hooked("glm4v").trace_batch(asked, max_new_tokens=1)


def test_truncated_videos_are_refused() -> None:
    model, question = hooked("qwen2_5_vl"), Question([], "Which?", [clip(4)])
    config, inputs = model.model.config, encoded(model.processor, question)
    cut = {**inputs, **{name: inputs[name][:, :20] for name in ("input_ids", "attention_mask")}}
    with pytest.raises(InputError, match="trunca"):
        find_video_spans(cut, config, model.processor, [[(4, *SIZE)]])
    short = sharp_model("qwen2_5_vl")
    short.config.text_config.max_position_embeddings = 50
    with pytest.raises(InputError, match=r"\(1 image and 1 video: 96\).*positions for 50.*fewer frames"):
        HookedModel(short, model.processor).trace([picture()], "Which?", videos=[clip(4)])


def test_batches_that_a_processor_cannot_take_are_refused() -> None:
    asked = [Question([], "Which?", [clip(2)]), Question([], "Which?", [clip(3)])]
    with pytest.raises(InputError, match="videos of one number of frames only; ask about those of another separately"):
        hooked("llava_onevision").trace_batch(asked, max_new_tokens=1)
    mixed = [Video(clip(4), sample=True), Video(clip(4))]
    assert "some are to be sampled and some are not" in refusal(mixed)
    assert "videos need their fps" in refusal([Video(clip(8), sample=True)])
    assert "no video of a single frame; give it as an image" in refusal([clip(1)], family="qwen3_vl")


def test_a_trace_names_the_videos_and_frames_that_it_does_not_have() -> None:
    trace = hooked("qwen2_5_vl").trace([picture()], "Which?", [120], videos=[clip(4)])
    lacking: list[tuple[Callable[[], Any], str]] = [
        (lambda: trace.frames(1), "no video 1: this trace has 1"),
        (lambda: trace.frames().group(4), "no frame 4: the model was shown 4"),
        (lambda: trace.map(1), "4 frames and no single map: give frame=0"),
        (lambda: trace.map(1, frame=4), "no frame 4"),
        (lambda: still().frames(), "no video 0: this trace has 0"),
        (lambda: frame_attention(np.zeros(3), trace.spans[1]), "3 values for 80 tokens"),
        (lambda: frame_attention(np.zeros(2), ImageSpan(0, 0, 2, ((0, 2),))), "span of find_video_spans"),
    ]
    for ask, message in lacking:
        with pytest.raises(InputError, match=message):
            ask()
    assert trace.frames(-1).sums.shape == (3, 2) and trace.map(0).shape == (4, 4)


def still() -> Trace:
    return hooked("qwen2_5_vl").trace([picture()], "Which?", [120])


def test_a_question_unpacks_as_it_did_and_drops_no_video() -> None:
    images, text = still_question = Question(["a.png"], "Which?")
    assert (images, text, still_question.videos) == (["a.png"], "Which?", ())
    moving = Question(images=[], text="Which?", videos=["a.mp4"])
    assert tuple(moving) == ([], "Which?", ["a.mp4"]) and pickle.loads(pickle.dumps(moving)) == moving
    assert repr(moving) == "Question(images=[], text='Which?', videos=['a.mp4'])"
    with pytest.raises(ValueError, match="too many values"):
        _, _ = moving
    with pytest.raises(TypeError, match="multiple values"):
        hooked("llava").trace(*moving, answer="it")


def test_spans_of_videos_are_told_from_those_of_images() -> None:
    model, question = hooked("qwen2_5_vl"), Question([picture()], "<video> <image> it", [clip(4)])
    inputs = encoded(model.processor, question)
    [[image]] = find_image_spans(inputs, model.model.config, model.processor, [[picture().size]])
    [[video]] = find_video_spans(inputs, model.model.config, model.processor, [[(4, *SIZE)]])
    assert model.encode([question]).spans == [[image, video]]
    assert image != ImageSpan(**vars(video)) and ImageSpan(**vars(video)) != video


def test_a_list_of_pictures_too_large_is_refused_before_all_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probes.clips.MAX_VIDEO_PIXELS", 2 * 32 * 32)
    assert len(Video.of([picture(32, 32)] * 2)) == 2
    for frame in (picture(32, 32), ImageRef.of(picture(32, 32))):
        with pytest.raises(InputError, match="its 3 frames of 32 x 32 hold more than the 2,048 pixels"):
            Video.of([frame, "nowhere.png", "nowhere.png"])


def test_frames_as_high_as_there_are_colours_are_not_turned() -> None:
    low = clip(4, (9, 3))
    tall = low.repeat(8, axis=1).repeat(8, axis=2)
    grid = hooked("qwen2_5_vl").encode([Question([], "Which?", [low])]).inputs["video_grid_thw"]
    assert grid.tolist() == [[2, 4, 8]]
    # Stretched to one size, both look alike.
    stretched = hooked("llava_onevision")
    one, other = (
        stretched.encode([Question([], "Which?", [each])]).inputs["pixel_values_videos"] for each in (low, tall)
    )
    turned = stretched.processor.video_processor([low], return_tensors="pt", do_sample_frames=False)
    wrong = (turned["pixel_values_videos"] - other).abs().mean()
    assert (one - other).abs().mean() < 0.5 < wrong


def test_files_need_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mp4"
    for nothing in (path, "a" * 9999, "data:video/mp4;base64," + "A" * 9999):
        assert "no such file" in refusal([nothing])
    assert "nothing is downloaded" in refusal(["https://example.org/clip.mp4"])
    path.write_bytes(b"no video")
    monkeypatch.setattr("probes.video_files._installed", lambda _: False)
    message = refusal([str(path)])
    assert "no decoder" in message and "give its frames as an array" in message
    assert str(path).endswith(VIDEO_FILES)


@pytest.mark.parametrize("decoder", ["torchcodec", "pyav", "opencv"])
def test_files_are_read_by_transformers(decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder itself is made up here; what is handed to it, and what is made of its answer, is ours."""
    path, frames, told = tmp_path / "clip.mp4", clip(5), 5
    path.write_bytes(b"whatever")

    def decode(file: str, choose: Any, **_: Any) -> Any:
        metadata = video_utils.VideoMetadata(total_num_frames=told, fps=12.5, width=SIZE[0], height=SIZE[1])
        wanted = choose(metadata=metadata)
        if decoder == "torchcodec":
            return torch.from_numpy(frames[wanted]).permute(0, 3, 1, 2), metadata
        return np.stack([frame for place, frame in enumerate(frames) if place in wanted]), metadata

    monkeypatch.setattr("probes.video_files._installed", lambda name: name == decoder)
    package = {"torchcodec": "torchcodec", "pyav": "av", "opencv": "cv2"}[decoder]
    monkeypatch.setattr(video_utils, f"is_{package}_available", lambda: True)
    monkeypatch.setitem(video_utils.VIDEO_DECODERS, decoder, decode)
    found = Video.of(path)
    np.testing.assert_array_equal(found.frames, frames)
    assert found.fps == 12.5 and Video.of(path, fps=3).fps == 3
    if decoder != "torchcodec":
        told = 40
        assert "it has 40 frames, and 5 can be decoded, so that it is broken or cut off" in refusal([path])
    told = 0
    if decoder == "pyav":
        np.testing.assert_array_equal(Video.of(path).frames, frames)
    else:
        assert "does not say how many frames" in refusal([path])
    told = 5
    monkeypatch.setattr("probes.video_files.MAX_VIDEO_PIXELS", 100)
    assert "at most 100 are decoded" in refusal([path])
    told = 0
    assert decoder != "pyav" or "holds more than 100 pixels" in refusal([path])

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("moov atom\nnot found")

    monkeypatch.setitem(video_utils.VIDEO_DECODERS, decoder, broken)
    assert f"{decoder} cannot decode it (moov atom not found)" in refusal([path])


def test_tokens_that_mix_a_whole_frame_belong_to_it() -> None:
    tiles = tuple(Tile.mixed(2, Box.unknown())._replace(frame=frame) for frame in range(3))
    found = frame_attention(np.arange(12.0).reshape(2, 6), ImageSpan(0, 0, 6, ((0, 6),), tiles))
    assert found.sums.tolist() == [[1, 5, 9], [13, 17, 21]] and found.tokens.tolist() == [2, 2, 2]
    assert found.frames == (range(0, 1), range(1, 2), range(2, 3)) and found.group(2) == 2
