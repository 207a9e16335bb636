"""Columns of every family's vision axis: its real processor, and an encoder that mixes nothing, say what each shows."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from probes.attention import attention_factors, attention_layers
from probes.axes import AXES, ENCODER_TEXTS
from probes.inputs import InputError
from probes.spans import Box, ImageSpan, Tile
from probes.vision_axis import find_vision_spans
from tests.probes.axis_cases import CASES, RESAMPLED, AxisCase, asked, build, features, spans_of
from tests.probes.dense_reference import TOLERANCE
from tests.probes.test_spans_model import background, painted
from tests.probes.zoo.verifying import eager_attentions

pytestmark = pytest.mark.filterwarnings("ignore")
every_case = pytest.mark.parametrize("name", CASES)
Changes = NDArray[np.float64]


def pictures(case: AxisCase) -> list[list[Image.Image]]:
    sizes = [[(60, 40), (37, 70)], [(150, 61)]] if case.several else [[(60, 40)], [(31, 70)]]
    return [[background(size, place) for place, size in enumerate(row)] for row in sizes]


@cache
def unmixed(name: str) -> Any:
    return build(CASES[name], mixing=False)


def change(name: str, row: int, image: int, box: Box) -> Changes:
    """(batch, columns): how much each column changes when a box of one picture is painted white."""
    case, rows = CASES[name], pictures(CASES[name])
    changed = [list(images) for images in rows]
    changed[row][image] = painted(rows[row][image], box)
    after, before = (features(unmixed(name), case.encode(each)) for each in (changed, rows))
    return np.asarray((after - before).norm(dim=-1).numpy(), dtype=np.float64)


def visible(span: ImageSpan) -> list[Any]:
    """Cells that show as much of the picture as any, of the finest view."""
    cells = [cell for cell in span.cells() if not cell.thumbnail]
    largest = max(cell.box.area for cell in cells)
    return [cell for cell in cells if cell.box.area > 0.99 * largest]


@every_case
def test_a_patch_painted_into_a_cell_changes_its_column(name: str) -> None:
    case, rows = CASES[name], pictures(CASES[name])
    spans = spans_of(case, rows, case.encode(rows))
    noticed = 0
    for row, image, place in ((0, 0, 0), (0, 0, 6), (0, -1, -1), (1, 0, 5), (1, 0, -2)):
        span = spans[row][image]
        cells = visible(span)
        cell = cells[place % len(cells)]
        seen = change(name, row, image, cell.box)
        assert {int(place) for place in np.flatnonzero(seen[row] > 1e-6)} <= {*span.tokens.tolist()}
        assert not seen[1 - row].any()
        every = [each for each in span.cells() if not each.thumbnail]
        assert every[int(np.argmax(seen[row, [span.tokens[each.token] for each in every]]))] == cell
        one_off = np.append(seen[row], 0)[[span.tokens[each.token] + 1 for each in every]]
        noticed += every[int(np.argmax(one_off))] != cell
    # A first cell has none before it that would stand out in its place.
    assert noticed >= 4


@every_case
def test_columns_are_those_that_the_decoder_is_given(name: str) -> None:
    case, rows = CASES[name], pictures(CASES[name])
    inputs = case.encode(rows)
    found = features(build(case, mixing=True), inputs)
    for row, spans in enumerate(spans_of(case, rows, inputs)):
        own = [token for span in spans for token in span.tokens.tolist()]
        assert len(own) == len(set(own))
        assert {*range(found.shape[1])} - {*own} == others(case, inputs, row, found.shape[1])


def others(case: AxisCase, inputs: dict[str, Any], row: int, columns: int) -> set[int]:
    """Columns of no image, told from the inputs alone: text, and padding."""
    match case.model_type:
        case "florence2" | "t5gemma2":
            config = case.config()
            token = getattr(config, "encoder", config).image_token_id
            return {*torch.nonzero(inputs["input_ids"][row] != token).flatten().tolist()}
        case "idefics":
            per_image = columns // inputs["pixel_values"].shape[1]
            empty = (inputs["pixel_values"][row].abs().sum((1, 2, 3)) == 0).tolist()
            return {
                image * per_image + column for image, bare in enumerate(empty) if bare for column in range(per_image)
            }
        case "pix2struct":
            return {*torch.nonzero(inputs["attention_mask"][row] == 0).flatten().tolist()}
        case "udop":  # text, and as many columns of padding as patches have words: 5, 6, 15 and 0, or 12, 2 and 15
            return {0, 1, 2, 3, 17, 18, 19} | ({16} if row == 0 else set())
    return set()


@every_case
def test_factors_of_the_spans_equal_eager_attentions(name: str) -> None:
    case, rows = CASES[name], pictures(CASES[name])
    inputs = case.encode(rows)
    spans = spans_of(case, rows, inputs)
    model = build(case, mixing=True)
    given = asked(model, inputs)
    model.set_attn_implementation("eager")
    dense = eager_attentions(model, given, len(attention_layers(model)))
    model.set_attn_implementation("sdpa")
    last = [-1, -2]
    found = attention_factors(model, given, last, [], cross_spans=spans).numpy()
    columns = features(model, inputs).shape[1]
    moved = []
    for layer, attention in enumerate(dense):
        means = attention[:, :, last, attention.shape[-1] - columns :].mean((1, 2))
        for row, own in enumerate(spans):
            expected = [means[row, span.tokens].mean() for span in own]
            np.testing.assert_allclose(found[row, layer, : len(own)], expected, atol=TOLERANCE)
            assert np.isnan(found[row, layer, len(own) :]).all()
            elsewhere = [means[row, (span.tokens + 3) % columns].mean() for span in own]
            moved += np.abs(np.subtract(elsewhere, expected)).tolist()
    one_image_alone = len(spans[0]) == 1 and len(spans[0][0].tokens) == columns
    assert one_image_alone or max(moved) > 10 * TOLERANCE


@every_case
def test_cells_cover_the_picture_once(name: str) -> None:
    """But for patches with words, and what lies beyond the middles of convolutions' last windows."""
    share = {"florence2": (112.5 / 128) ** 2}.get(name, 1)
    case, rows = CASES[name], pictures(CASES[name])
    for row in spans_of(case, rows, case.encode(rows)):
        for span in row:
            assert span.size is not None
            area = sum(cell.box.area for cell in span.cells() if not cell.thumbnail)
            own = len(span.tokens) / 16 if name == "udop" else share
            assert name == "pp_formulanet" or area == pytest.approx(own * span.size[0] * span.size[1])


