"""Models spread over devices: what is recorded follows each layer, and offloaded weights give the same numbers."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload

from probes import HookedModel
from probes.attention import AttentionRecorder
from probes.inputs import InputError
from probes.interventions import knockout_effects
from tests.probes import processors, tiny_models
from tests.probes.hooked import NEVER, hooked, questions, sharp_model

DECODER = "model.language_model"
PARTS = ("model.vision_tower", "model.multi_modal_projector", f"{DECODER}.embed_tokens", f"{DECODER}.norm")
PLACES = dict.fromkeys((*PARTS, f"{DECODER}.rotary_emb", "lm_head", f"{DECODER}.layers.0"), "cpu")
MAPS: dict[str, Any] = {
    "one device": {"": "cpu"},
    "auto": "auto",
    "layers on disk": PLACES | {f"{DECODER}.layers.1": "disk", f"{DECODER}.layers.2": "disk"},
    "all on disk": dict.fromkeys([*PLACES, f"{DECODER}.layers.1", f"{DECODER}.layers.2"], "disk"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spread") / "llava"
    sharp_model("llava").save_pretrained(folder)
    processors.build_processor("llava").save_pretrained(folder)
    return folder


def assert_traces_alike(model: HookedModel) -> None:
    model.model.generation_config.eos_token_id = NEVER
    settings: dict[str, Any] = {"max_new_tokens": 3, "rows": ("paper", "predicting"), "per_head": True}
    pairs = zip(
        model.trace_batch(questions(), **settings, image_to_image=True),
        hooked("llava").trace_batch(questions(), **settings, image_to_image=True),
        strict=True,
    )
    for found, expected in pairs:
        assert found.answer_ids == expected.answer_ids and found.spans == expected.spans
        assert found.log_probability == expected.log_probability
        for rows in settings["rows"]:
            np.testing.assert_array_equal(found.factors_by_rows[rows], expected.factors_by_rows[rows])
            for own, theirs in zip(found.maps_by_rows[rows], expected.maps_by_rows[rows], strict=True):
                np.testing.assert_array_equal(own, theirs)
        assert found.pairwise is not None and expected.pairwise is not None
        np.testing.assert_array_equal(found.pairwise, expected.pairwise)


@pytest.mark.parametrize("device_map", MAPS.values(), ids=MAPS)
def test_a_spread_model_traces_as_a_whole_one(saved: Path, device_map: Any) -> None:
    model = HookedModel.from_pretrained(saved, device_map=device_map)
    offloaded = isinstance(device_map, dict) and "disk" in device_map.values()
    assert any(weight.is_meta for weight in model.model.parameters()) == offloaded
    assert model.device == torch.device("cpu")
    assert_traces_alike(model)


def test_weights_kept_in_memory_until_used_trace_as_a_whole_model() -> None:
    model = cpu_offload(sharp_model("llava"), torch.device("cpu"))
    assert all(weight.is_meta for weight in model.parameters())
    spread = HookedModel(model, processors.build_processor("llava"))
    assert_traces_alike(spread)
    question = questions()[0]
    whole = knockout_effects(hooked("llava"), question, "image 1")
    np.testing.assert_array_equal(knockout_effects(spread, question, "image 1"), whole)


def test_sums_stay_on_their_layers_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second layer's calls come from another device; `meta` refuses every operation that mixes it with the CPU."""
    tiny = tiny_models.build("llava")
    real = AttentionRecorder.hear

    def hear(self: AttentionRecorder, call: Any) -> None:
        if call.layer == 1:
            moved = {
                each.name: value.to("meta")
                for each in dataclasses.fields(call)
                if isinstance(value := getattr(call, each.name), torch.Tensor)
            }
            call = dataclasses.replace(call, **moved)
        real(self, call)

    monkeypatch.setattr(AttentionRecorder, "hear", hear)
    rows = torch.zeros_like(tiny.inputs["input_ids"], dtype=torch.bool)
    rows[:, -3:] = True
    recorder = AttentionRecorder(tiny.model, tiny.spans, {"rows": rows}, cells=True)
    with torch.no_grad(), recorder:
        tiny.model(**tiny.inputs)
    assert {layer: str(sums.device) for layer, sums in recorder._sums.items()} == {0: "cpu", 1: "meta", 2: "cpu"}


def test_device_maps_that_cannot_be_honoured(saved: Path) -> None:
    with pytest.raises(InputError, match=r"both device \(cpu\) and device_map \(auto\)"):
        HookedModel.from_pretrained(saved, device="cpu", device_map="auto")
    for device_map in ("nowhere", {"": "gpu 1"}):
        with pytest.raises(InputError, match="is no device; give auto, balanced"):
            HookedModel.from_pretrained(saved, device_map=device_map)
