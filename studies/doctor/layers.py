"""The path that attention takes in every decoder layer: implementation, kind, heads, and whether it can be recorded.

It learns them from one forward pass over a few text tokens, by listening to the calls that the model really makes. Of
layers without softmax it is told whether their hidden attention is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch
from torch import nn

from probes.attention_calls import AttentionCall, UnsupportedAttention
from probes.checkpoints import first_line
from probes.decoder import attention_modules, find_decoder
from probes.interface import listen, unlisten
from studies.auditing.mixers import Mixers

TOKENS = 8
"""Length of the forward pass."""


@dataclass(frozen=True)
class LayerPath:
    """One decoder layer's attention; without one, or one that was never called, all sizes are 0."""

    layer: int
    kind: str
    """full, sliding, chunked, cross, or the configuration's name of a layer without attention."""
    implementation: str | None = None
    window: int | None = None
    heads: int = 0
    key_value_heads: int = 0
    key_size: int = 0
    value_size: int = 0
    problem: str | None = None
    """Why an attention cannot be recorded."""
    unseen: str | None = None
    """Why an attention was not called, so that nothing is known of it."""
    mixer: str | None = None
    """The kind of layer whose hidden attention is recorded: "state space" or "linear attention"."""
    mixer_refused: str | None = None
    """Why a layer's hidden attention is not recorded."""

    @property
    def records(self) -> bool:
        """Whether the recorder was seen to read this layer."""
        return self.implementation is not None and self.problem is None

    def describe(self) -> str:
        """The layer without its number.

        >>> LayerPath(0, "mamba", mixer="state space").describe()
        'state space, hidden attention recorded'
        """
        if self.mixer is not None:
            read = f"{self.mixer}, hidden attention recorded"
            alone = not self.records and self.problem is None and self.unseen is None
            return read if alone else f"{self._attention()}; beside it {read}"
        if self.mixer_refused is not None:
            return f"{self._attention()}; no hidden attention: {self.mixer_refused}"
        return self._attention()

    def _attention(self) -> str:
        if self.problem is not None:
            return f"{self.kind}, not recorded: {self.problem}"
        if self.unseen is not None:
            return f"attention, not seen: {self.unseen}"
        if not self.records:
            return f"no attention ({self.kind}), not recorded"
        window = "" if self.window is None else f", window {self.window}"
        heads = f"{self.heads} heads, {self.key_value_heads} key-value heads of {self.key_size}"
        return f"{self.implementation}, {self.kind}{window}, {heads}, recorded"


@dataclass
class _Watcher:
    modules: Mapping[int, nn.Module]
    calls: dict[int, LayerPath] = field(default_factory=dict)

    def watches(self, module: nn.Module) -> bool:
        return any(module is each for each in self.modules.values())

    def change(self, call: AttentionCall) -> AttentionCall:
        return call

    def hear(self, call: AttentionCall) -> None:
        self.calls[call.layer] = LayerPath(
            call.layer,
            _kind(call),
            call.implementation,
            call.window,
            call.query.shape[1],
            call.key.shape[1],
            call.key.shape[3],
            call.value.shape[3],
        )


def layer_paths(model: Any, mixers: Mixers | None = None) -> list[LayerPath]:
    """Every decoder layer in order.

    Args:
        model: A transformers model that generates text.
        mixers: Its layers without softmax, where their hidden attention is asked for.

    Raises:
        UnsupportedAttention: If the decoder cannot be found or taken apart; names the layer.
    """
    modules = attention_modules(model)
    watcher = _Watcher(modules)
    unsupported, failed = _forward(model, watcher)
    config: Any = getattr(find_decoder(model), "config", None)
    kinds = list(getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or [])
    count = max(getattr(config, "num_hidden_layers", 0), *(layer + 1 for layer in modules), 0)
    paths = []
    for layer in range(count):
        kind = kinds[layer] if layer < len(kinds) else "none"
        if layer in watcher.calls:
            paths.append(watcher.calls[layer])
        elif layer in modules and unsupported is not None:
            paths.append(LayerPath(layer, kind, problem=unsupported))
        elif layer in modules:
            unseen = failed or "a forward over text alone does not call it, as where images are needed"
            paths.append(LayerPath(layer, kind, unseen=unseen))
        else:
            paths.append(LayerPath(layer, kind))
    return paths if mixers is None else [_with_mixer(path, mixers) for path in paths]


def describe_layers(paths: list[LayerPath]) -> list[str]:
    """Lines for people; neighbours that are alike share one.

    >>> describe_layers([LayerPath(0, "mamba"), LayerPath(1, "mamba")])
    ['layers 0-1: no attention (mamba), not recorded']
    """
    lines = []
    for text, group in groupby(paths, LayerPath.describe):
        same = [path.layer for path in group]
        named = f"layer {same[0]}" if len(same) == 1 else f"layers {same[0]}-{same[-1]}"
        lines.append(f"{named}: {text}")
    return lines


def _with_mixer(path: LayerPath, mixers: Mixers) -> LayerPath:
    refused = mixers.refused.get(path.layer)
    # Without its number, so that neighbours that are alike share one line.
    reason = None if refused is None else refused.removeprefix(f"decoder layer {path.layer} ")
    return replace(path, mixer=mixers.read.get(path.layer), mixer_refused=reason)


def _forward(model: Any, watcher: _Watcher) -> tuple[str | None, str | None]:
    """Run a few text tokens: why attention cannot be recorded, and why the forward fails; None where it does not."""
    special = {value for name, value in vars(model.config).items() if "token" in name and isinstance(value, int)}
    ids = [token for token in range(TOKENS + len(special)) if token not in special][:TOKENS]
    inputs = torch.tensor([ids], device=model.device)
    listen(watcher)
    try:
        with torch.inference_mode():
            model(input_ids=inputs, attention_mask=torch.ones_like(inputs), use_cache=False)
    except UnsupportedAttention as error:
        return str(error), None
    # Families refuse text without images in ways of their own; the layers then say so.
    except Exception as error:
        return None, f"a forward over text alone fails ({first_line(error)})"
    finally:
        unlisten(watcher)
    return None, None


def _kind(call: AttentionCall) -> str:
    if call.is_cross:
        return "cross"
    if call.window is None:
        return "full"
    return "chunked" if getattr(call.module, "attention_chunk_size", None) == call.window else "sliding"
