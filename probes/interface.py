"""The wrap of transformers' attention interface that recorders and knock-outs share.

Every layer keeps its own implementation: for as long as someone listens, what `AttentionInterface.get_interface` hands
out is wrapped, process-wide and under a lock, and the wrap passes every call on unchanged unless its module is listened
to by the thread that makes the call. Knows nothing of images.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor, nn
from transformers.modeling_utils import AttentionInterface

from probes.attention_blocking import blocked
from probes.attention_calls import AttentionCall, Places, UnsupportedAttention, refusal
from probes.cross_attention import is_cross_attention

__all__ = [
    "AttentionCall",
    "Listener",
    "ModuleListener",
    "UnsupportedAttention",
    "listen",
    "require_called",
    "unlisten",
]


class Listener(Protocol):
    """Whoever changes or hears the attention calls of some modules."""

    def watches(self, module: nn.Module) -> bool:
        """Whether calls of this module concern the listener."""

    def change(self, call: AttentionCall) -> AttentionCall:
        """The call as it should be made; only `blocks` may differ."""

    def hear(self, call: AttentionCall) -> None:
        """Take note of the call as it was made, every listener's change included."""


class ModuleListener:
    """A `Listener` to given modules that changes nothing and, until a subclass says otherwise, notes nothing."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._heard = {id(module) for module in modules}

    def watches(self, module: nn.Module) -> bool:
        """Whether this is one of the modules listened to."""
        return id(module) in self._heard

    def change(self, call: AttentionCall) -> AttentionCall:
        """The call as it is."""
        return call

    def hear(self, call: AttentionCall) -> None:
        """Nothing to note."""


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
            output = blocked(function, call, output)
        call = replace(call, output=output[0])
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
        if not count and is_cross_attention(module):
            raise refusal(module, layer, "no image features were given, so it was passed over", "give pixel_values")
        if not count:
            raise refusal(module, layer, "it never called transformers' attention interface", out_of_reach)
        if count < rows:
            raise refusal(
                module,
                layer,
                f"it attended from {count} of the {rows} rows asked for",
                "run the prompt in a forward of its own, without logits_to_keep",
            )
