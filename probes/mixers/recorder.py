"""The recorder: hears a decoder's mixers and sums chosen rows of their hidden attention over each image's tokens.

The twin of `probes.recorder.AttentionRecorder`. Each layer is held to its own output as it is read: the scan of one row
is rebuilt from its hidden attention, and compared with what the layer gave. It knows rows, columns and layers; nothing
of forwards, processors, families or questions.
"""

from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from probes.attention_calls import UnsupportedAttention
from probes.attention_columns import ImageColumns
from probes.attention_rows import pad_rows
from probes.decoder import find_decoder
from probes.inputs import InputError
from probes.mixers.boundary import BoundaryLeak, boundary_leak
from probes.mixers.hooks import MixerCall, MixerHooks
from probes.mixers.modules import mixer_modules
from probes.mixers.readers import activation_of, reader_of
from probes.mixers.sums import FORMS, cell_sums, check_forms, image_sums
from probes.padding import PaddingWatch
from probes.recorder import checked_names

SLACK, SLACK_ELSEWHERE = {torch.float32: 1e-3, torch.float64: 1e-3}, 5e-2
"""How far a rebuilt row may be from the layer's own, over the typical norm of its rows."""


class _Chosen(NamedTuple):
    rows: Tensor
    """int64 (batch, rows) on the CPU; shorter lists are filled up with their last row."""
    weights: Tensor
    """fp32 (batch, sets, rows), 0 on fillers."""


