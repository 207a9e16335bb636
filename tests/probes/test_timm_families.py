"""Families whose towers are timm's: Perception LM's traces and tiles, and what their own modules refuse."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from probes.families import family_of
from probes.families.view import ImageView, Settings
from probes.inputs import InputError
from probes.model import Question
from probes.spans import find_image_spans
from tests.probes.dense_reference import TOLERANCE
from tests.probes.hooked import hooked, picture, reference
from tests.probes.processors import build_config, build_processor
from tests.probes.span_cases import CASES, coordinates, encode
from tests.probes.test_model_trace import factors_by_hand

ANSWER = (300, 120, 77)


def test_perception_lms_factors_equal_those_of_eager_attentions() -> None:
    """Images that are cut alike share a prompt, and a batch."""
    wide, wider = picture(64, 32, 1), picture(60, 30, 2)
    questions = [Question([wide, wider], "1 <image> 2 <image> Which image?"), Question([wider], "How many digits?")]
    together = hooked("perception_lm").trace_batch(questions, [ANSWER] * 2, rows=("answer",))
    for question, batched in zip(questions, together, strict=True):
        alone = hooked("perception_lm").trace(*question, answer=ANSWER, rows="answer")
        seen = reference("perception_lm", question, ANSWER)
        rows = list(range(seen.prompt, seen.prompt + len(ANSWER)))
        expected = factors_by_hand(seen, rows)
        for trace in (alone, batched):
            assert np.abs(trace.factors - expected).max() < TOLERANCE
        off = factors_by_hand(seen._replace(images=[[column + 1 for column in own] for own in seen.images]), rows)
        assert np.abs(alone.factors - off).max() > 10 * TOLERANCE


def test_images_that_are_cut_unlike_are_refused_by_the_processor() -> None:
    question = Question([picture(64, 32, 1), picture(32, 32, 2)], "Which image?")
    with pytest.raises(InputError, match="the processor refuses these images"):
        hooked("perception_lm").trace(*question, answer=ANSWER)


def test_canvases_are_those_of_the_processor() -> None:
    """At every size of a lattice, with few and with many tiles."""
    for most in (1, 4, 9, 36):
        processor = build_processor("perception_lm", max_num_tiles=most)
        config = build_config("perception_lm", processor)
        images = processor.image_processor
        for size in ((width, height) for width in range(8, 300, 23) for height in range(8, 300, 19)):
            given = {"img_width": size[0], "img_height": size[1], "tile_size": 32}
            across, down = images._fit_image_to_canvas(**given) or images._find_closest_aspect_ratio(**given)
            if most == 1:
                across, down = 1, 1
            view = ImageView("image", 0, size, {}, config, processor, Settings(processor))
            thumbnail, *tiles = family_of("perception_lm").tiles(view)
            assert thumbnail.thumbnail and len(tiles) == across * down
            assert tiles[0].box.right == pytest.approx(size[0] / across)
            assert tiles[0].box.bottom == pytest.approx(size[1] / down)


@pytest.mark.parametrize(
    "family, config, settings, message",
    [
        ("perception_lm", {"projector_pooling_ratio": 1}, {}, "pools by 2 and the model by 1"),
        ("perception_lm", {}, {"tile_size": 64}, "tiles of 64 x 64 pixels and the inputs hold 32 x 32"),
        ("gemma3n", {"vision_soft_tokens_per_image": 15}, {}, "is 15, and images become square grids"),
        ("gemma3n", {}, {"size": {"height": 64, "width": 64}}, "64 x 64 pixels and the inputs hold 128 x 128"),
        ("fast_vlm", {}, {"crop_size": {"height": 192, "width": 192}}, "would become 192 x 192"),
    ],
)
def test_what_does_not_fit_is_refused(
    family: str, config: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    encoded = encode(CASES[family], [[coordinates((60, 40))]])
    for name, value in config.items():
        setattr(encoded.config, name, value)
    with pytest.raises(InputError, match=message) as error:
        find_image_spans(encoded.inputs, encoded.config, encoded.processor, [[(60, 40)]], processor_kwargs=settings)
    assert "\n" not in str(error.value)


def test_a_tower_whose_fineness_is_not_told_needs_its_processor() -> None:
    encoded = encode(CASES["fast_vlm"], [[coordinates((60, 40))]])
    with pytest.raises(InputError, match="pass processor="):
        find_image_spans(encoded.inputs, encoded.config, None, [[(60, 40)]])
    with pytest.raises(InputError, match="256 pixels is not halved to cells of 48"):
        find_image_spans(encoded.inputs, encoded.config, SimpleNamespace(patch_size=48), [[(60, 40)]])
