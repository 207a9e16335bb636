"""How each kind of mixer turns its own projections into a scan, as transformers' layers do it.

One reader for each kind, and the table of layer classes that were read and checked. A class that is not in it is
refused, however alike it looks: a norm, a factor or an order of channels more would go unnoticed. Knows modules and
tensors; nothing of hooks, rows or images.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from probes.attention_calls import refusal
from probes.mixers.delta import DeltaScan
from probes.mixers.dual import DualScan
from probes.mixers.scan import Scan
from probes.mixers.selective import SelectiveScan

Projected = Mapping[str, Tensor]
"""What a mixer's projections gave, by their names, (batch, tokens, ...) each."""

_L2_EPSILON = 1e-6
"""That of the delta rule's own normalisation of queries and keys."""


class Reader(ABC):
    """Reads one kind of mixer."""

    kind: str
    """What the kind is called in results."""

    @abstractmethod
    def projections(self, mixer: nn.Module) -> tuple[str, ...]:
        """Names of the submodules whose outputs are read, in the order in which they run."""

    @abstractmethod
    def mixed(self, mixer: Any, projected: Projected) -> Tensor:
        """What goes into the convolution, (batch, tokens, channels)."""

    @abstractmethod
    def parts(self, mixer: Any) -> dict[str, int]:
        """What the convolution's channels are, in order, and how many each has."""

    @abstractmethod
    def scan(self, mixer: Any, projected: Projected, mask: Tensor | None) -> Scan:
        """What goes into the scan; `mask` (batch, tokens) is what the layer was given."""

    @abstractmethod
    def output(self, mixer: nn.Module) -> tuple[str, bool]:
        """The submodule that is given the scan's output, and whether it is gated by then."""

    def project(self, mixer: Any, hidden_states: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """Run the projections on what enters the layer."""
        hidden = _masked(hidden_states, mask)
        return {name: getattr(mixer, name)(hidden) for name in self.projections(mixer)}


class DualReader(Reader):
    """Mamba-2 and its kin: one input projection, which holds gate, x, B, C and dt."""

    kind = "mamba2"

    def projections(self, mixer: nn.Module) -> tuple[str, ...]:  # noqa: ARG002 - the seam's signature
        """See `Reader`."""
        return ("in_proj",)

    def project(self, mixer: Any, hidden_states: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """See `Reader`. Falcon-H1 scales what it projects."""
        hidden = _masked(hidden_states, mask) * getattr(mixer, "ssm_in_multiplier", 1)
        return {"in_proj": mixer.in_proj(hidden)}

    def mixed(self, mixer: Any, projected: Projected) -> Tensor:
        """See `Reader`."""
        return self._split(mixer, projected)[1]

    def parts(self, mixer: Any) -> dict[str, int]:
        """See `Reader`."""
        state = mixer.n_groups * mixer.ssm_state_size
        return {"x": mixer.intermediate_size, "B": state, "C": state}

    def scan(self, mixer: Any, projected: Projected, mask: Tensor | None) -> DualScan:
        """See `Reader`."""
        gate, mixed, step = self._split(mixer, projected)
        x, keys, queries = torch.split(_convolved(mixer, mixed, mask), [*self.parts(mixer).values()], dim=-1)
        heads = (*gate.shape[:2], mixer.num_heads, mixer.head_dim)
        step = functional.softplus(step + mixer.dt_bias.to(step.dtype)).clamp(*mixer.time_step_limit).float()
        return DualScan(
            values=x.reshape(heads),
            gate=gate.reshape(heads),
            skip=mixer.D,
            queries=queries.reshape(*gate.shape[:2], mixer.n_groups, -1),
            keys=keys.reshape(*gate.shape[:2], mixer.n_groups, -1),
            step=step,
            log_decay=step * -mixer.A_log.float().exp(),
        )

    def output(self, mixer: nn.Module) -> tuple[str, bool]:
        """See `Reader`. Falcon-H1 can do without the norm, and gates by itself then."""
        return ("norm", False) if getattr(mixer, "mamba_rms_norm", True) else ("out_proj", True)

    def _split(self, mixer: Any, projected: Projected) -> tuple[Tensor, Tensor, Tensor]:
        states = projected["in_proj"]
        if hasattr(mixer, "mup_vector"):
            states = states * mixer.mup_vector
        gate, mixed, step = torch.split(states, [mixer.intermediate_size, mixer.conv_dim, mixer.num_heads], dim=-1)
        return gate, mixed, step


class SelectiveReader(Reader):
    """Mamba and its kin: B, C and dt are projected from the convolved x."""

    kind = "mamba"

    def projections(self, mixer: nn.Module) -> tuple[str, ...]:  # noqa: ARG002 - the seam's signature
        """See `Reader`."""
        return ("in_proj",)

    def mixed(self, mixer: Any, projected: Projected) -> Tensor:  # noqa: ARG002 - the seam's signature
        """See `Reader`."""
        return projected["in_proj"].chunk(2, dim=-1)[0]

    def parts(self, mixer: Any) -> dict[str, int]:
        """See `Reader`."""
        return {"x": mixer.intermediate_size}

    def scan(self, mixer: Any, projected: Projected, mask: Tensor | None) -> SelectiveScan:
        """See `Reader`. Falcon Mamba and Jamba norm what is projected from x."""
        x = _convolved(mixer, self.mixed(mixer, projected), mask)
        sizes = [mixer.time_step_rank, mixer.ssm_state_size, mixer.ssm_state_size]
        step, keys, queries = torch.split(mixer.x_proj(x), sizes, dim=-1)
        if hasattr(mixer, "dt_layernorm"):
            step, keys, queries = mixer.dt_layernorm(step), mixer.b_layernorm(keys), mixer.c_layernorm(queries)
        return SelectiveScan(
            values=x[..., None],
            gate=projected["in_proj"].chunk(2, dim=-1)[1][..., None],
            skip=mixer.D,
            queries=queries,
            keys=keys,
            step=functional.softplus(_step(mixer, step)).float(),
            rates=-mixer.A_log.float().exp(),
        )

    def output(self, mixer: nn.Module) -> tuple[str, bool]:  # noqa: ARG002 - the seam's signature
        """See `Reader`."""
        return "out_proj", True


class DeltaReader(Reader):
    """The gated delta nets of Qwen3.5 and Qwen3-Next."""

    kind = "delta"

    def projections(self, mixer: nn.Module) -> tuple[str, ...]:
        """See `Reader`. Qwen3-Next has fewer, with several parts in each."""
        if hasattr(mixer, "in_proj_qkvz"):
            return "in_proj_qkvz", "in_proj_ba"
        return "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"

    def mixed(self, mixer: Any, projected: Projected) -> Tensor:
        """See `Reader`."""
        return self._apart(mixer, projected)[0]

    def parts(self, mixer: Any) -> dict[str, int]:
        """See `Reader`."""
        return {"q": mixer.key_dim, "k": mixer.key_dim, "v": mixer.value_dim}

    def scan(self, mixer: Any, projected: Projected, mask: Tensor | None) -> DeltaScan:  # noqa: ARG002 - the seam's signature
        """See `Reader`."""
        mixed, gate, strength, decay = self._apart(mixer, projected)
        # Unlike the others, these layers mask nothing behind the convolution.
        convolved = _convolved(mixer, mixed, None)
        queries, keys, values = torch.split(convolved, [*self.parts(mixer).values()], dim=-1)
        shared = mixer.num_v_heads // mixer.num_k_heads
        queries, keys = (
            _unit(each.reshape(*each.shape[:2], -1, mixer.head_k_dim).float()).repeat_interleave(shared, dim=2)
            for each in (queries, keys)
        )
        return DeltaScan(
            values=values.reshape(*values.shape[:2], -1, mixer.head_v_dim),
            gate=gate.reshape(*gate.shape[:2], -1, mixer.head_v_dim),
            queries=queries * mixer.head_k_dim**-0.5,
            keys=keys,
            strength=strength.sigmoid(),
            log_decay=-mixer.A_log.float().exp() * functional.softplus(decay.float() + mixer.dt_bias),
        )

    def output(self, mixer: nn.Module) -> tuple[str, bool]:  # noqa: ARG002 - the seam's signature
        """See `Reader`."""
        return "norm", False

    def _apart(self, mixer: Any, projected: Projected) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is convolved, gate, and the projections of beta and of the decay."""
        if "in_proj_qkvz" not in projected:
            return tuple(projected[name] for name in self.projections(mixer))  # type: ignore[return-value]
        *mixed, gate, strength, decay = mixer.fix_query_key_value_ordering(
            projected["in_proj_qkvz"], projected["in_proj_ba"]
        )
        return torch.cat([each.flatten(2) for each in mixed], dim=-1), gate, strength, decay


_DUAL, _SELECTIVE, _DELTA = DualReader(), SelectiveReader(), DeltaReader()
READERS: dict[str, Reader] = {
    "Mamba2Mixer": _DUAL,
    "NemotronHMamba2Mixer": _DUAL,
    "BambaMixer": _DUAL,
    "FalconH1Mixer": _DUAL,
    "GraniteMoeHybridMambaLayer": _DUAL,
    "Zamba2MambaMixer": _DUAL,
    "MambaMixer": _SELECTIVE,
    "FalconMambaMixer": _SELECTIVE,
    "JambaMambaMixer": _SELECTIVE,
    "Qwen3_5GatedDeltaNet": _DELTA,
    "Qwen3_5MoeGatedDeltaNet": _DELTA,
    "Qwen3NextGatedDeltaNet": _DELTA,
}
"""By name of the layer's class."""


def reader_of(mixer: nn.Module) -> Reader:
    """The reader of a mixer.

    Raises:
        UnsupportedAttention: If its class is not in the table.
    """
    reader = READERS.get(type(mixer).__name__)
    if reader is None:
        layer = getattr(mixer, "layer_idx", None)
        raise refusal(
            mixer,
            layer if isinstance(layer, int) else -1,
            "its hidden attention is not known",
            f"hidden attention is read of {', '.join(READERS)}; softmax attention is read by attention_factors",
        )
    return reader


def activation_of(mixer: Any) -> Any:
    """What follows the mixer's convolution."""
    from transformers.activations import ACT2FN

    return ACT2FN[mixer.activation]


def _convolved(mixer: Any, mixed: Tensor, mask: Tensor | None) -> Tensor:
    """The causal convolution and its activation, of (batch, tokens, channels)."""
    weight, bias = mixer.conv1d.weight[:, 0].float(), mixer.conv1d.bias
    taps, states = weight.shape[-1], mixed.float()
    # Tap by tap over whole tokens: a depthwise convolution of the library takes several times as long on a CPU.
    found = states * weight[:, -1]
    for back in range(1, taps):
        found[:, back:].addcmul_(states[:, :-back], weight[:, -1 - back])
    found = found if bias is None else found.add_(bias.float())
    return _masked(activation_of(mixer)(found.to(mixed.dtype)), mask)


def _step(mixer: Any, low_rank: Tensor) -> Tensor:
    if hasattr(mixer.config, "_is_quantized"):
        step: Tensor = mixer.dt_proj(low_rank)
        return step
    bias: Tensor = mixer.dt_proj.bias
    return functional.linear(low_rank, mixer.dt_proj.weight) + bias.to(low_rank.dtype)


def _masked(states: Tensor, mask: Tensor | None) -> Tensor:
    return states if mask is None else (states * mask[:, :, None]).to(states.dtype)


def _unit(vectors: Tensor) -> Tensor:
    return vectors * torch.rsqrt(vectors.square().sum(-1, keepdim=True) + _L2_EPSILON)
