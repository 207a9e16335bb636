"""Tiny random reward models of a realistic shape, and preference pairs for them: made here, nothing is downloaded.

A Llama classifier that reads text, and a LLaVA whose images take three quarters of a conversation. Both read by the
bundled model's tokenizer. Knows nothing of trainers, clocks or processes.
"""

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlavaConfig,
    LlavaProcessor,
)

from probes.inputs import ImageRef
from rewardmodels.heads import classifier_class
from rewardmodels.model import RewardModel, as_turns
from rewardmodels.records import PreferencePair, Response
from studies.bundled import BUNDLED_MODEL
from studies.reward_bench.config import RewardBench

__all__ = ["image_model", "image_pairs", "text_model", "text_pairs"]

VOCABULARY = 32_000
"""Rows of the embeddings: as many as a Llama's, though the tokenizer knows few words."""
PATCH = 14


def text_model(config: RewardBench) -> RewardModel:
    """A random Llama classifier and the bundled tokenizer."""
    tokenizer = _tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    torch.manual_seed(config.seed)
    settings = _decoder(config.text_hidden, config.text_layers, tokenizer.pad_token_id)
    return RewardModel(_cast(LlamaForSequenceClassification(settings), config), tokenizer)


def image_model(config: RewardBench) -> RewardModel:
    """A random LLaVA classifier: a small CLIP tower, of which the second last layer is read, and a Llama decoder."""
    tokenizer = _tokenizer()
    side = PATCH * config.grid
    width = max(64, config.hidden // 4)
    tower = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=4,
        num_attention_heads=max(1, width // 64),
        image_size=side,
        patch_size=PATCH,
    )
    settings = LlavaConfig(
        vision_config=tower,
        text_config=_decoder(config.hidden, config.layers, tokenizer.pad_token_id),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=config.image_tokens,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=_processor().chat_template,
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    torch.manual_seed(config.seed)
    return RewardModel(_cast(classifier_class(LlavaConfig)(settings), config), processor)


def text_pairs(config: RewardBench, count: int) -> list[PreferencePair]:
    """Pairs of about `text_tokens` tokens a conversation, half of them the prompt's; lengths vary by a quarter."""
    rng = np.random.default_rng(config.seed)
    half = config.text_tokens // 2
    return [_pair(rng, number, half, half, []) for number in range(count)]


def image_pairs(config: RewardBench, count: int) -> list[PreferencePair]:
    """Pairs about one picture each; of the text's tokens, a third of the image's, a quarter is the response."""
    rng = np.random.default_rng(config.seed)
    text, side = config.image_tokens // 3, PATCH * config.grid
    pictures = (Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)) for _ in range(count))
    return [
        _pair(rng, number, 3 * text // 4, text // 4, [ImageRef.of(picture)]) for number, picture in enumerate(pictures)
    ]


def _pair(rng: np.random.Generator, number: int, prompt: int, response: int, images: list[ImageRef]) -> PreferencePair:
    def words(count: int) -> str:
        return " ".join(rng.choice(_words(), max(1, int(count * rng.uniform(0.875, 1.125)))).tolist())

    return PreferencePair(
        id=str(number),
        prompt=as_turns(words(prompt), images),
        chosen=Response(words(response)),
        rejected=Response(words(response)),
        record=str(number),
        group="",
        source="made",
        cluster=str(number),
    )


def _decoder(hidden: int, layers: int, pad: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=11 * hidden // 4,
        num_hidden_layers=layers,
        num_attention_heads=max(2, hidden // 64),
        num_key_value_heads=max(1, hidden // 256),
        max_position_embeddings=4096,
        pad_token_id=pad,
        bos_token_id=None,
        eos_token_id=None,
        num_labels=1,
    )


def _cast(model: Any, config: RewardBench) -> Any:
    return model.to(getattr(torch, config.dtype))


@cache
def _processor() -> Any:
    return AutoProcessor.from_pretrained(BUNDLED_MODEL)


@cache
def _words() -> list[str]:
    """Words that are one token each, the space before them included."""
    return sorted(word[1:] for word in _processor().tokenizer.get_vocab() if word[0] == "Ġ" and word[1:].isalpha())


def _tokenizer() -> Any:
    tokenizer = deepcopy(_processor().tokenizer)
    tokenizer.model_max_length = 4096
    return tokenizer
