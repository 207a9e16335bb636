"""One call of a layer's attention: what was passed, where its rows and columns stand, and why a layer is refused.

Knows nothing of who listens to calls, of images, or of model families.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from probes.cross_attention import is_cross_attention, is_merged
from probes.inputs import InputError

HARMLESS_TENSORS = frozenset({"position_ids", "cache_position", "token_type_ids", "mm_token_type_ids"})
"""Tensor keywords that leave the softmax alone."""
SOFTMAX_TENSORS = frozenset({"s_aux", "sinks", "position_bias"})
"""Those that the row computation takes into account."""
SPARSE_CHOICES = frozenset({"indices", "block_indices"})
"""The columns that an indexer chose; eager and sdpa find them in their mask as well."""
_APPLIED_BY = {"position_bias": ("eager", "sdpa", "flex_attention"), "sinks": ("eager",)}
"""Implementations that apply them; the others take them and leave them out."""


class UnsupportedAttention(InputError):  # noqa: N818
    """A layer whose attention cannot be read or changed. The message names layer, reason and way forward."""


class Block(NamedTuple):
    """Rows that must not see columns in one call: `rows` bool (batch, queries), `columns` bool (batch, keys)."""

    rows: Tensor
    columns: Tensor


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One call of an attention implementation, as transformers makes it.

    Args:
        module: The layer's attention module.
        implementation: Its name, such as "sdpa", "eager" or "flash_attention_2".
        query: (batch, heads, queries, size), rotated already.
        key: (batch, key-value heads, keys, size), rotated already, cached keys included.
        value: (batch, key-value heads, keys, size).
        mask: None, bool or additive float (batch or 1, heads or 1, queries, keys), a flex BlockMask, or flash
            attention's (batch, keys).
        keywords: Every other keyword of the call.
        blocks: What knock-outs forbid on top of the mask.
        output: (batch, queries, heads, size) or with heads and size in one: what the call gave, once it has been made.
    """

    module: nn.Module
    implementation: str
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Any
    keywords: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    output: Tensor | None = None

    @property
    def layer(self) -> int:
        """True index of the layer in its decoder."""
        return int(self.module.layer_idx)  # type: ignore[arg-type]

    @property
    def scaling(self) -> float:
        """Factor on the logits."""
        scaling = self.keywords.get("scaling")
        return float(self.query.shape[-1] ** -0.5 if scaling is None else scaling)

    @property
    def is_cross(self) -> bool:
        """Whether the layer attends to features by cross-attention: its columns are no tokens of the prompt."""
        return is_cross_attention(self.module)

    @property
    def is_causal(self) -> bool:
        """Whether a call without a mask is causal: the keyword before the module, and no cross-attention."""
        if self.is_cross:
            return False
        keyword = self.keywords.get("is_causal")
        return bool(getattr(self.module, "is_causal", True) if keyword is None else keyword)

    @property
    def window(self) -> int | None:
        """Sliding window or chunk of the layer, None when it sees every earlier token."""
        for value in (
            self.keywords.get("sliding_window"),
            getattr(self.module, "sliding_window", None),
            getattr(self.module, "attention_chunk_size", None),
            getattr(self._config, "attention_chunk_size", None) if self._kind == "chunked_attention" else None,
        ):
            if isinstance(value, int) and value > 0:
                return value
        return None

    @property
    def keeps_prompt(self) -> bool:
        """Whether a window slides over generated tokens only, and every prompt token stays (Unlimited OCR)."""
        return self._kind == "reference_sliding_attention"

    @property
    def _config(self) -> Any:
        return getattr(self.module, "config", None)

    @property
    def _kind(self) -> str | None:
        """Kind of the layer, by its configuration."""
        kinds = getattr(self._config, "layer_types", None) or []
        return kinds[self.layer] if self.layer < len(kinds) else None

    @property
    def _choice_is_in_mask(self) -> bool:
        in_full = isinstance(self.mask, Tensor) and self.mask.dim() == 4
        return in_full and self.implementation in ("eager", "sdpa")

    def refuse(self, reason: str, way: str) -> UnsupportedAttention:
        """The error that names this layer."""
        return refusal(self.module, self.layer, reason, way)

    def check(self) -> None:
        """Refuse what the row computation could not reproduce.

        Raises:
            UnsupportedAttention: Unknown tensor keywords, a paged cache, heads that do not divide, terms that the
                implementation leaves out, or a cross-attention that is not known or would be masked as a causal one.
        """
        for name, value in self.keywords.items():
            known = name in HARMLESS_TENSORS | SOFTMAX_TENSORS or (name in SPARSE_CHOICES and self._choice_is_in_mask)
            if not known and _holds_tensor(value):
                raise self.refuse(
                    f"its attention takes the tensor keyword {name!r}, whose effect on the softmax is not known",
                    "leave this layer's model out, or report the keyword",
                )
        if self.keywords.get("cache") is not None:
            raise self.refuse("it runs on a paged cache", "use generate without continuous batching")
        if self.query.dim() != 4 or self.key.dim() != 4 or self.query.shape[1] % self.key.shape[1]:
            raise self.refuse(
                f"queries {tuple(self.query.shape)} do not group over keys {tuple(self.key.shape)}",
                "only (batch, heads, tokens, size) with whole groups is read",
            )
        self._check_terms()
        self._check_cross()

    def _check_terms(self) -> None:
        for name in sorted(SOFTMAX_TENSORS):
            ignored = self.implementation == "sdpa" if name == "s_aux" else self.implementation not in _APPLIED_BY[name]
            if self.keywords.get(name) is not None and ignored:
                raise self.refuse(
                    f"{self.implementation} ignores {name!r}, which it is given",
                    'load with attn_implementation="eager"',
                )

    def _check_cross(self) -> None:
        taken_for_causal = self.implementation != "eager" and getattr(self.module, "is_causal", True)
        if self.is_cross and self.mask is None and self.query.shape[2] > 1 and taken_for_causal:
            raise self.refuse(
                f"{self.implementation} takes a cross-attention without a mask for a causal one",
                'give cross_attention_mask, or load with attn_implementation="eager"',
            )
        if not self.is_cross and "crossattention" in type(self.module).__name__.lower():
            raise self.refuse(
                "it is a cross-attention, and what its columns stand for is not known", "use a family of the table"
            )


