"""Runs blinded rows of an attention call again, without the columns that they must not see.

Knows one call and its blocks; who asks for them, and why, is `probes.knockout`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from probes.attention_calls import AttentionCall, Place, seen
from probes.attention_rows import RowMask, by_row, pad_rows, take_rows
from probes.inputs import InputError

MASK_BYTES = 2**24
"""Largest mask of blinded rows that is held at once."""


def blocked(function: Callable[..., Any], call: AttentionCall, output: Any) -> Any:
    """Run the blinded rows again and put them into the layer's output.

    Raises:
        InputError: If a row would see nothing.
        UnsupportedAttention: If the implementation takes no mask by row.
    """
    if call.implementation not in ("eager", "sdpa"):
        raise call.refuse(
            f"{call.implementation!r} takes no mask by row", 'set_attn_implementation("sdpa") before a knock-out'
        )
    chosen = torch.stack([block.rows for block in call.blocks]).any(0)
    rows, valid = pad_rows(chosen)
    mask = RowMask(call, Place(0, 0))
    chunk = max(1, MASK_BYTES // (4 * call.query.shape[0] * call.key.shape[2]))
    states, weights = output
    for start in range(0, rows.shape[1], chunk):
        part, use = rows[:, start : start + chunk], valid[:, start : start + chunk]
        before = mask.rows(part)
        after = mask.block(part, before)
        assert after is not None
        sighted = use if before is None else use & seen(before).any(-1).any(1)
        if bool((sighted & ~seen(after).any(-1).all(1)).any()):
            raise InputError(f"knock-out in layer {call.layer}: a row would see nothing at all; leave it a column")
        keywords = {**call.keywords, **_terms(call, part)}
        again, again_weights = function(
            call.module, take_rows(call.query, part), call.key, call.value, _as_mask(call, after), **keywords
        )
        batch, index = sighted.nonzero(as_tuple=True)
        states = states.index_put((batch, part[batch, index]), again[batch, index])
        if weights is not None:
            weights = weights.transpose(1, 2).index_put(
                (batch, part[batch, index]), again_weights.transpose(1, 2)[batch, index]
            )
            weights = weights.transpose(1, 2)
    return states, weights


def _terms(call: AttentionCall, rows: Tensor) -> dict[str, Tensor]:
    """The keywords that hold something for every query row, for some rows, as the implementation takes them."""
    widths = {"position_bias": call.key.shape[2], "sinks": 1}
    found = {name: by_row(call, name, rows, width) for name, width in widths.items()}
    return {name: values.to(call.query.dtype) for name, values in found.items() if values is not None}


def _as_mask(call: AttentionCall, mask: Tensor) -> Tensor:
    """A row mask in the form that the implementation adds or applies."""
    least = torch.finfo(call.query.dtype).min
    if mask.dtype != torch.bool:
        return mask.clamp_min(least).to(call.query.dtype)
    if call.implementation == "sdpa":
        return mask
    return torch.zeros_like(mask, dtype=call.query.dtype).masked_fill(~mask, least)
