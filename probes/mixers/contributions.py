"""What each token's values add to a weighted sum of a mixing layer's output: arithmetic on plain tensors.

A mixing layer gives each row a sum of tokens' values, by softmax attention or by a scan. Weighing the rows' outputs (by
a gradient, for example) and adding them up gives one number, and each token's share of it is exact.
"""

import torch
from torch import Tensor

from probes.mixers.scan import Scan, row_chunk, take


def scan_contributions(scan: Scan, rows: Tensor, weights: Tensor) -> Tensor:
    """Each token's share of the weighted output of some rows of a scan.

    Args:
        scan: What the layer's scan takes.
        rows: int64 (batch, rows) on the CPU, no row twice.
        weights: fp32 (batch, heads, rows, size): what the rows' outputs, before gate and norm, are multiplied by.

    Returns:
        fp32 (batch, tokens): `sum over heads and rows of alpha_h(i, j) weights_h(i) . x_h(j)`; a row's skip connection
        counts for the row's own token. Over all tokens they make up the weighted output.
    """
    found = scan.values.new_zeros(scan.values.shape[:2], dtype=torch.float32)
    for start in range(0, rows.shape[1], row_chunk(scan.values)):
        part = rows[:, start : start + row_chunk(scan.values)]
        weight = weights[:, :, start : start + row_chunk(scan.values)]
        for block in scan.blocks(part):
            values = scan.values_between(block.start, block.stop)
            moved = (weight @ values.transpose(-1, -2)).mul_(block.attention)
            found[:, block.start : block.stop] += moved.sum((1, 2))
        own = (weight * scan.skipped(part)).sum((1, 3))
        found.scatter_add_(1, part.to(found.device), own)
    return found


def attention_contributions(attention: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Each token's share of the weighted output of some rows of a softmax attention.

    Args:
        attention: (heads, rows, tokens).
        values: (key-value heads, tokens, size); neighbouring heads share them.
        weights: (heads, rows, size): what the rows' outputs are multiplied by.

    Returns:
        (tokens,).
    """
    shared = values.repeat_interleave(len(attention) // len(values), dim=0)
    return ((weights @ shared.transpose(-1, -2)) * attention).sum((0, 1))


def image_part(scan: Scan, rows: Tensor, tokens: Tensor) -> Tensor:
    """What chosen tokens' values add to the output of some rows of a scan.

    Args:
        scan: What the layer's scan takes.
        rows: int64 (batch, rows) on the CPU.
        tokens: bool (batch, tokens): the tokens whose values count.

    Returns:
        fp32 (batch, rows, heads, size), before gate and norm, without the skip connection.
    """
    kept = tokens.to(scan.values.device)[..., None, None]
    found = take(scan.values, rows).new_zeros((), dtype=torch.float32)
    for block in scan.blocks(rows):
        inside = slice(block.start, block.stop)
        if bool(tokens[:, inside].any()):
            values = (scan.values[:, inside].float() * kept[:, inside]).transpose(1, 2)
            found = found + block.attention @ values
    shape = (*rows.shape, *scan.values.shape[2:])
    return found.transpose(1, 2) if found.dim() else scan.values.new_zeros(shape, dtype=torch.float32)
