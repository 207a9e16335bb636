"""Every rule of the table against a tiny model of its family, wrong rules, and selection by brute force."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from probes.experts.layers import UnsupportedRouting, expert_layers
from probes.experts.rules import RULES, Grouping, RouterRule, choose, selection_scores, unexplained
from probes.routing import record_routing
from tests.probes import hybrid_models
from tests.probes.hybrid_models import ROUTED, enlarge, padded
from tests.probes.tiny_models import decoder_settings
from tests.probes.zoo import shrinking
from tests.probes.zoo.catalogue import ENTRIES, Entry
from tests.probes.zoo.shrinking import shrink
from tests.probes.zoo.verifying import build_model, inputs_of

_HEADS = {"num_key_value_heads": 4}
_SPARSE = {"mlp_layer_types": ["dense", "sparse", "sparse"]}
_GROUPS = {"n_group": 3, "topk_group": 1}
EXPERTS = 12
"""Of so few as the zoo's four, wrong rules choose the same too often."""
SHRUNK: dict[str, Mapping[str, Any]] = {
    "axk1": {**_HEADS, **_GROUPS},
    "bailing_hybrid": {**_HEADS, **_GROUPS, **_SPARSE, "num_experts_per_tok": 2},
    "beam": {**_SPARSE, **_GROUPS},
    "cohere2_moe": {},
    "deepseek_v2": {**_HEADS, "num_experts_per_tok": 2},
    "deepseek_v32": {**_HEADS, **_GROUPS, **_SPARSE},
    "exaone_moe": _GROUPS,
    "flex_olmo": {},
    "glm4_moe": _GROUPS,
    "glm4_moe_lite": {**_HEADS, **_GROUPS},
    "glm_moe_dsa": {**_HEADS, **_GROUPS, **_SPARSE},
    "gpt_oss": {},
    "granitemoe": {},
    "granitemoe_swa": {},
    "granitemoeshared": {},
    "hy_v4": {**_HEADS, **_GROUPS},
    "kimi_linear": {**_HEADS, "num_expert_group": 3, "topk_group": 1, "num_experts_per_token": 2},
    "kolibri1": {},
    "laguna": {},
    "mellum": {},
    "mimo_v2_flash": _GROUPS,
    "minimax": {},
    "qwen2_moe": {},
    "qwen3_next": {},
    "qwen3_5_moe_text": {},
    "solar_open": _GROUPS,
}
"""Text decoders by model type, with what their default configurations need beyond shrinking."""
SETTINGS: dict[str, Mapping[str, Any]] = {
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention", "mamba"],
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_chunk_size": 8,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 16,
    },
    "hunyuan_v1_moe": {"num_experts": 4, "moe_topk": 2, "head_dim": 8},
    "jamba": {"num_experts": 4, "num_experts_per_tok": 2, "mamba_d_state": 8, "mamba_dt_rank": 4},
}
"""Those that are easier made from the start."""
SEEN = {
    "aria": {},
    "deepseek_ocr2": {},
    "dots3_note": {},
    "glm4v_moe": {},
    "glm5_next": {"text_config.mlp_layer_types": ["dense", "sparse", "sparse"]},
    "minimax_m3_vl": {},
    "mistral4": {},
    "mistral_large4": {},
    "muse_spark": {},
    "qwen3_omni_moe_thinker": {},
    "qwen3_vl_moe": {},
    "qwen4_exp": {},
    "step3p7": {"text_config.mlp_layer_types": ["dense", "sparse", "sparse"]},
    "unlimited_ocr": {},
}
"""Families of images, of the zoo."""
pytestmark = pytest.mark.filterwarnings("ignore")


@cache
def model_of(family: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """A tiny model and inputs."""
    with torch.random.fork_rng(devices=[]), pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        for name in ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"):
            patch.setitem(shrinking.SIZES, name, EXPERTS)
        if family in SEEN:
            entry = ENTRIES.get(family, Entry())
            patch.setitem(ENTRIES, family, entry._replace(changes={**entry.changes, **SEEN[family]}))
            model = build_model(family, entry.attention)
            inputs = inputs_of(model, entry, padded=True)
        elif family in ROUTED:
            return hybrid_models.build(family), padded()
        else:
            if family in SHRUNK:
                config = shrink(CONFIG_MAPPING[family](), SHRUNK[family])
            else:
                config = CONFIG_MAPPING[family](**{**decoder_settings(3), **SETTINGS[family]})
            model = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family])(config).eval()
            inputs = padded(2, 14)
        enlarge(model)
    return model, inputs


