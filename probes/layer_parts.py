"""Finds, in the modules of each decoder layer, what the layer is made of.

Goes by the modules themselves: attention by the same signs as `probes.decoder`, recurrences by their decay parameters,
experts by the stack that a router stands beside. The configuration is only asked afterwards, and has to agree. Knows
nothing of what is done with a kind.
"""

import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from probes.decoder import calls_interface, decoder_layers, find_decoder, is_attention, named_kinds
from probes.errors import InputError
from probes.layer_kinds import LayerKind, LayerKinds, check_against_config, of_parts

_FEED_FORWARD = re.compile(r"mlp|ffn|feedforward|layerff|intermediate", re.IGNORECASE)
"""What families call dense feed-forward blocks."""
_MIXTURE = re.compile(r"(MoE|Moe)(Block|Layer)?$")
"""What families call mixtures of experts, whatever they call the experts."""
_TWO_MAPS = ("fc1", "fc2")
"""What families call their two maps where a layer holds them without a block around."""


def layer_kinds(model: nn.Module) -> dict[int, LayerKinds]:
    """What each decoder layer is made of, by true layer index, in order.

    What else a layer holds is no kind of its own: norms, adapters, embeddings and residual connections of a layer, and
    the short convolutions that stand inside or behind other parts.

    Args:
        model: A transformers model, or its decoder.

    Raises:
        InputError: If a layer has no part of a known kind, or its parts are not what the configuration's `layer_types`
            (or `layers_block_type`) and `mlp_layer_types` say.
        UnsupportedAttention: If the decoder's list of layers is not found.
    """
    decoder = find_decoder(model)
    kinds = {}
    for layer, module in decoder_layers(model).items():
        kinds[layer] = of_parts(layer, {kind for kind, _ in parts_of(module)})
        if not kinds[layer].all:
            raise InputError(
                f"decoder layer {layer} ({type(module).__name__}) holds no part of a known kind: read its residual "
                "stream instead (probes.residuals)"
            )
    config: Any = getattr(decoder, "config", None)
    check_against_config(kinds, named_kinds(decoder), list(getattr(config, "mlp_layer_types", None) or []))
    return kinds


def parts_of(layer: nn.Module) -> Iterator[tuple[LayerKind, nn.Module]]:
    """The outermost modules of known kinds inside a decoder layer; where experts stand beside other parts of the layer
    without a block around (Gemma 4), their module is the layer.
    """
    if routed_experts(layer) is not None:
        yield LayerKind.EXPERTS, layer
    if all(isinstance(getattr(layer, name, None), nn.Linear) for name in _TWO_MAPS):
        yield LayerKind.MLP, layer
    yield from _below(layer)


def routed_experts(block: nn.Module) -> nn.Module | None:
    """The stack of routed experts that a block holds itself, or None."""
    found: Any = getattr(block, "experts", None)
    return found if isinstance(found, nn.Module) else None


def _below(outer: nn.Module) -> Iterator[tuple[LayerKind, nn.Module]]:
    for name, module in outer.named_children():
        if not any(parameter.dim() > 1 for parameter in module.parameters()) or module is routed_experts(outer):
            continue
        kind = _kind(name, module)
        if kind is not None:
            yield kind, module
        elif "Norm" not in type(module).__name__:
            yield from _below(module)


def _kind(name: str, module: nn.Module) -> LayerKind | None:
    decays = {decay for part in (module, *module.children()) for decay in _own(part)}
    if "A_log" in decays:
        return LayerKind.STATE_SPACE if "D" in decays else LayerKind.LINEAR_ATTENTION
    if "slope_rate" in decays and not calls_interface(module):
        return LayerKind.LINEAR_ATTENTION
    if is_attention(module):
        return LayerKind.ATTENTION
    if _MIXTURE.search(type(module).__name__) or any(routed_experts(part) is not None for part in module.modules()):
        return LayerKind.EXPERTS
    if _is_gated_convolution(module):
        return LayerKind.CONVOLUTION
    if _FEED_FORWARD.search(type(module).__name__) or name in ("mlp", "ffn", "feed_forward"):
        return LayerKind.MLP
    return None


def _own(module: nn.Module) -> Iterator[str]:
    """Names of a module's own parameters and buffers."""
    tensors: list[tuple[str, Tensor]] = [
        *module.named_parameters(recurse=False),
        *module.named_buffers(recurse=False),
    ]
    return (name for name, _ in tensors)


def _is_gated_convolution(module: nn.Module) -> bool:
    """A convolution along the tokens between linear maps, which is all there is."""
    children = [each for each in module.children() if any(True for _ in each.parameters())]
    maps = [each for each in children if isinstance(each, nn.Linear)]
    return len(maps) > 1 and any(isinstance(each, nn.Conv1d) for each in children)
