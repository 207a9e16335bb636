"""Tiles with a thumbnail and images at their own resolution, against transformers' own cutting, packing and model."""

from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas
from transformers.models.nemotron_h_omni.image_processing_nemotron_h_omni import get_patch_grid_size

from probes.families.geometry import Box, Tile
from probes.image_span import ImageSpan
from probes.inputs import InputError
from probes.model import HookedModel, Question
from probes.reduction.tile_scores import image_shares, tile_attention
from probes.reduction.tiles import TiledProcessor, Tiling
from probes.spans import find_image_spans
from probes.videos import find_video_spans
from tests.probes.hooked import NEVER, hooked, picture
from tests.probes.processors import build_config, build_model, build_processor
from tests.probes.reduction.pruned import moving
from tests.probes.tiny_models import enlarge_weights

FAMILY = "nemotron_h_omni"
SMALL = Tiling(side=32, most=12)
"""Tiles of 8 x 8 patches of 4 pixels: 16 tokens."""
PLAIN = "Which image shows the red ball?"


@cache
def tiled() -> HookedModel:
    """The shared tiny model under a processor that cuts images."""
    return HookedModel(hooked(FAMILY).model, TiledProcessor(hooked(FAMILY).processor, SMALL))


def spans_of(processor: Any, sizes: list[tuple[int, int]]) -> tuple[Any, list[ImageSpan]]:
    """Inputs of one prompt about plain images of these sizes, and their spans."""
    images = [Image.new("RGB", size, (90, 60, 30)) for size in sizes]
    inputs = processor(images=[images], text=["<image> " * len(images) + "Which?"], return_tensors="pt")
    config = build_config(FAMILY, processor)
    config.vision_config.patch_size = processor.image_processor.patch_size
    return inputs, find_image_spans(inputs, config, processor, [sizes])[0]


def covered(span: ImageSpan, thumbnail: bool = False) -> bool:
    """Whether the boxes of the cells tile the image: no two overlap, and together they are as large as it."""
    boxes = [cell.box for cell in span.cells() if cell.thumbnail == thumbnail]
    width, height = span.size or (0, 0)
    xs = sorted({edge for box in boxes for edge in (box.left, box.right)})
    ys = sorted({edge for box in boxes for edge in (box.top, box.bottom)})
    hits = np.zeros((len(ys) - 1, len(xs) - 1), dtype=int)
    for box in boxes:
        hits[ys.index(box.top) : ys.index(box.bottom), xs.index(box.left) : xs.index(box.right)] += 1
    return bool((hits == 1).all()) and (xs[0], ys[0], xs[-1], ys[-1]) == (0, 0, width, height)


def test_the_layout_of_nano_v2_vl_at_its_own_sizes() -> None:
    """Tiles of 512, 256 tokens each, at most 12 and a thumbnail, which only an image of several tiles has."""
    processor = TiledProcessor(build_processor(FAMILY, patch_size=16, min_num_patches=1024, max_num_patches=13312))
    sizes = [(1600, 1200), (512, 512), (300, 900)]
    images = [Image.new("RGB", size) for size in sizes]
    inputs = processor(images=[images], text=["<image> or <image> or <image>?"], return_tensors="pt")
    spans = find_image_spans(inputs, _config(), processor, [sizes])[0]
    assert processor.tokens_per_tile == 256
    assert [len(span.tokens) for span in spans] == [13 * 256, 256, 4 * 256]
    assert [(len(span.tiles), span.tiles[-1].thumbnail) for span in spans] == [(13, True), (1, False), (4, True)]
    assert inputs["image_grid_hw"].tolist() == [[32, 32]] * 18 and inputs["pixel_values"].shape == (18 * 1024, 768)
    for span in spans:
        assert covered(span) and len(span.runs) == 1
    assert covered(spans[0], thumbnail=True) and not any(cell.thumbnail for cell in spans[1].cells())
    twice = [cell.box.area for cell in spans[0].cells()]
    assert sum(twice) == pytest.approx(2 * 1600 * 1200), "with the thumbnail the image would count twice"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 12), st.sampled_from([32, 512]))
def test_divisions_are_those_of_transformers(width: int, height: int, most: int, side: int) -> None:
    columns, rows = get_optimal_tiled_canvas((height, width), (side, side), 1, most)
    assert Tiling(side, most).division(width, height) == (rows, columns)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000))
def test_images_at_their_own_resolution_are_covered_by_the_processors_grid(width: int, height: int) -> None:
    rows, columns = get_patch_grid_size(height, width, 16, 2, 1024, 13312)
    assert rows % 2 == columns % 2 == 0
    tokens = rows * columns // 4
    config = _config()
    inputs = {"input_ids": [[config.image_token_id] * tokens], "image_grid_hw": [[rows, columns]]}
    [[span]] = find_image_spans(inputs, config, None, [[(width, height)]])
    assert len(span.cells()) == tokens == len(span.tokens)
    first, last = span.cells()[0].box, span.cells()[-1].box
    assert (first.left, first.top, last.right, last.bottom) == (0, 0, width, height)
    assert sum(cell.box.area for cell in span.cells()) == pytest.approx(width * height)


