"""Tiny reward models on real processors, and pictures, for the tests of this package."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from probes.inputs import Turn
from rewardmodels.model import RewardModel, as_turns
from tests.probes import processors
from tests.probes.hooked import picture, sharp_model

_folders: list[TemporaryDirectory[str]] = []


def save_base(family: str, folder: Path) -> Any:
    """Save one family's tiny vision-language model with its processor; returns the model."""
    model = sharp_model(family).float()
    model.save_pretrained(folder)
    processors.build_processor(family).save_pretrained(folder)
    return model


@cache
def base_folder(family: str) -> Path:
    """A saved base model, made once a session."""
    _folders.append(TemporaryDirectory())
    folder = Path(_folders[-1].name)
    save_base(family, folder)
    return folder


def reward_model(family: str = "llava", **settings: Any) -> RewardModel:
    """A fresh head on a family's tiny model, scaled up until scores differ visibly."""
    model = RewardModel.from_base(base_folder(family), **settings)
    with torch.no_grad():
        model.model.score.weight.mul_(20)
    return model


def text_model() -> RewardModel:
    """A tiny model that reads text only."""
    processor = processors.build_processor("llava")
    tokenizer = processor.tokenizer
    tokenizer.chat_template = processor.chat_template
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_labels=1, pad_token_id=0,
    )  # fmt: skip
    return RewardModel(LlamaForSequenceClassification(config), tokenizer)


def three_prompts() -> list[tuple[Turn, ...]]:
    """One image, two at their marks, and one again."""
    images = [picture(seed=seed) for seed in range(3)]
    return [
        as_turns("What is this?", [images[0]]),
        as_turns("1 <image> 2 <image> which of them?", images[1:]),
        as_turns("and this?", [images[2]]),
    ]
