"""Aria: each picture's tokens see that picture and no other, split or whole, and crops lie where they were cut."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from probes.inputs import InputError
from probes.spans import Box, find_image_spans
from tests.probes.hooked import picture
from tests.probes.processors import build_config, build_model, build_processor
from tests.probes.span_cases import coordinates
from tests.probes.test_spans_errors import SIZES, encode, one_line
from tests.probes.test_spans_model import embeddings


def encoded(processor: Any, images: list[Image.Image]) -> Any:
    text = " and ".join(["<image>"] * len(images))
    return processor(text=[f"{text}?"], images=[images], return_tensors="pt")


def test_a_pictures_tokens_see_that_picture_and_no_other() -> None:
    processor = build_processor("aria")
    model = build_model("aria", processor)
    images = [picture(61, 40, 1), picture(32, 48, 2)]
    inputs = encoded(processor, images)
    spans = find_image_spans(inputs, model.config, processor, [[image.size for image in images]])[0]
    assert [len(span.tokens) for span in spans] == [4, 4] and all(span.mixed for span in spans)
    assert [tile.box for span in spans for tile in span.tiles] == [Box(0, 0, 61, 40), Box(0, 0, 32, 48)]
    before = embeddings(model, inputs)[0]
    images[0] = images[0].copy()
    images[0].paste((255, 255, 255), (2, 22, 28, 38))
    changed = np.flatnonzero((embeddings(model, encoded(processor, images))[0] - before).norm(dim=-1).numpy())
    assert changed.tolist() == spans[0].tokens.tolist()


@pytest.mark.parametrize("size", [(61, 40), (30, 90), (120, 31), (50, 50), (1400, 410), (900, 1000)])
def test_crops_show_the_parts_of_the_image_that_their_boxes_name(size: tuple[int, int]) -> None:
    processor = build_processor("aria", split_image=True)
    inputs = encoded(processor, [coordinates(size)])
    (span,) = find_image_spans(inputs, build_config("aria", processor), processor, [[size]])[0]
    assert len(span.tiles) == len(inputs["pixel_values"]) > 1
    for tile, pixels in zip(span.tiles, inputs["pixel_values"].numpy() / 2 + 0.5, strict=True):
        # Blue is 0 in the image, and padding is black: red and green tell where the picture lies in it.
        box = tile.box.clip(*size)
        inside = [
            (edge - low) / length * 490
            for edge, low, length in zip(
                box,
                (tile.box.left, tile.box.top) * 2,
                (tile.box.right - tile.box.left, tile.box.bottom - tile.box.top) * 2,
                strict=True,
            )
        ]
        left, top, right, bottom = (round(edge) for edge in inside)
        seen = pixels[:2, top + 8 : bottom - 8, left + 8 : right - 8].mean((1, 2)) * size
        centre = [(box.left + box.right) / 2, (box.top + box.bottom) / 2]
        np.testing.assert_allclose(seen, centre, atol=max(size) / 50)


def test_what_does_not_fit_is_refused() -> None:
    processor, config, inputs = encode("aria")
    with pytest.raises(InputError, match="pass processor="):
        find_image_spans(inputs, config, None, SIZES)
    processor.size_conversion = {490: 8}
    with pytest.raises(InputError, match=r"writes 8 tokens .* the model makes 4") as error:
        find_image_spans(inputs, config, processor, SIZES)
    one_line(error)


def test_images_split_into_different_numbers_of_crops_are_refused() -> None:
    """The processor writes as many tokens for each as for the one with the most crops, and the model makes fewer."""
    processor = build_processor("aria", split_image=True)
    images = [picture(1400, 400, 1), picture(50, 50, 2)]
    inputs, sizes = encoded(processor, images), [[image.size for image in images]]
    with pytest.raises(InputError, match="image tokens, of which its 2 images account for") as error:
        find_image_spans(inputs, build_config("aria", processor), processor, sizes)
    one_line(error)
