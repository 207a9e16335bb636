"""One forward pass through a bridge: what is asked of it, what it gives, and the arithmetic on one layer's attention.

Probabilities come in as the library hands them out, and leave as sums over rows, while the layer is at work: what is
kept of a layer is row sets x columns. Knows no library. What runs inside a layer is plain functions of tensors, which
can be shipped to a server.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from einops import einsum, rearrange, reduce
from torch import Tensor, nn

from probes.attention_columns import ImageColumns, runs_of
from probes.changes import Change, Knockout, Patch
from probes.inputs import InputError
from probes.residuals import check_layers, check_tokens, residual_of


class Block(NamedTuple):
    """Rows that cannot see columns in one layer: bool (batch, tokens) each."""

    rows: Tensor
    columns: Tensor


@dataclass(frozen=True, eq=False)
class Plan:
    """What one pass is to read and to change.

    Attributes:
        sets: Bool (batch, row sets, tokens): rows whose attention is summed; None reads no attention.
        per_head: Keep heads apart.
        blocks: Per true layer index, what its rows cannot see.
        patches: Per true layer index, tokens, bool (batch, tokens), with what enters the layer in their place.
        tokens: Bool (batch, tokens): whose residual stream is read; None reads none.
        layers: True indices of the layers where it is read.
    """

    sets: Tensor | None = None
    per_head: bool = False
    blocks: Mapping[int, Sequence[Block]] = field(default_factory=dict)
    patches: Mapping[int, Sequence[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    tokens: Tensor | None = None
    layers: Sequence[int] = ()


class Pass(NamedTuple):
    """What one pass gives.

    Args:
        logits: (batch, rows kept, vocabulary).
        sums: Per layer fp32 (batch, heads or 1, row sets, columns): attention summed over rows, per head or as the
            mean over heads; empty where the plan reads none.
        residuals: Per layer (chosen tokens, hidden size).
    """

    logits: Tensor
    sums: dict[int, Tensor]
    residuals: dict[int, Tensor]


def planned(changes: Sequence[Change], layers: Sequence[int], residual_layers: Sequence[int], **rest: Any) -> Plan:
    """A plan under changes, refused where it would change nothing.

    Args:
        changes: Knock-outs and patches.
        layers: The decoder's attention layers.
        residual_layers: The decoder's layers of every kind.
        rest: Other fields of the plan.

    Raises:
        InputError: If a change names a layer that there is not, or does not fit.
    """
    blocks: dict[int, list[Block]] = {}
    patches: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for change in changes:
        if isinstance(change, Knockout):
            _check_attention_layers(change, layers)
            for layer in layers if change.layers is None else change.layers:
                blocks.setdefault(layer, []).append(block_of(change))
        else:
            _check_patch(change, residual_layers)
            for layer, values in change.residuals.items():
                patches.setdefault(layer, []).append((change.tokens, values))
    return Plan(blocks=blocks, patches=patches, **rest)


def _check_attention_layers(change: Knockout, layers: Sequence[int]) -> None:
    missing = sorted(set(change.layers or ()) - set(layers))
    if change.layers is not None and (missing or not change.layers):
        raise InputError(
            f"layers {missing or 'of a knock-out are none and'} have no attention; the attention layers are {layers}"
        )


def _check_patch(change: Patch, layers: Sequence[int]) -> None:
    check_tokens(change.tokens)
    check_layers(list(change.residuals), layers)


def check_places(changes: Sequence[Change], shape: tuple[int, int]) -> None:
    """Refuse changes for another batch than the one that runs; a mask of one row would else be spread over all.

    Args:
        changes: Knock-outs and patches.
        shape: (batch, tokens) of what runs.

    Raises:
        InputError: If a change's rows or tokens have another shape.
    """
    for change in changes:
        given = tuple((change.rows if isinstance(change, Knockout) else change.tokens).shape)
        if given != shape:
            raise InputError(
                f"a change for (batch, tokens) {given} does not fit a run of {shape}: give a mask of the encoded batch"
            )


def block_of(change: Knockout) -> Block:
    """Rows and columns of a knock-out as masks.

    Raises:
        InputError: If they do not fit one another, or nothing is hidden from any row.
    """
    rows = change.rows.cpu()
    if rows.dim() != 2 or rows.dtype != torch.bool or len(change.columns) != rows.shape[0]:
        raise InputError(
            f"knock-out rows must be a bool mask (batch, tokens) with columns per batch row, got {rows.dtype} "
            f"{tuple(rows.shape)} and {len(change.columns)} lists of columns"
        )
    columns = torch.zeros_like(rows)
    for row, entries in enumerate(change.columns):
        for start, stop in (run for entry in entries for run in runs_of(entry)):
            if stop > rows.shape[1]:
                raise InputError(f"knock-out columns of batch row {row} end at {stop}, past {rows.shape[1]} tokens")
            columns[row, start:stop] = True
    if not (rows.any(1) & columns.any(1)).any():
        raise InputError(
            "the knock-out does nothing: no batch row has both rows to blind and columns to hide from them"
        )
    return Block(rows, columns)


def hidden_by(blocks: Sequence[Block]) -> Tensor:
    """Bool (batch, 1, rows, columns): what no head may see."""
    pairs = [
        rearrange(block.rows, "batch row -> batch 1 row 1")
        & rearrange(block.columns, "batch column -> batch 1 1 column")
        for block in blocks
    ]
    return torch.stack(pairs).any(0)


def hide(scores: Tensor, hidden: Tensor) -> Tensor:
    """Logits, or an additive or bool mask, with what is hidden taken out."""
    hidden = hidden.to(scores.device)
    if scores.dtype == torch.bool:
        return scores & ~hidden
    return scores.masked_fill(hidden, torch.finfo(scores.dtype).min)


def blinded(scores: Tensor, hidden: Tensor) -> Tensor:
    """Bool scalar: whether a row that something is hidden from saw something before, and sees nothing now."""
    hidden = hidden.to(scores.device)
    visible = scores if scores.dtype == torch.bool else scores > torch.finfo(scores.dtype).min / 2
    left = (visible & ~hidden).any(-1)
    return (visible.any(-1) & ~left & hidden.any(-1)).any()


def refuse_blind(layer: int, blind: Tensor) -> None:
    """Refuse a knock-out that leaves a row blind; see `blinded`.

    Raises:
        InputError: If so.
    """
    if bool(blind):
        raise InputError(f"knock-out in layer {layer}: a row would see nothing at all; leave it a column")


def place_of_mask(module: nn.Module) -> int:
    """Place of the mask among the arguments of an attention module's forward; -1 where it is no named one."""
    names = list(inspect.signature(module.forward).parameters)
    return names.index("attention_mask") if "attention_mask" in names else -1


