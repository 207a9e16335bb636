"""The recorder: hears a decoder's attention calls and sums chosen rows over each image's columns.

It knows rows, columns and layers; nothing of forwards, processors, families or questions.
"""

import sys
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from probes.attention_calls import AttentionCall, Place, Places, UnsupportedAttention, called_afresh, refusal
from probes.attention_columns import ImageColumns
from probes.attention_rows import column_masses, pad_rows, rows_between
from probes.beams import BeamRefusal
from probes.cross_attention import is_cross_attention
from probes.decode_steps import DecodeSteps
from probes.decoder import attention_modules, find_decoder
from probes.inputs import InputError
from probes.interface import ModuleListener, listen, require_called, unlisten
from probes.padding import PaddingWatch

_NO_CROSS_SPANS = (
    "it attends to image features, or an encoder's output, by cross-attention: no tokens of the prompt",
    "give cross_spans, the columns of each image among these features",
)


class _Chosen(NamedTuple):
    rows: Tensor
    """int64 (batch, rows), indices within the call."""
    weights: Tensor
    """fp32 (batch, sets, rows)."""


class AttentionRecorder(ModuleListener):
    """Records, while entered, how much chosen rows of the decoder attend to each image.

    One recorder follows one batch of sequences from its prompt on: a forward, or a prefill and its decode steps. It
    hears the calls of the thread that entered it. Recorders nest, and hear what knock-outs leave.

    Args:
        model: A transformers model, or its decoder.
        image_spans: Columns of each image: one list for the whole batch, or one per batch row. An entry is
            (start, stop), or an object with `.runs`. Columns count from the first token, padding included.
        row_sets: Named sets of query rows, bool (batch, tokens), of an encoder-decoder the decoder's. Rows of padding
            are never counted: which they are is read from the forward's `attention_mask` (batch, tokens); where that is
            one by row and column, from what the layer's own mask hides.
        generated: Names of the sets that also take every row past `tokens` (decode steps), until `finish`.
        per_head: Keep heads apart.
        cells: Keep a map over every image's tokens too, the mean over heads and rows.
        row_chunk: Rows made at a time; None fits the device.
        cross_spans: Where layers attend to image features (Mllama, Idefics) or to an encoder's output (Florence-2) by
            cross-attention, the columns of each image among these, in the forms of `image_spans`; without it such
            layers are refused. Where all layers do, `image_spans` may be empty: then there are maps of these columns,
            and without it there are none. Rows that a mask keeps from every image attend to all alike.
        layers: True indices of the layers that are recorded; None is every attention layer.

    Raises:
        InputError: If spans or row sets do not fit; while the model runs, if beams swap the sequences of the batch.
        UnsupportedAttention: At once, if the model has no attention layer; at the call, for a layer whose softmax has
            unknown parts; on leaving, if a layer never went through transformers' interface or lacks rows asked for.
    """

    def __init__(
        self,
        model: nn.Module,
        image_spans: Sequence[Any],
        row_sets: Mapping[str, Tensor],
        generated: Collection[str] = (),
        per_head: bool = False,
        cells: bool = False,
        row_chunk: int | None = None,
        cross_spans: Sequence[Any] | None = None,
        layers: Collection[int] | None = None,
    ) -> None:
        self._modules = _chosen_modules(model, layers)
        if not self._modules:
            raise UnsupportedAttention(f"{type(model).__name__}: no layer has attention; nothing can be recorded")
        self.layers = list(self._modules)
        """True indices of the recorded layers, the order of the layer axis."""
        self._names = checked_names(row_sets, generated)
        self._sets = torch.stack([mask.cpu() for mask in row_sets.values()], dim=1)
        self._generated = torch.tensor([name in generated for name in self._names])
        batch, _, tokens = self._sets.shape
        crossing = all(is_cross_attention(module) for module in self._modules.values())
        if crossing and cross_spans is None:
            raise refusal(next(iter(self._modules.values())), self.layers[0], *_NO_CROSS_SPANS)
        if crossing and not len(image_spans):
            self._columns = ImageColumns(cross_spans or (), batch, sys.maxsize)
        else:
            crossing = False
            self._columns = ImageColumns(image_spans, batch, tokens)
        self._only_crossing = crossing
        self._cross_spans, self._cross, self._features = cross_spans, dict[int, ImageColumns](), dict[int, int]()
        self._padding = PaddingWatch(model, find_decoder(model))
        self._beams = BeamRefusal(model, find_decoder(model))
        if row_chunk is not None and row_chunk < 1:
            raise InputError(f"row_chunk must be at least 1, got {row_chunk}")
        self._per_head, self._keep_cells, self._row_chunk = per_head, cells, row_chunk
        super().__init__(self._modules.values())
        self._places = Places()
        self._steps = DecodeSteps(self._add)
        self._active = torch.ones(batch, dtype=torch.bool)
        self._chosen: dict[tuple[int, int, torch.device], _Chosen | None] = {}
        self._sums: dict[int, Tensor] = {}
        self._cells: dict[int, list[Tensor]] = {}
        self._counts: dict[int, Tensor] = {}
        self._state = "new"

    def __enter__(self) -> Self:
        if self._state != "new":
            raise RuntimeError("an AttentionRecorder is used once: make another for the next forward")
        self._state = "open"
        self._padding.start()
        self._beams.start()
        listen(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        unlisten(self)
        self._padding.stop()
        self._beams.stop()
        self._state = "broken"
        if kind is None:
            with torch.no_grad():
                self._steps.flush_all()
            chosen = self._sets.flatten(0, 1).any(0).nonzero()
            require_called(self._modules, self._places, int(chosen.max()) + 1 if chosen.numel() else 1)
            if self._cross_spans is not None and not self._cross:
                raise InputError("cross_spans are given, and no layer attends to image features: leave them out")
            self._state = "done"

    def finish(self, batch_rows: Sequence[int]) -> None:
        """Count no further generated rows of these sequences: what follows their end is padding."""
        self._active[list(batch_rows)] = False
        self._chosen.clear()

    def factors(self, name: str) -> Tensor:
        """Attention factors of a row set: the mean over rows, heads and the image's tokens.

        Source: the Implicit visual misunderstanding paper's released code, which takes the mean and not the sum over
        tokens.

        Returns:
            fp32 on the CPU, (batch, layers, images), or (batch, layers, heads, images) with `per_head`. NaN where a
            batch row has fewer images, or has no row in the set (see `row_counts`).
        """
        index = self._index(name)
        means = []
        for layer in self.layers:
            counts = self._counts[layer].cpu()[:, None, index, None]
            means.append(self._sums[layer].cpu()[:, :, index] / counts)
        if len({mean.shape[1] for mean in means}) > 1:
            raise UnsupportedAttention("layers differ in their number of heads: record without per_head")
        sizes = torch.stack([self._cross.get(layer, self._columns).sizes for layer in self.layers], dim=1)
        factors = torch.stack(means, dim=1) / sizes[:, :, None]
        return factors if self._per_head else factors[:, :, 0]

    def maps(self, name: str) -> list[list[Tensor]]:
        """Per batch row, per image: fp32 (layers, image tokens) on the CPU, the mean over heads and rows."""
        index = self._index(name)
        if not self._keep_cells:
            raise RuntimeError("maps were not recorded: make the recorder with cells=True")
        maps = []
        for row in range(len(self._active)):
            means = [
                self._cells[layer][row].cpu()[index] / self._counts[layer].cpu()[row, index] for layer in self.layers
            ]
            maps.append(self._columns.split(torch.stack(means), row))
        return maps

    def row_counts(self, name: str) -> Tensor:
        """Rows counted in a set, int64 (batch, layers)."""
        index = self._index(name)
        counts = [self._counts[layer].cpu()[:, index] for layer in self.layers]
        return torch.stack(counts, dim=1).round().long()

    @torch.no_grad()
    def hear(self, call: AttentionCall) -> None:
        """Add a call's chosen rows to the sums."""
        if call.query.shape[0] != len(self._active):
            raise InputError(
                f"the recorder is for {len(self._active)} sequences, the model runs {call.query.shape[0]}: "
                "give spans and rows per sequence, and generate without beams"
            )
        place = self._places.place(call)
        if call.is_cross:
            self._take_cross(call, call.key.shape[2] + place.column)
            # Its keys are the same whether the forward goes on or starts over; the forward's mask is not.
            rows = call.query.shape[2]
            if place.row and rows > 1 and not self._padding.reaches(place.row + rows):
                raise called_afresh(call)
        chosen = self._choose(place.row, call.query.shape[2], call.query.device)
        if chosen is not None and not self._steps.take(call, place, chosen.weights):
            self._add(call, place, chosen.rows, chosen.weights)

    def _take_cross(self, call: AttentionCall, features: int) -> None:
        """Know the columns of a layer that attends to so many features."""
        if call.layer in self._cross:
            if features != self._features[call.layer]:
                raise call.refuse("the image features changed on the way", "use one recorder for each set of images")
            return
        if self._cross_spans is None:
            raise call.refuse(*_NO_CROSS_SPANS)
        if self._keep_cells and not self._only_crossing:
            raise call.refuse("an image has other columns there than in the prompt", "record without cells")
        columns = ImageColumns(self._cross_spans, len(self._active), features, "the image features'")
        if [len(images) for images in columns.rows] != [len(images) for images in self._columns.rows]:
            raise InputError("cross_spans and image_spans differ in their number of images: give both for each image")
        self._cross[call.layer], self._features[call.layer] = columns, features

    def _choose(self, first: int, count: int, device: torch.device) -> _Chosen | None:
        """The rows of a call that any set takes; every layer of a step asks the same."""
        key = (first, count, device)
        if key not in self._chosen:
            self._chosen.clear()
            taken = self._generated[None] & self._active[:, None]
            sets = torch.stack(
                [rows_between(self._sets[:, i], first, count, taken[:, i]) for i in range(len(self._names))], dim=1
            )
            rows, valid = pad_rows(sets.any(1))
            weights = sets.gather(2, rows[:, None].expand(-1, sets.shape[1], -1)) & valid[:, None]
            self._chosen[key] = _Chosen(rows.to(device), weights.float().to(device)) if rows.numel() else None
        return self._chosen[key]

    def _add(self, call: AttentionCall, place: Place, rows: Tensor, weights: Tensor) -> None:
        tokens = self._padding.tokens(place.row, call.query.shape[2], len(self._active))
        masses = column_masses(call, place, rows, weights, self._per_head, self._row_chunk, tokens)
        layer = call.layer
        sums = self._cross.get(layer, self._columns).image_sums(masses.columns, place.column)
        # Not in place: a recorder may be entered inside inference mode and read outside.
        self._sums[layer] = self._sums[layer] + sums if layer in self._sums else sums
        self._counts[layer] = self._counts[layer] + masses.counts if layer in self._counts else masses.counts
        if self._keep_cells:
            cells = self._columns.cells(masses.columns.mean(1), place.column)
            old = self._cells.get(layer)
            self._cells[layer] = cells if old is None else [a + b for a, b in zip(old, cells, strict=True)]

    def _index(self, name: str) -> int:
        if self._state != "done":
            raise RuntimeError("attention is read after the recorder's with block has ended without an error")
        if name not in self._names:
            raise InputError(f"no row set {name!r}; recorded were {', '.join(self._names)}")
        if not self._sums:
            raise InputError(f"row set {name!r} took no row of the {max(self._places.seen.values())} that went by")
        return self._names.index(name)


def _chosen_modules(model: nn.Module, layers: Collection[int] | None) -> dict[int, nn.Module]:
    modules = attention_modules(model)
    missing = sorted(set(layers or ()) - set(modules))
    if missing or (layers is not None and not layers):
        raise InputError(f"no attention in layers {missing}: record some of {list(modules)}, or None for all")
    return {layer: module for layer, module in modules.items() if layers is None or layer in layers}


def checked_names(row_sets: Mapping[str, Tensor], generated: Collection[str] = ()) -> list[str]:
    """Names of row sets, once these are known to fit together.

    Raises:
        InputError: If there are none, they are no bool (batch, tokens) of one shape, or `generated` names others.
    """
    if not row_sets:
        raise InputError("no row sets given: name at least one set of query rows")
    shapes = {(tuple(mask.shape), mask.dtype) for mask in row_sets.values()}
    shape, dtype = next(iter(shapes))
    if len(shapes) > 1 or len(shape) != 2 or dtype != torch.bool:
        raise InputError(f"row sets must be bool masks (batch, tokens) of one shape, got {sorted(map(str, shapes))}")
    unknown = sorted(set(generated) - set(row_sets))
    if unknown:
        raise InputError(f"generated names unknown row sets {unknown}; there are {', '.join(row_sets)}")
    return list(row_sets)
