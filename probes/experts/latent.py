"""Experts that work at a smaller width (LatentMoE, Nemotron 3 white paper): their states, and their sum made again.

A state x of width d is mapped down to a latent of width l, experts work on that, and their weighted sum is mapped up
again; router and shared experts read x itself: `y = W_up sum_i g_i(x) E_i(W_down x) + shared(x)`. Knows tokens as
columns: nothing of images or answers.
"""

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from probes.errors import counted
from probes.experts.layers import ExpertLayer, expert_layers
from probes.experts.rules import FloatArray, choose, selection_scores
from probes.forwards import run_once
from probes.inputs import InputError
from probes.residuals import check_tokens

_DOWN, _UP = "fc1_latent_proj", "fc2_latent_proj"


class LatentSum(NamedTuple):
    """What a mixture of latent experts computes."""

    latent: Tensor
    """(tokens, l): the states mapped down, which experts read."""
    mixed: Tensor
    """(tokens, l): the weighted sum of the experts' outputs."""
    expanded: Tensor
    """(tokens, d): that sum mapped up."""
    shared: Tensor
    """(tokens, d): the shared experts' output."""

    @property
    def output(self) -> Tensor:
        """(tokens, d): what the mixture adds to the residual stream."""
        return self.expanded + self.shared


@dataclass(frozen=True, eq=False, repr=False)
class LatentStates:
    """States of chosen tokens around the latent experts of several layers.

    Every array is (tokens, layers, width), the form of features that `probes.instruments.linear_probes` takes where one
    token of each sample is chosen. Linear probes of them tell what the way through the smaller width loses.
    """

    layers: tuple[int, ...]
    """True indices, the order of the layer axis."""
    full: FloatArray
    """Width d: what router, shared experts and the way down read."""
    latent: FloatArray
    """Width l: what routed experts read."""
    mixed: FloatArray
    """Width l: their weighted sum."""
    expanded: FloatArray
    """Width d: that sum after the way up, without shared experts."""

    def __repr__(self) -> str:
        tokens, layers, width = self.full.shape
        return (
            f"LatentStates({counted(tokens, 'token')}, {counted(layers, 'layer')}, "
            f"width {width} and {self.latent.shape[2]})"
        )


def latent_layers(model: nn.Module, layers: Collection[int] | None = None) -> dict[int, ExpertLayer]:
    """The mixtures of latent experts of a decoder, by true layer index.

    Args:
        model: A transformers model, or its decoder.
        layers: True indices; None is every layer with latent experts.

    Raises:
        InputError: If there are none, or a layer named has experts of full width; as
            `probes.experts.layers.expert_layers`.
    """
    mixtures = expert_layers(model, layers)
    found = {layer: mixture for layer, mixture in mixtures.items() if _maps(mixture) is not None}
    missing = sorted(set(mixtures) - set(found))
    if missing and (layers is not None or not found):
        able = [layer for layer, each in expert_layers(model).items() if _maps(each) is not None]
        there = f"layers with latent experts are {able}" if able else "no layer has latent experts"
        raise InputError(
            f"the experts of layers {missing} work at full width; {there}, and HookedModel.residuals reads states there"
        )
    return found


def latent_sum(mixture: ExpertLayer, hidden_states: Tensor) -> LatentSum:
    """A mixture of latent experts made again from its own parameters, with its formula and not its forward.

    Args:
        mixture: One of `latent_layers`.
        hidden_states: (..., d): what enters the mixture.

    Returns:
        Its parts, leading axes flattened.

    Raises:
        InputError: If its experts work at full width, or states have another width.
        UnsupportedRouting: If its parts are not those of Nemotron-H.
    """
    maps = _maps(mixture)
    if maps is None:
        raise InputError(f"the experts of layer {mixture.layer} work at full width: there is no latent to make again")
    down, up = maps
    if hidden_states.shape[-1] != down.in_features:
        raise InputError(f"states of width {down.in_features} enter the mixture, got {hidden_states.shape[-1]}")
    states = hidden_states.reshape(-1, hidden_states.shape[-1])
    with torch.no_grad():
        indices, weights = _choice(mixture, states)
        latent = _mapped(down, states)
        mixed = _mixed(mixture, latent, indices, weights)
        shared = sum((_block(mixture, each, states) for each in mixture.shared.values()), torch.zeros_like(states))
        return LatentSum(latent, mixed, _mapped(up, mixed), shared)


def latent_bias(mixture: ExpertLayer) -> Tensor | None:
    """What the way up adds to every token, whatever its experts do, (d,); None without a bias or a smaller width."""
    maps = _maps(mixture)
    return None if maps is None else maps[1].bias