def test_resampled_columns_have_no_place() -> None:
    rows = pictures(RESAMPLED)
    inputs = RESAMPLED.encode(rows)
    spans = spans_of(RESAMPLED, rows, inputs)
    assert [[tuple(span) for span in row] for row in spans] == [[(0, 5), (5, 10)], [(0, 5)]]
    assert features(build(RESAMPLED, mixing=True), inputs).shape[1] == 10
    with pytest.raises(InputError, match="no cells and no map"):
        spans[0][0].cells()


def test_every_family_of_the_tables_is_tried() -> None:
    assert {case.model_type for case in CASES.values()} | {"mllama"} == {*AXES, *ENCODER_TEXTS}


def test_pages_are_followed_by_the_processors_own_steps() -> None:
    """At many sizes: where the picture's own pixels begin and end, in what the processor padded with zeros."""
    case = CASES["donut"]
    for size in ((60, 40), (31, 70), (32, 48), (200, 20), (20, 200), (47, 47), (5, 9)):
        rows = [[Image.new("RGB", size, (255, 255, 255))]]
        inputs = case.encode(rows)
        (span,) = spans_of(case, rows, inputs)[0]
        light = (inputs["pixel_values"][0].mean(0) > 0.9).numpy()
        across, down = (np.flatnonzero(light.any(axis)) for axis in (0, 1))
        box = span.tiles[0].box
        scale = 32 / (box.right - box.left), 48 / (box.bottom - box.top)
        assert -box.left * scale[0] == pytest.approx(across[0], abs=0.01)
        assert -box.top * scale[1] == pytest.approx(down[0], abs=0.01)
        assert (size[0] - box.left) * scale[0] == pytest.approx(across[-1] + 1, abs=0.01)
        assert (size[1] - box.top) * scale[1] == pytest.approx(down[-1] + 1, abs=0.01)


