"""Hooks on the mixtures of experts of a running decoder, and where in the batch each call stands.

What recording and knocking out share. Other threads' forwards are left alone. Knows tokens as columns: nothing of
images or answers.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from probes.beams import BeamRefusal
from probes.decoder import decoder_layers, find_decoder
from probes.experts.layers import ExpertLayer
from probes.padding import PaddingWatch
from probes.residuals import residual_of


class Place(NamedTuple):
    """Which tokens of a batch one call is of."""

    batch: int
    first: int
    """Column of the first token, padding counted."""
    tokens: int
    """Tokens of each batch row."""
    real: Tensor
    """Bool (batch, tokens), on the CPU: which of them are no padding."""


class Routed(NamedTuple):
    """What a router returned, flattened."""

    logits: Tensor
    """(batch x tokens, experts)."""
    weights: Tensor
    """(batch x tokens, k)."""
    indices: Tensor
    """(batch x tokens, k)."""


OnRouter = Callable[[ExpertLayer, Place, Routed], Tensor | None]
"""Told of each router's call; returns other weights, or None to leave them."""
OnShared = Callable[[ExpertLayer, Place, Tensor], Tensor | None]
"""Told of each shared expert's output; returns another, or None to leave it."""


class ExpertHooks:
    """While entered, tells of the calls of some mixtures of experts in this thread.

    Args:
        model: A transformers model, or its decoder.
        layers: The mixtures concerned.
        on_router: See `OnRouter`.
        on_shared: See `OnShared`; None leaves shared experts without hooks.

    Raises:
        InputError: While the model runs, if beams swap the sequences of the batch.
        UnsupportedRouting: At the call, if it does not go on where the last one ended, goes on from what was not heard,
            or gives something else than it should; on leaving, if a router never ran.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[int, ExpertLayer],
        on_router: OnRouter,
        on_shared: OnShared | None = None,
    ) -> None:
        self._layers, self._on_router, self._on_shared = layers, on_router, on_shared
        self._modules = decoder_layers(model)
        self._padding = PaddingWatch(model, find_decoder(model))
        self._beams = BeamRefusal(model, find_decoder(model))
        self._places: dict[int, Place] = {}
        self._silent = set(layers)
        self._stack, self._thread = ExitStack(), 0

    def __enter__(self) -> Self:
        self._thread = threading.get_ident()
        self._places, self._silent = {}, set(self._layers)
        self._padding.start()
        self._stack.callback(self._padding.stop)
        self._beams.start()
        self._stack.callback(self._beams.stop)
        for layer, mixture in self._layers.items():
            enter, leave = self._entering(mixture), self._routing(mixture)
            self._add(self._modules[layer].register_forward_pre_hook(enter, with_kwargs=True))
            self._add(mixture.router.register_forward_hook(leave))
            for module in mixture.shared.values() if self._on_shared else ():
                self._add(module.register_forward_hook(self._sharing(mixture)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        for layer in sorted(self._silent) if kind is None else ():
            raise self._layers[layer].refuse(
                "it never ran in this thread", "call the model inside the block, and uncompiled"
            )

    def _add(self, handle: Any) -> None:
        self._stack.callback(handle.remove)

    def _entering(self, mixture: ExpertLayer) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], named: Any = None) -> None:
            # torch adds a hook first and says a moment later that it takes keywords: another thread may run in between.
            if threading.get_ident() == self._thread and named is not None:
                batch, count = residual_of(args, named).shape[:2]
                self._places[mixture.layer] = self._place(mixture, int(batch), int(count))

        return hook

    def _place(self, mixture: ExpertLayer, batch: int, count: int) -> Place:
        before = self._places.get(mixture.layer)
        first = 0 if before is None else before.first + before.tokens
        if before is None and self._padding.cached:
            raise mixture.refuse(
                "the model goes on from a cache whose tokens were not heard",
                "enter before the first forward, with the whole prompt",
            )
        if before is not None and (batch != before.batch or (count > 1 and not self._padding.reaches(first + count))):
            raise mixture.refuse(
                "the model was called afresh instead of going on with a cache",
                "use one recorder or knock-out for each forward, and generate with use_cache=True and without beams",
            )
        real = self._padding.tokens(first, count, batch)
        if real is None:
            raise mixture.refuse(
                f"which of its {count} tokens from column {first} on are padding is not known",
                "give attention_mask as (batch, tokens)",
            )
        return Place(batch, first, count, real.cpu())

    def _routing(self, mixture: ExpertLayer) -> Callable[..., Any]:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            if threading.get_ident() != self._thread:
                return None
            place = self._places[mixture.layer]
            routed = _routed(mixture, place, output)
            self._silent.discard(mixture.layer)
            weights = self._on_router(mixture, place, routed)
            if weights is None:
                return None
            return (output[0], weights.reshape(output[1].shape).to(output[1]), *output[2:])

        return hook

    def _sharing(self, mixture: ExpertLayer) -> Callable[..., Any]:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            if threading.get_ident() != self._thread or self._on_shared is None:
                return None
            place = self._places[mixture.layer]
            if not isinstance(output, Tensor) or output.numel() != place.batch * place.tokens * output.shape[-1]:
                raise mixture.refuse("its shared experts return no state for each token", "leave them out")
            new = self._on_shared(mixture, place, output.reshape(-1, output.shape[-1]))
            return None if new is None else new.reshape(output.shape)

        return hook


def _routed(mixture: ExpertLayer, place: Place, output: Any) -> Routed:
    """A router's output, checked.

    Raises:
        UnsupportedRouting: If it is none of (logits, weights, indices) over the experts and the tokens of the call.
    """
    if not isinstance(output, tuple) or len(output) != 3 or not all(isinstance(each, Tensor) for each in output):
        raise mixture.refuse("it does not return (logits, weights, indices)", "use a router that does")
    logits, weights, indices = (each.reshape(-1, each.shape[-1]) for each in output)
    tokens = place.batch * place.tokens
    if logits.shape != (tokens, mixture.count) or indices.shape[0] != tokens or weights.shape != indices.shape:
        raise mixture.refuse(
            f"it returns logits {tuple(logits.shape)}, weights {tuple(weights.shape)} and indices "
            f"{tuple(indices.shape)} for {tokens} tokens and {mixture.count} experts",
            "use a router that returns (tokens, experts), (tokens, k) and (tokens, k)",
        )
    if indices.is_floating_point() or indices.dtype == torch.bool:
        raise mixture.refuse(f"its indices are {indices.dtype}", "use a router that returns whole numbers")
    return Routed(logits, weights, indices)