@contextmanager
def reading_latents(
    model: nn.Module, tokens: Tensor, layers: Collection[int] | None = None
) -> Iterator[dict[int, dict[str, Tensor]]]:
    """While entered, read the states around latent experts, as the model runs once in this thread.

    Args:
        model: A transformers model, or its decoder.
        tokens: Bool (batch, tokens).
        layers: True indices; None is every layer with latent experts.

    Yields:
        Filled by the forward: per layer, "full", "latent", "mixed" and "expanded", (chosen tokens, width) each, row by
        row. `latent_states_of` makes one record of it.

    Raises:
        InputError: As `latent_layers`, if nothing is chosen, or the model runs over other tokens.
        UnsupportedRouting: On leaving, if a layer never ran.
    """
    check_tokens(tokens)
    mixtures = latent_layers(model, layers)
    found: dict[int, dict[str, Tensor]] = {layer: {} for layer in mixtures}
    thread = threading.get_ident()
    with ExitStack() as stack:
        for layer, mixture in mixtures.items():

            def keep(name: str, states: Any, kept: dict[str, Tensor] = found[layer]) -> None:
                if threading.get_ident() == thread:
                    kept[name] = _picked(states, tokens)

            for handle in _hooks(mixture, keep):
                stack.callback(handle.remove)
        yield found
    for layer, kept in found.items():
        if len(kept) < 4:
            raise mixtures[layer].refuse("it never ran in this thread", "call the model inside the block")


def latent_states_of(found: Mapping[int, Mapping[str, Tensor]]) -> LatentStates:
    """What `reading_latents` gave, as one record.

    Raises:
        InputError: If layers differ in their widths.
    """
    widths = {tuple(kept[name].shape for name in ("full", "latent")) for kept in found.values()}
    if len(widths) != 1:
        raise InputError(f"layers {list(found)} differ in their widths: read them one by one")

    def table(name: str) -> FloatArray:
        return np.stack([kept[name].float().cpu().numpy() for kept in found.values()], axis=1)

    return LatentStates(tuple(found), *(table(name) for name in ("full", "latent", "mixed", "expanded")))


def latent_states(
    model: nn.Module, inputs: Mapping[str, Any], tokens: Tensor, layers: Collection[int] | None = None
) -> LatentStates:
    """States of chosen tokens around latent experts, from one forward of the model.

    Args:
        model: A transformers model, or its decoder.
        inputs: What `model(**inputs)` takes, a batch. For a `HookedModel` run `score` inside `reading_latents`.
        tokens: Bool (batch, tokens).
        layers: True indices; None is every layer with latent experts.

    Raises:
        InputError, UnsupportedRouting: As `reading_latents`.
    """
    with reading_latents(model, tokens, layers) as found:
        run_once(model, inputs)
    return latent_states_of(found)


def _maps(mixture: ExpertLayer) -> tuple[nn.Linear, nn.Linear] | None:
    """The ways down and up; None where experts work at full width."""
    down, up = getattr(mixture.block, _DOWN, None), getattr(mixture.block, _UP, None)
    return (down, up) if isinstance(down, nn.Linear) and isinstance(up, nn.Linear) else None


def _hooks(mixture: ExpertLayer, keep: Any) -> list[Any]:
    maps = _maps(mixture)
    assert maps is not None
    down, up = maps
    return [
        down.register_forward_hook(lambda _, args, out: (keep("full", args[0]), keep("latent", out))[0]),
        up.register_forward_hook(lambda _, args, out: (keep("mixed", args[0]), keep("expanded", out))[0]),
    ]


def _picked(states: Tensor, tokens: Tensor) -> Tensor:
    flat = states.detach().reshape(-1, states.shape[-1])
    if len(flat) != tokens.numel():
        raise InputError(f"tokens are chosen of {tuple(tokens.shape)}, and {len(flat)} go through the mixture")
    return flat[tokens.flatten().to(flat.device)].clone()


def _choice(mixture: ExpertLayer, states: Tensor) -> tuple[Tensor, Tensor]:
    """Experts and weights of each token, (tokens, k): the router's, from its own parameters."""
    router: Any = mixture.router
    logits = nn.functional.linear(states.float(), router.weight.float())
    affinities = mixture.affinities(logits)
    scores = selection_scores(affinities.cpu().numpy(), mixture.bias(), mixture.grouping())
    indices = torch.from_numpy(choose(scores, router.top_k)).to(states.device)
    weights = affinities.gather(1, indices)
    if router.norm_topk_prob:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
    return indices, weights * router.routed_scaling_factor


def _mixed(mixture: ExpertLayer, latent: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """(tokens, l): the weighted sum of the experts' outputs."""
    experts: Any = mixture.experts
    if not hasattr(experts, "up_proj"):
        raise mixture.refuse("its experts are not those of Nemotron-H", "read its states instead (reading_latents)")
    mixed = torch.zeros_like(latent)
    for expert in range(mixture.count):
        token, place = (indices == expert).nonzero(as_tuple=True)
        inner = experts.act_fn(latent[token] @ experts.up_proj[expert].T) @ experts.down_proj[expert].T
        mixed.index_add_(0, token, (inner * weights[token, place, None]).to(mixed.dtype))
    return mixed


def _block(mixture: ExpertLayer, shared: nn.Module, states: Tensor) -> Tensor:
    """A shared expert's output: a feed-forward block without a gate."""
    up, down, act = (getattr(shared, name, None) for name in ("up_proj", "down_proj", "act_fn"))
    if not isinstance(up, nn.Linear) or not isinstance(down, nn.Linear) or act is None or hasattr(shared, "gate_proj"):
        raise mixture.refuse("its shared experts are not those of Nemotron-H", "read its states (reading_latents)")
    return _mapped(down, act(_mapped(up, states)))


def _mapped(linear: nn.Linear, states: Tensor) -> Tensor:
    return nn.functional.linear(states, linear.weight, linear.bias)
