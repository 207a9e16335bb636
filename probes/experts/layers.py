"""Finds the mixtures of experts of a decoder: block, router, routed and shared experts, and how the router chooses.

Goes by module identity inside the decoder's own layers. Knows nothing of what is recorded or changed.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from probes.decoder import decoder_layers
from probes.experts.rules import NO_GROUPS, RULES, FloatArray, Grouping, RouterRule
from probes.inputs import InputError
from probes.layer_kinds import LayerKind, chosen_layers
from probes.layer_parts import layer_kinds, routed_experts


class UnsupportedRouting(InputError):  # noqa: N818
    """A layer whose routing cannot be read or changed. The message names layer, reason and way forward."""


@dataclass(frozen=True, eq=False)
class ExpertLayer:
    """The mixture of experts of one decoder layer.

    Attributes:
        layer: True index in the decoder.
        block: The module that holds router and experts.
        router: The module that returns logits (tokens, experts), weights and indices (tokens, k).
        experts: The stack of routed experts.
        shared: Modules of experts that every token goes to, by name.
        rule: How the router chooses.
        count: Number of routed experts.
    """

    layer: int
    block: nn.Module
    router: nn.Module
    experts: nn.Module
    shared: Mapping[str, nn.Module]
    rule: RouterRule
    count: int

    def affinities(self, logits: Tensor) -> Tensor:
        """What the router makes of its logits, fp32 (tokens, experts)."""
        if self.rule.affinity == "softmax":
            return logits.float().softmax(dim=-1)
        return logits.float().sigmoid() if self.rule.affinity == "sigmoid" else logits.float()

    def bias(self) -> FloatArray:
        """What is added to affinities for the choice alone, (experts,); 0 where the router has no bias.

        Raises:
            UnsupportedRouting: If the rule names a bias that the router has not.
        """
        if self.rule.bias is None:
            return np.zeros(self.count, dtype=np.float32)
        found = getattr(self.router, self.rule.bias, None)
        if not isinstance(found, Tensor) or found.numel() != self.count:
            raise self.refuse(f"it has no {self.rule.bias!r} of {self.count} numbers", "give a rule without this bias")
        values: FloatArray = found.detach().flatten().float().cpu().numpy().copy()
        return values

    def grouping(self) -> Grouping:
        """Groups of experts that the router shuts out.

        Raises:
            UnsupportedRouting: If the router's groups do not divide its experts.
        """
        only = self.rule.groups_if
        if self.rule.groups is None or (only is not None and getattr(self.router, only[0], None) != only[1]):
            return NO_GROUPS
        groups, kept = (getattr(self.router, name, None) for name in self.rule.groups)
        if not isinstance(groups, int) or not isinstance(kept, int) or groups < 1 or self.count % groups:
            raise self.refuse(
                f"its {self.count} experts do not divide into {groups} groups of which {kept} are kept",
                "give a rule without groups",
            )
        return Grouping(groups, kept, self.rule.best)

    def refuse(self, reason: str, way: str) -> UnsupportedRouting:
        """The error that names this layer."""
        return _refusal(self.layer, self.router, reason, way)


def expert_layers(
    model: nn.Module, layers: Collection[int] | None = None, rules: Mapping[str, RouterRule] | None = None
) -> dict[int, ExpertLayer]:
    """The mixtures of experts of a decoder, by true layer index, in order.

    Args:
        model: A transformers model, or its decoder.
        layers: True indices; None is every layer with experts.
        rules: Rules of further routers, by the name of their class; they go before the known ones.

    Raises:
        InputError: If there are no such layers, and as `probes.layer_parts.layer_kinds`.
        UnsupportedRouting: If a router's class is not known, or a layer holds none or several.
    """
    chosen = chosen_layers(layer_kinds(model), LayerKind.EXPERTS, layers)
    modules, known = decoder_layers(model), {**RULES, **(rules or {})}
    return {layer: _expert_layer(layer, modules[layer], known) for layer in chosen}


def _expert_layer(layer: int, module: nn.Module, known: Mapping[str, RouterRule]) -> ExpertLayer:
    blocks = [part for part in module.modules() if routed_experts(part) is not None]
    if len(blocks) != 1:
        names = ", ".join(type(part).__name__ for part in blocks) or "none of its modules holds `experts`"
        raise _refusal(
            layer, module, f"it has no single mixture of experts ({names})", "read layers with one mixture each"
        )
    block, experts = blocks[0], routed_experts(blocks[0])
    assert experts is not None
    router = _router(layer, block, known)
    count: Any = getattr(router, "num_experts", None) or getattr(experts, "num_experts", None)
    if not isinstance(count, int):
        raise _refusal(layer, router, "neither it nor its experts tell their number", "give them `num_experts`")
    shared = {**_shared(module), **_shared(block)}
    return ExpertLayer(layer, block, router, experts, shared, known[type(router).__name__], count)


def _router(layer: int, block: nn.Module, known: Mapping[str, RouterRule]) -> nn.Module:
    routers = [child for child in block.children() if type(child).__name__ in known]
    if len(routers) == 1:
        return routers[0]
    strange = [getattr(block, name, None) for name in ("gate", "router")]
    unknown = [each for each in strange if isinstance(each, nn.Module)]
    name = type(unknown[0]).__name__ if unknown else ""
    if not name or routers:
        raise _refusal(layer, block, "its router is not found", "use a family whose mixture holds one router")
    raise _refusal(
        layer,
        unknown[0],
        "how this router chooses is not known",
        f"give rules={{{name!r}: RouterRule(...)}} (probes.experts.rules) if it returns logits (tokens, experts), "
        "weights and indices (tokens, k)",
    )


def _shared(module: nn.Module) -> dict[str, nn.Module]:
    """Shared experts that a module holds itself; a map that only gates them is none."""
    return {
        name: child
        for name, child in module.named_children()
        if name.startswith("shared") and not isinstance(child, nn.Linear)
    }


def _refusal(layer: int, module: nn.Module, reason: str, way: str) -> UnsupportedRouting:
    return UnsupportedRouting(f"decoder layer {layer} ({type(module).__name__}): {reason}; {way}")
