"""Cross-attention to image features and to an encoder's output: which layers count, what is refused, padding."""

from typing import Any

import pytest
import torch
from transformers import T5Config, T5Model

from probes.attention import AttentionRecorder, attention_factors, attention_layers, pairwise_factors
from probes.attention_calls import UnsupportedAttention
from probes.attention_rows import RowMask
from probes.cross_attention import is_cross_attention
from probes.decoder import attention_modules, decoder_layers, find_decoder
from probes.inputs import InputError
from probes.knockout import AttentionKnockout
from probes.residuals import reading_residuals, replacing_residuals
from tests.probes.dense_reference import TOLERANCE
from tests.probes.zoo.crossing import CROSSING
from tests.probes.zoo.verifying import LENGTHS, ROWS, SPANS, Family, build_model

pytestmark = pytest.mark.filterwarnings("ignore")


def test_only_known_cross_attentions_count_where_they_stand_beside_others() -> None:
    for name, crossing in CROSSING.items():
        modules = attention_modules(build_model(name, "eager"))
        assert list(modules) == [0, 1, 2]
        assert [is_cross_attention(module) for module in modules.values()] == [
            crossing.only_crossing or layer == 1 for layer in modules
        ]


@pytest.mark.parametrize("model_type", sorted(CROSSING))
def test_layers_of_the_residual_stream_are_the_decoders_own(model_type: str) -> None:
    """Idefics' gated blocks have cross-attentions of their own numbering, and are none of its layers."""
    model = build_model(model_type, "eager")
    decoder: Any = model.decoder.model.decoder if model_type == "vision-encoder-decoder" else find_decoder(model)
    layers = decoder_layers(model)
    expected = getattr(decoder, "layers", None) or getattr(decoder, "layer", None) or decoder.block
    assert list(layers) == [0, 1, 2]
    assert all(found is own for found, own in zip(layers.values(), expected, strict=True))


def test_what_enters_idefics_layers_is_read_and_replaced() -> None:
    family = Family("idefics")
    model, inputs = family.model, family.inputs(padded=False)
    tokens = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    tokens[:, 20:22] = True
    left: list[torch.Tensor] = []
    gated = model.model.gated_cross_attn_layers
    handles = [block.register_forward_hook(lambda _module, _args, output: left.append(output)) for block in gated]
    with torch.no_grad(), reading_residuals(model, tokens, [0, 1, 2]) as found:
        plain = model(**inputs, use_cache=False).logits
    for layer, (block, handle) in enumerate(zip(gated, handles, strict=True)):
        assert torch.equal(found[layer], left[layer][tokens])
        assert (found[layer] - left[layer - 1][tokens]).abs().max() > 1e-2, block
        handle.remove()
    with torch.no_grad(), replacing_residuals(model, tokens, {1: found[1] + 1}):
        changed = model(**inputs, use_cache=False).logits
    assert (changed - plain).abs().amax(-1)[0, 20:].min() > 1e-3
    assert not (changed - plain)[0, :20].any()


def test_encoder_decoders_that_are_not_known_are_refused() -> None:
    settings = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 16}
    with pytest.raises(UnsupportedAttention, match="encoder-decoder layers hold several attentions, none of them kn"):
        attention_layers(T5Model(T5Config(**settings)))


@pytest.mark.parametrize("model_type", ["florence2", "idefics", "t5gemma2"])
def test_one_call_gives_the_factors_of_a_decoder_that_only_crosses(model_type: str) -> None:
    family = Family(model_type)
    inputs, cross = family.inputs(padded=True), list(family.entry.cross_spans)
    found = attention_factors(family.model, inputs, list(ROWS[1:]), [], cross_spans=cross)
    rows = torch.zeros(2, LENGTHS[0], dtype=torch.bool)
    rows[:, list(ROWS[1:])] = True
    recorder = AttentionRecorder(family.model, [], {"rows": rows}, cross_spans=[cross, cross[::-1]])
    with torch.no_grad(), recorder:
        family.model(**inputs, use_cache=False)
    assert torch.equal(recorder.factors("rows")[0], found[0])
    assert torch.equal(recorder.factors("rows")[1], found[1].flip(-1))


@pytest.mark.parametrize("model_type", sorted(CROSSING))
def test_rows_of_padding_are_never_counted(model_type: str) -> None:
    """Nothing in a cross-attention's own mask tells them from tokens."""
    family = Family(model_type)
    inputs = family.inputs(padded=True)
    recorder = family.recorder(inputs, rows=range(LENGTHS[0]))
    with torch.no_grad(), recorder:
        family.model(**inputs, use_cache=False)
    assert recorder.row_counts("rows").tolist() == [[length] * 3 for length in LENGTHS]


