"""Follows which tokens of a batch are padding, from the mask that each forward is given.

An attention's own mask does not tell padding from tokens that nothing attends to: sparse attentions leave such tokens,
and cross-attentions have no columns for tokens at all. Knows nothing of attention.
"""

import inspect
import threading
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache


class PaddingWatch:
    """Reads, while started, the (batch, tokens) attention mask of a model's or its decoder's forwards in this thread.

    A forward without a mask has no padding; one with a mask by row and column leaves padding unknown.
    """

    def __init__(self, model: nn.Module, decoder: nn.Module) -> None:
        self._modules = [model] if model is decoder else [model, decoder]
        config: Any = getattr(model, "config", None)
        self._named_for_decoder = bool(getattr(config, "is_encoder_decoder", False)) and model is not decoder
        self.cached = False
        """Whether the last forward went on from a cache that held tokens, as far as caches count them."""
        self._mask: Tensor | None = None
        self._without = False
        self._from_model = False
        self._thread = 0
        self._hooks: list[Any] = []

    def start(self) -> None:
        """Listen to forwards."""
        self._thread = threading.get_ident()
        self._hooks = [module.register_forward_pre_hook(self._note, with_kwargs=True) for module in self._modules]

    def stop(self) -> None:
        """Listen no longer."""
        for hook in self._hooks:
            hook.remove()

    def tokens(self, first: int, count: int, batch: int) -> Tensor | None:
        """Bool (batch, count): which of the tokens from `first` on are no padding; None where that is not known."""
        if self._without:
            return torch.ones(batch, count, dtype=torch.bool)
        mask = self._mask
        if mask is None or mask.shape[0] != batch or mask.shape[1] < first + count:
            return None
        return mask[:, first : first + count] != 0

    def reaches(self, tokens: int) -> bool:
        """Whether the last forward had a mask over so many tokens, as one has that goes on with a cache."""
        return self._mask is not None and self._mask.shape[1] >= tokens

    def _note(self, module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any] | None = None) -> None:
        # torch adds a hook first and says a moment later that it takes keywords: another thread may run in between.
        if threading.get_ident() != self._thread or keywords is None:
            return
        self.cached = _holds_tokens(keywords.get("past_key_values"))
        outer = module is self._modules[0] and len(self._modules) > 1
        name = "decoder_attention_mask" if outer and self._named_for_decoder else "attention_mask"
        given = keywords.get(name)
        if given is None and args:
            given = _bound(module, args).get(name)
        plain = given if isinstance(given, Tensor) and given.dim() == 2 else None
        # A model's decoder may be given masks by row, made of the mask that the model was given.
        if plain is not None or outer or not self._from_model:
            self._mask = None if plain is None else plain.detach()
            self._without = given is None
        self._from_model = outer


def _holds_tokens(cache: Any) -> bool:
    if not isinstance(cache, Cache):
        return False
    try:
        return bool(cache.get_seq_length() > 0)
    except ValueError:  # None of its layers counts tokens: it is of a decoder without attention.
        return False


def _bound(module: nn.Module, args: tuple[Any, ...]) -> dict[str, Any]:
    parameters = list(inspect.signature(module.forward).parameters)
    return dict(zip(parameters, args, strict=False))
