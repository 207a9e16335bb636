"""Families whose processors take one image for each prompt: its tokens, where they lie, and attention to them."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from probes.attention import attention_factors
from probes.families import RESAMPLED
from probes.inputs import InputError
from probes.model import HookedModel, Question
from probes.spans import Box, find_image_spans
from tests.probes.hooked import picture
from tests.probes.processors import build_config, build_model, build_processor
from tests.probes.recipes_single import SINGLE
from tests.probes.span_cases import coordinates
from tests.probes.span_checks import assert_tiles_exactly
from tests.probes.test_spans import misplaced, unpadded
from tests.probes.test_spans_errors import one_line
from tests.probes.test_spans_model import background, painted
from tests.probes.tiny_models import enlarge_weights

SIZES = [(61, 40), (32, 75)]


def encoded(family: str, processor: Any, images: list[Image.Image]) -> Any:
    """One prompt for each image; ShieldGemma's processor writes its own, one for each policy."""
    if family == "shieldgemma2":
        return processor(images=images, policies=["violence"], return_tensors="pt")
    texts = ["Which image?", "How many digits are in the image?"][: len(images)]
    modern = {"return_legacy_image_output": False} if family == "fuyu" else {}
    return processor(text=texts, images=images, return_tensors="pt", padding=True, **modern)


def found(family: str, processor: Any, inputs: Any, sizes: list[tuple[int, int]]) -> list[Any]:
    config = build_config(family, processor)
    return [row[0] for row in find_image_spans(inputs, config, processor, [[size] for size in sizes])]


def fed(model: Any, inputs: Any) -> torch.Tensor:
    """(batch, tokens, hidden): what the first decoder layer is fed."""
    seen: list[torch.Tensor] = []
    layers = next(module for name, module in model.named_modules() if name.endswith("layers") and "vision" not in name)

    def keep(_module: Any, args: Any, kwargs: Any) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).detach())

    handle = layers[0].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.no_grad():
            model(**inputs, use_cache=False)
    finally:
        handle.remove()
    return seen[0]


@pytest.mark.parametrize("family", SINGLE)
def test_no_token_but_the_images_own_changes_with_it(family: str) -> None:
    processor = build_processor(family, "right" if family == "kosmos-2.5" else "left")
    model = build_model(family, processor)
    images = [background(size, seed) for seed, size in enumerate(SIZES)]
    inputs = encoded(family, processor, images)
    spans = found(family, processor, inputs, SIZES)
    before = fed(model, inputs)
    images[1] = background(SIZES[1], 7)
    change = (fed(model, encoded(family, processor, images)) - before).norm(dim=-1).numpy()
    assert np.flatnonzero(change[0]).tolist() == []
    assert np.flatnonzero(change[1]).tolist() == spans[1].tokens.tolist()


@pytest.mark.parametrize("family", sorted(set(SINGLE) - RESAMPLED))
def test_a_bright_patch_changes_the_token_of_its_cell_most(family: str) -> None:
    processor = build_processor(family)
    model = build_model(family, processor)
    plain = background(SIZES[0])
    inputs = encoded(family, processor, [plain])
    (span,) = found(family, processor, inputs, SIZES[:1])
    before = fed(model, inputs)[0]
    cells = unpadded(span.cells(), span)
    for cell in (cells[index] for index in np.random.default_rng(1).choice(len(cells), 4, replace=False)):
        after = fed(model, encoded(family, processor, [painted(plain, cell.box)]))[0]
        change = (after - before).norm(dim=-1).numpy()
        assert int(np.argmax(change)) == span.tokens[cell.token]


