"""Listens to mixers while the model runs as it always does: what they project, and what their scans give.

Layers project, convolve and scan within one call. Projections are modules, so their outputs are heard as they are made,
and not made again; the scan's output is heard where it enters the norm or projection behind it. Other threads' forwards
are left alone. Knows nothing of what listeners make of it.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from probes.attention_calls import UnsupportedAttention, refusal
from probes.inputs import InputError
from probes.mixers.readers import Reader, reader_of
from probes.mixers.scan import Scan

_PACKING = ("seq_idx", "cu_seq_lens_q", "cu_seq_lens_k", "cu_seqlens")


@dataclass(eq=False)
class MixerCall:
    """One call of a mixer: its projections, as far as they have been made."""

    layer: int
    module: nn.Module
    reader: Reader
    mask: Tensor | None
    projected: dict[str, Tensor] = field(default_factory=dict)

    def scan(self) -> Scan:
        """What goes into its scan."""
        return self.reader.scan(self.module, self.projected, self.mask)

    def refuse(self, reason: str, way: str) -> UnsupportedAttention:
        """The error that names this layer."""
        return refusal(self.module, self.layer, reason, way)


class MixerHooks:
    """While entered, tells of each mixer's projections before its scan, and of what the scan gave.

    Args:
        modules: Mixers by layer.
        on_projected: Called once per mixer and forward, when all projections are made.
        on_scanned: Called with the scan's output as the layer passes it on, its elements in the order (batch, tokens,
            heads, size); may give another one, of the same shape, to go on with.
        changes: Whether it does give another one. Those that only listen come first, and hear the layer's own scan
            whatever others make of it.

    Raises:
        InputError: On leaving, if a mixer never ran.
        UnsupportedAttention: At once, for a mixer of a class that is not known; at the call, if it continues a cache,
            packs several sequences into one row, or runs a second time; on leaving, if a scan's output never came by.
    """

    def __init__(
        self,
        modules: Mapping[int, nn.Module],
        on_projected: Callable[[MixerCall], None],
        on_scanned: Callable[[MixerCall, Tensor], Tensor | None],
        changes: bool = False,
    ) -> None:
        self._modules = dict(modules)
        self._readers = {layer: reader_of(module) for layer, module in modules.items()}
        self._on_projected, self._on_scanned, self._changes = on_projected, on_scanned, changes
        self._calls: dict[int, MixerCall] = {}
        self._ran: set[int] = set()
        self._scanned: set[int] = set()
        self._stack, self._thread = ExitStack(), 0

    def __enter__(self) -> Self:
        self._thread = threading.get_ident()
        for layer, module in self._modules.items():
            reader = self._readers[layer]
            self._add(module.register_forward_pre_hook(self._begin(layer), with_kwargs=True))
            for name in reader.projections(module):
                self._add(getattr(module, name).register_forward_hook(self._note(layer, name)))
            place, _ = reader.output(module)
            self._add(getattr(module, place).register_forward_pre_hook(self._hear(layer), prepend=not self._changes))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._calls.clear()
        if kind is not None:
            return
        silent = sorted(set(self._modules) - self._ran)
        if silent:
            raise InputError(f"the mixers of layers {silent} never ran, so there is nothing to read of them")
        for layer in sorted(self._ran - self._scanned):
            raise refusal(
                self._modules[layer],
                layer,
                "the output of its scan was not seen: a kernel does scan and norm at once",
                "call model.eval() first",
            )

    def _add(self, handle: Any) -> None:
        self._stack.callback(handle.remove)

    def _begin(self, layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any] | None = None) -> None:
            # torch adds a hook first and says a moment later that it takes keywords: another thread may run in between.
            if threading.get_ident() != self._thread or named is None:
                return
            call = MixerCall(layer, module, self._readers[layer], _argument(named, args, 2, "attention_mask"))
            cache = _argument(named, args, 1, "cache_params")
            if cache is not None and cache.get_recurrent_state(layer) is not None:
                raise call.refuse(
                    "it goes on from a cache, whose earlier tokens are gone",
                    "generate first, and then run prompt and answer in one forward, as trace_mixers does",
                )
            if layer in self._ran:
                raise call.refuse("it ran a second time", "use one recorder for each forward")
            packed = [name for name in _PACKING if named.get(name) is not None]
            if packed:
                raise call.refuse(
                    f"several sequences are packed into one row ({', '.join(packed)})",
                    "pass one sequence per batch row",
                )
            self._ran.add(layer)
            self._calls[layer] = call

        return hook

    def _note(self, layer: int, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            call = self._calls.get(layer)
            if threading.get_ident() != self._thread or call is None:
                return
            call.projected[name] = output
            if set(call.projected) == set(call.reader.projections(call.module)):
                self._on_projected(call)
                # The layer goes on to scan: what it lets go of by then must not be held here.
                call.projected.clear()

        return hook

    def _hear(self, layer: int) -> Callable[..., tuple[Any, ...] | None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            call = self._calls.get(layer)
            if threading.get_ident() != self._thread or call is None:
                return None
            del self._calls[layer]
            self._scanned.add(layer)
            new = self._on_scanned(call, args[0])
            return None if new is None else (new.to(args[0].dtype), *args[1:])

        return hook


def _argument(named: Mapping[str, Any], args: tuple[Any, ...], place: int, name: str) -> Any:
    return named[name] if name in named else args[place] if len(args) > place else None
