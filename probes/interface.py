"""The wrap of transformers' attention interface that recorders and knock-outs share, and the knock-out itself.

Every layer keeps its own implementation: for as long as someone listens, what `AttentionInterface.get_interface` hands
out is wrapped, process-wide and under a lock, and the wrap passes every call on unchanged unless its module is listened
to by the thread that makes the call. Knows nothing of images.
"""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from transformers.modeling_utils import AttentionInterface

from probes.attention_calls import AttentionCall, Block, Place, Places, UnsupportedAttention, refusal, seen
from probes.attention_columns import runs_of
from probes.attention_rows import RowMask, take_rows
from probes.decoder import attention_modules
from probes.inputs import InputError

__all__ = ["AttentionCall", "AttentionKnockout", "Listener", "UnsupportedAttention", "listen", "unlisten"]

MASK_BYTES = 2**24
"""Largest mask of knocked-out rows that is held at once."""


class Listener(Protocol):
    """Whoever changes or hears the attention calls of some modules."""

    def watches(self, module: nn.Module) -> bool:
        """Whether calls of this module concern the listener."""

    def change(self, call: AttentionCall) -> AttentionCall:
        """The call as it should be made; only `blocks` may differ."""

    def hear(self, call: AttentionCall) -> None:
        """Take note of the call as it was made, every listener's change included."""


_lock = threading.RLock()
_listeners: tuple[tuple[int, Listener], ...] = ()
_original: Callable[..., Any] | None = None


def listen(listener: Listener) -> None:
    """Let a listener take part in the attention calls of this thread, until `unlisten`."""
    global _listeners, _original
    with _lock:
        if not _listeners:
            _original = AttentionInterface.get_interface
            AttentionInterface.get_interface = _wrapping(_original)
        _listeners = (*_listeners, (threading.get_ident(), listener))


def unlisten(listener: Listener) -> None:
    """Take a listener out again; the last one puts transformers' own function back."""
    global _listeners, _original
    with _lock:
        _listeners = tuple(entry for entry in _listeners if entry[1] is not listener)
        if not _listeners and _original is not None:
            # Someone else may have wrapped ours meanwhile; theirs then stays, and ours passes calls on.
            if getattr(AttentionInterface.get_interface, "_listens", False):
                AttentionInterface.get_interface = _original
            _original = None


def _wrapping(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_interface(self: Any, attn_implementation: str, default: Callable[..., Any]) -> Callable[..., Any]:
        function = original(self, attn_implementation, default)
        if not _listeners or getattr(function, "_listens", False):
            return function  # type: ignore[no-any-return]
        return _listened(function, attn_implementation)

    get_interface._listens = True  # type: ignore[attr-defined]
    return get_interface


def _listened(function: Callable[..., Any], implementation: str) -> Callable[..., Any]:
    def attention(*args: Any, **kwargs: Any) -> Any:
        module: Any = args[0] if args else kwargs.get("module")
        thread = threading.get_ident()
        active = [who for where, who in _listeners if where == thread and who.watches(module)]
        if not active:
            return function(*args, **kwargs)
        call = _as_call(implementation, *args, **kwargs)
        call.check()
        for listener in active:
            call = listener.change(call)
        output = function(*args, **kwargs)
        if call.blocks:
            output = _blocked(function, call, output)
        for listener in active:
            listener.hear(call)
        return output

    attention._listens = True  # type: ignore[attr-defined]
    return attention


def _as_call(
    implementation: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **keywords: Any,
) -> AttentionCall:
    keywords |= {"dropout": dropout, "scaling": scaling}
    return AttentionCall(module, str(implementation), query, key, value, attention_mask, keywords)


class AttentionKnockout:
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
            raise InputError(f"layers {missing} have no attention; the decoder's attention layers are {list(modules)}")
        if rows.dim() != 2 or rows.dtype != torch.bool or len(columns) != rows.shape[0]:
            raise InputError(
                f"knock-out rows must be a bool mask (batch, tokens) with columns per batch row, got {rows.dtype} "
                f"{tuple(rows.shape)} and {len(columns)} lists of columns"
            )
        self._modules = {layer: module for layer, module in modules.items() if layers is None or layer in layers}
        self._ids = {id(module) for module in self._modules.values()}
        self._rows = rows.cpu()
        self._columns = [[run for entry in entries for run in runs_of(entry)] for entries in columns]
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

    def watches(self, module: nn.Module) -> bool:
        """Whether this is one of the chosen layers."""
        return id(module) in self._ids

    def change(self, call: AttentionCall) -> AttentionCall:
        """Add this knock-out's rows and columns to the call."""
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

    def hear(self, call: AttentionCall) -> None:
        """Nothing to note."""


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


def require_called(modules: dict[int, nn.Module], places: Places, rows: int = 1) -> None:
    """Refuse layers that did not attend from as many rows as they had to.

    Raises:
        UnsupportedAttention: For the first such layer.
    """
    out_of_reach = (
        "compiled and hand-written attentions are out of reach: use a model of another family, uncompiled, with "
        'attn_implementation="sdpa"'
    )
    for layer, module in modules.items():
        count = places.seen.get(layer, 0)
        if not places.seen:
            raise refusal(
                module,
                layer,
                "neither it nor another layer called transformers' attention interface in this thread",
                f"call the model inside the block; {out_of_reach}",
            )
        if not count:
            raise refusal(module, layer, "it never called transformers' attention interface", out_of_reach)
        if count < rows:
            raise refusal(
                module,
                layer,
                f"it attended from {count} of the {rows} rows asked for",
                "run the prompt in a forward of its own, without logits_to_keep",
            )


def _blocked(function: Callable[..., Any], call: AttentionCall, output: Any) -> Any:
    """Run the knocked-out rows again and put them into the layer's output."""
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
        again, again_weights = function(
            call.module, take_rows(call.query, part), call.key, call.value, _as_mask(call, after), **call.keywords
        )
        batch, index = sighted.nonzero(as_tuple=True)
        states = states.index_put((batch, part[batch, index]), again[batch, index])
        if weights is not None:
            weights = weights.transpose(1, 2).index_put(
                (batch, part[batch, index]), again_weights.transpose(1, 2)[batch, index]
            )
            weights = weights.transpose(1, 2)
    return states, weights


def _as_mask(call: AttentionCall, mask: Tensor) -> Tensor:
    """A row mask in the form that the implementation adds or applies."""
    least = torch.finfo(call.query.dtype).min
    if mask.dtype != torch.bool:
        return mask.clamp_min(least).to(call.query.dtype)
    if call.implementation == "sdpa":
        return mask
    return torch.zeros_like(mask, dtype=call.query.dtype).masked_fill(~mask, least)