def refusal(module: nn.Module, layer: int, reason: str, way: str) -> UnsupportedAttention:
    """An error in the one form that every refused layer gets."""
    return UnsupportedAttention(f"decoder layer {layer} ({type(module).__name__}): {reason}; {way}")


def called_afresh(call: AttentionCall) -> UnsupportedAttention:
    """The error for a forward that starts over where an earlier one should be continued."""
    return call.refuse(
        "it was called afresh instead of continuing with a cache",
        "use one recorder or knock-out per forward, and generate with use_cache=True",
    )


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, Tensor):
        return True
    if isinstance(value, Mapping):
        return any(_holds_tensor(item) for item in value.values())
    return isinstance(value, (list, tuple)) and any(_holds_tensor(item) for item in value)


class Place(NamedTuple):
    """Where a call stands in the sequence: absolute index of its first query row and of its first key column.

    Columns of cross-attentions are counted from the first feature. Where the prompt stays while a window slides over
    what is generated, only the prompt's columns have these indices.
    """

    row: int
    column: int


class Places:
    """Follows, layer by layer, which rows of one sequence have gone by.

    Later calls continue the sequence (decode steps, chunked prefill), and sliding caches drop their oldest columns, so
    neither rows nor columns of a call start at zero.
    """

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        """Rows that each layer, by true index, has attended from so far."""
        self._features: dict[int, int] = {}

    def place(self, call: AttentionCall) -> Place:
        """Place a call behind the earlier ones of its layer.

        Raises:
            UnsupportedAttention: If the call does not continue them.
        """
        first, queries, keys = self.seen.get(call.layer, 0), call.query.shape[2], call.key.shape[2]
        total = first + queries
        if call.is_cross:
            self.seen[call.layer] = total
            if not is_merged(call.module):
                return Place(first, 0)
            # The first call brings as many keys of its own as it has rows; the features stand behind all own keys.
            features = self._features.setdefault(call.layer, keys - queries)
            return Place(first, features - keys)
        if first and keys == queries and call.window != 1:
            raise called_afresh(call)
        if keys < total and call.window is None and not call.keeps_prompt:
            raise call.refuse(
                f"it sees {keys} keys after {total} rows although it has no sliding window",
                "assisted generation and cropped caches are not followed: generate plainly",
            )
        if not first and keys > queries and _sees_beyond(call, queries):
            raise call.refuse("its cache was filled before", "enter before the first forward, with the whole prompt")
        self.seen[call.layer] = total
        return Place(first, 0 if call.keeps_prompt else max(0, total - keys))


def _sees_beyond(call: AttentionCall, queries: int) -> bool:
    """Whether a first call sees keys that its own rows did not bring: an earlier forward's, not a static cache's."""
    if call.mask is None:
        return queries == 1 or not call.is_causal
    if not isinstance(call.mask, Tensor):
        return False
    beyond = seen(call.mask[..., -1, queries:]) if call.mask.dim() == 4 else call.mask[:, queries:] != 0
    return bool(beyond.any())


def seen(mask: Tensor) -> Tensor:
    """A mask as bool, True where a column is visible; additive masks hide with -1e8 or half their type's least value.

    >>> seen(torch.tensor([0.0, -1.5, torch.finfo(torch.float32).min]))
    tensor([ True,  True, False])
    """
    if mask.dtype == torch.bool:
        return mask
    if not mask.is_floating_point():
        return mask != 0
    return mask > max(torch.finfo(mask.dtype).min / 2, -1e8)
