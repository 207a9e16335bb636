"""Factors of one forward against each family's own eager attentions, and checks that would catch a wrong formula."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from probes.attention import (
    AttentionRecorder,
    UnsupportedAttention,
    attention_factors,
    attention_layers,
    pairwise_factors,
)
from probes.attention_calls import AttentionCall
from probes.attention_columns import ImageColumns
from probes.attention_rows import RowMask
from probes.inputs import InputError
from tests.probes.dense_reference import TOLERANCE, dense_factors, dense_forward, last_rows, worst
from tests.probes.tiny_models import FAMILIES, build, build_model

ALONE = ((3, 2, 6),)
RAGGED = ((3, 2, 6), (2, 9), (1, 2, 3, 7))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("samples", "padding"), [(ALONE, "right"), (RAGGED, "left"), (RAGGED, "right")])
def test_factors_equal_the_models_own_eager_attentions(
    family: str, samples: tuple[tuple[int, ...], ...], padding: str
) -> None:
    tiny = build(family, samples, padding=padding)
    rows = last_rows(tiny, 5)
    reference = dense_factors(dense_forward(family, tiny), rows.numpy(), tiny.spans)
    per_head = attention_factors(tiny.model, tiny.inputs, rows, tiny.spans, per_head=True)
    assert worst(per_head, reference) < TOLERANCE
    factors = attention_factors(tiny.model, tiny.inputs, rows, tiny.spans)
    assert worst(factors, reference.mean(axis=2)) < TOLERANCE
    assert factors.dtype == torch.float32


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_is_sharp_and_factors_depend_on_order_and_rotation(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = build(family, ((3, 4, 8),))
    rows = last_rows(tiny, 5)
    dense = dense_forward(family, tiny)
    picked = dense[0][:, :, rows[0].numpy()]
    entropy = -(picked * np.log(np.maximum(picked, 1e-30))).sum(-1).mean()
    assert entropy < 0.8 * np.log(dense.shape[-1])

    factors = attention_factors(tiny.model, tiny.inputs, rows, tiny.spans)
    swapped = attention_factors(tiny.model, tiny.inputs, rows, [spans[::-1] for spans in tiny.spans])
    assert float((factors - swapped).abs().max()) > 100 * TOLERANCE

    modelling = __import__(type(tiny.model.get_decoder()).__module__, fromlist=["apply_rotary_pos_emb"])
    monkeypatch.setattr(modelling, "apply_rotary_pos_emb", lambda q, k, *_, **__: (q, k))
    flat = attention_factors(tiny.model, tiny.inputs, rows, tiny.spans)
    assert float((factors - flat).abs().max()) > 100 * TOLERANCE


def _wrong_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttentionCall, "scaling", property(lambda call: call.query.shape[-1] ** -1.0))


def _dropped_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowMask, "rows", lambda *_: None)


def _sum_for_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageColumns, "sizes", property(lambda columns: torch.ones(2, columns.images)))


def _span_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = ImageColumns.image_sums
    monkeypatch.setattr(ImageColumns, "image_sums", lambda columns, masses, first: sums(columns, masses, first + 1))


def _layers_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttentionCall, "layer", property(lambda call: 2 - int(call.module.layer_idx)))


HALVES = [(torch.bfloat16, 1e-3), (torch.float16, 1e-4)]
"""Largest errors of factors between 0.01 and 0.04."""
MUTATIONS = [_wrong_scale, _dropped_mask, _sum_for_mean, _span_off_by_one, _layers_swapped]


@pytest.mark.parametrize("family", ["llava", "gemma3"])
@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("dtype", "tolerance"), HALVES)
def test_a_wrong_formula_shows_in_half_precision_too(
    family: str, mutate: Any, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = build(family, ((3, 2, 9), (2, 3, 4)), padding="left", dtype=dtype)
    rows = tiny.inputs["attention_mask"].bool() & (torch.arange(rows_in(tiny)) > 25)
    right = attention_factors(tiny.model, tiny.inputs, rows, tiny.spans).double().numpy()
    mutate(monkeypatch)
    wrong = attention_factors(tiny.model, tiny.inputs, rows, tiny.spans).double().numpy()
    assert np.nanmax(np.abs(wrong - right)) > 2 * tolerance


@pytest.mark.parametrize("family", ["llava", "gemma3"])
@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__)
def test_a_wrong_formula_fails_the_comparison(family: str, mutate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = build(family, ((3, 2, 9), (2, 3, 4)), padding="left")
    rows = tiny.inputs["attention_mask"].bool() & (torch.arange(rows_in(tiny)) > 25)
    reference = dense_factors(dense_forward(family, tiny), rows.numpy(), tiny.spans).mean(axis=2)
    assert worst(attention_factors(tiny.model, tiny.inputs, rows, tiny.spans), reference) < TOLERANCE
    mutate(monkeypatch)
    found = attention_factors(tiny.model, tiny.inputs, rows, tiny.spans).double().numpy()
    assert np.nanmax(np.abs(found - reference)) > 100 * TOLERANCE


def rows_in(tiny: Any) -> int:
    return int(tiny.inputs["input_ids"].shape[1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "tolerance"), HALVES)
def test_half_precision_stays_near_the_eager_twin_and_answers_in_fp32(
    family: str, dtype: torch.dtype, tolerance: float
) -> None:
    tiny = build(family, ALONE, dtype=dtype)
    rows = last_rows(tiny, 5)
    twin = build(family, ALONE, dtype=dtype, attention="eager")
    with torch.no_grad():
        dense = torch.stack(twin.model(**tiny.inputs, output_attentions=True).attentions, 1).double().numpy()
    factors = attention_factors(tiny.model, tiny.inputs, rows, tiny.spans)
    assert factors.dtype == torch.float32
    assert worst(factors, dense_factors(dense, rows.numpy(), tiny.spans).mean(axis=2)) < tolerance


def test_a_padded_sample_gets_the_factors_that_it_has_alone() -> None:
    for padding in ("left", "right"):
        batch = build("llava", RAGGED, padding=padding)
        together = attention_factors(batch.model, batch.inputs, last_rows(batch, 4), batch.spans)
        real = batch.inputs["attention_mask"][0].bool()
        alone = {
            "input_ids": batch.inputs["input_ids"][:1, real],
            "attention_mask": batch.inputs["attention_mask"][:1, real],
            "pixel_values": batch.inputs["pixel_values"][:2],
        }
        shift = int(real.int().argmax())
        spans = [(start - shift, stop - shift) for start, stop in batch.spans[0]]
        single = attention_factors(batch.model, alone, [-4, -3, -2, -1], spans)
        torch.testing.assert_close(together[:1, :, :2], single, atol=TOLERANCE, rtol=0)


def test_rows_of_padding_are_never_counted() -> None:
    for padding in ("left", "right"):
        tiny = build("idefics3", RAGGED, padding=padding)
        everything = {"all": torch.ones_like(tiny.inputs["attention_mask"]).bool()}
        with torch.no_grad(), AttentionRecorder(tiny.model, tiny.spans, everything) as recorder:
            tiny.model(**tiny.inputs)
        lengths = tiny.inputs["attention_mask"].sum(1)
        assert torch.equal(recorder.row_counts("all"), lengths[:, None].expand(-1, 3))
        reference = dense_factors(
            dense_forward("idefics3", tiny), tiny.inputs["attention_mask"].bool().numpy(), tiny.spans
        )
        assert worst(recorder.factors("all"), reference.mean(axis=2)) < TOLERANCE


def test_row_indices_count_from_either_end_and_are_checked() -> None:
    tiny = build("llava")
    last = rows_in(tiny) - 1
    one = attention_factors(tiny.model, tiny.inputs, [last], tiny.spans[0])
    assert torch.equal(one, attention_factors(tiny.model, tiny.inputs, [-1], tiny.spans))
    with pytest.raises(InputError, match="99"):
        attention_factors(tiny.model, tiny.inputs, [99], tiny.spans)
    with pytest.raises(InputError, match="empty"):
        attention_factors(tiny.model, tiny.inputs, [], tiny.spans)
    padded = build("llava", RAGGED, padding="right")
    with pytest.raises(InputError, match=r"\[0, 1\] have no query row"):
        attention_factors(padded.model, padded.inputs, [-1], padded.spans)


def test_spans_that_do_not_fit_are_refused() -> None:
    tiny = build("llava")
    for spans, message in (
        ([], "no image spans"),
        ([[]], "no image spans"),
        ([(3, 3)], "start < stop"),
        ([(3, 400)], "past the prompt"),
        ([[(3, 9)], [(3, 9)]], "2 batch rows"),
        (["ab"], "column range"),
    ):
        with pytest.raises(InputError, match=message):
            attention_factors(tiny.model, tiny.inputs, [-1], spans)


def test_duplicating_an_images_columns_leaves_its_factor() -> None:
    tiny = build("llava")

    class Doubled:
        runs = (tiny.spans[0][0], tiny.spans[0][0])

    factors = attention_factors(tiny.model, tiny.inputs, [-1], tiny.spans)
    doubled = attention_factors(tiny.model, tiny.inputs, [-1], [Doubled(), tiny.spans[0][1]])
    torch.testing.assert_close(factors, doubled)


def test_runs_leave_separators_out_of_an_image() -> None:
    tiny = build("smolvlm")
    start, stop = tiny.spans[0][0]

    class Split:
        runs = ((start, start + 6), (start + 8, stop))

    found = attention_factors(tiny.model, tiny.inputs, [-1], [Split()])
    row = dense_forward("smolvlm", tiny)[0, :, :, -1]
    columns = [c for c in range(start, stop) if c not in (start + 6, start + 7)]
    assert np.abs(found[0, :, 0].numpy() - row[:, :, columns].mean(axis=(1, 2))).max() < TOLERANCE


@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_pairwise_factors_hold_every_image_against_every_image_and_text(family: str) -> None:
    tiny = build(family, RAGGED, padding="left")
    dense = dense_forward(family, tiny).mean(axis=2)
    found = pairwise_factors(tiny.model, tiny.inputs, tiny.spans)
    expected = np.full(tuple(found.shape), np.nan)
    for sample, spans in enumerate(tiny.spans):
        real = tiny.inputs["attention_mask"][sample].bool().numpy()
        text = real.copy()
        for start, stop in spans:
            text[start:stop] = False
        after = text & (np.arange(len(text)) >= spans[-1][1])
        index = [*range(len(spans)), 3]
        blocks = [np.arange(start, stop) for start, stop in spans]
        for j, rows in zip(index, [*blocks, np.flatnonzero(after)], strict=True):
            for k, columns in zip(index, [*blocks, np.flatnonzero(text)], strict=True):
                expected[sample, :, j, k] = dense[sample][:, rows][:, :, columns].mean(axis=(1, 2))
    assert worst(found, expected) < TOLERANCE
    if family == "llava":
        assert float(found[0, :, 0, 1].abs().max()) == 0


def test_attention_layers_are_the_decoders_own_and_never_the_towers() -> None:
    for family in FAMILIES:
        model = build_model(family, layers=4)
        assert attention_layers(model) == [0, 1, 2, 3]
        assert attention_layers(model.get_decoder()) == [0, 1, 2, 3]


def test_a_bare_decoder_is_enough() -> None:
    from transformers import LlamaForCausalLM

    from tests.probes.tiny_models import decoder_settings, enlarge_weights

    torch.manual_seed(0)
    model = LlamaForCausalLM(_llama_config(decoder_settings(2))).eval()
    enlarge_weights(model)
    inputs = {"inputs_embeds": torch.randn(2, 20, 32)}
    factors = attention_factors(model, inputs, [17, 19], [(2, 6), (8, 15)])
    model.set_attn_implementation("eager")
    dense = torch.stack(model(**inputs, output_attentions=True).attentions, 1).detach().double().numpy()
    rows = np.zeros((2, 20), dtype=bool)
    rows[:, [17, 19]] = True
    assert worst(factors, dense_factors(dense, rows, [[(2, 6), (8, 15)]] * 2).mean(axis=2)) < TOLERANCE


def _llama_config(settings: dict[str, Any]) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**settings)


def test_models_without_a_readable_attention_are_refused_by_name() -> None:
    from transformers import MambaConfig, MambaModel, T5Config, T5Model

    mamba = MambaModel(MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=16, state_size=4))
    assert attention_layers(mamba) == []
    with pytest.raises(UnsupportedAttention, match="MambaModel: no layer has attention"):
        attention_factors(mamba, {"input_ids": torch.ones(1, 4, dtype=torch.long)}, [-1], [(0, 2)])
    t5 = T5Model(T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=16))
    with pytest.raises(UnsupportedAttention, match="T5Model: encoder-decoder"):
        attention_layers(t5)


class HandWritten(nn.Module):
    """A stand-in for an attention that never asks transformers for its implementation."""

    def __init__(self, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        return hidden_states, None


def test_a_layer_whose_attention_is_not_known_is_refused_by_name() -> None:
    tiny = build("llava")
    tiny.model.get_decoder().layers[1].self_attn = HandWritten(1)
    with pytest.raises(UnsupportedAttention, match=r"layer 1 \(HandWritten\).*none of its modules.*sdpa"):
        attention_layers(tiny.model)
    tiny.model.get_decoder().config.layer_types = ["full_attention", "mamba", "full_attention"]
    assert attention_layers(tiny.model) == [0, 2]


def test_a_layer_that_never_calls_the_interface_is_refused_by_name() -> None:
    class HandWrittenAttention(HandWritten):
        pass

    tiny = build("llava")
    tiny.model.get_decoder().layers[1].self_attn = HandWrittenAttention(1)
    with pytest.raises(UnsupportedAttention, match=r"layer 1 \(HandWrittenAttention\): it never called.*sdpa"):
        attention_factors(tiny.model, tiny.inputs, [-1], tiny.spans)


def test_attentions_are_found_by_what_they_call_whatever_they_are_called() -> None:
    from transformers import LongcatFlashConfig, LongcatFlashModel

    config = LongcatFlashConfig(
        vocab_size=32,
        hidden_size=16,
        ffn_hidden_size=16,
        expert_ffn_hidden_size=16,
        num_layers=2,
        num_attention_heads=2,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
        head_dim=8,
        n_routed_experts=2,
        moe_topk=1,
        zero_expert_num=1,
    )
    assert attention_layers(LongcatFlashModel(config)) == [0, 1, 2, 3]


def test_layers_that_share_keys_are_read_in_full() -> None:
    """Such layers get a single query row where a single row of logits is asked for."""
    from transformers import Gemma4Config, Gemma4ForConditionalGeneration

    text = {
        "vocab_size": 64,
        "vocab_size_per_layer_input": 64,
        "hidden_size": 16,
        "hidden_size_per_layer_input": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "global_head_dim": 8,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 8,
        "pad_token_id": 0,
    }
    config = Gemma4Config(text_config=text, vision_config=None, audio_config=None)
    model = Gemma4ForConditionalGeneration(config).eval()
    inputs = {"input_ids": torch.arange(4, 16)[None]}
    factors = attention_factors(model, inputs, [-6, -2], [(1, 4)])
    assert factors.shape == (1, 4, 1) and bool((factors > 0).all())
    with pytest.raises(UnsupportedAttention, match="Gemma4TextAttention"):
        attention_factors(model, {**inputs, "logits_to_keep": 1}, [-6, -2], [(1, 4)])


@pytest.mark.parametrize("form", [torch.as_tensor, np.asarray, lambda rows: rows], ids=["tensor", "array", "lists"])
def test_masks_of_rows_are_read_in_every_form(form: Any) -> None:
    tiny = build("llava", RAGGED, padding="left")
    mask = last_rows(tiny, 3)
    expected = attention_factors(tiny.model, tiny.inputs, mask, tiny.spans)
    found = attention_factors(tiny.model, tiny.inputs, form(mask.tolist()), tiny.spans)
    assert torch.equal(found.nan_to_num(), expected.nan_to_num())
    alone = build("llava")
    flat = last_rows(alone, 3)[0].tolist()
    with pytest.raises(InputError, match=r"bool query rows.*\(batch, tokens\)"):
        attention_factors(alone.model, alone.inputs, form(flat), alone.spans)
    for rows in ([1.0, 2.0], [[1, 2]], [0.5]):
        with pytest.raises(InputError, match="whole token indices"):
            attention_factors(alone.model, alone.inputs, form(rows), alone.spans)
