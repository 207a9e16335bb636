"""Hidden attention of Mamba-2: state space duality, one decay for each head.

Source: the dual form of Mamba-2 (Dao and Gu 2024), `alpha_h(i, j) = (C_i . B_j) exp(S_i - S_j) dt_j` for `j <= i`, with
`S` the running sum of `dt A`. Plain tensors in and out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from probes.mixers.scan import Block, Decay, Scan, block_width, spans, take


@dataclass(frozen=True, eq=False, kw_only=True)
class DualScan(Scan):
    """What Mamba-2's scan takes. Head h shares B and C of group `h // (heads / groups)`.

    Args:
        queries: (batch, tokens, groups, state): C.
        keys: (batch, tokens, groups, state): B.
        step: (batch, tokens, heads): dt, after its softplus and limits.
        log_decay: (batch, tokens, heads): dt A, not positive.
    """

    queries: Tensor
    keys: Tensor
    step: Tensor
    log_decay: Tensor

    def blocks(self, rows: Tensor, width: int | None = None) -> Iterator[Block]:
        """See `Scan.blocks`."""
        decay = Decay(self.log_decay, rows)
        queries = take(self.queries, rows).float().transpose(1, 2)
        groups = queries.shape[1]
        for start, stop in spans(rows, width or block_width(self.values, rows)):
            keys = self.keys[:, start:stop].float().permute(0, 2, 3, 1)
            step = self.step[:, start:stop].float().transpose(1, 2)
            scale = decay.within(start, stop) * step[:, :, None]
            scale = scale.reshape(len(rows), groups, -1, *scale.shape[2:])
            after = decay.beyond(stop).reshape(len(rows), groups, -1, rows.shape[1], 1)
            yield Block(start, ((queries @ keys)[:, :, None] * after).mul_(scale).flatten(1, 2))
