"""Every family of transformers' image-text-to-text mapping: read as its own eager attentions have it, or refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from probes import attention_rows
from probes.attention import AttentionRecorder, attention_factors, attention_layers
from probes.attention_calls import AttentionCall, UnsupportedAttention
from probes.attention_rows import RowMask
from probes.families import FAMILIES, RESAMPLED, UNBATCHED, VIDEOS
from probes.families.support import BY_HAND, REFUSED, VERIFIED, table
from probes.inputs import InputError
from probes.knockout import AttentionKnockout
from probes.spans import find_image_spans
from tests.probes.dense_reference import TOLERANCE
from tests.probes.zoo.catalogue import ENTRIES, Entry
from tests.probes.zoo.verifying import (
    LENGTHS,
    MODEL_TYPES,
    SPANS,
    build_model,
    compare,
    compare_generated,
    inputs_of,
    model_without_weights,
)

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).parents[2]
SHARP = 0.8
"""Largest share of a uniform row's entropy: flatter attention would pass any formula."""

OTHER_DECODERS = ("llava_dots1", "llava_gpt_oss", "llava_nemotron_h")
"""Decoders that no entry of the mapping has under a LLaVA: experts, attention sinks, Mamba layers."""
NEW_TOKENS = 4
WITHOUT_CACHE = ("evolla",)
NOT_GENERATING = ("qwen4_exp",)
SAID = {
    "blip": "never called transformers' attention interface|called transformers' attention interface in this thread",
    "diffusion_gemma": "its cache was filled before",
    "git": "called transformers' attention interface",
    "idefics": "it holds several attentions",
    "pi0": "it holds several attentions",
}
"""What the engine says of the families that are no encoder-decoders."""


def test_every_entry_of_the_mapping_is_verified_or_refused() -> None:
    assert set(MODEL_TYPES) == VERIFIED | set(REFUSED)
    assert not VERIFIED & set(REFUSED)
    assert len(VERIFIED) >= 86


@pytest.mark.parametrize("padded", [False, True], ids=["alone", "left-padded"])
@pytest.mark.parametrize("model_type", sorted({*VERIFIED, *OTHER_DECODERS}))
def test_factors_equal_the_familys_own_eager_attentions(model_type: str, padded: bool) -> None:
    found = compare(model_type, padded)
    assert found.recorded.shape == found.reference.shape and np.isfinite(found.recorded).all()
    assert np.abs(found.recorded - found.reference).max() < TOLERANCE
    assert np.abs(found.recorded - found.swapped).max() > 100 * TOLERANCE
    assert found.entropy < SHARP or ENTRIES[model_type].dull


@pytest.mark.parametrize("model_type", sorted({*VERIFIED, *OTHER_DECODERS} - {*WITHOUT_CACHE, *NOT_GENERATING}))
def test_decode_steps_with_a_cache_equal_eager_ones(model_type: str) -> None:
    recorded, reference = compare_generated(model_type, NEW_TOKENS)
    assert recorded.shape == reference.shape
    assert np.abs(recorded - reference).max() < TOLERANCE
    assert np.abs(recorded - reference[..., ::-1]).max() > 100 * TOLERANCE


@pytest.mark.parametrize("model_type", WITHOUT_CACHE)
def test_a_family_that_generates_without_its_cache_is_refused_there(model_type: str) -> None:
    with pytest.raises(UnsupportedAttention, match="called afresh instead of continuing with a cache"):
        compare_generated(model_type, NEW_TOKENS)


@pytest.mark.parametrize("model_type", NOT_GENERATING)
def test_families_that_cannot_generate_by_themselves_still_cannot(model_type: str) -> None:
    """Once transformers mends this, the family belongs among the others."""
    model = build_model(model_type, "eager")
    with pytest.raises(ValueError, match="it has no indexer key cache"), torch.no_grad():
        model.generate(**inputs_of(model, Entry(), padded=False), max_new_tokens=NEW_TOKENS, do_sample=False)


@pytest.mark.parametrize("model_type", sorted(set(REFUSED) - set(SAID)))
def test_encoder_decoders_are_refused_before_they_run(model_type: str) -> None:
    with pytest.raises(UnsupportedAttention, match="encoder-decoder layers hold several attentions"):
        attention_layers(model_without_weights(model_type))


@pytest.mark.parametrize("model_type", sorted(SAID))
def test_other_families_are_refused_by_layer(model_type: str) -> None:
    entry = ENTRIES.get(model_type, Entry())
    model = build_model(model_type, entry.attention)
    inputs = inputs_of(model, entry, padded=False)
    with pytest.raises(UnsupportedAttention, match=SAID[model_type]):
        attention_factors(model, inputs, [-1], list(SPANS))


