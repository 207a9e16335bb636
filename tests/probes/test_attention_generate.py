"""Factors and maps through prefill and decode steps with a cache, sliding windows included."""

from typing import Any

import numpy as np
import pytest
import torch

from probes.attention import AttentionRecorder, UnsupportedAttention
from probes.inputs import InputError
from tests.probes.dense_reference import TOLERANCE, dense_factors, dense_generate, last_rows, worst
from tests.probes.tiny_models import FAMILIES, Tiny, build

RAGGED = ((3, 2, 6), (2, 9))
NEW = 7


def generate(tiny: Tiny, recorder: AttentionRecorder, **options: Any) -> torch.Tensor:
    with torch.no_grad(), recorder:
        sequences: torch.Tensor = tiny.model.generate(
            **tiny.inputs, **{"max_new_tokens": NEW, "do_sample": False, **options}
        )
    return sequences


def rows_with_generated(rows: torch.Tensor, generated: bool) -> np.ndarray[Any, np.dtype[np.bool_]]:
    beyond = torch.full((rows.shape[0], NEW - 1), generated)
    return np.asarray(torch.cat([rows, beyond], 1).numpy())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("samples", "padding"), [(RAGGED[:1], "left"), (RAGGED, "left"), (RAGGED, "right")])
def test_generation_with_a_cache_equals_eager(family: str, samples: tuple[tuple[int, ...], ...], padding: str) -> None:
    tiny = build(family, samples, padding=padding)
    rows = last_rows(tiny, 4)
    sets = {"pooled": rows, "prompt": rows, "steps": torch.zeros_like(rows)}
    recorder = AttentionRecorder(tiny.model, tiny.spans, sets, generated=("pooled", "steps"), per_head=True)
    sequences = generate(tiny, recorder)
    dense, expected = dense_generate(family, tiny, NEW)
    assert torch.equal(sequences, expected)
    for name in sets:
        mask = rows_with_generated(sets[name], name != "prompt")
        assert worst(recorder.factors(name), dense_factors(dense, mask, tiny.spans)) < TOLERANCE
        assert recorder.row_counts(name)[:, 0].tolist() == mask.sum(1).tolist()


@pytest.mark.parametrize("window", [4, 8, 20])
def test_sliding_windows_are_followed_past_the_window(window: int) -> None:
    """Every span lies partly or wholly outside the window by the last step, and caches have been cut."""
    tiny = build("gemma3", ((3, 2, 12),), sliding_window=window)
    rows = last_rows(tiny, 12)
    recorder = AttentionRecorder(tiny.model, tiny.spans, {"all": rows}, generated=("all",), cells=True)
    sequences = generate(tiny, recorder)
    dense, expected = dense_generate("gemma3", tiny, NEW, sliding_window=window)
    assert torch.equal(sequences, expected)
    mask = rows_with_generated(rows, True)
    reference = dense_factors(dense, mask, tiny.spans).mean(axis=2)
    assert worst(recorder.factors("all"), reference) < TOLERANCE
    assert np.abs(reference[0, 0]).min() < np.abs(reference[0, -1]).min()
    means = dense[0].mean(axis=1)[:, mask[0]].mean(axis=1)
    for found, (start, stop) in zip(recorder.maps("all")[0], tiny.spans[0], strict=True):
        assert np.abs(found.numpy() - means[:, start:stop]).max() < TOLERANCE


def test_maps_average_to_factors() -> None:
    tiny = build("qwen2_5_vl", RAGGED, padding="left")
    rows = last_rows(tiny, 4)
    for per_head in (False, True):
        recorder = AttentionRecorder(tiny.model, tiny.spans, {"rows": rows}, ("rows",), per_head=per_head, cells=True)
        generate(tiny, recorder)
        factors = recorder.factors("rows")
        factors = factors.mean(2) if per_head else factors
        for sample, maps in enumerate(recorder.maps("rows")):
            assert len(maps) == len(tiny.spans[sample])
            for image, values in enumerate(maps):
                start, stop = tiny.spans[sample][image]
                assert values.shape == (3, stop - start)
                torch.testing.assert_close(values.mean(1), factors[sample, :, image], atol=1e-7, rtol=1e-5)


