"""Reads and replaces the residual stream of chosen tokens where it enters decoder layers.

By hooks on the layers themselves, so layers of any kind are in reach; other threads' forwards are left alone. Knows
tokens as numbers: nothing of images or answers.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from probes.decoder import decoder_layers
from probes.inputs import InputError


@contextmanager
def reading_residuals(model: nn.Module, tokens: Tensor, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """While entered, read what enters layers, as the model runs once.

    Args:
        model: A transformers model, or its decoder.
        tokens: Bool (batch, tokens).
        layers: True layer indices.

    Yields:
        Filled by the forward: per layer (chosen tokens, hidden size), row by row.

    Raises:
        InputError: If there is no such layer, nothing is chosen, or the residual stream has another form than (batch,
            tokens, hidden size); on leaving, if a layer never ran.
    """
    check_tokens(tokens)
    found: dict[int, Tensor] = {}

    def read(layer: int, residual: Tensor) -> None:
        found[layer] = picked(layer, residual, tokens).clone()

    with _hooked(model, layers, read):
        yield found


@contextmanager
def replacing_residuals(model: nn.Module, tokens: Tensor, residuals: Mapping[int, Tensor]) -> Iterator[None]:
    """While entered, put other values in the place of what enters layers.

    Args:
        model: A transformers model, or its decoder.
        tokens: Bool (batch, tokens).
        residuals: Per true layer index (chosen tokens, hidden size), row by row.

    Raises:
        InputError: As `reading_residuals`, if the values do not fit, and if layers look back at earlier streams.
    """
    check_tokens(tokens)

    def replace(layer: int, residual: Tensor) -> Tensor:
        return replaced(layer, residual, tokens, residuals[layer])

    with _hooked(model, list(residuals), replace):
        yield


@contextmanager
def _hooked(model: nn.Module, layers: Sequence[int], act: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    modules = decoder_layers(model)
    check_layers(layers, list(modules))
    handles, silent, thread = [], set(layers), threading.get_ident()
    for layer in layers:

        def hook(_: nn.Module, args: tuple[Any, ...], named: Any = None, layer: int = layer) -> Any:
            # torch adds a hook first and says a moment later that it takes keywords: another thread may run in between.
            if threading.get_ident() != thread or named is None:
                return None
            silent.discard(layer)
            new = act(layer, residual_of(args, named))
            if new is None:
                return None
            _check_alone(layer, args, new)
            return with_residual(args, named, new)

        handles.append(modules[layer].register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield
        if silent:
            raise InputError(f"decoder layers {sorted(silent)} never ran, so their residual stream was left alone")
    finally:
        for handle in handles:
            handle.remove()


def residual_of(args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """What enters a layer, from the arguments of its call."""
    return args[0] if args else named["hidden_states"]


def with_residual(args: tuple[Any, ...], named: Mapping[str, Any], new: Tensor) -> tuple[tuple[Any, ...], Any]:
    """The arguments of a layer's call with another residual stream."""
    return ((new, *args[1:]), dict(named)) if args else (args, {**named, "hidden_states": new})


def picked(layer: int, residual: Tensor, tokens: Tensor) -> Tensor:
    """The chosen tokens' residuals, (chosen tokens, hidden size)."""
    _check_form(layer, residual, tokens)
    return residual[tokens.to(residual.device)]


def replaced(layer: int, residual: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
    """The residual stream with other values at the chosen tokens."""
    _check_form(layer, residual, tokens)
    if values.shape != (int(tokens.sum()), residual.shape[-1]):
        raise InputError(
            f"layer {layer}: {int(tokens.sum())} tokens of size {residual.shape[-1]} are patched, and the values have "
            f"shape {tuple(values.shape)}"
        )
    new = residual.clone()
    new[tokens.to(new.device)] = values.to(new)
    return new


def _check_form(layer: int, residual: Any, tokens: Tensor) -> None:
    shape = tuple(residual.shape) if isinstance(residual, Tensor) else type(residual).__name__
    if not isinstance(residual, Tensor) or residual.dim() != 3 or residual.shape[:2] != tokens.shape:
        raise InputError(
            f"layer {layer}: its residual stream has the form {shape}, and only (batch, tokens, hidden size) with "
            f"{tuple(tokens.shape)} tokens can be patched; knock out attention instead"
        )


def _check_alone(layer: int, args: tuple[Any, ...], residual: Tensor) -> None:
    """Refuse layers that are given the streams of earlier ones besides, (batch, tokens, layers, hidden size)."""
    for given in args[1:]:
        if isinstance(given, Tensor) and given.dim() == 4 and _outer(given) == _outer(residual):
            raise InputError(
                f"layer {layer}: it looks back at the residual streams of earlier layers, which a patch would leave as "
                "they were; knock out attention instead"
            )


def _outer(stream: Tensor) -> tuple[int, int, int]:
    return stream.shape[0], stream.shape[1], stream.shape[-1]


def check_tokens(tokens: Tensor) -> None:
    """Refuse a choice of tokens that is none.

    Raises:
        InputError: If `tokens` is no bool (batch, tokens), or chooses nothing.
    """
    if tokens.dim() != 2 or tokens.dtype != torch.bool or not tokens.any():
        raise InputError("choose the tokens of a patch by a bool mask (batch, tokens) that is True somewhere")


def check_layers(layers: Sequence[int], known: Sequence[int]) -> None:
    """Refuse no layers, and such as the decoder lacks.

    Raises:
        InputError: If so.
    """
    missing = sorted(set(layers) - set(known))
    if missing or not layers:
        raise InputError(f"no decoder layers {missing or 'are named'}; this decoder's are 0 to {len(known) - 1}")
