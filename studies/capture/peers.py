"""The same question put to other tools, by their own documented ways: TransformerLens and nnsight.

Both run eager attention, since they read its weights. Each is imported where it is used.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from studies.capture.forwards import Prompt, factors_of

PATTERN = "attn.hook_pattern"


def bridged(model: nn.Module) -> nn.Module:
    """The decoder as a TransformerBridge; it is changed in place."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    config: Any = model.config
    bridge: nn.Module = build_bridge_from_module(model, type(model).__name__, hf_config=config)
    return bridge


@torch.no_grad()
def _lens_cache(bridge: Any, given: Prompt) -> Tensor:
    _, cache = bridge.run_with_cache(given.inputs["input_ids"], use_cache=False, logits_to_keep=1)
    layers = range(bridge.cfg.n_layers)
    return torch.stack([factors_of(cache[f"blocks.{layer}.{PATTERN}"], given) for layer in layers])[None]


@torch.no_grad()
def _lens_hooks(bridge: Any, given: Prompt) -> Tensor:
    found: list[Tensor] = []

    def reduce(pattern: Tensor, hook: Any) -> None:  # noqa: ARG001
        found.append(factors_of(pattern, given))

    hooks = [(lambda name: name.endswith(PATTERN), reduce)]
    bridge.run_with_hooks(given.inputs["input_ids"], fwd_hooks=hooks, use_cache=False, logits_to_keep=1)
    return torch.stack(found)[None]


def _nnsight(model: nn.Module, given: Prompt) -> Tensor:
    from nnsight import NNsight

    traced: Any = NNsight(model)
    first, last = given.rows[0], given.rows[-1] + 1
    spans = given.spans[0]
    with torch.no_grad(), traced.trace(**given.inputs, use_cache=False, logits_to_keep=1):
        found = list().save()  # type: ignore[attr-defined]  # noqa: C408
        for layer in traced.model.layers:
            rows = layer.self_attn.output[1][0, :, first:last].mean((0, 1))
            found.append(torch.stack([rows[start:stop].mean() for start, stop in spans]))
    return torch.stack(list(found))[None]


PEERS: dict[str, Callable[[Any, Prompt], Tensor]] = {
    "lens_cache": _lens_cache,
    "lens_hooks": _lens_hooks,
    "nnsight": _nnsight,
}
