"""Which modules of a model are the attention layers of its text decoder.

Goes by module identity inside the decoder, so that vision towers and projectors that use the same classes stay out.
Knows nothing of how attention is read.
"""

import inspect
from typing import Any

from torch import nn

from probes.attention_calls import UnsupportedAttention, refusal

_NOT_ATTENTION = frozenset({"linear_attention", "mamba", "mamba2", "conv", "recurrent", "moe", "mlp"})
"""Kinds of `config.layer_types` without softmax attention."""


def find_decoder(model: nn.Module) -> nn.Module:
    """The text decoder inside a model, or the model itself when it is one.

    Raises:
        UnsupportedAttention: For encoder-decoder models.
    """
    config: Any = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedAttention(
            f"{type(model).__name__}: encoder-decoder layers hold several attentions; use a decoder-only model"
        )
    get_decoder: Any = getattr(model, "get_decoder", None)
    decoder = model if get_decoder is None else get_decoder()
    if not isinstance(decoder, nn.Module):
        raise UnsupportedAttention(f"{type(model).__name__}: no text decoder found; pass the decoder itself")
    return decoder


def attention_modules(model: nn.Module) -> dict[int, nn.Module]:
    """The decoder's attention modules by true layer index, in order.

    Raises:
        UnsupportedAttention: If a layer holds several attentions, or for encoder-decoder models.
    """
    decoder = find_decoder(model)
    candidates: dict[int, list[nn.Module]] = {}
    for module in decoder.modules():
        layer = getattr(module, "layer_idx", None)
        if isinstance(layer, int) and "attention" in type(module).__name__.lower() and _has_attention(decoder, layer):
            candidates.setdefault(layer, []).append(module)
    return {layer: _only(layer, candidates[layer]) for layer in sorted(candidates)}


def _has_attention(decoder: nn.Module, layer: int) -> bool:
    kinds = getattr(getattr(decoder, "config", None), "layer_types", None)
    return not kinds or layer >= len(kinds) or kinds[layer] not in _NOT_ATTENTION


def _only(layer: int, modules: list[nn.Module]) -> nn.Module:
    if len(modules) > 1:
        modules = [module for module in modules if _calls_interface(module)] or modules[:1]
    if len(modules) > 1:
        names = ", ".join(type(module).__name__ for module in modules)
        raise refusal(
            modules[0], layer, f"it holds several attentions ({names})", "use a model with one attention per layer"
        )
    return modules[0]


def _calls_interface(module: nn.Module) -> bool:
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names
