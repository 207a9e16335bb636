"""Hidden attention of Mamba: a selective scan with a decay for each channel and state.

Source: Ali, Zimerman and Wolf 2024, "The hidden attention of Mamba models",
`alpha_d(i, j) = sum over n of C_i[n] exp(A[d, n] (T_i[d] - T_j[d])) B_j[n] dt_j[d]` for `j <= i`, with `T` the running
sum of `dt`. Each channel is a head of size 1. Plain tensors in and out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.mixers.scan import Block, Scan, block_width, spans, take

WIDEST_BLOCK = 64
"""Tokens of a block at most: what is held besides is larger than the block by the size of the state."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SelectiveScan(Scan):
    """What Mamba's scan takes.

    Args:
        queries: (batch, tokens, state): C.
        keys: (batch, tokens, state): B.
        step: (batch, tokens, channels): dt, after its softplus.
        rates: (channels, state): A, negative.
    """

    queries: Tensor
    keys: Tensor
    step: Tensor
    rates: Tensor

    def blocks(self, rows: Tensor, width: int | None = None) -> Iterator[Block]:
        """See `Scan.blocks`."""
        times = self.step.double().cumsum(1).transpose(1, 2)
        index = rows.to(times.device)[:, None].expand(-1, self.heads, -1)
        at_rows, queries = times.gather(2, index), take(self.queries, rows).float()
        for start, stop in spans(rows, width or min(WIDEST_BLOCK, block_width(self.values, rows))):
            yield Block(start, self._block(rows, queries, at_rows, times[:, :, start:stop], start))

    def _block(self, rows: Tensor, queries: Tensor, at_rows: Tensor, times: Tensor, start: int) -> Tensor:
        stop = start + times.shape[2]
        keys, step = self.keys[:, start:stop].float(), self.step[:, start:stop].float().transpose(1, 2)
        rates, last = self.rates.float(), times[:, :, -1:]
        to_end = ((last - times).float()[:, :, None] * rates[:, :, None]).exp()
        weights = to_end * keys.transpose(1, 2)[:, None] * step[:, :, None]
        onwards = ((at_rows - last).clamp(min=0).float()[..., None] * rates[:, None]).exp() * queries[:, None]
        attention = onwards @ weights
        inside = (rows < stop - 1).any(0).nonzero().flatten()
        if inside.numel():
            here = inside.to(attention.device)
            gaps = (at_rows[:, :, here, None] - times[:, :, None]).clamp(min=0).float()
            found = torch.zeros_like(gaps)
            for state in range(rates.shape[1]):
                match = queries[:, here, None, state] * keys[:, None, :, state]
                found += (gaps * rates[:, state, None, None]).exp() * match[:, None]
            behind = torch.arange(start, stop) > rows[:, inside, None]
            attention[:, :, here] = (found * step[:, :, None]).masked_fill(behind[:, None].to(found.device), 0)
        return attention
