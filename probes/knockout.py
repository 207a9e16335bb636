"""Blinds chosen rows of a decoder to chosen columns, in chosen layers.

Knows rows and columns of tokens, and nothing of images or answers.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from probes.attention_calls import AttentionCall, Block, Places
from probes.attention_columns import runs_of
from probes.attention_rows import rows_between
from probes.decoder import attention_modules
from probes.inputs import InputError
from probes.interface import ModuleListener, listen, require_called, unlisten


def hidden_runs(rows: Tensor, columns: Sequence[Sequence[Any]]) -> list[list[tuple[int, int]]]:
    """Per batch row the (start, stop) runs of tokens that a knock-out hides.

    Args:
        rows: Bool (batch, tokens): rows that are blinded.
        columns: Per batch row (start, stop) columns; entries may also be spans with `.runs`.

    Raises:
        InputError: If rows are no such mask, or columns are of another batch.
    """
    if rows.dim() != 2 or rows.dtype != torch.bool or len(columns) != rows.shape[0]:
        raise InputError(
            f"knock-out rows must be a bool mask (batch, tokens) with columns per batch row, got {rows.dtype} "
            f"{tuple(rows.shape)} and {len(columns)} lists of columns"
        )
    return [[run for entry in entries for run in runs_of(entry)] for entries in columns]


class AttentionKnockout(ModuleListener):
    """While it is entered, chosen rows of the decoder cannot see chosen columns in chosen layers.

    The layer runs as ever; the chosen rows are then run again by the layer's own implementation, with the mask that
    they had plus the knock-out, and put in place of the first ones. So a call without a mask needs none for its other
    rows: what is built is rows x keys (in chunks), not tokens x tokens. Renormalised over what is left to see, as with
    a 4-D mask made by hand. Nests: knock-outs add up, and a recorder hears the attention that is left.

    Args:
        model: A transformers model, or its decoder.
        rows: Bool (batch, tokens): rows of the prompt, padding included, that are blinded.
        columns: Per batch row the (start, stop) columns of the prompt they cannot see; entries may also be spans with
            `.runs`. A batch row may have none, as long as another has some.
        layers: True indices of the layers concerned; None is every attention layer.
        generated: Whether rows past `tokens` (decode steps) are blinded too.

    Raises:
        InputError: For layers that the decoder lacks, columns that do not fit, or a row that would see nothing; for a
            knock-out without layers, rows or columns; on leaving, if the model ran and nothing was hidden from a row.
        UnsupportedAttention: On leaving, if a chosen layer never went through the interface; at the call, if its
            implementation takes no mask by row (flash and flex attention: load with sdpa).
    """

    def __init__(
        self,
        model: nn.Module,
        rows: Tensor,
        columns: Sequence[Sequence[Any]],
        layers: Collection[int] | None = None,
        generated: bool = False,
    ) -> None:
        modules = attention_modules(model)
        if layers is not None and not layers:
            raise InputError("a knock-out without layers does nothing: name layers, or None for every attention layer")
        missing = sorted(set(layers or ()) - set(modules))
        if missing:
            raise InputError(
                f"layers {missing} have no attention; the decoder's attention layers are {list(modules)}; other kinds "
                "are knocked out by mixer_knockout_effects and expert_knockout_effects"
            )
        self._columns = hidden_runs(rows, columns)
        self._modules = {layer: module for layer, module in modules.items() if layers is None or layer in layers}
        super().__init__(self._modules.values())
        self._rows = rows.cpu()
        self._generated = torch.full((rows.shape[0],), generated)
        self._check()
        self._places = Places()
        self._acted = False

    def _check(self) -> None:
        """Refuse what could hide nothing."""
        tokens = self._rows.shape[1]
        for index, runs in enumerate(self._columns):
            last = max((stop for _, stop in runs), default=0)
            if last > tokens:
                raise InputError(
                    f"knock-out columns of batch row {index} end at {last}, past the prompt's {tokens} tokens"
                )
        blinded = self._rows.any(1) | self._generated
        if not any(bool(row) and runs for row, runs in zip(blinded, self._columns, strict=True)):
            raise InputError(
                "the knock-out does nothing: no batch row has both rows to blind and columns to hide from them; choose "
                "rows, or generated=True, and columns"
            )

    def __enter__(self) -> Self:
        self._places = Places()
        self._acted = False
        listen(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        unlisten(self)
        if kind is None:
            require_called(self._modules, self._places)
            passed = max(self._places.seen.values())
            # An answer that ended at once leaves a knock-out of generated rows nothing to act on.
            if not self._acted and not (bool(self._generated.any()) and passed <= self._rows.shape[1]):
                raise InputError(
                    f"the knock-out did nothing: {passed} rows went by, and none of those to be blinded was among "
                    "them; give rows of this prompt"
                )

    def change(self, call: AttentionCall) -> AttentionCall:
        """Add this knock-out's rows and columns to the call."""
        if call.is_cross:
            raise call.refuse(
                "its columns are image features and no tokens of the prompt, so none can be hidden by token",
                "leave cross-attention layers out of `layers`, or blank the image",
            )
        place = self._places.place(call)
        if call.query.shape[0] != self._rows.shape[0]:
            raise InputError(
                f"the knock-out is for {self._rows.shape[0]} sequences, the model runs {call.query.shape[0]}: "
                "give rows and columns per sequence, and generate without beams"
            )
        rows = rows_between(self._rows, place.row, call.query.shape[2], self._generated)
        if not rows.any():
            return call
        keys = call.key.shape[2]
        columns = torch.zeros(rows.shape[0], keys, dtype=torch.bool)
        for index, runs in enumerate(self._columns):
            for start, stop in runs:
                columns[index, max(0, start - place.column) : max(0, stop - place.column)] = True
        if not (rows.any(1) & columns.any(1)).any():
            return call
        self._acted = True
        device = call.query.device
        return replace(call, blocks=(*call.blocks, Block(rows.to(device), columns.to(device))))
