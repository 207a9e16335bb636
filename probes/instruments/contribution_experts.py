"""One mixture of experts while contributions are read: how its output at each token is shared out among its experts.

Experts' outputs are weighed and added, so that each one's share is the gradient where they are added times weight times
output: exact, with whatever maps the sum on (the way up from latent experts, a gate of the shared ones) inside the
gradient. Outputs are made by the experts' own module, one of a token's experts at a time. Knows one layer's tensors.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from probes.experts.latent import latent_bias
from probes.experts.layers import ExpertLayer, expert_layers
from probes.inputs import InputError
from probes.instruments.contribution_parts import SharedOut, Shares, Tap, out_of
from probes.instruments.contributions import EXPERTS, ExpertShares
from probes.layer_kinds import layers_with
from probes.layer_parts import layer_kinds


class ExpertPart:
    """One mixture of experts: its taps, and what is needed to share its output out."""

    def __init__(self, mixture: ExpertLayer) -> None:
        self.layer, self.kind, self.module = mixture.layer, EXPERTS, mixture.block
        self._mixture = mixture
        self._output, self._mixed = Tap(), Tap()
        self._shared = [(module, Tap()) for module in mixture.shared.values()]
        self._given: tuple[Tensor, Tensor, Tensor]
        """States (tokens, width), indices and weights (tokens, k) that the experts were given."""
        self._routed: Tensor
        """(tokens, k) nats."""
        self._of_shared: Tensor
        """(tokens,) nats."""

    def taps(self) -> list[Tap]:
        """Those that gradients are asked by, in the order that `shared_out` takes them in."""
        return [self._output, self._mixed, *(tap for _, tap in self._shared)]

    def hooks(self) -> list[Any]:
        """Put its taps on; the handles take them off again."""
        return [
            self._mixture.block.register_forward_hook(out_of(self._output)),
            self._mixture.experts.register_forward_pre_hook(self._keep),
            self._mixture.experts.register_forward_hook(out_of(self._mixed)),
            *(module.register_forward_hook(out_of(tap)) for module, tap in self._shared),
        ]

    def shared_out(self, rows: Tensor, gradients: Iterator[Tensor]) -> SharedOut:  # noqa: ARG002 - as mixers
        """Share the output of all tokens out.

        Args:
            rows: Not looked at: experts act on each token alone.
            gradients: By its taps, in their order.
        """
        output, mixed = next(gradients), _by_token(next(gradients))
        products = _by_token(output).double() * _by_token(self._output.value).double()
        inside = list(self._mixture.block.modules())
        self._of_shared = products.new_zeros(len(products))
        for module, tap in self._shared:
            own = _by_token(next(gradients)).double() * _by_token(tap.value).double()
            self._of_shared = self._of_shared + own.sum(-1)
            if not any(module is each for each in inside):
                products = products + own
        self._routed = self._by_slot(mixed)
        nats = self._routed.sum(-1) + self._of_shared
        bias = latent_bias(self._mixture)
        constant = 0.0 if bias is None else float((_by_token(output).double() * bias.detach().double()).sum())
        return SharedOut(Shares(nats, nats), products, constant)

    def by_expert(self, images: Sequence[Tensor]) -> ExpertShares:
        """The same expert by expert, at each image's tokens."""
        indices = self._given[1].cpu()
        routed = np.zeros((self._mixture.count, len(images)))
        for place, image in enumerate(images):
            found = torch.zeros(self._mixture.count, dtype=torch.float64)
            found.scatter_add_(0, indices[image].flatten(), self._routed.cpu()[image].flatten())
            routed[:, place] = found.numpy()
        shared = np.array([float(self._of_shared[image].sum()) for image in images])
        return ExpertShares(self.layer, routed, shared)

    def _keep(self, _: nn.Module, given: tuple[Any, ...]) -> None:
        if len(given) != 3 or not all(isinstance(each, Tensor) and each.dim() == 2 for each in given):
            raise self._mixture.refuse(
                "its experts are not called with states, indices and weights", "read contributions with experts=False"
            )
        states, indices, weights = (each.detach() for each in given)
        self._given = states, indices.long(), weights

    def _by_slot(self, gradient: Tensor) -> Tensor:
        """Fp64 (tokens, k): each of a token's experts' weight times output times the gradient at their sum."""
        states, indices, weights = self._given
        found = []
        for slot in range(indices.shape[1]):
            one = slice(slot, slot + 1)
            made = self._mixture.experts(states, indices[:, one].contiguous(), weights[:, one].contiguous())
            found.append((_by_token(made).double() * gradient.double()).sum(-1))
        return torch.stack(found, dim=-1)


def expert_parts(model: nn.Module) -> list[ExpertPart]:
    """Every mixture of experts of a decoder; none where it has none.

    Raises:
        InputError: If a layer is of no known kind.
        UnsupportedRouting: If a router is not known.
    """
    try:
        if not layers_with(layer_kinds(model), EXPERTS):
            return []
        return [ExpertPart(mixture) for mixture in expert_layers(model).values()]
    except InputError as error:
        raise type(error)(f"{error}; or read contributions with experts=False") from error


def _by_token(states: Tensor) -> Tensor:
    """(tokens, width) of one sequence."""
    return states.reshape(-1, states.shape[-1])
