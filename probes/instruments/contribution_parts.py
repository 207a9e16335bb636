"""One mixing layer while contributions are read: where gradients are asked, and how its output is shared out.

Knows one layer's tensors; which layers there are, and when they run, is `probes.instruments.contribution_reading`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from probes.instruments.reading import output_projection
from probes.mixers.contributions import attention_contributions, scan_contributions
from probes.mixers.scan import Scan


class Tap:
    """A zero that is added to a tensor on its way, by which gradients are asked."""

    def __init__(self) -> None:
        self.value: Tensor
        """What went by, without its graph."""
        self.zero: Tensor

    def add(self, tensor: Tensor) -> Tensor:
        """The tensor to go on with."""
        self.value = tensor.detach()
        self.zero = torch.zeros_like(tensor, requires_grad=True)
        return tensor + self.zero


def into(tap: Tap) -> Any:
    """A forward pre-hook that taps what a module is given."""

    def hook(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (tap.add(given[0]), *given[1:])

    return hook


def out_of(tap: Tap) -> Any:
    """A forward hook that taps what a module gives."""

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (tap.add(output[0]), *output[1:])
        return tap.add(output)

    return hook


class Shares(NamedTuple):
    """What tokens contribute to one layer's output at the query rows, fp32 (tokens,) each.

    Args:
        nats: With gate and norm as fixed factors.
        slopes: By fading each token's values, through gate and norm; of softmax attention by fading its weights, each
            row renormalised.
    """

    nats: Tensor
    slopes: Tensor


class SharedOut(NamedTuple):
    """One layer's output times the gradient, and how tokens share it.

    Args:
        shares: By token.
        products: fp64 (rows, width): gradient times output, at the rows that shares are of.
        constant: What a bias behind the sum adds, which is no token's share.
    """

    shares: Shares
    products: Tensor
    constant: float


class Part:
    """One mixing layer: its taps, and what is needed to share its output out among tokens."""

    def __init__(self, layer: int, kind: str, module: nn.Module) -> None:
        self.layer, self.kind, self.module = layer, kind, module
        self.projection = output_projection(module)
        self.given, self.output, self.scanned = Tap(), Tap(), Tap()
        self.scan: Scan | None = None
        """What a mixer's scan takes; None for softmax attention."""
        self.gated = True
        """Whether nothing but a gate stands between the mixing and the projection, or what does has no tap."""
        self.attention: Tensor
        """fp32 (heads, rows, tokens), of softmax attention."""
        self.values: Tensor
        """fp32 (key-value heads, tokens, size)."""
        self.mixed: Tensor
        """fp32 (rows, heads x size): what the attention gave at the query rows."""

    def taps(self) -> list[Tap]:
        """Those that gradients are asked by, in the order that `shares` takes them in."""
        return [self.given, self.output, *([] if self.gated else [self.scanned])]

    def hooks(self) -> list[Any]:
        """Put its taps on; the handles take them off again."""
        return [
            self.projection.register_forward_pre_hook(into(self.given)),
            self.module.register_forward_hook(out_of(self.output)),
        ]

    def shared_out(self, rows: Tensor, gradients: Iterator[Tensor]) -> SharedOut:
        """Share the output of rows out.

        Args:
            rows: int64 (rows,).
            gradients: By its taps, in their order.
        """
        given, output = next(gradients), next(gradients)
        shares = self.shares(rows, given, None if self.gated else next(gradients))
        at_rows = output[0, rows].double()
        bias = self.projection.bias
        constant = 0.0 if bias is None else float((at_rows * bias.detach().double()).sum())
        return SharedOut(shares, at_rows * self.output.value[0, rows].double(), constant)

    def shares(self, rows: Tensor, given: Tensor, scanned: Tensor | None) -> Shares:
        """Share the output of rows out, by the gradients of what projection and norm were given.

        Args:
            rows: int64 (rows,).
            given: (1, tokens, heads x size).
            scanned: As the layer passes the scan on, or None without a tap there.
        """
        at_rows = given[0, rows].float()
        if self.scan is None:
            weights = self._by_head(at_rows * _factors(self.given.value[0, rows], self.mixed), len(self.attention))
            mixed = self._by_head(self.mixed, len(self.attention))
            nats = attention_contributions(self.attention, self.values, weights)
            level = ((weights * mixed).sum(-1, keepdim=True) * self.attention).sum((0, 1))
            return Shares(nats, nats - level)
        if scanned is None:
            nats = self._through(rows, at_rows * self.scan.gates(rows[None])[0].transpose(0, 1).flatten(1))
            return Shares(nats, nats)
        mixed = self.scanned.value.reshape(-1, at_rows.shape[-1])[rows]
        nats = self._through(rows, at_rows * _factors(self.given.value[0, rows], mixed))
        return Shares(nats, self._through(rows, scanned.reshape(-1, at_rows.shape[-1])[rows].float()))

    def _through(self, rows: Tensor, weights: Tensor) -> Tensor:
        assert self.scan is not None
        return scan_contributions(self.scan, rows[None], self._by_head(weights, self.scan.heads)[None])[0]

    @staticmethod
    def _by_head(values: Tensor, heads: int) -> Tensor:
        """(rows, heads x size) -> (heads, rows, size)."""
        return values.reshape(len(values), heads, -1).transpose(0, 1)


def _factors(after: Tensor, before: Tensor) -> Tensor:
    """What gate and norm multiplied each channel by; 0 for a channel that had nothing."""
    given, left = before.float(), after.float()
    return torch.where(given == 0, 0.0, left / torch.where(given == 0, 1.0, given))