class MixerRecorder:
    """Records, while entered, the hidden attention of chosen rows to each image, in layers without softmax.

    One recorder follows one forward without a cache, of the thread that entered it. The model computes as ever. Under a
    knock-out of a mixer it hears the layer's own scan, before anything is taken out.

    Args:
        model: A transformers model, or its decoder.
        image_spans: Tokens of each image: one list for the whole batch, or one per batch row. An entry is (start,
            stop), or an object with `.runs`. Tokens count from the first, padding included.
        row_sets: Named sets of query rows, bool (batch, tokens). Rows of padding are never counted.
        forms: Of `probes.mixers.sums.FORMS`.
        per_head: Keep heads apart (of Mamba, channels).
        cells: Keep a map over every image's tokens too, the mean over heads and rows.
        leaks: Measure what the convolution carries over the edges of images.
        layers: True indices of the layers that are recorded; None is every layer with a mixer.

    Raises:
        InputError: If spans, row sets, forms or layers do not fit; on leaving, if a layer never ran.
        UnsupportedAttention: At once, if there is no mixer or one of a class that is not known; at the call, if it
            cannot be followed, or its scan's output is not what its hidden attention rebuilds.
    """

    def __init__(
        self,
        model: nn.Module,
        image_spans: Sequence[Any],
        row_sets: Mapping[str, Tensor],
        forms: Sequence[str] = FORMS,
        per_head: bool = False,
        cells: bool = False,
        leaks: bool = False,
        layers: Collection[int] | None = None,
    ) -> None:
        modules = mixer_modules(model, layers)
        self.layers = list(modules)
        """True indices of the recorded layers, the order of the layer axis."""
        self.kinds = [reader_of(module).kind for module in modules.values()]
        """What each layer's mixer is: "mamba2", "mamba" or "delta"."""
        self._forms = check_forms(forms)
        self._names = checked_names(row_sets)
        self._sets = torch.stack([mask.cpu() for mask in row_sets.values()], dim=1)
        batch, _, self._tokens = self._sets.shape
        self._columns = ImageColumns(image_spans, batch, self._tokens)
        self._per_head, self._keep_cells, self._keep_leaks = per_head, cells, leaks
        self._padding = PaddingWatch(model, find_decoder(model))
        self._hooks = MixerHooks(modules, self._read, self._hold_against)
        self._chosen: _Chosen | None = None
        self._sums: dict[tuple[int, str], Tensor] = {}
        self._cells: dict[tuple[int, str], list[Tensor]] = {}
        self._leaks: dict[int, BoundaryLeak] = {}
        self._last: dict[int, Tensor] = {}
        self._state = "new"

    def __enter__(self) -> Self:
        if self._state != "new":
            raise RuntimeError("a MixerRecorder is used once: make another for the next forward")
        self._state = "open"
        self._padding.start()
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._padding.stop()
        self._state = "broken"
        self._hooks.__exit__(kind, error, trace)
        if kind is None:
            self._state = "done"

    def factors(self, name: str, form: str) -> Tensor:
        """Hidden attention of a row set: the mean over rows, heads and the image's tokens, as attention factors are.

        Returns:
            fp32 on the CPU, (batch, layers, images), or (batch, layers, heads, images) with `per_head`. NaN where a
            batch row has fewer images, or has no row in the set.
        """
        index = self._index(name, form)
        counts = self._counts()[:, None, index, None]
        means = [self._sums[layer, form][:, :, index] / counts for layer in self.layers]
        if len({mean.shape[1] for mean in means}) > 1:
            raise UnsupportedAttention("layers differ in their number of heads: record without per_head")
        factors = torch.stack(means, dim=1) / self._columns.sizes[:, None, None]
        return factors if self._per_head else factors[:, :, 0]

    def maps(self, name: str, form: str) -> list[list[Tensor]]:
        """Per batch row, per image: fp32 (layers, image tokens) on the CPU, the mean over heads and rows."""
        index = self._index(name, form)
        if not self._keep_cells:
            raise RuntimeError("maps were not recorded: make the recorder with cells=True")
        counts = self._counts()[:, index]
        maps = []
        for row, count in enumerate(counts):
            means = [self._cells[layer, form][row][index] / count for layer in self.layers]
            maps.append(self._columns.split(torch.stack(means), row))
        return maps

    def row_counts(self, name: str) -> Tensor:
        """Rows counted in a set, int64 (batch,)."""
        return self._counts()[:, self._index(name, self._forms[0])].round().long()

    def leaks(self) -> dict[int, BoundaryLeak]:
        """What came over the edges of images, by layer."""
        self._index(self._names[0], self._forms[0])
        if not self._keep_leaks:
            raise RuntimeError("leaks were not measured: make the recorder with leaks=True")
        return dict(self._leaks)

    @torch.no_grad()
    def _read(self, call: MixerCall) -> None:
        chosen, scan = self._choose(call), call.scan()
        sums = image_sums(scan, chosen.rows, self._columns, self._forms)
        weights = chosen.weights.to(sums.totals.device)
        for form, by_row in sums.images.items():
            by_set = weights[:, None] @ by_row
            self._sums[call.layer, form] = (by_set if self._per_head else by_set.mean(1, keepdim=True)).cpu()
        if self._keep_cells:
            cells = cell_sums(scan, chosen.rows, weights, self._columns, self._forms, sums.totals)
            for form, by_image in cells.items():
                self._cells[call.layer, form] = [each.cpu() for each in by_image]
        if self._keep_leaks:
            module: Any = call.module
            self._leaks[call.layer] = boundary_leak(
                call.reader.mixed(module, call.projected),
                module.conv1d.weight,
                module.conv1d.bias,
                activation_of(module),
                call.reader.parts(module),
                self._columns,
            )
        gated = call.reader.output(call.module)[1]
        self._last[call.layer] = sums.last * scan.gates(chosen.rows[:, -1:])[:, :, 0] if gated else sums.last

    @torch.no_grad()
    def _hold_against(self, call: MixerCall, output: Tensor) -> None:
        """Compare the last chosen row's scan, rebuilt from its hidden attention, with the layer's own."""
        chosen, last = self._choose(call), self._last.pop(call.layer)
        by_token = output.reshape(len(last), self._tokens, -1)
        typical = float(by_token.float().norm() / by_token[..., 0].numel() ** 0.5)
        own = by_token[torch.arange(len(last)), chosen.rows[:, -1]].float()
        error = (last.flatten(1) - own.to(last.device)).norm(dim=-1)
        worst = float(error[chosen.weights.any(1).any(1).to(error.device)].max())
        if not worst <= SLACK.get(output.dtype, SLACK_ELSEWHERE) * typical:
            raise call.refuse(
                f"its output is not what its hidden attention rebuilds (an error of {worst:.2g} on rows of a norm of "
                f"{typical:.2g})",
                "leave this layer out of `layers`, or report the model",
            )

    def _choose(self, call: MixerCall) -> _Chosen:
        """The rows that any set takes; every layer asks the same."""
        if self._chosen is not None:
            return self._chosen
        projected = next(iter(call.projected.values()))
        if projected.shape[:2] != (len(self._sets), self._tokens):
            raise InputError(
                f"the recorder is for {len(self._sets)} sequences of {self._tokens} tokens, the model runs "
                f"{tuple(projected.shape[:2])}: give row sets of the whole prompt, and no beams"
            )
        real = self._padding.tokens(0, self._tokens, len(self._sets))
        if real is None:
            raise call.refuse(
                "which rows are padding cannot be told", "pass the model an attention_mask (batch, tokens)"
            )
        sets = self._sets & real.cpu()[:, None]
        rows, valid = pad_rows(sets.any(1))
        if not rows.numel():
            raise InputError(f"row sets {', '.join(self._names)} have no row outside padding: choose rows of tokens")
        last = (valid.sum(1) - 1).clamp(min=0)
        rows = torch.where(valid, rows, rows.gather(1, last[:, None]))
        weights = sets.gather(2, rows[:, None].expand(-1, sets.shape[1], -1)) & valid[:, None]
        self._chosen = _Chosen(rows, weights.float())
        return self._chosen

    def _counts(self) -> Tensor:
        assert self._chosen is not None
        return self._chosen.weights.sum(-1)

    def _index(self, name: str, form: str) -> int:
        if self._state != "done":
            raise RuntimeError("hidden attention is read after the recorder's with block has ended without an error")
        if name not in self._names:
            raise InputError(f"no row set {name!r}; recorded were {', '.join(self._names)}")
        if form not in self._forms:
            raise InputError(f"no form {form!r}; recorded were {', '.join(self._forms)}")
        return self._names.index(name)
