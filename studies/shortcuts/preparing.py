"""Pairs rendered, tokenized and made into pixels once, so that a study's many short runs need not do it every step."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from rewardmodels.batching import pair_conversations
from rewardmodels.model import RewardModel
from rewardmodels.records import PreferencePair

_CHUNK = 64


class PreparedPairs:
    """The inputs of pairs about one image each, by the reward model's own collator.

    Args:
        reward: The model, for its chat template and processor.
        pairs: Pairs whose prompts show one image each.
        pixels: Keep pixels at all; without, the caller brings its own.
    """

    def __init__(self, reward: RewardModel, pairs: Sequence[PreferencePair], pixels: bool = True) -> None:
        self.pairs = tuple(pairs)
        self._ids: list[Tensor] = []
        shown: list[Tensor] = []
        self._pad = int(reward.model.config.get_text_config().pad_token_id)
        for start in range(0, len(pairs), _CHUNK):
            some = pairs[start : start + _CHUNK]
            inputs = reward.collator(pair_conversations(reward, some))
            for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
                self._ids.append(row[mask.bool()])
            if pixels:
                shown += inputs["pixel_values"][: len(some)]
        self._order = _halves(len(pairs))
        self._pixels = torch.stack(shown) if pixels else None
        self._place = torch.arange(len(pairs))
        groups = sorted({pair.group for pair in pairs})
        self._groups = torch.tensor([groups.index(pair.group) for pair in pairs])
        self.groups = tuple(groups)

        white = Image.new("RGB", pairs[0].prompt[0].images[0].size(), "white")
        self._white: Tensor = reward.processor.image_processor(white, return_tensors="pt")["pixel_values"]

    def blank(self) -> "PreparedPairs":
        """The same pairs with a white image in place of every image."""
        other = copy(self)
        other._pixels = self._white
        other._place = torch.zeros_like(self._place)
        return other

    def __len__(self) -> int:
        return len(self.pairs)

    def __call__(self, items: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """Make a trainer's batch of the places under "index"; see `rewardmodels.batching.PairCollator`."""
        chosen = np.array([item["index"] for item in items])
        return {
            **self.inputs(chosen),
            "group": self._groups[torch.from_numpy(chosen)],
            "index": torch.from_numpy(chosen),
        }

    def inputs(self, chosen: npt.NDArray[Any]) -> dict[str, Tensor]:
        """Model inputs of some pairs: the chosen conversations, then the rejected ones."""
        rows = [self._ids[self._order[place][side]] for side in (0, 1) for place in chosen]
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._pad)
        mask = torch.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
            mask[at, : len(row)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._pixels is not None:
            values = self._pixels[self._place[torch.from_numpy(chosen)]]
            inputs["pixel_values"] = torch.cat([values, values])
        return inputs


def margins(model: Any, prepared: PreparedPairs, batch: int = 100) -> npt.NDArray[np.float32]:
    """Margin of every pair, chosen minus rejected."""
    was_training, found = model.training, []
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(prepared), batch):
            chosen = np.arange(start, min(start + batch, len(prepared)))
            better, worse = model(**prepared.inputs(chosen), use_cache=False).logits.squeeze(-1).float().chunk(2)
            found.append((better - worse).numpy())
    model.train(was_training)
    return np.concatenate(found)


def _halves(count: int) -> list[tuple[int, int]]:
    """Where the two rows of each pair lie, as chunks hold their chosen rows first."""
    order = []
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        order += [(2 * start + at, 2 * start + size + at) for at in range(size)]
    return order
