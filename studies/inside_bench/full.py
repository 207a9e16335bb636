"""The full computation: Mamba-2's hidden attention of all tokens to all tokens, and routing by sigmoid and bias.

Plain tensor algebra on the modules' own parameters, and on what went through them in a forward. Shares nothing with
`probes`, so that what is recorded there can be held against it. Memory is tokens x tokens: for short prompts.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Chosen", "FullScan", "Heard", "full_routing", "listening"]


@dataclass
class Heard:
    """A module that ran: itself, and by the names of its parts what came by."""

    module: Any
    entered: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """The arguments of each part; of the module itself under the empty name."""
    left: dict[str, Any] = field(default_factory=dict)
    """What each part returned."""


@contextmanager
def listening(model: nn.Module, kind: str, parts: tuple[str, ...]) -> Iterator[dict[int, Heard]]:
    """Keep what goes through modules of a kind while the block runs, by the layer that they stand in.

    Args:
        model: The model.
        kind: How the name of their class ends.
        parts: Names of the submodules listened to.
    """
    found: dict[int, Heard] = {}
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            layer = re.search(r"layers\.(\d+)\.", f"{name}.")
            if layer is None or not type(module).__name__.endswith(kind):
                continue
            heard = found[int(layer[1])] = Heard(module)
            for part in ("", *parts):
                hook = _keeping(heard, part)
                hooks.callback(module.get_submodule(part).register_forward_hook(hook, with_kwargs=True).remove)
        yield found


def _keeping(heard: Heard, part: str) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> None:
        heard.entered[part], heard.left[part] = (*args, *named.values()), output

    return hook


@dataclass(frozen=True)
class FullScan:
    """A Mamba-2 layer's scan of one sequence, whole and in fp64.

    Args:
        attention: (heads, tokens, tokens): `(C_i . B_j) exp(S_i - S_j) dt_j` for `j <= i` (Dao and Gu 2024).
        values: (heads, tokens, size): x.
        gates: (heads, tokens, size): SiLU of z.
        skip: (heads,): D.
        step: (heads, tokens): dt.
    """

    attention: Tensor
    values: Tensor
    gates: Tensor
    skip: Tensor
    step: Tensor

    @classmethod
    def of(cls, mixer: Any, projected: Tensor) -> "FullScan":
        """The scan of what a mixer's input projection gave, (1, tokens, channels)."""
        inner, state = mixer.intermediate_size, mixer.n_groups * mixer.ssm_state_size
        parts = [inner, inner + 2 * state, mixer.num_heads]
        gate, mixed, step = torch.split(projected[0].double(), parts, dim=-1)
        convolved = functional.conv1d(
            mixed.T[None],
            mixer.conv1d.weight.double(),
            mixer.conv1d.bias.double(),
            padding=mixer.conv_kernel_size - 1,
            groups=len(mixed.T),
        )[0, :, : len(mixed)]
        x, keys, queries = torch.split(functional.silu(convolved), [inner, state, state])
        step = functional.softplus(step.T + mixer.dt_bias.double()[:, None]).clamp(*mixer.time_step_limit)
        sums = (step * -mixer.A_log.double().exp()[:, None]).cumsum(-1)
        shared = mixer.num_heads // mixer.n_groups
        keys, queries = (
            each.reshape(mixer.n_groups, -1, len(mixed)).repeat_interleave(shared, dim=0) for each in (keys, queries)
        )
        decay = (sums[:, :, None] - sums[:, None]).tril().exp().tril()
        return cls(
            attention=(queries.transpose(1, 2) @ keys) * decay * step[:, None],
            values=x.reshape(mixer.num_heads, -1, len(mixed)).transpose(1, 2),
            gates=functional.silu(gate.T).reshape(mixer.num_heads, -1, len(mixed)).transpose(1, 2),
            skip=mixer.D.double(),
            step=step,
        )

    def output(self) -> Tensor:
        """What the scan gives, (tokens, heads x size)."""
        summed = self.attention @ self.values + self.skip[:, None, None] * self.values
        return summed.transpose(0, 1).flatten(1)

    def without_step(self) -> "FullScan":
        """The same by a wrong formula: without `dt_j`."""
        return replace(self, attention=self.attention / self.step[:, None])

    def rows(self, rows: Tensor, form: str) -> Tensor:
        """A form of some rows, (heads, rows, tokens); see `probes.mixers.sums`."""
        alpha = self.attention[:, rows]
        if form == "signed":
            return alpha
        if form == "absolute":
            return alpha.abs() / alpha.abs().sum(-1, keepdim=True)
        lengths = (self.gates[:, rows].square() @ self.values.square().transpose(1, 2)).sqrt()
        return alpha.abs() * lengths


class Chosen(NamedTuple):
    """How one router routes each token; experts in ascending order."""

    indices: Tensor
    """int64 (tokens, k)."""
    weights: Tensor
    """(tokens, k)."""
    scores: Tensor
    """(tokens, experts): sigmoid and bias."""
    by_logits: Tensor
    """int64 (tokens, k): a wrong choice, by the highest logits."""


def full_routing(router: Any, states: Tensor) -> Chosen:
    """The choice of a sigmoid router with a bias and without groups, of states (..., hidden)."""
    logits = states.flatten(0, -2) @ router.weight.T
    affinities = logits.sigmoid()
    scores = affinities + router.e_score_correction_bias
    indices, by_logits = (each.topk(router.top_k).indices.sort(-1).values for each in (scores, logits))
    weights = affinities.gather(1, indices)
    if router.norm_topk_prob:
        weights = weights / weights.sum(-1, keepdim=True)
    return Chosen(indices, weights * router.routed_scaling_factor, scores, by_logits)
