"""The attention path of each layer as the doctor tells it, against configurations and families of the library."""

from typing import Any

import pytest

from probes.attention_calls import UnsupportedAttention
from studies.doctor.layers import layer_paths
from tests.probes.processors import build_model, build_processor
from tests.probes.zoo.verifying import build_model as build_zoo_model

pytestmark = pytest.mark.filterwarnings("ignore")


def tiny(family: str) -> Any:
    return build_model(family, build_processor(family)).eval()


@pytest.mark.parametrize("family", ["llava", "gemma3", "qwen2_vl"])
def test_layers_are_those_of_the_configuration(family: str) -> None:
    network = tiny(family)
    config = network.config.get_text_config()
    paths = layer_paths(network)
    assert [path.layer for path in paths] == list(range(config.num_hidden_layers))
    for path in paths:
        assert path.records and path.implementation == network.config._attn_implementation
        assert (path.heads, path.key_value_heads) == (config.num_attention_heads, config.num_key_value_heads)
        kinds = getattr(config, "layer_types", None)
        sliding = kinds is not None and kinds[path.layer] == "sliding_attention"
        assert path.kind == ("sliding" if sliding else "full")
        assert path.window == (config.sliding_window if sliding else None)


def test_the_implementation_is_the_one_that_is_called() -> None:
    network = tiny("llava")
    network.set_attn_implementation("eager")
    assert {path.implementation for path in layer_paths(network)} == {"eager"}


def test_layers_that_are_not_called_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny("llava")
    monkeypatch.setattr(network, "forward", lambda **_: (_ for _ in ()).throw(ValueError("no images given")))
    paths = layer_paths(network)
    assert paths and not any(path.records for path in paths)
    assert "no images given" in str(paths[0].unseen) and not any(path.problem for path in paths)


def test_an_attention_that_cannot_be_recorded_is_told_from_one_that_was_not_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = tiny("llava")
    monkeypatch.setattr(network, "forward", lambda **_: (_ for _ in ()).throw(UnsupportedAttention("of its own kind")))
    assert {(path.problem, path.unseen) for path in layer_paths(network)} == {("of its own kind", None)}


def test_cross_attention_that_text_alone_does_not_call_is_no_problem() -> None:
    paths = layer_paths(build_zoo_model("mllama", "sdpa"))
    assert [path.records for path in paths] == [True, False, True]
    assert "as where images are needed" in paths[1].describe() and paths[1].problem is None


def test_layers_without_attention_are_named() -> None:
    from transformers import JambaConfig, JambaForCausalLM

    config = JambaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, attn_layer_period=2, attn_layer_offset=1, num_experts=2, use_mamba_kernels=False,
        mamba_dt_rank=2,
    )  # fmt: skip
    paths = layer_paths(JambaForCausalLM(config).eval())
    assert [path.records for path in paths] == [False, True, False, True]
    assert "no attention" in paths[0].describe() and "recorded" in paths[1].describe()
