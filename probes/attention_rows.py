"""Softmax rows of one attention call, for chosen rows only, summed over rows and heads while they are made.

Memory is rows of a chunk x keys, never queries x keys. Knows nothing of images, recorders or model families.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from probes.attention_calls import AttentionCall, Place, seen

CHUNK_BYTES = {"cpu": 2**23}
"""Logits held at once by kind of device; smaller chunks are no faster, and make more threads wait for one another."""
CHUNK_BYTES_ELSEWHERE = 2**26
HIDDEN = torch.finfo(torch.float32).min
"""Added to the logit of a column that a row does not see: its exponential is exactly 0 beside any that is seen."""
KEY_CHUNK = 1024
"""Keys turned to fp32 at once when a model runs in half precision."""


class Masses(NamedTuple):
    """Attention summed over rows.

    Args:
        columns: fp32 (batch, heads or 1, row sets, keys): per row set the sum over its rows, per head, or the mean
            over heads.
        counts: fp32 (batch, row sets): rows that were counted.
    """

    columns: Tensor
    counts: Tensor


def column_masses(
    call: AttentionCall,
    place: Place,
    rows: Tensor,
    weights: Tensor,
    per_head: bool = False,
    row_chunk: int | None = None,
    tokens: Tensor | None = None,
) -> Masses:
    """Sum the softmax rows of a call over each row set.

    Args:
        call: The call.
        place: Where it stands in the sequence.
        rows: int64 (batch, rows): indices of query rows within the call. Shorter lists are filled up with any row.
        weights: fp32 (batch, row sets, rows): 1 where a row belongs to the set; 0 on fillers.
        per_head: Keep heads apart instead of taking their mean.
        row_chunk: Rows at a time; None fits the chunk to the device.
        tokens: bool (batch, queries): which of the call's rows are no padding; None leaves that to its mask.

    Returns:
        Masses, in fp32. Rows of padding, and rows that see nothing, are not counted.

    Raises:
        UnsupportedAttention: If the call's mask or sinks have a form that is not known.
    """
    batch, heads, _, _ = call.query.shape
    keys = call.key.shape[2]
    chunk = row_chunk or _fitting_chunk(call)
    mask = RowMask(call, place)
    total = call.query.new_zeros((batch, heads if per_head else 1, weights.shape[1], keys), dtype=torch.float32)
    counts = total.new_zeros((batch, weights.shape[1]))
    for start in range(0, rows.shape[1], chunk):
        part = rows[:, start : start + chunk]
        share = weights[:, :, start : start + chunk]
        bias = mask.rows(part)
        real = mask.real(part, bias, tokens)
        if real is not None:
            share = share * real[:, None, :]
        counts = counts + share.sum(-1)
        probabilities, norms = _softmax(call, part, mask.block(part, bias), mask.hidden_from(part))
        scaled = share[:, None].expand(-1, heads, -1, -1) if norms is None else share[:, None] / norms[:, :, None]
        if per_head:
            total += scaled @ probabilities
        else:
            flat = scaled.permute(0, 2, 1, 3).reshape(batch, weights.shape[1], -1)
            total[:, 0].baddbmm_(flat, probabilities.view(batch, -1, keys), alpha=1 / heads)
    return Masses(total, counts)


def _fitting_chunk(call: AttentionCall) -> int:
    batch, heads, _, _ = call.query.shape
    budget = CHUNK_BYTES.get(call.query.device.type, CHUNK_BYTES_ELSEWHERE)
    return max(1, budget // (4 * batch * heads * call.key.shape[2]))


def _softmax(
    call: AttentionCall, rows: Tensor, bias: Tensor | None, hidden_from: int = 0
) -> tuple[Tensor, Tensor | None]:
    """Softmax of some rows (batch, heads, rows, keys), and what to divide it by (batch, heads, rows) if anything.

    Rows that see nothing are finite, and not to be counted. No column before `hidden_from` is hidden from any of them.
    """
    logits = _logits(call, rows)
    softcap = call.keywords.get("softcap")
    if softcap is not None:
        logits.div_(softcap).tanh_().mul_(softcap)
    position_bias = by_row(call, "position_bias", rows, call.key.shape[2])
    if position_bias is not None:
        logits.add_(position_bias)
    if bias is not None:
        bias = bias[..., hidden_from:]
        # Adding is several times faster than filling: the mask is made once for all heads.
        if bias.dtype == torch.bool:
            bias = torch.zeros(bias.shape, device=bias.device).masked_fill_(~bias, HIDDEN)
        logits[..., hidden_from:].add_(bias)
    sinks = _sinks(call, rows)
    if sinks is None:
        probabilities = logits.softmax(-1)
        norms = None
    else:
        peak = torch.maximum(logits.amax(-1, keepdim=True), sinks)
        probabilities = logits.sub_(peak).exp_()
        norms = probabilities.sum(-1) + (sinks - peak).exp().squeeze(-1)
    return probabilities, norms


def _logits(call: AttentionCall, rows: Tensor) -> Tensor:
    batch, heads, _, size = call.query.shape
    groups, keys = call.key.shape[1:3]
    # Not in place: a single row is the model's own tensor, and others hear the call too.
    queries = take_rows(call.query, rows).float() * call.scaling
    queries = queries.reshape(batch, groups, -1, size)
    if call.key.dtype == torch.float32:
        logits = queries @ call.key.transpose(-1, -2)
    else:
        logits = queries.new_empty((*queries.shape[:-1], keys))
        for start in range(0, keys, KEY_CHUNK):
            part = call.key[:, :, start : start + KEY_CHUNK].float()
            logits[..., start : start + KEY_CHUNK] = queries @ part.transpose(-1, -2)
    return logits.view(batch, heads, rows.shape[1], keys)


def by_row(call: AttentionCall, name: str, rows: Tensor, width: int) -> Tensor | None:
    """Some rows of a keyword that holds (batch, heads, queries, width), in fp32; None where it is not given."""
    values = call.keywords.get(name)
    if values is None:
        return None
    batch, heads, queries, _ = call.query.shape
    if values.dim() != 4 or values.shape[0] not in (1, batch) or values.shape[1:] != (heads, queries, width):
        raise call.refuse(f"its {name} has shape {tuple(values.shape)}, not one per head and row", "report the model")
    return take_rows(values.expand(batch, -1, -1, -1), rows).float()


def _sinks(call: AttentionCall, rows: Tensor) -> Tensor | None:
    """A sink's logit: one for each head, or one for each head and row."""
    sinks = call.keywords.get("s_aux")
    if sinks is None:
        return by_row(call, "sinks", rows, 1)
    if sinks.numel() != call.query.shape[1]:
        raise call.refuse(f"its sinks have shape {tuple(sinks.shape)}, not one per head", "report the model")
    return torch.as_tensor(sinks.detach().float().view(1, -1, 1, 1))


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Pick rows per batch row: (batch, heads, queries, size) at int64 (batch, rows) -> (batch, heads, rows, size)."""
    if values.shape[2] == rows.shape[1] == 1:
        return values  # A decode step: the one row there is.
    index = rows[:, None, :, None].expand(-1, values.shape[1], -1, values.shape[-1])
    return values.gather(2, index)


class RowMask:
    """What chosen rows of one call see, whatever form the call's mask has.

    Masks seen at the call: None (causality then comes from `is_causal`), bool or additive (batch, heads, queries,
    keys), a flex BlockMask, and flash attention's (batch, keys) beside a sliding window.
    """

    def __init__(self, call: AttentionCall, place: Place) -> None:
        self._call = call
        self._place = place
        mask, keys = call.mask, call.key.shape[2]
        if isinstance(mask, Tensor):
            fits = mask.dim() == 2 or (
                mask.dim() == 4 and mask.shape[3] >= keys and mask.shape[2] == call.query.shape[2]
            )
            if not fits:
                raise call.refuse(
                    f"its mask has shape {tuple(mask.shape)}",
                    "masks are (batch, heads, queries, keys) or (batch, keys)",
                )
        elif mask is not None and not hasattr(mask, "mask_mod"):
            raise call.refuse(f"its mask is a {type(mask).__name__}", 'load with attn_implementation="sdpa"')

    def rows(self, rows: Tensor) -> Tensor | None:
        """Bool (True is visible) or additive mask of some rows, (batch, heads or 1, rows, keys); None hides nothing."""
        call, mask, keys = self._call, self._call.mask, self._call.key.shape[2]
        if mask is None or (isinstance(mask, Tensor) and mask.dim() == 2):
            return self._implicit(rows)
        if isinstance(mask, Tensor):
            batch = torch.arange(rows.shape[0], device=mask.device)[:, None]
            full = mask.expand(rows.shape[0], -1, -1, -1)[..., :keys]
            picked = full.transpose(1, 2)[batch, rows].transpose(1, 2)
            visible = seen(picked)
            # The least value of a half type is an ordinary number in fp32, so what is hidden gets a mark of its own.
            return picked.float().masked_fill_(~visible, HIDDEN) if picked.is_floating_point() else visible
        return self._block_mask(call.mask, rows, torch.arange(keys, device=rows.device)[None, None, None])

    def real(self, rows: Tensor, bias: Tensor | None, tokens: Tensor | None = None) -> Tensor | None:
        """Bool (batch, rows): which rows are tokens and not padding, and see something; None means all.

        Unless it is known which are `tokens`, a row is padding when it sees nothing, or when its own column is hidden
        from it and from every other row; of cross-attention, whose columns are no tokens, only the former can be said.
        """
        mask = self._call.mask
        known = None if tokens is None else tokens.to(rows.device).gather(1, rows)
        if mask is None or bias is None:
            return known
        visible = seen(bias)
        real = visible.any(-1).any(1)
        if known is not None:
            return real & known
        if self._call.is_cross:
            return real
        own = (rows + (self._place.row - self._place.column)).clamp(0, bias.shape[-1] - 1)
        if isinstance(mask, Tensor) and mask.dim() == 2:
            return real & (mask != 0)[:, -bias.shape[-1] :].gather(1, own.clamp_max(mask.shape[1] - 1))
        sees_itself = visible.gather(-1, own[:, None, :, None].expand(-1, visible.shape[1], -1, 1)).any(1).squeeze(-1)
        doubtful = (real & ~sees_itself).nonzero(as_tuple=True)
        if doubtful[0].numel():
            if getattr(self._call.module, "indexer", None) is not None:
                raise self._call.refuse(
                    "which rows are padding cannot be told from the columns that it chose",
                    "pass the model an attention_mask (batch, tokens)",
                )
            real[doubtful] = self._column_seen(doubtful[0], own[doubtful])
        return real

    def block(self, rows: Tensor, bias: Tensor | None) -> Tensor | None:
        """The mask of some rows with the call's knock-outs on top."""
        for block in self._call.blocks:
            hidden = block.rows.gather(1, rows)[:, None, :, None] & block.columns[:, None, None, :]
            if bias is None:
                bias = ~hidden
            else:
                bias = bias & ~hidden if bias.dtype == torch.bool else bias.masked_fill(hidden, HIDDEN)
        return bias

    def hidden_from(self, rows: Tensor) -> int:
        """A column before which nothing is hidden from these rows; 0 unless causality alone hides, on a CPU.

        Elsewhere the host would wait for the device to know it.
        """
        call = self._call
        plain = call.mask is None and not call.blocks and call.keywords.get("sliding_window") is None
        if not plain or rows.device.type != "cpu" or not rows.numel():
            return 0
        return max(0, int(rows.min()) + self._place.row - self._place.column)

    def _implicit(self, rows: Tensor) -> Tensor | None:
        call, place, keys = self._call, self._place, self._call.key.shape[2]
        flash = "flash" in call.implementation
        window = call.keywords.get("sliding_window") if flash else None
        # Eager attention adds the mask it is given and nothing else; a single row without a mask sees every key.
        causal = call.is_causal and call.implementation != "eager" and call.query.shape[2] > 1
        if flash and call.mask is None:
            self._refuse_packing()
        if not causal and call.mask is None and window is None:
            return None
        columns = torch.arange(keys, device=rows.device)[None, None, None] + place.column
        positions = rows[:, None, :, None] + place.row
        visible = columns <= positions if causal else torch.ones_like(columns <= positions)
        if window is not None:
            visible = visible & (columns > positions - window)
        if call.mask is not None:
            tokens = torch.zeros((rows.shape[0], keys), dtype=torch.bool, device=rows.device)
            tokens[:, : call.mask.shape[1]] = (call.mask != 0)[:, -keys:]
            visible = visible & tokens[:, None, None, :]
        return visible

    def _refuse_packing(self) -> None:
        positions = self._call.keywords.get("position_ids")
        if isinstance(positions, Tensor) and positions.dim() == 2 and bool((positions.diff(dim=-1) < 0).any()):
            raise self._call.refuse("several sequences are packed into one row", "pass one sequence per batch row")

    def _block_mask(self, mask: Any, rows: Tensor, columns: Tensor) -> Tensor:
        batch = torch.arange(rows.shape[0], device=rows.device)[:, None, None, None]
        head = torch.zeros((), dtype=torch.long, device=rows.device)
        visible: Tensor = mask.mask_mod(batch, head, rows[:, None, :, None], columns)
        return visible.expand(rows.shape[0], 1, rows.shape[1], columns.shape[-1])

    def _column_seen(self, batch: Tensor, columns: Tensor) -> Tensor:
        """Whether any row of the call sees these columns, int64 (pairs,) each."""
        mask, queries = self._call.mask, self._call.query.shape[2]
        if isinstance(mask, Tensor):
            full = mask.expand(self._call.query.shape[0], -1, -1, -1)
            return seen(full.permute(0, 3, 1, 2)[batch, columns]).flatten(1).any(-1)
        everyone = torch.arange(queries, device=columns.device)
        head = torch.zeros((), dtype=torch.long, device=columns.device)
        visible: Tensor = mask.mask_mod(batch[:, None], head, everyone[None], columns[:, None])
        return visible.expand(len(batch), queries).any(-1)


def rows_between(rows: Tensor, first: int, count: int, generated: Tensor) -> Tensor:
    """The mask of `count` rows from `first` on, with `generated` past the mask's end.

    >>> rows = torch.tensor([[True, False]])
    >>> rows_between(rows, 1, 2, torch.tensor([True])).tolist()
    [[False, True]]
    """
    inside = rows[:, first : first + count]
    beyond = generated[:, None].expand(-1, count - inside.shape[1])
    return torch.cat([inside, beyond], dim=1)


def pad_rows(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the chosen rows, int64 (batch, most rows of any), filled with 0, and bool: which are no fillers.

    >>> pad_rows(torch.tensor([[True, False, True], [False, True, False]]))[0].tolist()
    [[0, 2], [1, 0]]
    """
    counts = chosen.sum(1)
    widest = int(counts.max()) if counts.numel() else 0
    indices = chosen.int().argsort(dim=1, descending=True, stable=True)[:, :widest]
    valid = torch.arange(widest, device=chosen.device)[None] < counts[:, None]
    return indices * valid, valid
