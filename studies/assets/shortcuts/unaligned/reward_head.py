"""A scalar head on any vision-language family that transformers has no sequence classifier for.

transformers ships such classifiers for Gemma 3 and Qwen3.5, and this file is not used for those. For the others it
makes the class that transformers would: `LlavaModel` becomes `LlavaForSequenceClassification`, with the backbone under
`model.` and a bias-free `score`. It knows torch and transformers only, and nothing of this package: a copy travels with
each checkpoint, so that `AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)` loads it
where this package is not installed.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutputWithPast
from transformers.models.auto.modeling_auto import MODEL_MAPPING


def last_real_tokens(input_ids: Tensor, attention_mask: Tensor | None, pad_token_id: int | None) -> Tensor:
    """Place of each row's last token that is no padding, whichever side the padding is on.

    Args:
        input_ids: (batch, tokens).
        attention_mask: (batch, tokens), 1 where there is a token; None leaves it to the padding id.
        pad_token_id: The id of padding; None where there is none.

    Returns:
        (batch,) indices. A row of nothing but padding gives 0.

    >>> last_real_tokens(torch.tensor([[5, 6, 0], [0, 5, 6]]), None, pad_token_id=0)
    tensor([1, 2])
    """
    if attention_mask is None and pad_token_id is None:
        return torch.full((len(input_ids),), input_ids.shape[1] - 1, device=input_ids.device)
    real = attention_mask != 0 if attention_mask is not None else input_ids != pad_token_id
    places = torch.arange(input_ids.shape[1], device=input_ids.device)
    return (places * real).argmax(dim=1)


class _ScalarHead(GenericForSequenceClassification):  # type: ignore[misc]
    """What every class made by `classifier_class` does: one number, read from the last real token.

    transformers' own classifiers find that token by the padding id, and would stop short of an answer that ends in it;
    this one goes by the attention mask.
    """

    model: nn.Module
    score: nn.Linear
    config: Any

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = False,
        **inputs: Any,
    ) -> SequenceClassifierOutputWithPast:
        """Score each row.

        Args:
            input_ids: (batch, tokens); rows cannot be given as embeddings.
            attention_mask: (batch, tokens).
            labels: (batch,) or (batch, 1) numbers to regress on; gives `loss`.
            use_cache: Keep keys and values; a score needs none.
            inputs: Everything else that the processor returned.

        Returns:
            `logits` (batch, 1).

        Raises:
            ValueError: If there are no `input_ids`, or the backbone changes the number of tokens.
        """
        if input_ids is None:
            raise ValueError("a score is read at the last token: give input_ids, with or without pixels")
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache, **inputs)
        hidden = outputs.last_hidden_state
        if hidden.shape[:2] != input_ids.shape:
            raise ValueError(
                f"{type(self.model).__name__} turns {tuple(input_ids.shape)} tokens into {tuple(hidden.shape[:2])} "
                "states, so the last token's cannot be told"
            )
        mask = attention_mask if attention_mask is not None and attention_mask.dim() == 2 else None
        last = last_real_tokens(input_ids, mask, self.config.get_text_config().pad_token_id)
        logits = self.score(hidden[torch.arange(len(hidden), device=hidden.device), last.to(hidden.device)])
        loss = None if labels is None else nn.functional.mse_loss(logits.squeeze(-1).float(), labels.view(-1).float())
        return SequenceClassifierOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.get("past_key_values"),
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
        )


@lru_cache(maxsize=64)
def classifier_class(config_class: Any) -> Any:
    """Make the sequence classifier of a family.

    Args:
        config_class: The family's configuration, such as LlavaConfig.

    Raises:
        ValueError: If the family has no backbone without a language-model head, or more than one.
    """
    backbone: Any = MODEL_MAPPING.get(config_class, None)
    kind = getattr(config_class, "model_type", config_class.__name__)
    if not isinstance(backbone, type) or not backbone.__name__.endswith("Model"):
        raise ValueError(f"{kind!r} has no backbone of its own in transformers that a head could be put on")
    families = (base for base in backbone.__mro__ if base is not PreTrainedModel)
    family: Any = next((base for base in families if base.__name__.endswith("PreTrainedModel")), None)
    if family is None or family.base_model_prefix not in ("model", ""):
        raise ValueError(f"the weights of {kind!r} are not laid out as model.*, which its head needs")
    name = f"{backbone.__name__.removesuffix('Model')}ForSequenceClassification"
    inside = {
        # transformers reads in a class's own module which attentions and experts its layers can switch to.
        "__module__": family.__module__,
        "__doc__": f"{backbone.__name__} with a scalar head; see `classifier_class`.",
        "base_model_prefix": "model",
    }
    return type(name, (_ScalarHead, family), inside)


class VisionLanguageForSequenceClassification:
    """How `AutoModelForSequenceClassification` reaches `classifier_class` in a checkpoint with a copy of this file."""

    @classmethod
    def from_pretrained(cls, path: Any, *args: Any, config: Any, **kwargs: Any) -> Any:
        """Load the checkpoint into its family's class; arguments as of `PreTrainedModel.from_pretrained`."""
        kind: Any = type(config)
        return classifier_class(kind).from_pretrained(path, *args, config=config, **kwargs)

    @classmethod
    def _from_config(cls, config: Any, **kwargs: Any) -> Any:
        kind: Any = type(config)
        return classifier_class(kind)._from_config(config, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Asked for by transformers; the class is no `PreTrainedModel`, and there is nothing to note."""