def test_a_static_cache_and_a_chunked_prefill_change_nothing() -> None:
    tiny = build("llava", RAGGED[:1])
    rows = last_rows(tiny, 4)
    expected = AttentionRecorder(tiny.model, tiny.spans, {"rows": rows}, ("rows",))
    generate(tiny, expected)
    static = AttentionRecorder(tiny.model, tiny.spans, {"rows": rows}, ("rows",))
    generate(tiny, static, cache_implementation="static", disable_compile=True)
    torch.testing.assert_close(static.factors("rows"), expected.factors("rows"), atol=TOLERANCE, rtol=0)
    windowed = build("gemma3", RAGGED, padding="left", sliding_window=8)
    static = AttentionRecorder(windowed.model, windowed.spans, {"rows": last_rows(windowed, 4)}, ("rows",))
    generate(windowed, static, cache_implementation="static", disable_compile=True)
    dense, _ = dense_generate("gemma3", windowed, NEW, sliding_window=8)
    mask = rows_with_generated(last_rows(windowed, 4), True)
    assert worst(static.factors("rows"), dense_factors(dense, mask, windowed.spans).mean(axis=2)) < TOLERANCE

    decoder, ids = tiny.model.get_decoder(), tiny.inputs["input_ids"] % 60
    whole = AttentionRecorder(decoder, tiny.spans, {"rows": rows})
    parts = AttentionRecorder(decoder, tiny.spans, {"rows": rows})
    with torch.no_grad():
        with whole:
            decoder(input_ids=ids)
        with parts:
            cache = decoder(input_ids=ids[:, :20], use_cache=True).past_key_values
            decoder(input_ids=ids[:, 20:], past_key_values=cache)
    torch.testing.assert_close(parts.factors("rows"), whole.factors("rows"), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("first", [7, 20, 30])
def test_a_chunked_prefill_through_sliding_caches_changes_nothing(first: int) -> None:
    tiny = build("gemma3", RAGGED[:1], sliding_window=8)
    decoder, ids = tiny.model.get_decoder(), tiny.inputs["input_ids"] % 60
    whole, parts = (AttentionRecorder(decoder, tiny.spans, {"rows": last_rows(tiny, 30)}) for _ in range(2))
    with torch.no_grad():
        with whole:
            decoder(input_ids=ids)
        with parts:
            cache = decoder(input_ids=ids[:, :first], use_cache=True).past_key_values
            for start in range(first, ids.shape[1], 5):
                cache = decoder(input_ids=ids[:, start : start + 5], past_key_values=cache).past_key_values
    torch.testing.assert_close(parts.factors("rows"), whole.factors("rows"), atol=TOLERANCE, rtol=0)


def test_finished_sequences_count_no_further_rows() -> None:
    from transformers import StoppingCriteria

    tiny = build("llava", ((3, 2, 6), (3, 2, 6)))
    recorder = AttentionRecorder(
        tiny.model, tiny.spans, {"steps": torch.zeros_like(tiny.inputs["attention_mask"]).bool()}, ("steps",)
    )

    class EndSecondAfterThree(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            if input_ids.shape[1] == tiny.inputs["input_ids"].shape[1] + 3:
                recorder.finish([1])
            return torch.zeros(2, dtype=torch.bool)

    generate(tiny, recorder, stopping_criteria=[EndSecondAfterThree()])
    assert recorder.row_counts("steps")[:, 0].tolist() == [NEW - 1, 2]


def test_recording_changes_no_token_and_no_logit() -> None:
    for family in FAMILIES:
        tiny = build(family, RAGGED, padding="left")
        with torch.no_grad():
            plain = tiny.model.generate(**tiny.inputs, max_new_tokens=NEW, do_sample=False)
            logits = tiny.model(**tiny.inputs).logits
            with AttentionRecorder(tiny.model, tiny.spans, {"rows": last_rows(tiny, 4)}):
                assert torch.equal(tiny.model(**tiny.inputs).logits, logits)
        assert torch.equal(generate(tiny, AttentionRecorder(tiny.model, tiny.spans, {"r": last_rows(tiny, 4)})), plain)


def test_what_cannot_be_followed_is_refused() -> None:
    tiny = build("llava")
    rows = last_rows(tiny, 4)

    def recorder() -> AttentionRecorder:
        return AttentionRecorder(tiny.model, tiny.spans, {"rows": rows}, ("rows",))

    with pytest.raises(InputError, match="without beams"):
        generate(tiny, recorder(), num_beams=2)
    beams = AttentionRecorder(tiny.model, tiny.spans * 2, {"rows": rows.repeat(2, 1)}, ("rows",))
    with pytest.raises(InputError, match=r"change places in the cache .* beams \(num_beams=1\)"):
        generate(tiny, beams, num_beams=2)
    with pytest.raises(UnsupportedAttention, match=r"layer 0 \(LlamaAttention\): it was called afresh"):
        generate(tiny, recorder(), use_cache=False)
    with torch.no_grad():
        cache = tiny.model(**tiny.inputs, use_cache=True).past_key_values
    with pytest.raises(UnsupportedAttention, match="cache was filled before"), torch.no_grad(), recorder():
        tiny.model(input_ids=torch.full((1, 2), 5), past_key_values=cache)
    short = {"input_ids": tiny.inputs["input_ids"][:, :5] % 60}
    with pytest.raises(UnsupportedAttention, match="5 of the"), torch.no_grad(), recorder():
        tiny.model(**short)
