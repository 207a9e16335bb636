"""The attention that a model runs on stays its own: flex and flash attention, and implementations that are not here."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.utils import is_flash_attn_2_available

from probes import HookedModel
from probes.attention import AttentionRecorder, attention_factors
from probes.attention_calls import AttentionCall
from probes.inputs import InputError
from tests.probes.dense_reference import TOLERANCE, dense_factors, dense_forward, dense_generate, last_rows, worst
from tests.probes.processors import build_processor
from tests.probes.tiny_models import Tiny, build, build_model
from tests.probes.zoo.replaying import CallCatcher

pytestmark = pytest.mark.filterwarnings("ignore")
SAMPLES = ((3, 2, 6), (2, 9))
FLASH = "flash_attention_2"
KERNEL = "kernels-community/flash-attn2"
HALF_TOLERANCE = 1e-3
STEPS = 5


@pytest.mark.parametrize("family", ["llava_qwen2", "idefics3", "smolvlm", "gemma3"])
def test_flex_attention_is_read_from_its_block_mask(family: str) -> None:
    """Left-padded; gemma3 with a sliding window and images that see themselves in full. Uncompiled, as it is faster."""
    tiny = build(family, SAMPLES, padding="left", attention="flex_attention")
    rows = last_rows(tiny, 5)
    dense = dense_forward(family, tiny)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"), CallCatcher(tiny.model) as catcher:
        found = attention_factors(tiny.model, tiny.inputs, rows, tiny.spans)
    assert {call.implementation for call in catcher.calls} == {"flex_attention"}
    assert all(hasattr(call.mask, "mask_mod") for call in catcher.calls)
    reference = dense_factors(dense, rows.numpy(), tiny.spans).mean(axis=2)
    assert worst(found, reference) < TOLERANCE
    wrong = _without_masks(tiny, catcher.calls, rows)
    assert np.nanmax(np.abs(wrong.double().numpy() - reference)) > 100 * TOLERANCE


@pytest.mark.parametrize("family", ["llava_qwen2", "gemma3"])
def test_decode_steps_of_flex_attention_are_read_too(family: str) -> None:
    """Past gemma3's window, so that its caches are cut."""
    tiny = build(family, SAMPLES, padding="left", attention="flex_attention")
    dense, sequences = dense_generate(family, tiny, STEPS)
    prompt = tiny.inputs["input_ids"].shape[1]
    recorder = AttentionRecorder(
        tiny.model, tiny.spans, {"rows": torch.zeros(2, prompt, dtype=torch.bool)}, generated=["rows"]
    )
    with torch.no_grad(), torch.compiler.set_stance("force_eager"), recorder:
        written = tiny.model.generate(**tiny.inputs, max_new_tokens=STEPS, do_sample=False)
    assert torch.equal(written, sequences)
    rows = np.arange(dense.shape[-1])[None].repeat(2, axis=0) >= prompt
    assert worst(recorder.factors("rows"), dense_factors(dense, rows, tiny.spans).mean(axis=2)) < TOLERANCE


def _without_masks(tiny: Tiny, calls: list[AttentionCall], rows: torch.Tensor) -> torch.Tensor:
    recorder = AttentionRecorder(tiny.model, tiny.spans, {"rows": rows})
    with torch.no_grad(), recorder:
        for call in calls:
            fields = (call.module, call.implementation, call.query, call.key, call.value, None)
            recorder.hear(AttentionCall(*fields, {**call.keywords, "is_causal": False}))
    return recorder.factors("rows")


@pytest.mark.skipif(
    not (is_flash_attn_2_available() and torch.cuda.is_available()), reason="needs flash-attn and a GPU"
)
def test_flash_attention_is_read_beside_itself() -> None:
    _check_on_gpu(FLASH)


@pytest.mark.skipif(
    importlib.util.find_spec("kernels") is None or not torch.cuda.is_available(), reason="needs kernels and a GPU"
)
def test_a_kernel_from_the_hub_is_read_beside_itself() -> None:
    _check_on_gpu(KERNEL)


def _check_on_gpu(implementation: str) -> None:
    found: list[Any] = []
    for attention in (implementation, "eager"):
        tiny = build("llava", SAMPLES, padding="left", dtype=torch.bfloat16, attention=attention)
        inputs = {name: value.cuda() for name, value in tiny.inputs.items()}
        found.append(attention_factors(tiny.model.cuda(), inputs, last_rows(tiny, 5), tiny.spans))
    torch.testing.assert_close(found[0], found[1], atol=HALF_TOLERANCE, rtol=0, equal_nan=True)


@pytest.mark.skipif(importlib.util.find_spec("kernels") is not None, reason="kernels is installed, and would ask a hub")
def test_a_kernel_without_its_package_is_refused_by_name(tmp_path: Path) -> None:
    build_model("llava").save_pretrained(tmp_path)
    build_processor("llava").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=rf"attn_implementation '{KERNEL}' cannot be used here .*kernels.*sdpa"):
        HookedModel.from_pretrained(tmp_path, attn_implementation=KERNEL)


@pytest.mark.parametrize(("name", "said"), [("flash_attention_3", "is not installed"), ("nonsense", "is not known")])
def test_an_implementation_that_is_not_there_is_refused_by_name(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"attention implementation '{name}' {said}"):
        HookedModel.from_pretrained(tmp_path, attn_implementation=name)
