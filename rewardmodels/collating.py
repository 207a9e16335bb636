"""Conversations into the tensors that a reward model takes, for training and for scoring alike.

Rows are padded on the side that is asked for, nothing is cut off, and the token that the score is read from is checked
to be the last real one. This file runs no model.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probes.checkpoints import first_line
from probes.families import ASKED, FLAT, UNBATCHED
from probes.inputs import InputError
from probes.loading import context_length
from rewardmodels.heads import last_real_tokens
from rewardmodels.rendering import Conversation


class TooLongError(InputError):
    """A conversation that is longer than allowed; nothing is truncated."""


class Lengths(NamedTuple):
    """What bounds a conversation.

    Attributes:
        most: Most tokens of a row; None for no bound.
        why: Where that bound comes from.
    """

    most: int | None
    why: str


class Collator:
    """Makes batches for one model.

    Args:
        processor: The processor, or the tokenizer of a model that reads text only.
        config: The model's configuration.
        max_length: Most tokens of a row; by default what the model has positions for.
        padding_side: "right" or "left".

    Raises:
        InputError: If padding is another token's id, so that the last real token could not be told, or the side is
            none.
    """

    def __init__(self, processor: Any, config: Any, max_length: int | None = None, padding_side: str = "right") -> None:
        if padding_side not in ("left", "right"):
            raise InputError(f"padding_side is {padding_side!r}: give 'left' or 'right'")
        self._processor = processor
        self._tokenizer = tokenizer_of(processor)
        self._side = padding_side
        self._kind = str(config.model_type)
        self._pad = config.get_text_config().pad_token_id
        context = context_length(config)
        if max_length is not None and (context is None or max_length <= context):
            self._lengths = Lengths(max_length, "max_length")
        else:
            self._lengths = Lengths(context, "the model's positions")

    def __call__(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        """Make one batch.

        Args:
            conversations: At least one. Rows with and without images may be mixed where the processor can.

        Returns:
            Everything that the processor made, as tensors; `input_ids` and `attention_mask` are (batch, tokens).

        Raises:
            TooLongError: If a row has more tokens than allowed.
            InputError: If the processor refuses the images or texts, a row ends in the padding token, or several rows
                are given for a model whose rows change each other in a batch.
        """
        if len(conversations) > 1 and not self.takes_several:
            raise InputError(
                f"a model of type {self._kind!r} {UNBATCHED[self._kind]}: score one response at a time; it cannot be "
                "trained on pairs"
            )
        inputs = self._process(conversations)
        self._check_lengths(inputs["attention_mask"])
        if self._pad is not None:
            by_mask = last_real_tokens(inputs["input_ids"], inputs["attention_mask"], self._pad)
            if not bool((by_mask == last_real_tokens(inputs["input_ids"], None, self._pad)).all()):
                raise InputError(
                    f"a response ends in token {self._pad}, which is also the padding: give the tokenizer a padding "
                    "token of its own (RewardModel.from_base does)"
                )
        return inputs

    @property
    def most_tokens(self) -> int | None:
        """Most tokens of a row; None for no bound."""
        return self._lengths.most

    @property
    def takes_several(self) -> bool:
        """Whether the model's rows leave each other alone in a batch."""
        return self._kind not in UNBATCHED

    def _process(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        texts = [conversation.text for conversation in conversations]
        settings: dict[str, Any] = {
            "return_tensors": "pt",
            "padding": len(texts) > 1,
            "padding_side": self._side,
            "truncation": False,
            "add_special_tokens": self.adds_special_tokens(texts[0]),
        }
        images = [list(conversation.images) for conversation in conversations]
        if any(images):
            # A nested list keeps rows apart; where some row has none, the marks in the texts have to.
            nested = all(images) and self._kind not in FLAT
            settings["images"] = images if nested else [image for own in images for image in own]
            settings |= ASKED.get(self._kind, {})
        try:
            batch: Mapping[str, Any] = (
                self._tokenizer(texts, **settings)
                if self._processor is self._tokenizer
                else self._processor(text=texts, **settings)
            )
        # Processors differ in what they raise for images or texts that they cannot take.
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
            mixed = (
                "; rows with and without images are mixed here, which this processor may not take: keep them in "
                "batches of their own"
                if any(images) and not all(images)
                else ""
            )
            raise InputError(f"the processor refuses these images or texts ({first_line(error)}){mixed}") from error
        inputs = {key: value for key, value in batch.items() if isinstance(value, Tensor) and key != "labels"}
        inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))
        return inputs

    def adds_special_tokens(self, text: str) -> bool:
        """Whether the tokenizer adds its own marks to a rendered conversation; not where it begins with one already."""
        start = self._tokenizer.bos_token
        return not (start and text.startswith(start))

    def _check_lengths(self, mask: Tensor) -> None:
        most, why = self._lengths
        if most is None:
            return
        for row, length in enumerate(mask.sum(dim=1).tolist()):
            if length > most:
                raise TooLongError(
                    f"too long: row {row} has {length} tokens, and {most} are allowed by {why}; give fewer or smaller "
                    "images, or shorter texts: nothing is cut off, as the score is read at the end"
                )


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer of a processor, or the tokenizer that was given as one."""
    return getattr(processor, "tokenizer", processor)


def side_by_side(first: Sequence[Conversation], second: Sequence[Conversation]) -> list[Conversation]:
    """Chosen conversations, then rejected ones: the order in which TRL's trainer takes the halves of a batch apart."""
    return [*first, *second]
