"""What decoder layers are reported to be made of, against patterns written down, configurations, and each other."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probes.families.support import VERIFIED
from probes.inputs import InputError
from probes.layer_kinds import (
    FEED_FORWARDS,
    MIXERS,
    LayerKind,
    as_kind,
    check_against_config,
    chosen_layers,
    counts,
    layers_with,
    of_parts,
)
from probes.layer_parts import layer_kinds
from tests.probes import hybrid_models
from tests.probes.hooked import hooked
from tests.probes.zoo.verifying import model_without_weights

ATTENTION, STATE_SPACE, LINEAR = LayerKind.ATTENTION, LayerKind.STATE_SPACE, LayerKind.LINEAR_ATTENTION
CONVOLUTION, EXPERTS, MLP = LayerKind.CONVOLUTION, LayerKind.EXPERTS, LayerKind.MLP
NEMOTRON = [(STATE_SPACE,), (EXPERTS,), (STATE_SPACE,), (ATTENTION,), (EXPERTS,), (MLP,)]
EXPECTED = {
    "nemotron": NEMOTRON,
    "latent": NEMOTRON,
    "dots1": [(ATTENTION, MLP), (ATTENTION, EXPERTS), (ATTENTION, EXPERTS)],
    "deepseek_v3": [(ATTENTION, MLP), (ATTENTION, EXPERTS), (ATTENTION, EXPERTS)],
    "mixtral": [(ATTENTION, EXPERTS)] * 3,
    "qwen3_moe": [(ATTENTION, EXPERTS)] * 3,
    "olmoe": [(ATTENTION, EXPERTS)] * 3,
    "qwen3_5": [(LINEAR, MLP), (ATTENTION, MLP), (LINEAR, MLP)],
    "qwen3_5_moe": [(LINEAR, EXPERTS), (ATTENTION, EXPERTS), (LINEAR, EXPERTS)],
    "bamba": [(STATE_SPACE, MLP), (ATTENTION, MLP), (STATE_SPACE, MLP)],
    "falcon_h1": [(ATTENTION, STATE_SPACE, MLP)] * 3,
    "llama": [(ATTENTION, MLP)] * 3,
    "mamba2": [(STATE_SPACE,)] * 3,
}
"""By hand, from the families' papers and patterns."""
MIXED = {
    "glm5_next": [(LINEAR, MLP), (ATTENTION, MLP), (ATTENTION, MLP)],
    "lfm3_vl": [(CONVOLUTION, MLP), (ATTENTION, MLP), (ATTENTION, MLP)],
    "llava_nemotron_h": [(STATE_SPACE,), (ATTENTION,), (EXPERTS,), (ATTENTION,)],
    "nemotron_h_omni": [(STATE_SPACE,), (ATTENTION,), (EXPERTS,), (ATTENTION,)],
    "llava_gpt_oss": [(ATTENTION, EXPERTS)] * 3,
    "ernie4_5_vl_moe": [(ATTENTION, MLP), (ATTENTION, EXPERTS), (ATTENTION, EXPERTS)],
    "inkling2": [(ATTENTION, EXPERTS)] * 3,
    "florence2": [(ATTENTION, MLP)] * 3,
    "mllama": [(ATTENTION, MLP)] * 3,
}
"""Entries of the zoo that differ from a Transformer's plain layer."""


def parts(model: Any) -> list[tuple[LayerKind, ...]]:
    kinds = layer_kinds(model)
    assert list(kinds) == [each.layer for each in kinds.values()] == list(range(len(kinds)))
    return [each.all for each in kinds.values()]


@pytest.fixture(scope="module", params=EXPECTED)
def decoder(request: pytest.FixtureRequest) -> tuple[str, Any]:
    with torch.device("meta"):
        from transformers import AutoModelForCausalLM

        return request.param, AutoModelForCausalLM.from_config(hybrid_models.config(request.param))


def test_layers_are_what_their_pattern_says(decoder: tuple[str, Any]) -> None:
    name, model = decoder
    assert set(EXPECTED) == set(hybrid_models.DECODERS)
    assert parts(model) == EXPECTED[name]


def test_the_pattern_of_nemotron_gives_two_state_spaces_one_attention_two_mixtures_and_one_block() -> None:
    found = counts(layer_kinds(hybrid_models.build("latent")))
    assert found == {ATTENTION: 1, STATE_SPACE: 2, EXPERTS: 2, MLP: 1}


@pytest.mark.parametrize("name", ["dots1", "nemotron"])
def test_a_hooked_model_reports_its_decoder_and_not_its_tower(name: str) -> None:
    model = hybrid_models.hooked(name)
    assert [each.all for each in model.layer_kinds.values()] == EXPECTED[name]
    assert layers_with(model.layer_kinds, "attention") == model.layers


