"""The exact routing of mixtures of experts, recorded while the model runs as it always does.

Choices and weights are what each router hands to its experts. Recomputing them from the logits that transformers can
return (`output_router_logits`) goes wrong where a bias or groups decide: those logits are raw. The scores of a choice
are made of the logits by the router's rule, and refused unless they explain every choice. Knows nothing of processors
or questions, and measures nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from probes.attention_columns import ImageColumns
from probes.experts.hearing import ExpertHooks, Place, Routed
from probes.experts.layers import ExpertLayer, UnsupportedRouting, expert_layers
from probes.experts.records import TEXT, LayerRouting, Routing, joined, stacked
from probes.experts.rules import FloatArray, IntArray, RouterRule, unexplained
from probes.forwards import run_once

__all__ = ["LayerRouting", "Routing", "RoutingRecorder", "UnsupportedRouting", "joined", "record_routing"]


class _Call(NamedTuple):
    """One call of a router, without padding."""

    indices: IntArray
    weights: FloatArray
    affinities: FloatArray
    bias: FloatArray
    """As it was then: training moves it from one forward to the next."""
    samples: IntArray
    columns: IntArray


class RoutingRecorder:
    """Records, while entered, which experts each token goes to, with which weights and scores.

    One recorder follows one batch of sequences from its prompt on: a forward, or a prefill and its decode steps,
    without beams. It hears the forwards of the thread that entered it. Padding, by the forward's `attention_mask`
    (batch, tokens), is left out. Memory: layers x tokens x experts numbers.

    Args:
        model: A transformers model, or its decoder.
        layers: True indices of the layers recorded; None is every layer with experts.
        rules: Rules of further routers, by the name of their class; see `probes.experts.rules`.

    Raises:
        InputError: If a layer has no experts; the message names those that do. While the model runs, if beams swap the
            sequences of the batch.
        UnsupportedRouting: At once, if a router's class is not known; at the call, if its choices are not those of its
            rule, its bias has moved since the last call, padding is not known, a call does not go on where the last
            one ended, or goes on from a cache that was filled before; on leaving, if a layer never ran.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Collection[int] | None = None,
        rules: Mapping[str, RouterRule] | None = None,
    ) -> None:
        self._mixtures = expert_layers(model, layers, rules)
        self.layers = list(self._mixtures)
        """True indices of the recorded layers, in order."""
        self._hooks = ExpertHooks(model, self._mixtures, self._hear)
        self._calls: dict[int, list[_Call]] = {layer: [] for layer in self.layers}
        self._state = "new"

    def __enter__(self) -> Self:
        if self._state != "new":
            raise RuntimeError("a RoutingRecorder is used once: make another for the next forward")
        self._state = "open"
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = "broken"
        self._hooks.__exit__(kind, error, trace)
        if kind is None:
            self._state = "done"

    @property
    def tokens(self) -> int:
        """Tokens recorded so far, padding left out."""
        return sum(len(call.samples) for call in self._calls[self.layers[0]])

    def by_layer(self) -> dict[int, LayerRouting]:
        """What each layer's router did, by true layer index; tokens sample by sample, in order."""
        if self._state != "done":
            raise RuntimeError("routing is read after the recorder's with block has ended without an error")
        return {layer: _layer_routing(mixture, self._calls[layer]) for layer, mixture in self._mixtures.items()}

    def routing(self, image_spans: Sequence[Any] = ()) -> Routing:
        """The same as one record, every token labelled.

        Args:
            image_spans: Columns of each image, one list for the whole batch or one per batch row: (start, stop), or
                spans with `.runs`. Empty where there are none.

        Raises:
            InputError: If spans do not fit the batch, or layers differ in their experts.
        """
        records = self.by_layer()
        calls = self._calls[self.layers[0]]
        order = _order(calls)
        samples = np.concatenate([call.samples for call in calls])[order]
        columns = np.concatenate([call.columns for call in calls])[order]
        return stacked(records, samples, columns, _image_labels(image_spans, samples, columns))

    @torch.no_grad()
    def _hear(self, mixture: ExpertLayer, place: Place, routed: Routed) -> None:
        real = place.real.flatten()
        kept = real.to(routed.logits.device)
        affinities = mixture.affinities(routed.logits)[kept]
        call = _Call(
            indices=routed.indices[kept].long().cpu().numpy(),
            weights=_array(routed.weights[kept]),
            affinities=_array(affinities),
            bias=mixture.bias(),
            samples=real.nonzero().flatten().numpy() // place.tokens,
            columns=real.nonzero().flatten().numpy() % place.tokens + place.first,
        )
        _check(mixture, call)
        before = self._calls[mixture.layer]
        if before and not np.array_equal(before[0].bias, call.bias):
            raise mixture.refuse(
                "its bias has moved since the last call", "record the forwards between two steps of training apart"
            )
        before.append(call)


