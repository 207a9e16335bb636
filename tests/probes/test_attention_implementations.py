"""The attention that a model runs on stays its own: flex and flash attention, and implementations that are not here."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.utils import is_flash_attn_2_available

from probes import HookedModel
from probes.attention import AttentionRecorder, attention_factors
from probes.attention_calls import AttentionCall
from probes.implementations import check_implementation
from probes.inputs import InputError
from tests.probes import processors
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


def _with_kernels(monkeypatch: pytest.MonkeyPatch, get_kernel: Callable[..., Any]) -> None:
    """As if the package `kernels` were installed without flash-attn, and gave what `get_kernel` returns."""
    from transformers import modeling_utils, utils
    from transformers.integrations import hub_kernels
    from transformers.modeling_flash_attention_utils import FLASH_ATTENTION_COMPATIBILITY_MATRIX as CHECKS

    monkeypatch.setattr(utils, "is_flash_attn_2_available", lambda: False)
    for check in ("general_availability_check", "pkg_availability_check"):
        monkeypatch.setitem(CHECKS[2], check, lambda: False)

    for module in (utils, modeling_utils, hub_kernels):
        monkeypatch.setattr(module, "is_kernels_available", lambda: True)
    monkeypatch.setattr(hub_kernels, "get_kernel", get_kernel)


def _values_alone(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    assert q.shape[0] == k.shape[0]
    return v


def _no_kernel(*_: Any, **__: Any) -> Any:
    raise OSError("the hub is out of reach")


@pytest.fixture
def loaded_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    """What transformers remembers of loaded flash attention is forgotten after the test."""
    from transformers import modeling_flash_attention_utils as remembered

    for name in ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn", "_pad_fn", "_unpad_fn"):
        monkeypatch.setattr(remembered, name, getattr(remembered, name))


def test_a_kernel_of_the_hub_stands_in_for_flash_attention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded_flash: None
) -> None:
    processor = build_processor("llava")
    processors.build_model("llava", processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    asked: list[str] = []

    def get_kernel(name: str, **_: Any) -> Any:
        asked.append(name)
        return SimpleNamespace(flash_attn_func=_values_alone, flash_attn_varlen_func=_values_alone)

    _with_kernels(monkeypatch, get_kernel)
    model = HookedModel.from_pretrained(tmp_path, attn_implementation=FLASH, dtype="bfloat16", device="cpu")
    assert set(asked) == {KERNEL}
    assert model.model.config.get_text_config()._attn_implementation == KERNEL


def test_a_stand_in_that_the_hub_does_not_give_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded_flash: None
) -> None:
    build_model("llava").save_pretrained(tmp_path)
    build_processor("llava").save_pretrained(tmp_path)
    _with_kernels(monkeypatch, _no_kernel)
    with pytest.raises(InputError, match=rf"attn_implementation '{FLASH}' cannot be used here .*sdpa"):
        HookedModel.from_pretrained(tmp_path, attn_implementation=FLASH)


def test_an_npu_has_flash_attention_2_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import utils

    monkeypatch.setattr(utils, "is_torch_npu_available", lambda: True)
    check_implementation(FLASH)
    with pytest.raises(InputError, match="flash_attention_3' is not installed"):
        check_implementation("flash_attention_3")