def test_a_size_that_was_swapped_is_still_refused() -> None:
    inputs, _ = spans_of(build_processor(FAMILY, patch_size=16, min_num_patches=1024), [(640, 480)])
    with pytest.raises(InputError, match=r"480 x 640.*\(width, height\)"):
        find_image_spans(inputs, _config(), None, [[(480, 640)]])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000))
def test_frames_are_covered_by_the_video_processors_grid(width: int, height: int) -> None:
    processor = _processor()
    columns, rows = processor.video_processor._compute_target_patches(height, width)
    inputs = {
        "input_ids": [[_config().image_token_id] * (rows * columns // 4)],
        "pixel_values_videos": _Shape((2, 3, rows * 16, columns * 16)),
    }
    [[span]] = find_video_spans(inputs, _config(), processor, [[(2, width, height)]])
    assert sum(cell.box.area for cell in span.cells()) == pytest.approx(width * height)


class _Shape(NamedTuple):
    """Pixels of which only the shape is looked at."""

    shape: tuple[int, ...]


@cache
def _processor() -> Any:
    processor = build_processor(FAMILY)
    processor.video_processor.patch_size, processor.video_processor.video_target_num_patches = 16, 1024
    return processor


@cache
def _config() -> Any:
    config = build_config(FAMILY, build_processor(FAMILY))
    config.vision_config.patch_size = 16
    return config


def test_the_real_processor_writes_as_many_tokens_as_the_grid_has_cells() -> None:
    processor = build_processor(FAMILY, patch_size=16, min_num_patches=1024, max_num_patches=13312)
    sizes = [(640, 480), (2000, 90), (30, 20), (1, 2)]
    inputs, spans = spans_of(processor, sizes)
    assert [tuple(grid) for grid in inputs["image_grid_hw"].tolist()] == [
        get_patch_grid_size(height, width, 16, 2, 1024, 13312) for width, height in sizes
    ]
    assert all(covered(span) for span in spans)


def test_a_patch_painted_into_the_image_changes_its_cell_and_the_thumbnails() -> None:
    model, image = tiled(), picture(96, 64)
    span = model.encode([Question([image], PLAIN)]).spans[0][0]
    assert [tile.thumbnail for tile in span.tiles] == [False] * 6 + [True]
    cell = next(each for each in span.cells() if (each.tile, each.row, each.column) == (4, 2, 1))
    assert cell.box == Box(40, 48, 48, 56)
    painted = np.array(image)
    painted[50:54, 42:46] = 255 - painted[50:54, 42:46]
    change = (_features(model, Image.fromarray(painted)) - _features(model, image)).norm(dim=-1)
    fine, small = change[: 6 * 16], change[6 * 16 :]
    assert int(fine.argmax()) == cell.token and (fine[fine > 1e-5]).numel() <= 16
    coarse = next(each for each in span.cells() if each.thumbnail and each.row == 3 and each.column == 1)
    assert int(small.argmax()) + 6 * 16 == coarse.token and coarse.box == Box(24, 48, 48, 64)


def _features(model: HookedModel, image: Image.Image) -> torch.Tensor:
    inputs = model.encode([Question([image], PLAIN)]).inputs
    with torch.no_grad():
        made = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_hw"], return_dict=True)
    return torch.cat(made.pooler_output)


def test_tiles_are_traced_as_the_model_attends_to_them() -> None:
    model, images = tiled(), [picture(96, 64, 1), picture(32, 32, 2)]
    trace = model.trace(images, "Is it <image> or <image> ?", (21, 45))
    inputs = dict(model.encode([Question(images, "Is it <image> or <image> ?")], [(21, 45)]).inputs)
    eager = hooked(FAMILY, "eager").model
    with torch.no_grad():
        attentions = eager(**inputs, output_attentions=True, use_cache=False).attentions
    rows = model.trace_batch([Question(images, "Is it <image> or <image> ?")], [(21, 45)], rows=("predicting",))[0]
    last = [trace.prompt_tokens - 1, trace.prompt_tokens]
    mean = np.stack([layer[0, :, last].mean((0, 1)).numpy() for layer in attentions])
    for image, span in enumerate(trace.spans):
        found = tile_attention(rows.maps_by_rows["predicting"][image], span)
        edges = [int(span.start) + 16 * tile for tile in range(len(span.tiles) + 1)]
        expected = np.stack([mean[:, a:b].sum(-1) for a, b in pairwise(edges)], axis=-1)
        np.testing.assert_allclose(found.sums, expected, atol=1e-5)
        np.testing.assert_allclose(found.image(), rows.factors[:, image], atol=1e-6)
        np.testing.assert_allclose(found.image(per_token=False), mean[:, span.tokens].sum(-1), atol=1e-6)
    assert trace.map(0).shape == (8, 12)
    fine = tile_attention(trace.scores(0), trace.spans[0])
    assert trace.map(0).sum() == pytest.approx(float(fine.image(per_token=False, thumbnail=False)), abs=1e-6)
    assert fine.image(False) - fine.image(False, False) == pytest.approx(fine.sums[-1]) and fine.sums[-1] > 1e-4
    single = tile_attention(trace.scores(1), trace.spans[1])
    assert float(single.image(thumbnail=False)) == float(single.image())


def test_shares_per_token_do_not_change_when_an_image_gets_more_tiles() -> None:
    """Plain images, whose tiles all look alike, in a first layer's one head and row; sums favour the larger image."""
    model = _attention_first()
    found = {}
    for size in ((32, 32), (96, 64)):
        images = [Image.new("RGB", size, (200, 40, 40)), Image.new("RGB", (32, 32), (40, 40, 200))]
        trace = model.trace(images, PLAIN, (), rows="predicting")
        assert trace.layers[0] == 0
        parts = [tile_attention(trace.scores(i, 0), trace.spans[i]) for i in range(2)]
        found[size] = [image_shares(parts, per_token)[0] for per_token in (True, False)]
        without = image_shares(parts, thumbnail=False)[0]
        assert without == pytest.approx(found[size][0], abs=1e-5)
    (alone, summed), (cut, favoured) = found[32, 32], found[96, 64]
    assert cut == pytest.approx(alone, abs=1e-5) and abs(alone - 0.5) > 1e-3
    odds = [share / (1 - share) for share in (summed, favoured)]
    assert odds[1] / odds[0] == pytest.approx(7, rel=1e-3)


def test_where_no_image_is_attended_to_there_is_nothing_to_share() -> None:
    span = ImageSpan(0, 0, 4, ((0, 4),), (Tile(2, 2, Box(0, 0, 8, 8)),), (8, 8))
    parts = [tile_attention(np.array([[0.0] * 4, [each] * 4]), span) for each in (0.1, 0.3)]
    shares = image_shares(parts)
    assert np.isnan(shares[0]).all() and shares[1] == pytest.approx([0.25, 0.75])


def _attention_first() -> HookedModel:
    processor = TiledProcessor(build_processor(FAMILY), SMALL)
    config = build_config(FAMILY, processor)
    kinds = list(config.text_config.layers_block_type)
    changes = {"layers_block_type": kinds[1:] + kinds[:1], "num_attention_heads": 1, "num_key_value_heads": 1}
    model = build_model(FAMILY, processor, 0, **{f"text_config.{name}": value for name, value in changes.items()})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        enlarge_weights(model)
    model.generation_config.eos_token_id = NEVER
    return HookedModel(model, processor)


def test_videos_and_texts_pass_through_and_what_does_not_fit_is_refused() -> None:
    processor = TiledProcessor(build_processor(FAMILY), SMALL)
    assert processor(text="Which?", return_tensors="pt")["input_ids"].shape[0] == 1
    question = Question([], "Which?", [moving()])
    cut, whole = (model.encode([question]) for model in (tiled(), hooked(FAMILY)))
    assert torch.equal(cut.inputs["input_ids"], whole.inputs["input_ids"]) and cut.spans == whole.spans
    with pytest.raises(InputError, match="2 images are given and the texts place 1"):
        processor(images=[picture(), picture()], text=["<image> Which?"], return_tensors="pt")
    with pytest.raises(InputError, match=r"the texts are given \[1, 2\] images and place \[2, 1\]"):
        processor(images=[[picture()], [picture()] * 2], text=["<image> or <image>?", "<image>"], return_tensors="pt")
    with pytest.raises(InputError, match="give a multiple of 8"):
        TiledProcessor(build_processor(FAMILY), Tiling(side=36))
    with pytest.raises(InputError, match=r"packs no patches.*other families cut images themselves"):
        TiledProcessor(build_processor("llava"))
    with pytest.raises(InputError, match="from 1 on"):
        Tiling(most=0)
    inputs, spans = spans_of(processor, [(64, 32)])
    with pytest.raises(InputError, match="its tokens depend on its size"):
        find_image_spans(inputs, build_config(FAMILY, processor), processor)
    with pytest.raises(InputError, match="47 values for 48 tokens"):
        tile_attention(np.ones(47), spans[0])
    with pytest.raises(InputError, match="lost tokens"):
        tile_attention(np.ones(48), spans[0].thinned(np.arange(200) % 2 == 0))
    with pytest.raises(InputError, match="no images"):
        image_shares([])