FAMILIES = [*ROUTED, *(pytest.param(name, marks=pytest.mark.slow) for name in (*SHRUNK, *SETTINGS, *SEEN))]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rule_explains_every_choice_and_a_wrong_one_does_not(family: str) -> None:
    model, inputs = model_of(family)
    routing = record_routing(model, inputs)
    for record in routing.values():
        assert np.array_equal(np.sort(record.indices), choose(record.scores, record.indices.shape[1]))
    mixture = next(iter(expert_layers(model).values()))
    rule, router = mixture.rule, type(mixture.router).__name__
    wrong = [replace(rule, bias=None), replace(rule, affinity="softmax")] if rule.bias else []
    wrong += [replace(rule, groups=None)] if record.grouping.kept < record.grouping.groups else []
    for each in wrong:
        with pytest.raises(UnsupportedRouting, match=f"{router}.* do not go to the experts with the highest"):
            record_routing(model, inputs, rules={router: each})


@pytest.mark.parametrize("method", ["group_limited_greedy", "greedy"])
def test_groups_of_deepseek_v2_rank_by_their_best_expert_where_they_take_part(method: str) -> None:
    """As the router is told: the same groups are there, and do nothing, where it chooses among all experts."""
    with pytest.MonkeyPatch.context() as patch:
        settings = {**SHRUNK["deepseek_v2"], **_GROUPS, "topk_method": method}
        patch.setitem(SHRUNK, "deepseek_v2", settings)
        model, inputs = model_of.__wrapped__("deepseek_v2")
    for record in record_routing(model, inputs).values():
        assert record.grouping == (Grouping(3, 1, 1) if method == "group_limited_greedy" else Grouping())
        assert np.isneginf(record.scores).any() == (method == "group_limited_greedy")
        assert np.array_equal(np.sort(record.indices), choose(record.scores, record.indices.shape[1]))
    rule = RULES["DeepseekV2TopkRouter"]
    wrong = (
        [replace(rule, groups=None), replace(rule, best=3)] if "group" in method else [replace(rule, groups_if=None)]
    )
    for each in wrong:
        with pytest.raises(UnsupportedRouting, match="do not go to the experts with the highest"):
            record_routing(model, inputs, rules={"DeepseekV2TopkRouter": each})


@pytest.mark.slow
def test_every_rule_of_the_table_is_tried() -> None:
    names = [*ROUTED, *SHRUNK, *SETTINGS, *SEEN]
    seen = {type(each.router).__name__ for name in names for each in expert_layers(model_of(name)[0]).values()}
    assert seen == set(RULES)


@given(st.integers(0, 10_000), st.sampled_from([(1, 1), (2, 1), (4, 2), (4, 3)]), st.integers(1, 3))
def test_selection_equals_brute_force(seed: int, groups: tuple[int, int], best: int) -> None:
    """Groups ranked and shut out one by one, in plain Python."""
    rng = np.random.default_rng(seed)
    affinities, bias = rng.random((5, 12), dtype=np.float32), rng.normal(0, 0.3, 12).astype(np.float32)
    grouping = Grouping(*groups, best)
    found = selection_scores(affinities, bias, grouping)
    size = 12 // grouping.groups
    for row, scores in zip(found, affinities + bias, strict=True):
        members = [range(group * size, (group + 1) * size) for group in range(grouping.groups)]
        ranks = [sum(sorted((float(scores[at]) for at in group), reverse=True)[:best]) for group in members]
        kept = sorted(range(grouping.groups), key=lambda group: -ranks[group])[: grouping.kept]
        for group, places in enumerate(members):
            for at in places:
                assert row[at] == (scores[at] if group in kept else -np.inf)
    k = min(3, size * grouping.kept)
    chosen = choose(found, k)
    assert not unexplained(found, chosen).any()
    for row, picked in zip(found, chosen, strict=True):
        assert sorted(picked.tolist()) == sorted(sorted(range(12), key=lambda at: -row[at])[:k])
    worst = choose(-np.where(np.isneginf(found), np.inf, found), k)
    assert unexplained(found, worst).all() or size * grouping.kept < 2 * k


def test_what_was_chosen_from_a_group_that_is_shut_out_is_not_explained() -> None:
    scores = selection_scores(np.array([[0.9, 0.8, 0.2, 0.1]], np.float32), np.zeros(4, np.float32), Grouping(2, 1, 1))
    assert unexplained(scores, np.array([[0, 2]])).tolist() == [True]
    assert unexplained(scores, np.array([[0, 1]])).tolist() == [False]
    assert RouterRule("softmax") == RULES["MixtralTopKRouter"]
