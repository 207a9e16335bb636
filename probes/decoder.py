"""Which modules of a model are the attention layers of its text decoder.

Goes by module identity inside the decoder, so that vision towers and projectors that use the same classes stay out.
Knows nothing of how attention is read.
"""

import inspect
from collections.abc import Collection
from typing import Any

from torch import nn

from probes.attention_calls import UnsupportedAttention, refusal

_NOT_ATTENTION = frozenset(
    {"linear_attention", "mamba", "mamba2", "conv", "recurrent", "moe", "mlp", "sparse", "dense"}
)
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

    A module with a layer index is one if it is called so, or calls transformers' attention interface.

    Raises:
        UnsupportedAttention: If a layer holds several attentions, or should hold one and none is found in it; for
            encoder-decoder models.
    """
    decoder = find_decoder(model)
    candidates: dict[int, list[nn.Module]] = {}
    for module in decoder.modules():
        layer = getattr(module, "layer_idx", None)
        if isinstance(layer, int) and _is_attention(module) and _has_attention(decoder, layer):
            candidates.setdefault(layer, []).append(module)
    _refuse_gaps(decoder, candidates)
    return {layer: _only(layer, candidates[layer]) for layer in sorted(candidates)}


def decoder_layers(model: nn.Module) -> dict[int, nn.Module]:
    """The decoder's layers of every kind by true layer index, in order.

    They are the list in the decoder whose entries hold the attention modules of the same index.

    Raises:
        UnsupportedAttention: If there is no such list; as `attention_modules`.
    """
    decoder, attentions = find_decoder(model), attention_modules(model)
    for module in decoder.modules():
        if not isinstance(module, nn.ModuleList) or len(module) <= max(attentions, default=-1) or not attentions:
            continue
        if all(any(part is own for part in module[layer].modules()) for layer, own in attentions.items()):
            return dict(enumerate(module))
    raise UnsupportedAttention(
        f"{type(model).__name__}: no list of decoder layers is found that holds its attentions; knock out attention "
        "instead of patching the residual stream"
    )


def _is_attention(module: nn.Module) -> bool:
    return "attention" in type(module).__name__.lower() or _calls_interface(module)


def _kinds(decoder: nn.Module) -> list[str]:
    config: Any = getattr(decoder, "config", None)
    return list(getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or [])


def _has_attention(decoder: nn.Module, layer: int) -> bool:
    kinds = _kinds(decoder)
    return layer >= len(kinds) or kinds[layer] not in _NOT_ATTENTION


def _refuse_gaps(decoder: nn.Module, found: Collection[int]) -> None:
    """Refuse layers that should hold an attention and show none: left out, they would shift or thin every result."""
    config: Any = getattr(decoder, "config", None)
    count = getattr(config, "num_hidden_layers", None)
    # Without kinds and without any attention, as in Mamba, there is nothing to say that a layer should hold one.
    if not isinstance(count, int) or not (found or _kinds(decoder)):
        return
    for layer in range(count):
        if layer in found or not _has_attention(decoder, layer):
            continue
        own = [module for module in decoder.modules() if getattr(module, "layer_idx", None) == layer]
        raise refusal(
            own[-1] if own else decoder,
            layer,
            "the configuration gives it an attention, and none of its modules is known as one",
            'use a model whose layers call transformers\' attention interface, with attn_implementation="sdpa"',
        )


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
