"""Mllama's columns: what each shows is found by painting into it, and factors are held to eager attentions."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from probes.attention import attention_factors
from probes.inputs import InputError
from probes.spans import ImageSpan, find_image_spans
from probes.vision_axis import find_vision_spans
from tests.probes.processors import TEMPLATES, build_tokenizer
from tests.probes.test_spans_model import background, painted
from tests.probes.tiny_models import enlarge_weights

SIZES = [[(60, 40), (20, 70)], [(150, 61)]]


@cache
def processor() -> Any:
    from transformers import MllamaImageProcessor, MllamaProcessor

    tokenizer = build_tokenizer("mllama")
    images = MllamaImageProcessor(size={"height": 32, "width": 32}, max_image_tiles=4)
    return MllamaProcessor(images, tokenizer, chat_template=TEMPLATES["mllama"])


@cache
def model() -> Any:
    from transformers import MllamaConfig, MllamaForConditionalGeneration

    ids = processor().tokenizer.convert_tokens_to_ids
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(processor().tokenizer),
        "cross_attention_layers": [1],
        "pad_token_id": ids("<pad>"),
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "vision_output_dim": 64,
        "intermediate_layers_indices": [0],
        "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
    }
    config = MllamaConfig(text_config=text, vision_config=vision, image_token_index=ids("<|image|>"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = MllamaForConditionalGeneration(config)
        enlarge_weights(made)
    for name, parameter in made.named_parameters():
        if name.endswith("gate") or "gate_" in name:  # a cross-attention layer starts closed
            torch.nn.init.constant_(parameter, 0.5)
    return made.eval()


def encode(rows: list[list[Image.Image]]) -> Any:
    texts = ["<|image|>" * len(images) + "Which image?" for images in rows]
    return processor()(text=texts, images=rows, return_tensors="pt", padding=True)


def pictures() -> list[list[Image.Image]]:
    return [[background(size, place) for place, size in enumerate(row)] for row in SIZES]


def features(inputs: Any) -> torch.Tensor:
    """(batch, columns, hidden): the patches' embeddings on the vision axis, before tiles see each other."""
    seen: list[torch.Tensor] = []
    tower = model().model.vision_model
    handle = tower.layernorm_pre.register_forward_hook(lambda _module, _args, output: seen.append(output.detach()))
    try:
        with torch.no_grad():
            model()(**inputs, use_cache=False)
    finally:
        handle.remove()
    return seen[0].reshape(len(inputs["input_ids"]), -1, seen[0].shape[-1])


def test_a_patch_painted_into_a_cell_changes_its_column() -> None:
    rows = pictures()
    inputs = encode(rows)
    spans = find_vision_spans(inputs, model().config, SIZES)
    before = features(inputs)
    assert [[len(span.tiles) for span in row] for row in spans] == [[4, 3], [3]]
    for row, image, place in ((0, 0, 5), (0, 0, -1), (0, 1, 9), (1, 0, 3), (1, 0, 40)):
        span = spans[row][image]
        whole = [cell for cell in span.cells() if cell.box.area > 0.99 * span.cells()[0].box.area]
        cell = whole[place % len(whole)]
        changed = [list(images) for images in rows]
        changed[row][image] = painted(rows[row][image], cell.box)
        change = (features(encode(changed)) - before).norm(dim=-1).numpy()
        touched = {(int(r), int(c)) for r, c in np.argwhere(change > 1e-6)}
        assert touched <= {(row, int(token)) for token in span.tokens}
        assert max(span.cells(), key=lambda each: change[row, span.tokens[each.token]]) == cell


def test_cells_cover_the_image_once() -> None:
    for row in find_vision_spans(encode(pictures()), model().config, SIZES):
        for span in row:
            assert span.size is not None
            assert sum(cell.box.area for cell in span.cells()) == pytest.approx(span.size[0] * span.size[1])
            assert len(span.tokens) == len(span.tiles) * (4 * 4 + 1)


def test_factors_equal_eager_attentions() -> None:
    inputs = encode(pictures()[:1])
    [spans] = find_vision_spans(inputs, model().config, SIZES[:1])
    token = model().config.image_token_index
    places = torch.nonzero(inputs["input_ids"][0] == token).flatten().tolist()
    marks = [(place, place + 1) for place in places]
    model().set_attn_implementation("eager")
    with torch.no_grad():
        seen = model()(**inputs, output_attentions=True, use_cache=False).attentions
    found = attention_factors(model(), dict(inputs), [-1, -2], marks, cross_spans=spans)[0].numpy()
    columns = [span.tokens for span in spans]
    by_layer = [layer[0, :, -2:].mean((0, 1)).numpy() for layer in seen]
    expected = np.stack(
        [
            [values[own].mean() for own in (columns if layer == 1 else np.array(places)[:, None])]
            for layer, values in enumerate(by_layer)
        ]
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    off = np.stack([by_layer[1][own + 1].mean() for own in columns])
    assert np.abs(off - expected[1]).max() > 1e-4


def test_what_does_not_fit_is_refused() -> None:
    inputs, config = encode(pictures()), model().config
    for sizes, message in ((SIZES[:1], "1 entry for 2 prompts"), ([SIZES[0][:1], SIZES[1]], "1 size for inputs")):
        with pytest.raises(InputError, match=message):
            find_vision_spans(inputs, config, sizes)
    with pytest.raises(InputError, match="pass everything"):
        find_vision_spans({"input_ids": inputs["input_ids"]}, config)
    with pytest.raises(InputError, match="no vision axis: use find_image_spans"):
        find_vision_spans(inputs, config.text_config)
    with pytest.raises(InputError, match=r"'mllama'.*find_vision_spans.*attention_factors\(image_spans="):
        find_image_spans(inputs, config)
    bare: list[list[ImageSpan]] = find_vision_spans(inputs, config)
    assert [[tuple(span) for span in row] for row in bare] == [
        [tuple(span) for span in row] for row in find_vision_spans(inputs, config, SIZES)
    ]
    with pytest.raises(InputError, match="give image_sizes"):
        bare[0][0].cells()
