"""Hidden attention of gated delta nets: each token first takes back what the state held under its key.

Source: gated delta rule (Yang et al. 2024), state `S_t = exp(g_t) (I - beta_t k_t k_t') S_(t-1) + beta_t k_t v_t'` and
output `S_i' q_i`. Following a row's query backwards, with `w = q_i` at first, token t has `alpha(i, t) = beta_t k_t .
w`, and leaves `exp(g_t) (w - alpha(i, t) k_t)` for those before it. Within a block the weights depend on one another
and are solved as one triangular system, as the chunked form of the rule does for all rows; this backward form for
chosen rows is our own derivation (a reconstruction). Plain tensors in and out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.mixers.scan import Block, Decay, Scan, block_width, spans, take

WIDEST_BLOCK = 64
"""Tokens of a block at most: a triangular system is solved for each."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DeltaScan(Scan):
    """What the gated delta rule takes.

    Args:
        queries: (batch, tokens, heads, key size): normalised and scaled.
        keys: (batch, tokens, heads, key size): normalised.
        strength: (batch, tokens, heads): beta.
        log_decay: (batch, tokens, heads): g, not positive.
    """

    queries: Tensor
    keys: Tensor
    strength: Tensor
    log_decay: Tensor

    def blocks(self, rows: Tensor, width: int | None = None) -> Iterator[Block]:
        """See `Scan.blocks`."""
        decay = Decay(self.log_decay, rows)
        left = take(self.queries, rows).float().transpose(1, 2)
        for start, stop in spans(rows, width or min(WIDEST_BLOCK, block_width(self.values, rows))):
            keys = self.keys[:, start:stop].float().transpose(1, 2)
            attention = self._solved(decay, left, keys, start)
            # Before the block is given away: who takes it may change it in place.
            left = _before(decay, left, keys, attention, start)
            yield Block(start, attention)

    def _solved(self, decay: Decay, left: Tensor, keys: Tensor, start: int) -> Tensor:
        stop = start + keys.shape[2]
        strength = self.strength[:, start:stop].float().transpose(1, 2)
        sums = decay.sums[:, :, start:stop]
        # Entry [t, s]: how much of what token s took is missing at the earlier token t.
        gaps = (sums[:, :, None] - sums[..., None]).clamp(max=0).exp().float()
        system = ((keys @ keys.transpose(-1, -2)) * gaps * strength[..., None]).triu(1)
        seen = (left @ keys.transpose(-1, -2)) * decay.within(start, stop) * strength[:, :, None]
        solved: Tensor = torch.linalg.solve_triangular(system, seen.transpose(-1, -2), upper=True, unitriangular=True)
        return solved.transpose(-1, -2)


def _before(decay: Decay, left: Tensor, keys: Tensor, attention: Tensor, start: int) -> Tensor:
    """What is left of the rows' queries once a block is passed; rows before it have not begun."""
    if not start:
        return left
    stop, edge = start + keys.shape[2], decay.sums[:, :, start - 1 : start]
    taken = attention * (decay.sums[:, :, start:stop] - edge).exp().float()[:, :, None]
    begun = decay.at(decay.rows.clamp(min=start - 1, max=stop - 1))
    return left * (begun - edge).exp().float()[..., None] - taken @ keys