def with_hidden(
    args: tuple[Any, ...], named: Mapping[str, Any], place: int, hidden: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
    """The arguments of an eager attention with columns hidden in its mask, and whether that leaves a row blind.

    Args:
        args: Positional arguments of the call.
        named: Its keywords.
        place: Place of the mask, where it is among the positional ones; see `place_of_mask`.
        hidden: Bool (batch, 1, rows, columns).

    Raises:
        InputError: If the mask has another form.
    """
    positional = 0 <= place < len(args)
    mask = args[place] if positional else named.get("attention_mask")
    if mask is None:
        mask = torch.zeros_like(hidden, dtype=residual_of(args, named).dtype)
    if mask.dim() != 4 or mask.shape[2] != hidden.shape[2] or mask.shape[3] < hidden.shape[3]:
        raise InputError(
            f"an attention's mask has the form {tuple(mask.shape)}, and columns are hidden in (batch, heads, rows, "
            "columns): knock it out with probes.HookedModel"
        )
    mask = mask[..., : hidden.shape[-1]]
    new = hide(mask, hidden)
    if positional:
        return (*args[:place], new, *args[place + 1 :]), dict(named), blinded(mask, hidden)
    return args, {**named, "attention_mask": new}, blinded(mask, hidden)


def row_sums(probabilities: Tensor, sets: Tensor, per_head: bool) -> Tensor:
    """Sum attention (batch, heads, rows, columns) over row sets: fp32 (batch, heads or 1, sets, columns)."""
    sets = sets.to(probabilities.device)
    used = sets.flatten(0, 1).any(0).nonzero().flatten()
    rows = probabilities[:, :, used].float()
    sums = einsum(rows, sets[:, :, used].float(), "batch head row column, batch set row -> batch head set column")
    return sums if per_head else reduce(sums, "batch head set column -> batch 1 set column", "mean")


class BridgedReadings:
    """Attention factors and maps out of one pass's sums; the same numbers as `AttentionRecorder` gives.

    Args:
        sums: Per layer, as in `Pass`.
        names: Of the row sets.
        sets: Bool (batch, row sets, tokens).
        image_spans: As `AttentionRecorder` takes them.
        per_head: Whether heads were kept apart.
    """

    def __init__(
        self, sums: Mapping[int, Tensor], names: Sequence[str], sets: Tensor, image_spans: Sequence[Any], per_head: bool
    ) -> None:
        self.layers = list(sums)
        self._sums = {layer: values.cpu() for layer, values in sums.items()}
        self._names, self._per_head = list(names), per_head
        self._counts = sets.sum(-1).float()
        self._columns = ImageColumns(image_spans, sets.shape[0], sets.shape[-1])

    def factors(self, name: str) -> Tensor:
        """See `AttentionRecorder.factors`."""
        index = self._names.index(name)
        means = []
        for layer in self.layers:
            images = self._columns.image_sums(self._sums[layer], 0)[:, :, index]
            means.append(images / rearrange(self._counts[:, index], "batch -> batch 1 1"))
        if len({mean.shape[1] for mean in means}) > 1:
            raise InputError("layers differ in their number of heads: trace without per_head")
        factors = torch.stack(means, dim=1) / rearrange(self._columns.sizes, "batch image -> batch 1 1 image")
        return factors if self._per_head else rearrange(factors, "batch layer 1 image -> batch layer image")

    def maps(self, name: str) -> list[list[Tensor]]:
        """See `AttentionRecorder.maps`."""
        index = self._names.index(name)
        layers = [
            self._columns.cells(reduce(self._sums[layer], "batch head set column -> batch set column", "mean"), 0)
            for layer in self.layers
        ]
        return [
            self._columns.split(torch.stack([cells[row][index] for cells in layers]) / self._counts[row, index], row)
            for row in range(len(self._counts))
        ]
