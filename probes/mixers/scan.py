"""A scan as attention: what the kinds of linear mixers have in common.

A mixer's scan gives each token a sum of earlier tokens' values, `y_i = sum over j <= i of alpha(i, j) x_j`, plus what a
skip connection adds. The weights are its hidden attention: signed, and not normalised. They come in blocks of tokens,
for chosen rows only, so that nothing of size tokens x tokens is held. Knows plain tensors: nothing of modules or
images.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from probes.attention_rows import CHUNK_BYTES, CHUNK_BYTES_ELSEWHERE

WIDEST, NARROWEST = 256, 16
"""Tokens of a block, at most and at least."""


class Block(NamedTuple):
    """The hidden attention of some rows to neighbouring tokens.

    Args:
        start: The first of these tokens.
        attention: fp32 (batch, heads, rows, tokens of the block), 0 for tokens behind a row.
    """

    start: int
    attention: Tensor

    @property
    def stop(self) -> int:
        """One behind the last token."""
        return self.start + self.attention.shape[-1]


@dataclass(frozen=True, eq=False, kw_only=True)
class Scan(ABC):
    """What one layer's scan takes, for a batch that starts with an empty state.

    Args:
        values: (batch, tokens, heads, size): x, what the attention weighs.
        gate: (batch, tokens, heads, size): z before its SiLU, which scales the scan's output by row.
        skip: (heads,): D, how much of a row's own value is added to its sum; None adds nothing.
    """

    values: Tensor
    gate: Tensor
    skip: Tensor | None = None

    @property
    def heads(self) -> int:
        """Heads; of Mamba, channels."""
        return self.values.shape[2]

    @abstractmethod
    def blocks(self, rows: Tensor, width: int | None = None) -> Iterator[Block]:
        """The hidden attention of some rows, from the last token that any of them sees to the first.

        Args:
            rows: int64 (batch, rows) on the CPU.
            width: Tokens of a block; None fits it to the device.
        """

    def gates(self, rows: Tensor) -> Tensor:
        """What the output of some rows is scaled by, fp32 (batch, heads, rows, size)."""
        return functional.silu(take(self.gate, rows).float()).transpose(1, 2)

    def values_between(self, start: int, stop: int) -> Tensor:
        """Some tokens' values, fp32 (batch, heads, tokens, size)."""
        return self.values[:, start:stop].float().transpose(1, 2)

    def skipped(self, rows: Tensor) -> Tensor:
        """What the skip connection adds at some rows, fp32 (batch, heads, rows, size)."""
        own = take(self.values, rows).float().transpose(1, 2)
        return torch.zeros_like(own) if self.skip is None else self.skip.float()[:, None, None] * own

    def rebuilt(self, rows: Tensor) -> Tensor:
        """The scan's output at some rows, before gate and norm: fp32 (batch, rows, heads, size)."""
        total = self.skipped(rows)
        for block in self.blocks(rows):
            total = total + block.attention @ self.values_between(block.start, block.stop)
        return total.transpose(1, 2)


def take(values: Tensor, rows: Tensor) -> Tensor:
    """Pick rows per batch row: (batch, tokens, ...) at int64 (batch, rows) -> (batch, rows, ...)."""
    batch = torch.arange(values.shape[0], device=values.device)[:, None]
    return values[batch, rows.to(values.device)]


def spans(rows: Tensor, width: int) -> Iterator[tuple[int, int]]:
    """Cut the tokens that any row sees into blocks, last first.

    >>> list(spans(torch.tensor([[4]]), 2))
    [(4, 5), (2, 4), (0, 2)]
    """
    stop = int(rows.max()) + 1 if rows.numel() else 0
    yield from ((start, min(start + width, stop)) for start in reversed(range(0, stop, width)))


def block_width(values: Tensor, rows: Tensor) -> int:
    """Tokens of a block that keep (batch, heads, rows, tokens) in fp32 near the device's share of memory."""
    room = _room(values) // max(1, rows.shape[1])
    return min(WIDEST, max(NARROWEST, room))


def row_chunk(values: Tensor) -> int:
    """Rows at a time that narrow blocks have room for."""
    return max(1, _room(values) // NARROWEST)


def _room(values: Tensor) -> int:
    budget = CHUNK_BYTES.get(values.device.type, CHUNK_BYTES_ELSEWHERE)
    return budget // (4 * values.shape[0] * values.shape[2])


class Decay:
    """What a scalar decay for each head leaves of one token at a later one: the exponential of the logs between them.

    Sums of logs are fp64, and only their differences fp32: at thousands of tokens a sum is large where a difference is
    small. No exponent is positive, so none overflows.

    Args:
        log_decay: (batch, tokens, heads), not positive: what a token does to the state before it is added.
        rows: int64 (batch, rows) on the CPU.
    """

    def __init__(self, log_decay: Tensor, rows: Tensor) -> None:
        self.sums = log_decay.double().cumsum(1).transpose(1, 2).contiguous()
        """fp64 (batch, heads, tokens)."""
        self.rows = rows

    def at(self, places: Tensor) -> Tensor:
        """The sums at int64 (batch, places), (batch, heads, places)."""
        index = places.to(self.sums.device)[:, None].expand(-1, self.sums.shape[1], -1)
        return self.sums.gather(2, index)

    def beyond(self, stop: int) -> Tensor:
        """From the block that ends here to each row behind it, fp32 (batch, heads, rows); 1 for rows not behind it."""
        return (self.at(self.rows) - self.at(self.rows.clamp(max=stop - 1))).exp().float()

    def within(self, start: int, stop: int) -> Tensor:
        """From each token of a block to each row, or to the block's last token for rows behind it.

        Returns:
            fp32 (batch, heads, rows, tokens of the block), 0 for tokens behind a row; with one row for all where every
            row lies behind the block.
        """
        keys = self.sums[:, :, start:stop]
        left: Tensor = (keys[:, :, -1:] - keys).exp().float()[:, :, None]
        inside = (self.rows < stop - 1).any(0).nonzero().flatten()
        if not inside.numel():
            return left
        left = left.repeat(1, 1, self.rows.shape[1], 1)
        rows = self.rows[:, inside]
        gaps = self.at(rows.clamp(max=stop - 1))[..., None] - keys[:, :, None]
        behind = torch.arange(start, stop) > rows[..., None]
        gaps = gaps.masked_fill(behind[:, None].to(gaps.device), -torch.inf)
        left[:, :, inside.to(left.device)] = gaps.exp().float()
        return left
