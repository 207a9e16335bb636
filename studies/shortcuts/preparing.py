"""Pairs rendered, tokenized and shown to the frozen tower once, so that many short runs need not do it every step."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from rewardmodels.batching import pair_conversations
from rewardmodels.model import RewardModel
from rewardmodels.records import PreferencePair
from rewardmodels.views import partners

_CHUNK = 64


class PreparedPairs:
    """The inputs of pairs about one image each, by the reward model's own collator.

    Args:
        reward: The model, for its chat template and processor.
        pairs: Pairs whose prompts show one image each.
        keep: "pixels"; "states" of the reward model's tower in their place, for `without_tower`; or "nothing", where
            the caller brings its own.
    """

    def __init__(
        self,
        reward: RewardModel,
        pairs: Sequence[PreferencePair],
        keep: Literal["pixels", "states", "nothing"] = "pixels",
    ) -> None:
        self.pairs = tuple(pairs)
        self._ids: list[Tensor] = []
        shown: list[Tensor] = []
        self._pad = int(reward.model.config.get_text_config().pad_token_id)
        for start in range(0, len(pairs), _CHUNK):
            some = pairs[start : start + _CHUNK]
            inputs = reward.collator(pair_conversations(reward, some))
            for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
                self._ids.append(row[mask.bool()])
            if keep != "nothing":
                shown += self._seen(reward, inputs["pixel_values"][: len(some)], keep)
        self._order = _halves(len(pairs))
        self._pixels = torch.stack(shown) if shown else None
        self._place = torch.arange(len(pairs))
        self._other: Tensor | None = None
        groups = sorted({pair.group for pair in pairs})
        self._groups = torch.tensor([groups.index(pair.group) for pair in pairs])
        self.groups = tuple(groups)

        white = Image.new("RGB", pairs[0].prompt[0].images[0].size(), "white")
        pixels = reward.processor.image_processor(white, return_tensors="pt")["pixel_values"]
        self._white = self._seen(reward, pixels, keep)

    @staticmethod
    def _seen(reward: RewardModel, pixels: Tensor, keep: str) -> Tensor:
        if keep != "states":
            return pixels
        with torch.inference_mode():
            states: Tensor = reward.model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[
                reward.model.config.vision_feature_layer
            ]
        return states.clone()

    def blank(self) -> "PreparedPairs":
        """The same pairs with a white image in place of every image."""
        other = copy(self)
        other._pixels = self._white
        other._place = torch.zeros_like(self._place)
        return other

    def with_others(self, seed: int) -> "PreparedPairs":
        """The same pairs, each followed by itself with another pair's image, of another picture.

        Raises:
            ValueError: If some pair has no such other.
        """
        found = partners([1] * len(self.pairs), [pair.cluster for pair in self.pairs], seed)
        if None in found:
            raise ValueError("all pairs are about one picture, so none has another's image")
        other = copy(self)
        other._other = torch.tensor(found)
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
        """Model inputs of some pairs: the chosen conversations, then the rejected ones; with others, both once more."""
        rows = [self._ids[self._order[place][side]] for side in (0, 1) for place in chosen]
        rows = rows if self._other is None else rows + rows
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._pad)
        mask = torch.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
            mask[at, : len(row)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._pixels is not None:
            places = torch.from_numpy(chosen)
            shown = [self._place[places]] * 2
            if self._other is not None:
                shown += [self._place[self._other[places]]] * 2
            inputs["pixel_values"] = self._pixels[torch.cat(shown)]
        return inputs


class _Handing(torch.nn.Module):
    """Stands in for a vision tower, and hands on the states that it is given as pixels."""

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=pixel_values, hidden_states=(pixel_values,))


def without_tower(model: Any) -> Any:
    """Take out a model's tower, in place: from then on it is given the tower's states in place of pixels.

    A tower that no run trains says the same of a picture at every step, so it is asked once.

    Raises:
        ValueError: If the model reads other states of its tower than the last.
    """
    if model.config.vision_feature_layer != -1:
        raise ValueError("only the last states of a tower are kept")
    model.model.vision_tower = _Handing()
    return model


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