def test_a_dense_model_is_attention_and_feed_forward_blocks() -> None:
    assert [each.all for each in hooked("llava").layer_kinds.values()] == [(ATTENTION, MLP)] * 3


@pytest.mark.parametrize("family", MIXED)
@pytest.mark.filterwarnings("ignore")
def test_families_of_the_zoo_with_other_layers_are_what_their_papers_say(family: str) -> None:
    assert parts(model_without_weights(family)) == MIXED[family]


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(VERIFIED - set(MIXED)))
@pytest.mark.filterwarnings("ignore")
def test_every_family_of_the_zoo_has_a_mixer_and_a_feed_forward_block(family: str) -> None:
    found = set(parts(model_without_weights(family)))
    assert found <= {(ATTENTION, MLP), (ATTENTION, EXPERTS), (LINEAR, MLP), (LINEAR, EXPERTS)}


def test_modules_that_are_not_what_the_configuration_says_are_refused() -> None:
    model = hybrid_models.build("nemotron")
    layers = model.model.layers
    layers[0].mixer, layers[5].mixer = layers[5].mixer, layers[0].mixer
    with pytest.raises(InputError, match="layer 0 holds mlp, and the configuration calls it 'linear_attention'"):
        layer_kinds(model)
    dense = hybrid_models.build("deepseek_v3")
    dense.config.mlp_layer_types = ["sparse", "sparse", "sparse"]
    with pytest.raises(InputError, match=r"decoder layer 0 holds attention, mlp, .* calls it 'sparse'"):
        layer_kinds(dense)


def test_kinds_that_nobody_knows_and_layers_without_a_known_part_are_refused() -> None:
    model = hybrid_models.build("dots1")
    model.config.layer_types = ["full_attention", "telepathy", "full_attention"]
    with pytest.raises(InputError, match="calls decoder layer 1 'telepathy'"):
        layer_kinds(model)
    model.config.layer_types = ["full_attention"]
    with pytest.raises(InputError, match="layer_types name 1 layer, and the decoder has 3"):
        layer_kinds(model)

    class Oracle(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer_idx, self.guess = 1, torch.nn.Linear(4, 4)

    mamba = hybrid_models.build("mamba2")
    mamba.backbone.layers[1] = Oracle()
    with pytest.raises(InputError, match=r"decoder layer 1 \(Oracle\) holds no part of a known kind"):
        layer_kinds(mamba)


def test_a_layer_that_lacks_what_it_is_asked_for_is_refused_with_those_that_have_it() -> None:
    kinds = layer_kinds(hybrid_models.build("nemotron"))
    assert chosen_layers(kinds, EXPERTS) == [1, 4]
    assert chosen_layers(kinds, "state space", [2, 0]) == [0, 2]
    with pytest.raises(InputError, match=r"layers \[0, 3\] have no mixture of experts; .* are \[1, 4\]"):
        chosen_layers(kinds, EXPERTS, [0, 1, 3])
    with pytest.raises(InputError, match=r"no layers are named; the layers with mlp are \[5\]"):
        chosen_layers(kinds, MLP, [])
    with pytest.raises(InputError, match="no layer of this decoder has any linear attention: its layers have state"):
        chosen_layers(kinds, LINEAR)
    with pytest.raises(InputError, match="unknown kind of layer 'mamba': there are attention, state space"):
        layers_with(kinds, "mamba")


@given(st.sets(st.sampled_from(list(LayerKind)), min_size=1))
def test_records_name_every_part_once_and_in_order(found: set[LayerKind]) -> None:
    record = of_parts(4, found)
    assert set(record.all) == found and len(record.all) == len(found)
    assert record == of_parts(4, sorted(found, reverse=True))
    assert [*record.mixers] == [kind for kind in MIXERS if kind in found]
    assert [*record.feed_forwards] == [kind for kind in FEED_FORWARDS if kind in found]
    assert all(str(as_kind(kind)) in str(record) for kind in found)


@given(
    st.sets(st.sampled_from(list(LayerKind)), min_size=1), st.sampled_from(["full_attention", "mamba", "moe", "mlp"])
)
def test_a_configuration_agrees_with_one_make_of_layer_only(found: set[LayerKind], name: str) -> None:
    mixers, blocks = found & set(MIXERS), found & set(FEED_FORWARDS)
    fits = {
        "full_attention": mixers == {ATTENTION},
        "mamba": bool(mixers) and mixers <= {STATE_SPACE, LINEAR},
        "moe": EXPERTS in blocks and not mixers,
        "mlp": found == {MLP},
    }[name]
    kinds = {0: of_parts(0, found)}
    if fits:
        check_against_config(kinds, [name], [])
    else:
        with pytest.raises(InputError, match="the configuration calls it"):
            check_against_config(kinds, [name], [])
