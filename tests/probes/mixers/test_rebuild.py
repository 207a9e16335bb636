"""Every known layer's scan, rebuilt from its hidden attention, against the tensors that the layer itself passed on."""

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from probes.attention import UnsupportedAttention
from probes.inputs import InputError
from probes.mixers.dual import DualScan
from probes.mixers.readers import READERS, reader_of
from probes.mixers.scan import Scan
from probes.state_space import hidden_attention, mixer_layers
from tests.probes.mixers.models import BUILDERS, DELTA, DUAL, SELECTIVE, build, first_mixer, tokens

LENGTHS = (11, 40, 200)
TOLERANCE = 1e-5


class Heard(NamedTuple):
    mixer: Any
    hidden: Tensor
    mask: Tensor | None
    own: Tensor
    """(batch, tokens, heads, size): what the scan gave, or the gated scan where nothing else is passed on."""
    gated: bool


def heard(model: Any, ids: Tensor, attention_mask: Tensor | None = None) -> Heard:
    """The model's own forward, with hooks of this file's own on its first mixer."""
    mixer, found = first_mixer(model), {}
    # Falcon-H1 without its norm, and Mamba, gate the scan themselves and pass it straight on.
    place = "norm" if getattr(mixer, "mamba_rms_norm", True) and hasattr(mixer, "norm") else "out_proj"

    def enter(_: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        found["hidden"] = args[0] if args else named["hidden_states"]
        found["mask"] = named.get("attention_mask")

    def leave(_: Any, args: tuple[Any, ...]) -> None:
        found["own"] = args[0]

    handles = [
        mixer.register_forward_pre_hook(enter, with_kwargs=True),
        getattr(mixer, place).register_forward_pre_hook(leave),
    ]
    with torch.no_grad():
        model(ids, attention_mask=attention_mask, use_cache=False)
    for handle in handles:
        handle.remove()
    own = found["own"].reshape(*ids.shape, -1)
    heads = getattr(mixer, "num_heads", getattr(mixer, "num_v_heads", own.shape[-1]))
    return Heard(mixer, found["hidden"], found["mask"], own.unflatten(-1, (heads, -1)), place == "out_proj")


@cache
def first(family: str, length: int, **settings: Any) -> Heard:
    return heard(build(family, **settings), tokens(2, length))


@torch.no_grad()
def scan_of(found: Heard) -> Scan:
    reader = reader_of(found.mixer)
    return reader.scan(found.mixer, reader.project(found.mixer, found.hidden, found.mask), found.mask)


@torch.no_grad()
def error(scan: Scan, found: Heard, rows: Tensor) -> float:
    batch = torch.arange(len(rows))[:, None]
    made = scan.rebuilt(rows)
    if found.gated:
        made = made * torch.nn.functional.silu(scan.gate[batch, rows])
    own = found.own[batch, rows]
    return float((made - own).norm() / own.norm())


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("family", BUILDERS)
def test_the_scan_of_chosen_rows_is_rebuilt(family: str, length: int) -> None:
    found = first(family, length)
    rows = torch.tensor([[length - 1, length - 2, length // 2, 0], [3, length - 1, length // 3, 7]])
    assert error(scan_of(found), found, rows) < TOLERANCE


@pytest.mark.parametrize("chunk", [8, 64])
@pytest.mark.parametrize("family", DUAL)
def test_the_models_own_chunks_do_not_matter(family: str, chunk: int) -> None:
    name = "chunk_size" if family in ("mamba2", "nemotron_h", "zamba2") else "mamba_chunk_size"
    found = heard(build(family, **{name: chunk}), tokens(2, 40))
    assert found.mixer.chunk_size == chunk
    assert error(scan_of(found), found, torch.arange(40).repeat(2, 1)) < TOLERANCE


BARE: dict[str, dict[str, Any]] = {
    "mamba2": {"use_conv_bias": False, "use_bias": True},
    "nemotron_h": {"use_conv_bias": False, "n_groups": 8},
    "bamba": {"mamba_conv_bias": False, "mamba_proj_bias": True},
    "mamba": {"use_conv_bias": False, "use_bias": True},
    "falcon_h1": {"mamba_norm_before_gate": True, "mamba_n_groups": 1},
    "qwen3_5": {"linear_num_key_heads": 4},
}


@pytest.mark.parametrize("family", BARE)
def test_other_biases_and_groups_are_rebuilt(family: str) -> None:
    found = heard(build(family, **BARE[family]), tokens(2, 40))
    assert error(scan_of(found), found, torch.arange(40).repeat(2, 1)) < TOLERANCE


LIMITS: dict[str, dict[str, Any]] = {
    "mamba2": {"time_step_limit": (0.3, 0.6)},
    "bamba": {"time_step_limit": (0.3, 0.6)},
    "falcon_h1": {"time_step_limit": (0.3, 0.6)},
    "nemotron_h": {"time_step_min": 0.5},
}


@pytest.mark.parametrize("family", LIMITS)
def test_limits_of_the_time_step_are_the_models_own(family: str) -> None:
    found = heard(build(family, **LIMITS[family]), tokens(2, 40))
    scan, rows = scan_of(found), torch.arange(40).repeat(2, 1)
    assert isinstance(scan, DualScan)
    low, high = found.mixer.time_step_limit
    bound = ((scan.step == low) | (scan.step == high)).float().mean()
    assert 0.1 < bound < 0.99, "the limits must bind on some tokens and not on others"
    assert error(scan, found, rows) < TOLERANCE
    loose = found.mixer.time_step_limit
    found.mixer.time_step_limit = (0.0, float("inf"))
    unbound = error(scan_of(found), found, rows)
    found.mixer.time_step_limit = loose
    assert unbound > 0.1


@pytest.mark.parametrize("family", DUAL)
def test_a_wrong_formula_fails(family: str) -> None:
    found = first(family, 40)
    scan, rows = scan_of(found), torch.arange(40).repeat(2, 1)
    assert isinstance(scan, DualScan)
    wrong = {
        "no step": replace(scan, step=torch.ones_like(scan.step)),
        "skip alone": replace(scan, keys=torch.zeros_like(scan.keys)),
        "no decay": replace(scan, log_decay=torch.zeros_like(scan.log_decay)),
        "other groups": replace(scan, keys=scan.keys.flip(2), queries=scan.queries.flip(2)),
        "heads dealt out to groups": replace(scan, **_dealt(scan)),
    }
    for name, each in wrong.items():
        assert error(each, found, rows) > 0.1, name
    assert error(replace(scan, skip=None), found, rows) > 0.01
    assert error(scan, found, rows) < TOLERANCE


def _dealt(scan: DualScan) -> dict[str, Tensor]:
    """Head h with group h % groups in place of h // (heads / groups)."""
    groups = torch.arange(scan.heads) % scan.keys.shape[2]
    return {"keys": scan.keys[:, :, groups], "queries": scan.queries[:, :, groups]}


@pytest.mark.parametrize("family", [*SELECTIVE, *DELTA])
def test_a_wrong_formula_of_other_kinds_fails(family: str) -> None:
    found = first(family, 40)
    scan, rows = scan_of(found), torch.arange(40).repeat(2, 1)
    names = {"mamba": ("step", "rates"), "delta": ("strength", "log_decay")}[reader_of(found.mixer).kind]
    ones, zeros = (torch.ones_like(getattr(scan, names[0])), torch.zeros_like(getattr(scan, names[1])))
    for name, each in {names[0]: ones, names[1]: zeros}.items():
        assert error(replace(scan, **{name: each}), found, rows) > 0.1, name


def test_what_is_left_of_a_delta_net_without_its_rule_fails() -> None:
    """Plain linear attention with decay, which takes nothing back."""
    found = first("qwen3_5", 40)
    scan: Any = scan_of(found)
    plain = DualScan(
        values=scan.values,
        gate=scan.gate,
        queries=scan.queries,
        keys=scan.keys,
        step=scan.strength,
        log_decay=scan.log_decay,
    )
    rows = torch.arange(40).repeat(2, 1)
    assert error(plain, found, rows) > 0.1
    assert error(scan, found, rows) < TOLERANCE


@pytest.mark.parametrize("family", ["mamba2", "nemotron_h", "falcon_h1", "jamba", "qwen3_5", "qwen3_next"])
def test_left_padding_leaves_rows_as_they_are(family: str) -> None:
    ids, pad = tokens(1, 30), 7
    padded = torch.cat([torch.zeros(1, pad, dtype=torch.long), ids], dim=1)
    mask = torch.cat([torch.zeros(1, pad), torch.ones(1, 30)], dim=1).long()
    model = build(family)
    alone, beside = heard(model, ids), heard(model, padded, mask)
    rows = torch.tensor([[29, 12]])
    assert error(scan_of(beside), beside, rows + pad) < TOLERANCE
    plain = hidden_attention(alone.mixer, alone.hidden, [12, 29])
    found = hidden_attention(beside.mixer, beside.hidden, [12 + pad, 29 + pad], attention_mask=mask)
    assert not found[..., :pad].any()
    torch.testing.assert_close(found[..., pad:], plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))


def test_hidden_attention_takes_rows_in_every_form() -> None:
    found = first("nemotron_h", 40)
    whole = hidden_attention(found.mixer, found.hidden, list(range(40)))
    assert whole.shape == (2, 8, 40, 40)
    mask = torch.zeros(2, 40, dtype=torch.bool)
    mask[0, [4, 39]] = mask[1, [17, 2]] = True
    chosen = hidden_attention(found.mixer, found.hidden, mask)
    torch.testing.assert_close(chosen[0], whole[0, :, [4, 39]])
    torch.testing.assert_close(chosen[1], whole[1, :, [2, 17]])
    torch.testing.assert_close(hidden_attention(found.mixer, found.hidden, [-1]), whole[:, :, -1:])
    with pytest.raises(InputError, match=r"\[2, 1\] query rows"):
        mask[1, 2] = False
        hidden_attention(found.mixer, found.hidden, mask)
    with pytest.raises(InputError, match=r"give token indices below 40"):
        hidden_attention(found.mixer, found.hidden, [40])
    with pytest.raises(InputError, match=r"hidden states have shape \(40, 32\)"):
        hidden_attention(found.mixer, found.hidden[0], [1])


def test_half_precision_follows_the_layer() -> None:
    found = heard(build("nemotron_h").bfloat16(), tokens(2, 40))
    assert error(scan_of(found), found, torch.arange(40).repeat(2, 1)) < 2e-2


def test_layers_and_kinds_are_told_apart() -> None:
    assert mixer_layers(build("nemotron_h")) == {0: "mamba2", 2: "mamba2"}
    assert mixer_layers(build("falcon_h1")) == {0: "mamba2", 1: "mamba2"}
    assert mixer_layers(build("mamba")) == {0: "mamba", 1: "mamba"}
    assert mixer_layers(build("qwen3_5")) == {0: "delta"}


def test_what_is_not_known_is_refused_by_name() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM, OlmoHybridConfig, OlmoHybridForCausalLM

    sizes = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    with pytest.raises(
        UnsupportedAttention, match=r"no decoder layer has a state-space or delta mixer.*attention_fact"
    ):
        mixer_layers(LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=1)))
    kinds = {"layer_types": ["linear_attention", "full_attention"], "num_hidden_layers": 2, "pad_token_id": 0}
    heads = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "num_key_value_heads": 2}
    olmo = OlmoHybridForCausalLM(OlmoHybridConfig(**sizes, **kinds, **heads))
    with pytest.raises(UnsupportedAttention, match=r"layer 0 .OlmoHybridGatedDeltaNet.: .*its class is not known"):
        mixer_layers(olmo)
    with pytest.raises(UnsupportedAttention, match=r"OlmoHybridGatedDeltaNet.: its hidden attention is not known"):
        hidden_attention(first_linear(olmo), torch.randn(1, 4, 16), [3])
    assert "OlmoHybridGatedDeltaNet" not in READERS


def first_linear(model: Any) -> Any:
    return next(module for module in model.modules() if type(module).__name__ == "OlmoHybridGatedDeltaNet")
