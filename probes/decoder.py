"""Which modules of a model are the attention layers of its text decoder.

Goes by module identity inside the decoder, so that vision towers and projectors that use the same classes stay out.
Knows nothing of how attention is read.
"""

import inspect
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from probes.attention_calls import UnsupportedAttention, refusal
from probes.cross_attention import is_cross_attention, is_merged
from probes.layer_kinds import WITHOUT_ATTENTION


def find_decoder(model: nn.Module) -> nn.Module:
    """The text decoder inside a model, or the model itself when it is one; never an encoder beside it.

    Raises:
        UnsupportedAttention: If none is found.
    """
    get_decoder: Any = getattr(model, "get_decoder", None)
    decoder = model if get_decoder is None else get_decoder()
    if not isinstance(decoder, nn.Module):
        raise UnsupportedAttention(f"{type(model).__name__}: no text decoder found; pass the decoder itself")
    inner = getattr(decoder, "decoder", None)
    return inner if isinstance(inner, nn.Module) and hasattr(decoder, "encoder") else decoder


def attention_modules(model: nn.Module) -> dict[int, nn.Module]:
    """The decoder's attention modules by true layer index, in order.

    A module with a layer index is one if it is called so, or calls transformers' attention interface. Where layers have
    a cross-attention to an encoder or to image features beside the one to their own tokens, only the former counts:
    images are no tokens there (encoder-decoders; Idefics, whose cross-attentions have a numbering of their own).

    Raises:
        UnsupportedAttention: If a layer holds several attentions and none is a cross-attention that is known, or should
            hold one and none is found in it.
    """
    decoder = find_decoder(model)
    candidates = _candidates(decoder)
    crossing = _beside_own(candidates)
    if crossing:
        return crossing
    config: Any = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedAttention(
            f"{type(model).__name__}: encoder-decoder layers hold several attentions, none of them known; use a "
            "decoder-only model"
        )
    _refuse_gaps(decoder, candidates)
    return {layer: _only(layer, candidates[layer]) for layer in sorted(candidates)}


def _candidates(decoder: nn.Module) -> dict[int, list[nn.Module]]:
    """Every module with a layer index that may be an attention, by that index."""
    found: dict[int, list[nn.Module]] = {}
    for module in decoder.modules():
        layer = getattr(module, "layer_idx", None)
        if isinstance(layer, int) and is_attention(module) and _has_attention(decoder, layer):
            found.setdefault(layer, []).append(module)
    return found


def _beside_own(candidates: dict[int, list[nn.Module]]) -> dict[int, nn.Module]:
    """The known cross-attentions by layer, where they stand beside attentions to the decoder's own tokens."""
    found, apart = {}, False
    for layer in sorted(candidates):
        modules = [module for module in candidates[layer] if calls_interface(module)]
        crossing = [module for module in modules if is_cross_attention(module)]
        if crossing:
            found[layer] = _only(layer, crossing)
            apart = apart or len(modules) > len(crossing) or is_merged(crossing[0])
    return found if apart else {}


def _numbered(decoder: nn.Module) -> dict[int, nn.Module]:
    """For every layer index one of the modules that carry it."""
    return {
        layer: module for module in decoder.modules() if isinstance(layer := getattr(module, "layer_idx", None), int)
    }


def image_layers(model: nn.Module) -> list[int]:
    """Attention layers that reach images, true indices: those with a cross-attention where there are any, else all.

    Raises:
        UnsupportedAttention: As `attention_modules`.
    """
    modules = attention_modules(model)
    crossing = [layer for layer, module in modules.items() if is_cross_attention(module)]
    return crossing or list(modules)


def decoder_layers(model: nn.Module) -> dict[int, nn.Module]:
    """The decoder's layers of every kind by true layer index, in order.

    They are the list in the decoder whose entries hold the attention modules of the same index; those to the decoder's
    own tokens, where cross-attentions may stand in blocks of their own (Idefics). Without any attention they are the
    list whose entries hold the modules with the same layer index.

    Raises:
        UnsupportedAttention: If there is no such list; as `attention_modules`.
    """
    decoder, held = find_decoder(model), attention_modules(model)
    for layer, modules in _candidates(decoder).items():
        own = [module for module in modules if calls_interface(module) and not is_cross_attention(module)]
        if len(own) == 1:
            held[layer] = own[0]
    held = held or _numbered(decoder)
    for module in decoder.modules():
        if not isinstance(module, nn.ModuleList) or len(module) <= max(held, default=-1) or not held:
            continue
        if all(any(part is own for part in module[layer].modules()) for layer, own in held.items()):
            return dict(enumerate(module))
    raise UnsupportedAttention(
        f"{type(model).__name__}: no list of decoder layers is found that holds its attentions; knock out attention "
        "instead of patching the residual stream"
    )


def last_logits(model: nn.Module, rows: int, tokens: int) -> int | Tensor:
    """What `logits_to_keep` has to be for the last rows of so many tokens, every layer running on all of them.

    Layers that reuse earlier ones' keys run on the kept rows alone when these are given as a number.
    """
    return torch.arange(tokens - rows, tokens) if shares_keys(model) else rows


def shares_keys(model: nn.Module) -> bool:
    """Whether late layers reuse earlier ones' keys (Gemma 3n, Gemma 4)."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    return bool(getattr(text, "num_kv_shared_layers", 0))


def is_attention(module: nn.Module) -> bool:
    """Whether a module is called an attention, or calls transformers' attention interface."""
    return "attention" in type(module).__name__.lower() or calls_interface(module)


def named_kinds(decoder: nn.Module) -> list[str]:
    """What the decoder's configuration calls its layers, one by one; empty where it does not."""
    config: Any = getattr(decoder, "config", None)
    return list(getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or [])


def _has_attention(decoder: nn.Module, layer: int) -> bool:
    kinds = named_kinds(decoder)
    return layer >= len(kinds) or kinds[layer] not in WITHOUT_ATTENTION


def _refuse_gaps(decoder: nn.Module, found: Collection[int]) -> None:
    """Refuse layers that should hold an attention and show none: left out, they would shift or thin every result."""
    config: Any = getattr(decoder, "config", None)
    count = getattr(config, "num_hidden_layers", None)
    # Without kinds and without any attention, as in Mamba, there is nothing to say that a layer should hold one.
    if not isinstance(count, int) or not (found or named_kinds(decoder)):
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
        modules = [module for module in modules if calls_interface(module)] or modules[:1]
    if len(modules) > 1:
        names = ", ".join(type(module).__name__ for module in modules)
        raise refusal(
            modules[0], layer, f"it holds several attentions ({names})", "use a model with one attention per layer"
        )
    return modules[0]


def calls_interface(module: nn.Module) -> bool:
    """Whether a module's forward goes through transformers' attention interface."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names
