"""Refuses beams while a batch is followed: they swap the sequences of a batch from one decode step to the next.

What is heard of a batch row would then be of other tokens than those before it, with nothing in any call to show for
it; only the cache is told. Knows caches, and nothing of what is recorded.
"""

import threading
from typing import Any

from torch import Tensor, nn
from transformers.cache_utils import Cache

from probes.errors import InputError


class BeamRefusal:
    """While started, no cache that a model or its decoder is given in this thread lets its sequences change places.

    Args:
        model: The model.
        decoder: Its decoder, or the model itself.
    """

    def __init__(self, model: nn.Module, decoder: nn.Module) -> None:
        self._modules = [model] if model is decoder else [model, decoder]
        self._held: list[Cache] = []
        self._hooks: list[Any] = []
        self._thread = 0

    def start(self) -> None:
        """Hold every cache from now on."""
        self._thread = threading.get_ident()
        self._hooks = [module.register_forward_pre_hook(self._hold, with_kwargs=True) for module in self._modules]

    def stop(self) -> None:
        """Let caches go as they were."""
        for hook in self._hooks:
            hook.remove()
        for cache in self._held:
            del cache.reorder_cache
        self._held = []

    def _hold(self, _: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any] | None = None) -> None:
        # torch adds a hook first and says a moment later that it takes keywords: another thread may run in between.
        if threading.get_ident() != self._thread or keywords is None:
            return
        for given in (*args, *keywords.values()):
            if isinstance(given, Cache) and "reorder_cache" not in vars(given):
                given.reorder_cache = _refuse
                self._held.append(given)


def _refuse(_: Tensor) -> None:
    raise InputError(
        "the sequences of a batch change places in the cache while a recorder or knock-out follows them, as beams make "
        "them: generate without beams (num_beams=1), or run the finished answer in one forward"
    )
