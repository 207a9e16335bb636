"""Which modules of a model are the mixers of its text decoder: layers that mix tokens without softmax.

Goes by module identity inside the decoder, as `probes.decoder` does for attention. Knows nothing of what is read there.
"""

from collections.abc import Collection
from typing import Any

from torch import nn

from probes.attention_calls import UnsupportedAttention, refusal
from probes.decoder import find_decoder
from probes.inputs import InputError
from probes.mixers.readers import READERS

_MIXING = frozenset({"linear_attention", "mamba", "mamba2", "recurrent", "conv", "hybrid", "hybrid_sliding"})
"""Kinds of `config.layer_types` whose layers mix tokens without softmax."""


def mixer_modules(model: nn.Module, layers: Collection[int] | None = None) -> dict[int, nn.Module]:
    """The decoder's mixers by true layer index, in order.

    Args:
        model: A transformers model, or its decoder.
        layers: True indices of those wanted; None is all.

    Raises:
        InputError: If a layer that is wanted has no mixer, or none is named.
        UnsupportedAttention: If there is none at all, or one of those wanted is of a class that is not known.
    """
    if layers is not None and not layers:
        raise InputError("layers names none: name layers with a mixer, or leave it out for all of them")
    found = mixers_if_any(model, layers)
    if not found and not refused_mixers(model):
        raise UnsupportedAttention(
            f"{type(model).__name__}: no decoder layer has a state-space or delta mixer; read its attention by "
            "attention_factors"
        )
    missing = sorted(set(layers or ()) - set(found))
    if missing or not found:
        known = sorted(mixers_if_any(model, ()))
        raise InputError(
            f"no mixer in layers {missing}: state-space and delta mixers are in {known}, and None reads all of them; "
            "softmax attention is read by attention_factors"
        )
    return {layer: found[layer] for layer in found if layers is None or layer in layers}


def mixers_if_any(model: nn.Module, layers: Collection[int] | None = None) -> dict[int, nn.Module]:
    """The decoder's mixers of known classes by true layer index, in order; none where all layers have softmax.

    Args:
        model: A transformers model, or its decoder.
        layers: True indices of those that must be of a known class; None is all.

    Raises:
        UnsupportedAttention: If one of these is not.
    """
    found = _known(model)
    for layer, reason in _unknown(model, found).items():
        if layers is None or layer in layers:
            raise reason
    return found


def refused_mixers(model: nn.Module) -> dict[int, str]:
    """Why a mixer cannot be read, by true layer index, in order; empty where all are of known classes.

    Args:
        model: A transformers model, or its decoder.

    Raises:
        UnsupportedAttention: If the decoder is not found.
    """
    return {layer: str(reason) for layer, reason in _unknown(model, _known(model)).items()}


def _known(model: nn.Module) -> dict[int, nn.Module]:
    found = {
        int(module.layer_idx): module  # type: ignore[arg-type]
        for module in find_decoder(model).modules()
        if type(module).__name__ in READERS
    }
    return {layer: found[layer] for layer in sorted(found)}


def _unknown(model: nn.Module, known: Collection[int]) -> dict[int, UnsupportedAttention]:
    """The refusal of each layer that the configuration gives a mixer, and that has none of a known class."""
    decoder = find_decoder(model)
    return {
        layer: refusal(
            _last_of(decoder, layer),
            layer,
            "the configuration gives it a mixer without softmax, and its class is not known",
            f"known are {', '.join(READERS)}; name the layers to read, or read softmax attention by attention_factors",
        )
        for layer in _configured(decoder)
        if layer not in known
    }


def _configured(decoder: nn.Module) -> list[int]:
    config: Any = getattr(decoder, "config", None)
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or []
    return [layer for layer, kind in enumerate(kinds) if kind in _MIXING]


def _last_of(decoder: nn.Module, layer: int) -> nn.Module:
    own = [module for module in decoder.modules() if getattr(module, "layer_idx", None) == layer]
    return own[-1] if own else decoder
