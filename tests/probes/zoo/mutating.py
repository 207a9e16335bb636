"""Wrong engines: each gets one term of the row computation wrong, for as long as a monkeypatch lasts.

A mutation says for itself where it is none, such as a dropped cap in a family without caps. Knows no family.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from probes import attention_rows
from probes.attention_calls import AttentionCall
from probes.attention_columns import ImageColumns
from probes.attention_rows import RowMask
from tests.probes.zoo.replaying import mask_kinds

Calls = Sequence[AttentionCall]


class Mutation(NamedTuple):
    """What a mutation patches, and for which calls it changes anything."""

    patch: Callable[[pytest.MonkeyPatch, Calls], None]
    applies: Callable[[Calls], bool]
    padded: bool = True
    """Whether it is looked at in a padded batch, or in one text alone."""


def _wrong_scale(patch: pytest.MonkeyPatch, _: Calls) -> None:
    real: Any = AttentionCall.__dict__["scaling"].fget
    patch.setattr(AttentionCall, "scaling", property(lambda call: real(call) * 0.7))


def _no_mask(patch: pytest.MonkeyPatch, _: Calls) -> None:
    patch.setattr(RowMask, "rows", lambda *_: None)


def _causal_mask(patch: pytest.MonkeyPatch, _: Calls) -> None:
    """What is left of a window, a chunk, a sparse choice or a bidirectional image: the columns up to each row."""
    real = RowMask.rows

    def rows(mask: RowMask, chosen: Tensor) -> Tensor | None:
        call = mask._call
        if call.is_cross:
            return real(mask, chosen)
        return torch.arange(call.key.shape[2])[None, None, None] <= chosen[:, None, :, None]

    patch.setattr(RowMask, "rows", rows)


def _without(*names: str) -> Mutation:
    """Calls as they would be without some keywords."""

    def patch(monkeypatch: pytest.MonkeyPatch, _: Calls) -> None:
        real = attention_rows._softmax

        def softmax(call: AttentionCall, *rest: Any) -> Any:
            kept = {name: value for name, value in call.keywords.items() if name not in names}
            fields = (call.module, call.implementation, call.query, call.key, call.value, call.mask)
            return real(AttentionCall(*fields, kept), *rest)

        monkeypatch.setattr(attention_rows, "_softmax", softmax)

    return Mutation(patch, lambda calls: any(_acts(call, name) for call in calls for name in names))


def _acts(call: AttentionCall, name: str) -> bool:
    """Whether a term is given and more than nothing: cross-attentions carry position biases of zeros."""
    value = call.keywords.get(name)
    return value is not None and bool(torch.as_tensor(value).any())


_TERMS = {"softcap": "soft cap", "s_aux": "sinks", "sinks": "sinks", "position_bias": "position bias"}


def terms(calls: Calls) -> set[str]:
    """What the softmax of these calls takes besides queries, keys and a mask."""
    return {said for name, said in _TERMS.items() if any(_acts(call, name) for call in calls)}


def _masked(calls: Calls) -> bool:
    """Whether anything is hidden from any row: cross-attentions may show all of an image to all."""
    return any(call.mask is not None or not call.is_cross for call in calls)


def _sum_for_mean(patch: pytest.MonkeyPatch, _: Calls) -> None:
    def ones(columns: ImageColumns) -> Tensor:
        return torch.ones(len(columns.rows), columns.images)

    patch.setattr(ImageColumns, "sizes", property(ones))


def _span_off_by_one(patch: pytest.MonkeyPatch, _: Calls) -> None:
    sums = ImageColumns.image_sums
    patch.setattr(ImageColumns, "image_sums", lambda columns, masses, first: sums(columns, masses, first - 1))


def _images_swapped(patch: pytest.MonkeyPatch, _: Calls) -> None:
    sums = ImageColumns.image_sums
    patch.setattr(ImageColumns, "image_sums", lambda columns, masses, first: sums(columns, masses, first).flip(-1))


def _layers_swapped(patch: pytest.MonkeyPatch, calls: Calls) -> None:
    layers = [int(call.module.layer_idx) for call in calls]  # type: ignore[arg-type]
    reverse = dict(zip(layers, reversed(layers), strict=True))
    patch.setattr(AttentionCall, "layer", property(lambda call: reverse[int(call.module.layer_idx)]))


def _always(_: Calls) -> bool:
    return True


MUTATIONS: dict[str, Mutation] = {
    "a wrong scale": Mutation(_wrong_scale, _always),
    "no mask": Mutation(_no_mask, _masked),
    "a causal mask": Mutation(_causal_mask, lambda calls: bool(mask_kinds(calls) - {"cross"}), padded=False),
    "no cap": _without("softcap"),
    "no sinks": _without("s_aux", "sinks"),
    "no position bias": _without("position_bias"),
    "a sum for a mean": Mutation(_sum_for_mean, _always),
    "spans off by one": Mutation(_span_off_by_one, _always),
    "images swapped": Mutation(_images_swapped, _always),
    "layers swapped": Mutation(_layers_swapped, lambda calls: len(calls) > 1),
}


@contextmanager
def without_rotation(model: nn.Module) -> Iterator[list[str]]:
    """A model whose rotary embeddings turn nothing, and the names of those that were asked."""
    asked: list[str] = []

    def still(module: nn.Module, _: Any, output: Any) -> Any:
        asked.append(type(module).__name__)
        if isinstance(output, tuple):
            return (torch.ones_like(output[0]), torch.zeros_like(output[1]))
        return torch.ones_like(output) if output.is_complex() else torch.zeros_like(output)

    modules = [module for module in model.modules() if "rotary" in type(module).__name__.lower()]
    hooks = [module.register_forward_hook(still) for module in modules]
    try:
        yield asked
    finally:
        for hook in hooks:
            hook.remove()
