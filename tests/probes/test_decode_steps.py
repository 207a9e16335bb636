"""Decode steps whose rows are made later: the same numbers as made at once, whatever the cache does meanwhile."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from probes import decode_steps
from probes.attention import AttentionRecorder
from probes.attention_calls import AttentionCall
from probes.decode_steps import DecodeSteps
from tests.probes.dense_reference import last_rows
from tests.probes.tiny_models import Tiny, build

NEW = 9


def record(tiny: Tiny, **options: Any) -> tuple[Tensor, int]:
    """Per-head factors of every generated row, and how often rows were made."""
    rows = last_rows(tiny, 4)
    recorder = AttentionRecorder(tiny.model, tiny.spans, {"rows": rows}, ("rows",), per_head=True, cells=True)
    made: list[int] = []

    def add(call: AttentionCall, *given: Any) -> None:
        made.append(call.query.shape[2])
        recorder._add(call, *given)

    recorder._steps = DecodeSteps(add)
    with torch.no_grad(), recorder:
        tiny.model.generate(**tiny.inputs, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, **options)
    assert recorder.row_counts("rows")[0].tolist() == [4 + NEW - 1] * len(recorder.layers)
    return recorder.factors("rows"), len(made)


@pytest.mark.parametrize("steps", [1, 3, 8, 100])
def test_rows_made_later_equal_rows_made_at_once(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = build("qwen2_5_vl", ((3, 2, 6),))
    with monkeypatch.context() as patch:
        patch.setattr(decode_steps, "_can_wait", lambda *_: False)
        expected, made = record(tiny)
        assert made == 0
    monkeypatch.setattr(decode_steps, "STEPS", steps)
    found, made = record(tiny)
    assert made == len(expected[0]) * -(-(NEW - 1) // steps)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-5)


class Rewriting(DynamicCache):  # type: ignore[misc]
    """A cache that rounds what it holds at every third step, as quantized caches do."""

    def update(self, key: Tensor, value: Tensor, layer: int, *rest: Any, **more: Any) -> tuple[Tensor, Tensor]:
        keys, values = super().update(key, value, layer, *rest, **more)
        if keys.shape[2] % 3 == 0:
            self.layers[layer].keys = keys = (keys * 2).round() / 2
        return keys, values


def test_a_cache_that_rewrites_its_keys_is_read_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = build("qwen2_5_vl", ((3, 2, 6),))
    plain, _ = record(tiny)
    with monkeypatch.context() as patch:
        patch.setattr(decode_steps, "_can_wait", lambda *_: False)
        expected, _ = record(tiny, past_key_values=Rewriting())
    found, _ = record(tiny, past_key_values=Rewriting())
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-5)
    assert (plain - expected).abs().max() > 1e-4
    monkeypatch.setattr(decode_steps, "_only_grew", lambda *_: True)
    trusting, _ = record(tiny, past_key_values=Rewriting())
    assert (trusting - expected).abs().max() > 1e-5


@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_nested_recorders_hear_the_models_own_queries_at_every_step(family: str) -> None:
    """A padded batch and sliding layers are not put off: a step's only row is the model's own tensor."""
    tiny = build(family, ((3, 2, 6), (2, 4)), padding="left")
    rows = last_rows(tiny, 2)
    recorders = [AttentionRecorder(tiny.model, tiny.spans, {"rows": rows}, ("rows",)) for _ in range(2)]
    with torch.no_grad(), recorders[0], recorders[1]:
        tiny.model.generate(**tiny.inputs, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
    first, second = (recorder.factors("rows") for recorder in recorders)
    torch.testing.assert_close(second, first, atol=0, rtol=0, equal_nan=True)