def test_cross_attention_needs_spans_among_the_image_features() -> None:
    entry = ENTRIES["mllama"]
    model = build_model("mllama", "sdpa")
    inputs = inputs_of(model, entry, padded=False)
    spans = list(SPANS)
    with pytest.raises(UnsupportedAttention, match=r"decoder layer 1 .*whose columns are no tokens.*give cross_spans"):
        attention_factors(model, inputs, [-1], spans)
    with pytest.raises(InputError, match="differ in their number of images"):
        attention_factors(model, inputs, [-1], spans, cross_spans=[(0, 4)])
    with pytest.raises(InputError, match=r"past the image features' \d+ tokens"):
        attention_factors(model, inputs, [-1], spans, cross_spans=[(0, 4), (4, 9999)])
    with pytest.raises(UnsupportedAttention, match="without a mask for a causal one"):
        bare = {name: value for name, value in inputs.items() if name != "cross_attention_mask"}
        attention_factors(model, bare, [-1], spans, cross_spans=list(entry.cross_spans))
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with pytest.raises(UnsupportedAttention, match=r"layer 1 .*give pixel_values"):
        attention_factors(model, text, [-1], spans, cross_spans=list(entry.cross_spans))
    with pytest.raises(InputError, match="no layer attends to image features"):
        plain = build_model("llava", "sdpa")
        attention_factors(plain, inputs_of(plain, Entry(), False), [-1], spans, cross_spans=spans)
    rows = torch.ones_like(inputs["input_ids"], dtype=torch.bool)
    with (
        pytest.raises(UnsupportedAttention, match="none can be hidden by token"),
        torch.no_grad(),
        AttentionKnockout(model, rows, [spans[:1]]),
    ):
        model(**inputs)
    recorder = AttentionRecorder(model, spans, {"rows": rows}, cells=True, cross_spans=list(entry.cross_spans))
    with pytest.raises(UnsupportedAttention, match="record without cells"), torch.no_grad(), recorder:
        model(**inputs)


def test_a_cross_attentions_mask_is_taken_into_account(monkeypatch: pytest.MonkeyPatch) -> None:
    real = RowMask.rows

    def without(mask: RowMask, rows: torch.Tensor) -> Any:
        return None if mask._call.is_cross else real(mask, rows)

    monkeypatch.setattr(RowMask, "rows", without)
    wrong = compare("mllama", padded=False)
    assert np.abs(wrong.recorded - wrong.reference)[:, 1].max() > 50 * TOLERANCE


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("model_type", ["inkling2", "inkling_mm_model"])
def test_knocked_out_rows_keep_their_own_biases_and_sinks(model_type: str, count: int) -> None:
    """In the first layer, whose input is untouched, what is left to see keeps its shares of what is left."""
    model = build_model(model_type, "eager")
    inputs = inputs_of(model, ENTRIES[model_type], padded=False)
    rows = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    rows[:, -count:] = True
    hidden = (20, 23)
    kept = [column for column in range(LENGTHS[0]) if not hidden[0] <= column < hidden[1]]
    with torch.no_grad():
        before = model(**inputs, use_cache=False, output_attentions=True).attentions[0][:, :, -count:]
        with AttentionKnockout(model, rows, [[hidden]]):
            output = model(**inputs, use_cache=False, output_attentions=True)
    after = output.attentions[0][:, :, -count:]
    assert float(after[..., hidden[0] : hidden[1]].abs().max()) == 0
    assert float(before[..., hidden[0] : hidden[1]].sum(-1).max()) > 0.05
    shares = [each[..., kept] / each[..., kept].sum(-1, keepdim=True) for each in (before, after)]
    torch.testing.assert_close(shares[1], shares[0], atol=TOLERANCE, rtol=0)
    if model_type == "inkling_mm_model":
        model.set_attn_implementation("sdpa")
        with torch.no_grad(), AttentionKnockout(model, rows, [[hidden]]):
            again = model(**inputs, use_cache=False).logits
        torch.testing.assert_close(again, output.logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("keyword", ["position_bias", "sinks"])
def test_what_adds_to_the_softmax_by_row_is_taken_into_account(keyword: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = attention_rows.by_row
    right = compare("inkling2", padded=True)
    assert np.abs(right.recorded - right.reference).max() < TOLERANCE

    def without(call: AttentionCall, name: str, rows: torch.Tensor, width: int) -> Any:
        return None if name == keyword else real(call, name, rows, width)

    monkeypatch.setattr(attention_rows, "by_row", without)
    wrong = compare("inkling2", padded=True)
    assert np.abs(wrong.recorded - wrong.reference).max() > 100 * TOLERANCE


def test_the_table_of_the_docs_is_this_one() -> None:
    assert (ROOT / "docs" / "families.md").read_text() == table()
    assert set(FAMILIES) - {"smolvlm"} <= VERIFIED
    assert set(BY_HAND) == VERIFIED - set(FAMILIES)
    assert VIDEOS | RESAMPLED | set(UNBATCHED) <= set(FAMILIES)


@pytest.mark.parametrize("model_type", sorted(BY_HAND))
def test_families_whose_image_tokens_are_not_known_name_the_way_by_hand(model_type: str) -> None:
    with pytest.raises(InputError, match=r"attention_factors\(image_spans=") as error:
        find_image_spans({"input_ids": [[1]]}, SimpleNamespace(model_type=model_type))
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    assert repr(model_type) in message and BY_HAND[model_type] in message