def test_spans_among_the_features_are_checked() -> None:
    family = Family("florence2")
    inputs, cross = family.inputs(padded=False), list(family.entry.cross_spans)
    for spans in ([], [(3, 8)]):
        with pytest.raises(UnsupportedAttention, match=r"layer 0 \(BartAttention\): it attends .*give cross_spans"):
            attention_factors(family.model, inputs, [-1], spans)
    with pytest.raises(InputError, match="ends at 99, past the image features' 14 tokens"):
        attention_factors(family.model, inputs, [-1], [], cross_spans=[(3, 8), (9, 99)])
    with pytest.raises(InputError, match="differ in their number of images"):
        attention_factors(family.model, inputs, [-1], [(3, 8)], cross_spans=cross)
    with pytest.raises(InputError, match="no image spans given"):
        attention_factors(family.model, inputs, [-1], [], cross_spans=[])
    with pytest.raises(InputError, match=r"inputs need decoder_input_ids .*query rows are theirs"):
        bare = {name: value for name, value in inputs.items() if not name.startswith("decoder")}
        attention_factors(family.model, bare, [-1], [], cross_spans=cross)
    with pytest.raises(UnsupportedAttention, match="give cross_spans"):
        pairwise_factors(family.model, inputs, [(3, 8)])
    rows = torch.ones(1, LENGTHS[0], dtype=torch.bool)
    hidden = AttentionKnockout(family.model, rows, [[(3, 8)]])
    with pytest.raises(UnsupportedAttention, match="none can be hidden by token"), torch.no_grad(), hidden:
        family.model(**inputs)


def test_layers_among_others_need_both_kinds_of_spans() -> None:
    family = Family("mllama")
    model, inputs, spans = family.model, family.inputs(padded=False), list(SPANS)
    cross = list(family.entry.cross_spans)
    with pytest.raises(UnsupportedAttention, match=r"decoder layer 1 .*no tokens of the prompt; give cross_spans"):
        attention_factors(model, inputs, [-1], spans)
    with pytest.raises(InputError, match="no image spans given"):
        attention_factors(model, inputs, [-1], [], cross_spans=cross)
    with pytest.raises(InputError, match="differ in their number of images"):
        attention_factors(model, inputs, [-1], spans, cross_spans=[(0, 4)])
    with pytest.raises(InputError, match=r"past the image features' \d+ tokens"):
        attention_factors(model, inputs, [-1], spans, cross_spans=[(0, 4), (4, 9999)])
    with pytest.raises(UnsupportedAttention, match="without a mask for a causal one"):
        bare = {name: value for name, value in inputs.items() if name != "cross_attention_mask"}
        attention_factors(model, bare, [-1], spans, cross_spans=cross)
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with pytest.raises(UnsupportedAttention, match=r"layer 1 .*give pixel_values"):
        attention_factors(model, text, [-1], spans, cross_spans=cross)
    with pytest.raises(InputError, match="no layer attends to image features"):
        plain = Family("llava")
        attention_factors(plain.model, plain.inputs(padded=False), [-1], spans, cross_spans=spans)
    rows = torch.ones_like(inputs["input_ids"], dtype=torch.bool)
    hidden = AttentionKnockout(model, rows, [spans[:1]])
    with pytest.raises(UnsupportedAttention, match="none can be hidden by token"), torch.no_grad(), hidden:
        model(**inputs)
    recorder = AttentionRecorder(model, spans, {"rows": rows}, cells=True, cross_spans=cross)
    with pytest.raises(UnsupportedAttention, match="record without cells"), torch.no_grad(), recorder:
        model(**inputs)


@pytest.mark.parametrize("model_type", ["mllama", "idefics", "florence2"])
def test_a_cross_attentions_mask_is_taken_into_account(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = RowMask.rows

    def without(mask: RowMask, rows: torch.Tensor) -> Any:
        return None if mask._call.is_cross else real(mask, rows)

    monkeypatch.setattr(RowMask, "rows", without)
    wrong = Family(model_type).compare(padded=True)
    assert wrong.error > 50 * TOLERANCE


def test_a_generation_without_a_cache_is_refused_where_keys_would_not_tell() -> None:
    for model_type in ("pix2struct", "evolla"):
        family = Family(model_type)
        inputs = family.inputs(padded=True)
        recorder = family.recorder(inputs, rows=(-1,), generated=["rows"])
        family.model.generation_config.pad_token_id = family.model.generation_config.decoder_start_token_id = 0
        refused = pytest.raises(UnsupportedAttention, match="called afresh instead of continuing with a cache")
        with refused, torch.no_grad(), recorder:
            family.model.generate(**inputs, max_new_tokens=2, do_sample=False, use_cache=False)