@pytest.mark.parametrize("family", SINGLE)
def test_factors_equal_eager_attentions(family: str) -> None:
    processor = build_processor(family)
    model = build_model(family, processor)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        enlarge_weights(model)
    inputs = encoded(family, processor, [picture(*SIZES[0], seed=1)])
    spans = found(family, processor, inputs, SIZES[:1])
    factors = attention_factors(model, dict(inputs), [-1, -2], [spans])
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(**inputs, output_attentions=True, use_cache=False).attentions
    expected = [float(layer[0, :, -2:][..., spans[0].tokens].mean()) for layer in attentions]
    np.testing.assert_allclose(np.asarray(factors).reshape(len(expected), -1)[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("size", [(61, 40), (64, 56), (16, 16), (150, 61), (30, 170), (12, 35)])
def test_fuyus_patches_name_what_they_show(size: tuple[int, int]) -> None:
    processor = build_processor("fuyu")
    inputs = encoded("fuyu", processor, [coordinates(size)])
    (span,) = found("fuyu", processor, inputs, [size])
    assert_tiles_exactly(span)
    colours = inputs["pixel_values"].numpy().reshape(len(span.tokens), -1, 3).mean(1) / 2 + 0.5
    assert misplaced(unpadded(span.cells(), span), colours.astype(np.float64), size) == []
    (tile,) = span.tiles
    assert [stop - start for start, stop in span.runs] == [tile.columns] * tile.rows
    ids = inputs["input_ids"][0]
    assert {int(ids[stop]) for _, stop in span.runs} == {processor.image_newline_id}


@pytest.mark.parametrize("family", ["kosmos-2", "kosmos-2.5"])
def test_kosmos_marks_its_images_and_mixes_them(family: str) -> None:
    processor = build_processor(family)
    inputs = encoded(family, processor, [picture(*SIZES[0])])
    (span,) = found(family, processor, inputs, SIZES[:1])
    assert span.mixed and len(span.tokens) == 4 and span.tiles[0].box == Box(0, 0, *SIZES[0])
    del inputs["image_embeds_position_mask"]
    with pytest.raises(InputError, match="no image_embeds_position_mask: pass everything") as error:
        found(family, processor, inputs, SIZES[:1])
    one_line(error)


def test_kosmos_2_5_marks_other_tokens_behind_padding_and_is_refused() -> None:
    """Its processor counts places from the left, whatever is padded there."""
    processor = build_processor("kosmos-2.5", "left")
    inputs = encoded("kosmos-2.5", processor, [picture(*size) for size in SIZES])
    with pytest.raises(InputError, match=r"it needs 4 image tokens|holds no image tokens"):
        found("kosmos-2.5", processor, inputs, SIZES)


def test_a_processor_that_asks_questions_of_its_own_is_refused() -> None:
    processor = build_processor("shieldgemma2")
    model = HookedModel(build_model("shieldgemma2", processor), processor)
    with pytest.raises(InputError, match="shieldgemma2 cannot be asked: its processor asks") as error:
        model.trace_batch([Question([picture()], "Is this safe?")], ["Yes"])
    one_line(error)


@pytest.mark.parametrize("family", ["fuyu", "kosmos-2", "kosmos-2.5"])
def test_models_without_a_chat_template_are_not_asked(family: str) -> None:
    processor = build_processor(family)
    with pytest.raises(InputError, match="no chat template"):
        HookedModel(build_model(family, processor), processor)


def test_fuyus_size_and_processor_are_needed_and_fit_the_model() -> None:
    processor = build_processor("fuyu")
    inputs = encoded("fuyu", processor, [picture(*SIZES[0])])
    config = build_config("fuyu", processor)
    with pytest.raises(InputError, match="pass image_sizes"):
        find_image_spans(inputs, config, processor)
    with pytest.raises(InputError, match="pass processor="):
        find_image_spans(inputs, config, None, [[SIZES[0]]])
    with pytest.raises(InputError, match=r"2 images are given|image tokens and 0 are left"):
        find_image_spans(inputs, config, processor, [[SIZES[0], SIZES[0]]])
    with pytest.raises(InputError, match=r"account for|it needs"):
        find_image_spans(inputs, config, processor, [[SIZES[0][::-1]]])
    config.patch_size = 4
    with pytest.raises(InputError, match="patches of 8 x 8 pixels and the model reads 4") as error:
        find_image_spans(inputs, config, processor, [[SIZES[0]]])
    one_line(error)
