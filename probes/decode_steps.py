"""Rows of decode steps, put off and made several at a time, so that a step reads its keys once and not twice.

A step's row is made later from a later step's keys, of which it sees the first ones: they are the same as long as the
cache only grows, which is checked at every step. Knows nothing of images, row sets or sums.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from probes.attention_calls import SOFTMAX_TENSORS, SPARSE_CHOICES, AttentionCall, Place

__all__ = ["DecodeSteps"]

STEPS = 16
"""Steps whose rows are made at once."""


@dataclass
class _Waiting:
    """The steps of one layer whose rows are not made yet; `call` is the latest."""

    first: int
    call: AttentionCall
    queries: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)


class DecodeSteps:
    """Collects the decode steps of every layer, and hands them on as one call of several rows.

    Args:
        add: Takes a call, its place, int64 (batch, rows) and fp32 (batch, row sets, rows), as `column_masses` does.
    """

    def __init__(self, add: Callable[[AttentionCall, Place, Tensor, Tensor], None]) -> None:
        self._add = add
        self._waiting: dict[int, _Waiting] = {}
        self._changing: set[int] = set()

    def take(self, call: AttentionCall, place: Place, weights: Tensor) -> bool:
        """Put a step off if its row can be made later; returns whether it was.

        Args:
            call: The call.
            place: Where it stands in the sequence.
            weights: fp32 (batch, row sets, 1).
        """
        waiting = self._waiting.get(call.layer)
        if not _can_wait(call, place) or call.layer in self._changing:
            self.flush(call.layer)
            return False
        if waiting is not None and not _only_grew(waiting.call.key, call.key):
            self._changing.add(call.layer)
            self.flush(call.layer)
            return False
        if waiting is not None and (
            waiting.first + len(waiting.queries) != place.row or waiting.call.scaling != call.scaling
        ):
            self.flush(call.layer)
            waiting = None
        if waiting is None:
            waiting = self._waiting[call.layer] = _Waiting(place.row, call)
        waiting.call = call
        waiting.queries.append(call.query)
        waiting.weights.append(weights)
        if len(waiting.queries) == STEPS:
            self.flush(call.layer)
        return True

    def flush(self, layer: int) -> None:
        """Make the rows of a layer's waiting steps, if there are any."""
        waiting = self._waiting.pop(layer, None)
        if waiting is None:
            return
        batch, steps = waiting.call.query.shape[0], len(waiting.queries)
        query = torch.cat(waiting.queries, dim=2)
        # The name decides whether several rows without a mask are causal, as these are.
        keywords = {**waiting.call.keywords, "is_causal": True}
        call = replace(waiting.call, query=query, implementation="sdpa", keywords=keywords, output=None)
        rows = torch.arange(steps, device=query.device).expand(batch, -1)
        self._add(call, Place(waiting.first, 0), rows, torch.cat(waiting.weights, dim=2))

    def flush_all(self) -> None:
        """Make what is waiting in every layer."""
        for layer in list(self._waiting):
            self.flush(layer)


def _can_wait(call: AttentionCall, place: Place) -> bool:
    """Whether a call is one row that sees every key so far, all of the prompt's and the steps'.

    Elsewhere than on a CPU the check of the keys would wait for the device at every step.
    """
    return (
        call.query.shape[2] == 1
        and call.mask is None
        and not call.blocks
        and not call.is_cross
        and call.window is None
        and call.key.shape[2] == place.row + 1
        and call.query.device.type == "cpu"
        and not call.keeps_prompt
        and not any(call.keywords.get(name) is not None for name in SOFTMAX_TENSORS | SPARSE_CHOICES)
    )


def _only_grew(before: Tensor, after: Tensor) -> bool:
    """Whether the keys begin with those of the step before, told by its own key: quantized caches rewrite it later."""
    last = before.shape[2] - 1
    return after.shape[2] > last and torch.equal(before[:, :, last], after[:, :, last])
