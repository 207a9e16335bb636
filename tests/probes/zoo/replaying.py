"""Catches the attention calls of one forward, to be heard by further recorders without the model.

What a recorder makes of the same calls under a wrong formula then costs no forward. Knows no family.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from probes.attention import AttentionRecorder
from probes.attention_calls import AttentionCall, Place, seen
from probes.attention_rows import RowMask
from probes.decoder import attention_modules
from probes.interface import listen, unlisten


class CallCatcher:
    """Keeps, while entered, every attention call of a model's decoder."""

    def __init__(self, model: nn.Module) -> None:
        self._ids = {id(module) for module in attention_modules(model).values()}
        self.calls: list[AttentionCall] = []
        """The calls in order."""

    def __enter__(self) -> Self:
        listen(self)
        return self

    def __exit__(self, *_: Any) -> None:
        unlisten(self)

    def watches(self, module: nn.Module) -> bool:
        """Whether this is one of the decoder's attention modules."""
        return id(module) in self._ids

    def change(self, call: AttentionCall) -> AttentionCall:
        """The call as it is."""
        return call

    def hear(self, call: AttentionCall) -> None:
        """Keep the call."""
        self.calls.append(call)

    def replay(self, recorder: AttentionRecorder, attention_mask: Tensor | None) -> Tensor:
        """The factors that a new recorder makes of the calls, (batch, layers, images), as if in a forward."""
        with torch.no_grad(), recorder:
            recorder._padding._mask = attention_mask
            for call in self.calls:
                recorder.hear(call)
        return recorder.factors("rows")


def visible(call: AttentionCall) -> Tensor:
    """Bool (batch or 1, queries, keys): what each row of a first call sees in any head."""
    queries, keys = call.query.shape[2], call.key.shape[2]
    rows = torch.arange(queries).expand(call.query.shape[0], -1)
    mask = RowMask(call, Place(0, 0)).rows(rows)
    return torch.ones(1, queries, keys, dtype=torch.bool) if mask is None else seen(mask).any(1)


def mask_kinds(calls: Sequence[AttentionCall]) -> set[str]:
    """What the masks of calls without padding hide, or show, otherwise than a causal one.

    Any of "sliding", "chunked", "sparse", "bidirectional" and "cross".
    """
    kinds = set()
    for call in calls:
        if call.is_cross:
            kinds.add("cross")
            continue
        shown = visible(call)[0]
        causal = torch.ones_like(shown).tril()
        if bool((shown & ~causal).any()):
            kinds.add("bidirectional")
        hidden = causal & ~shown
        if bool(hidden.any()):
            kinds.add(_kind_of(hidden))
    return kinds


def _kind_of(hidden: Tensor) -> str:
    """Sliding where every row loses one column more than the last, chunked where rows start over at themselves."""
    first = (~hidden).int().argmax(-1)
    own = torch.arange(len(first))
    if not torch.equal(own[None] < first[:, None], hidden):
        return "sparse"
    steps = first.diff()
    if set(steps.tolist()) <= {0, 1}:
        return "sliding"
    return "chunked" if bool((first[1:] == own[1:])[steps > 0].all()) else "sparse"