def record_routing(
    model: nn.Module,
    inputs: Mapping[str, Any],
    layers: Collection[int] | None = None,
    rules: Mapping[str, RouterRule] | None = None,
) -> dict[int, LayerRouting]:
    """Which experts each token goes to, from one forward of the model.

    Args:
        model: A transformers model, or its decoder. It runs without gradients and without a cache, and is left as
            found.
        inputs: What `model(**inputs)` takes, a batch.
        layers: True indices of the layers recorded; None is every layer with experts.
        rules: See `RoutingRecorder`.

    Returns:
        By true layer index a record with `.indices`, `.weights` (tokens, k) and `.scores` (tokens, experts), as the
        model used them: tokens without padding, batch row by batch row.

    Raises:
        InputError, UnsupportedRouting: As `RoutingRecorder`.
    """
    recorder = RoutingRecorder(model, layers, rules)
    with recorder:
        run_once(model, inputs)
    return recorder.by_layer()


def _check(mixture: ExpertLayer, call: _Call) -> None:
    """Refuse choices that the rule does not explain: scores made by it would be of another router."""
    record = LayerRouting(call.indices, call.weights, call.affinities, call.bias, mixture.grouping())
    wrong = unexplained(record.scores, call.indices)
    if wrong.any():
        raise mixture.refuse(
            f"{int(wrong.sum())} of {wrong.size} tokens do not go to the experts with the highest scores by its rule, "
            f"{mixture.rule}",
            f"give rules={{{type(mixture.router).__name__!r}: RouterRule(...)}} as it really chooses",
        )


def _layer_routing(mixture: ExpertLayer, calls: Sequence[_Call]) -> LayerRouting:
    order = _order(calls)
    return LayerRouting(
        indices=np.concatenate([call.indices for call in calls])[order],
        weights=np.concatenate([call.weights for call in calls])[order],
        affinities=np.concatenate([call.affinities for call in calls])[order],
        bias=calls[0].bias,
        grouping=mixture.grouping(),
    )


def _order(calls: Sequence[_Call]) -> IntArray:
    """Sample by sample, and in a sample column by column: calls come step by step."""
    samples = np.concatenate([call.samples for call in calls])
    columns = np.concatenate([call.columns for call in calls])
    return np.lexsort((columns, samples))


def _image_labels(image_spans: Sequence[Any], samples: IntArray, columns: IntArray) -> IntArray:
    """(tokens,): which image of its sample each token belongs to."""
    labels = np.full(len(samples), TEXT, dtype=np.int64)
    if all(isinstance(images, list | tuple) and not images for images in image_spans):
        return labels
    rows, width = int(samples.max(initial=-1)) + 1, int(columns.max(initial=-1)) + 1
    for row, images in enumerate(ImageColumns(image_spans, rows, width, "the recorded").rows):
        own = samples == row
        for image, runs in enumerate(images):
            for start, stop in runs:
                labels[own & (columns >= start) & (columns < stop)] = image
    return labels


def _array(values: Tensor) -> FloatArray:
    array: FloatArray = values.detach().float().cpu().numpy()
    return array
