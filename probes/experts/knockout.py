"""Takes chosen experts away from chosen tokens while the model runs.

Routers choose as ever; what chosen experts would add is multiplied with zero, in routed and in shared experts. Knows
tokens as columns: nothing of images or answers.
"""

from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from probes.attention_rows import rows_between
from probes.experts.hearing import ExpertHooks, Place, Routed
from probes.experts.layers import ExpertLayer, expert_layers
from probes.experts.rules import RouterRule
from probes.inputs import InputError


class ExpertKnockout:
    """While it is entered, chosen tokens go without chosen experts.

    Nests: knock-outs add up, and a recorder that is entered inside hears the weights that are left. An expert that none
    of the tokens goes to is no error: without it nothing changes, to the last bit.

    Args:
        model: A transformers model, or its decoder.
        tokens: Bool (batch, tokens): tokens of the prompt, padding included, that go without.
        experts: By true layer index, the routed experts that are taken away.
        shared: True indices of layers whose shared experts are taken away.
        renormalize: Whether a token's other experts take over the weight, so that its weights keep their sum; where all
            of them are taken away nothing is left to scale. Off, as a missing expert leaves a gap.
        generated: Whether tokens past `tokens` (decode steps) go without too.
        rules: See `probes.routing.RoutingRecorder`.
        strength: How much is taken away: 1 is all, and less fades the experts.

    Raises:
        InputError: For layers without experts or shared experts, experts that there are not, and for a knock-out
            without experts or without tokens.
        UnsupportedRouting: At once, if a router's class is not known; at the call, if it is of another batch or does
            not go on where the last one ended; on leaving, if a layer never ran.
    """

    def __init__(
        self,
        model: nn.Module,
        tokens: Tensor,
        experts: Mapping[int, Collection[int]] | None = None,
        shared: Collection[int] = (),
        renormalize: bool = False,
        generated: bool = False,
        rules: Mapping[str, RouterRule] | None = None,
        strength: float = 1.0,
    ) -> None:
        wanted = {layer: sorted(set(chosen)) for layer, chosen in (experts or {}).items()}
        if not any(wanted.values()) and not shared:
            raise InputError("a knock-out without experts does nothing: name routed experts by layer, or shared layers")
        if tokens.dim() != 2 or tokens.dtype != torch.bool or not (tokens.any() or generated):
            raise InputError("choose the tokens that go without by a bool mask (batch, tokens) that is True somewhere")
        mixtures = expert_layers(model, {*wanted, *shared}, rules)
        for layer, chosen in wanted.items():
            outside = [expert for expert in chosen if not 0 <= expert < mixtures[layer].count]
            if outside:
                raise InputError(
                    f"layer {layer} has no experts {outside}: its routed experts are 0 to {mixtures[layer].count - 1}, "
                    "and 'shared' ones are named apart"
                )
        bare = sorted(layer for layer in shared if not mixtures[layer].shared)
        if bare:
            able = [layer for layer, each in expert_layers(model, None, rules).items() if each.shared]
            raise InputError(f"layers {bare} have no shared experts; those that do are {able}")
        self._tokens, self._wanted, self._shared = tokens.cpu(), wanted, frozenset(shared)
        self._renormalize, self._left = renormalize, 1.0 - strength
        self._generated = torch.full((tokens.shape[0],), generated)
        self._hooks = ExpertHooks(model, mixtures, self._route, self._share)

    def __enter__(self) -> Self:
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)

    def _route(self, mixture: ExpertLayer, place: Place, routed: Routed) -> Tensor | None:
        concerned = self._concerned(mixture, place)
        chosen = self._wanted.get(mixture.layer)
        if not chosen or not concerned.any():
            return None
        device = routed.indices.device
        gone = torch.isin(routed.indices, torch.tensor(chosen, device=device)) & concerned.to(device)[:, None]
        left = torch.where(gone, self._left * routed.weights, routed.weights)
        if not self._renormalize:
            return left
        whole, rest = routed.weights.sum(dim=-1, keepdim=True), left.sum(dim=-1, keepdim=True)
        scaled = left * torch.where(rest != 0, whole / rest, 0.0)
        return torch.where(gone.any(dim=-1, keepdim=True), scaled, routed.weights)

    def _share(self, mixture: ExpertLayer, place: Place, output: Tensor) -> Tensor | None:
        concerned = self._concerned(mixture, place)
        if mixture.layer not in self._shared or not concerned.any():
            return None
        return torch.where(concerned.to(output.device)[:, None], self._left * output, output)

    def _concerned(self, mixture: ExpertLayer, place: Place) -> Tensor:
        """(batch x tokens,) of a call: which tokens go without."""
        if place.batch != self._tokens.shape[0]:
            raise mixture.refuse(
                f"the knock-out is for {self._tokens.shape[0]} sequences, and the model runs {place.batch}",
                "give tokens per sequence, and generate without beams",
            )
        return rows_between(self._tokens, place.first, place.tokens, self._generated).flatten()
