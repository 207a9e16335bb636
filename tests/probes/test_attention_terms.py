"""Real decoders whose softmax has more in it than queries and keys, or that attend in some layers only."""

from typing import Any

import pytest
import torch

from probes.attention import attention_factors, attention_layers
from tests.probes.dense_reference import TOLERANCE, dense_factors, worst
from tests.probes.tiny_models import decoder_settings, enlarge_weights

EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_shared_experts": 1, "n_routed_experts": 4}
DECODERS: dict[str, dict[str, Any]] = {
    # Sinks, an even scale, and a window; softcap; a scaling of its own; chunks; experts; state-space layers between.
    "gpt_oss": {"num_local_experts": 4, "head_dim": 8, "sliding_window": 8, "rope_scaling": None},
    "gemma2": {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0},
    "granite": {"attention_multiplier": 0.1},
    "llama4_text": {"num_local_experts": 2, "head_dim": 8, "attention_chunk_size": 8, "intermediate_size_mlp": 32},
    "dots1": {**EXPERTS, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "head_dim": 8},
    "nemotron_h": {
        "num_hidden_layers": None,
        "layers_block_type": ["mamba", "attention", "moe"],
        "head_dim": 8,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "n_groups": 1,
        "ssm_state_size": 8,
        "n_routed_experts": 4,
    },
}
SPANS = [[(1, 7), (9, 20)], [(7, 9), (10, 20)]]


def make(name: str, attention: str | None) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {k: v for k, v in {**decoder_settings(3), **DECODERS[name]}.items() if v is not None}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **settings)).eval()
        enlarge_weights(model)
    if attention is not None:
        model.set_attn_implementation(attention)
    return model


@pytest.mark.parametrize("name", DECODERS)
def test_factors_equal_eager_attentions(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(2, 30, dtype=torch.long)
    mask[1, :6] = 0
    inputs = {"input_ids": torch.randint(4, 80, (2, 30), generator=generator), "attention_mask": mask}
    rows = torch.zeros(2, 30).bool()
    rows[:, 22:] = True
    model = make(name, None)
    found = attention_factors(model, inputs, rows, SPANS, per_head=True)
    with torch.no_grad():
        given = make(name, "eager")(**inputs, output_attentions=True, use_cache=False).attentions
    attentions = torch.stack([attention for attention in given if attention is not None], 1)
    assert len(attention_layers(model)) == attentions.shape[1]
    assert worst(found, dense_factors(attentions.double().numpy(), rows.numpy(), SPANS)) < TOLERANCE


def test_sinks_and_softcap_matter_here() -> None:
    """The comparison would not notice terms that do nothing: without them the factors must move."""
    inputs = {"input_ids": torch.randint(4, 80, (1, 30), generator=torch.Generator().manual_seed(0))}
    for name, switch in (("gpt_oss", "sinks"), ("gemma2", "attn_logit_softcapping")):
        model = make(name, "eager")
        before = attention_factors(model, inputs, [-1], SPANS[0])
        for layer in model.model.layers:
            if switch == "sinks":
                layer.self_attn.sinks.data.fill_(-100.0)
            else:
                layer.self_attn.attn_logit_softcapping = None
        after = attention_factors(model, inputs, [-1], SPANS[0])
        assert float((before - after).abs().max()) > 100 * TOLERANCE


def test_state_space_layers_are_left_out_and_the_true_index_kept() -> None:
    assert attention_layers(make("nemotron_h", None)) == [1]