@pytest.mark.parametrize(
    "name, kwargs, message",
    [
        ("pp_formulanet", {}, "cuts off margins by what the picture shows.*do_crop_margin=False"),
        ("donut", {"do_align_long_axis": True}, "turns it by 90 degrees"),
        ("donut", {"size": {"height": 64, "width": 64}}, "give sizes as \\(width, height\\) and the processor"),
        ("pix2struct", {"is_vqa": True}, "drawn above the picture.*leave out image_sizes"),
    ],
)
def test_pictures_whose_place_cannot_be_told_are_refused(name: str, kwargs: dict[str, Any], message: str) -> None:
    case, rows = CASES[name], pictures(CASES[name])
    inputs = case.encode(rows)
    sizes = [[image.size for image in row] for row in rows]
    with pytest.raises(InputError, match=message):
        find_vision_spans(inputs, case.config(), sizes, case.processor(), kwargs)
    bare = find_vision_spans(inputs, case.config(), processor=case.processor(), processor_kwargs=kwargs)
    known = spans_of(case, rows, inputs)
    assert [[tuple(span) for span in row] for row in bare] == [[tuple(span) for span in row] for row in known]
    with pytest.raises(InputError, match="give image_sizes"):
        bare[0][0].cells()


@every_case
def test_inputs_that_do_not_fit_are_refused(name: str) -> None:
    case, rows = CASES[name], pictures(CASES[name])
    inputs, config = case.encode(rows), case.config()
    sizes = [[image.size for image in row] for row in rows]
    with pytest.raises(InputError, match="1 entry for 2 prompts"):
        find_vision_spans(inputs, config, sizes[:1], case.processor(), case.call)
    with pytest.raises(InputError, match="row 0"):
        more = [[*row, (9, 9)] for row in sizes]
        find_vision_spans(inputs, config, more, case.processor(), case.call)
    if case.model_type not in ENCODER_TEXTS:
        with pytest.raises(InputError, match="pass everything the processor returned"):
            find_vision_spans({"input_ids": torch.ones(2, 3)}, config)


def test_pixels_of_another_side_are_refused() -> None:
    for name in ("idefics", "florence2", "pp_formulanet", "udop"):
        case, rows = CASES[name], pictures(CASES[name])
        inputs = case.encode(rows)
        inputs["pixel_values"] = inputs["pixel_values"][..., :-4]
        with pytest.raises(InputError, match="load both from one checkpoint"):
            spans_of(case, rows, inputs)


def test_an_encoder_that_is_not_known_is_refused_by_name() -> None:
    case = CASES["vision-encoder-decoder"]
    config = case.config()
    config.encoder.model_type = "poolformer"
    with pytest.raises(InputError, match=r"'poolformer' is not known \(known: beit.*cross_spans"):
        find_vision_spans(case.encode(pictures(case)), config)


def test_patches_under_words_are_no_columns() -> None:
    case = CASES["udop"]
    (first,), _ = spans_of(case, pictures(case), case.encode(pictures(case)))
    whole = Box(0, 0, 60, 40)
    assert first.tiles[0] == Tile(1, 3, Box(15, 0, 60, 10))
    assert [(tile.columns, tile.box) for tile in first.tiles[1:3]] == [
        (1, whole.cell(1, 0, 4, 4)),
        (1, whole.cell(1, 3, 4, 4)),
    ]
    inputs = case.encode(pictures(case))
    inputs["bbox"] = torch.tensor([[[x, y, x, y] for y in (0, 0.3, 0.6, 0.9) for x in (0, 0.3, 0.6, 0.9)]] * 2)
    with pytest.raises(InputError, match="a word lies on every patch"):
        find_vision_spans(inputs, case.config())
