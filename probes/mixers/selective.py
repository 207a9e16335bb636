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

WIDEST_BLOCK = 32
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
        at_rows, queries = times.gather(2, index), take(self.queries, rows).float()[:, None]
        rates = self.rates.float()
        # Rows behind a block carry what is left of their queries at its last token, (batch, channels, rows, state).
        left = queries.expand(-1, self.heads, -1, -1).clone()
        begun, end = torch.zeros(rows.shape[1], dtype=torch.bool), times[:, :, :1]
        for start, stop in spans(rows, width or min(WIDEST_BLOCK, block_width(self.values, rows))):
            inside = (rows < stop - 1).any(0)
            last = times[:, :, stop - 1 : stop]
            if bool(begun.any()):
                left *= ((end - last).float()[..., None] * rates[:, None]).exp()
            new = (~inside & ~begun).nonzero().flatten().to(left.device)
            gaps = (at_rows[:, :, new] - last).float()
            left[:, :, new] = (gaps[..., None] * rates[:, None]).exp() * queries[:, :, new]
            begun, end = ~inside, last
            yield Block(start, self._block(rows, queries, at_rows, times[:, :, start:stop], left, start))

    def _block(self, rows: Tensor, queries: Tensor, at_rows: Tensor, times: Tensor, left: Tensor, start: int) -> Tensor:
        stop = start + times.shape[2]
        keys, step = self.keys[:, start:stop].float(), self.step[:, start:stop].float().transpose(1, 2)
        rates = self.rates.float()
        to_end = ((times[:, :, -1:] - times).float()[:, :, None] * rates[:, :, None]).exp_()
        attention = left @ to_end.mul_(keys.transpose(1, 2)[:, None]).mul_(step[:, :, None])
        inside = (rows < stop - 1).any(0).nonzero().flatten()
        if inside.numel():
            here = inside.to(attention.device)
            gaps = (at_rows[:, :, here, None] - times[:, :, None]).clamp(min=0).float()
            found = torch.zeros_like(gaps)
            for state in range(rates.shape[1]):
                match = queries[:, :, here, None, state] * keys[:, None, None, :, state]
                found += (gaps * rates[:, state, None, None]).exp_().mul_(match)
            behind = torch.arange(start, stop) > rows[:, inside, None]
            attention[:, :, here] = (found * step[:, :, None]).masked_fill(behind[:, None].to(found.device), 0)
        return attention
