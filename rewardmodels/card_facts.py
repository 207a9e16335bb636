"""What a loaded reward model itself tells for its card. It measures nothing and writes nothing."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from probes.inputs import Turn
from rewardmodels.cards import CardFacts
from rewardmodels.model import RewardModel, is_native
from rewardmodels.rendering import ConversationWriter

_PACKAGES = ("sightcheck", "torch", "transformers", "trl", "peft", "accelerate")


def facts_of(reward: RewardModel, name: str, **known: Any) -> CardFacts:
    """Start a card.

    Args:
        reward: The model, as it scores.
        name: What it is called.
        known: Further fields of `CardFacts`.
    """
    model = reward.model.get_base_model() if hasattr(reward.model, "get_base_model") else reward.model
    given: dict[str, Any] = {
        "name": name,
        "architecture": type(model).__name__,
        "native": is_native(model.config),
        "sees": reward.sees,
        "dtype": str(model.dtype).removeprefix("torch."),
        "template": reward.meta.template,
        "adds_special_tokens": _adds_special_tokens(reward),
        "max_length": reward.collator.most_tokens,
        "max_pixels": _image_size(getattr(reward.processor, "image_processor", None)),
        "base": reward.meta.base,
        "data_digest": reward.meta.data,
        "mean": reward.meta.mean,
        "deviation": reward.meta.deviation,
        "offset": reward.meta.offset,
        "versions": _versions(),
    }
    return CardFacts(**(given | known))


def _adds_special_tokens(reward: RewardModel) -> bool:
    text = ConversationWriter(reward.processor).write((Turn("user", "a"),), "b").text
    return reward.collator.adds_special_tokens(text)


def _image_size(processor: Any) -> str:
    """What bounds an image, in the processor's own words."""
    told: dict[str, Any] = {}
    for key in ("size", "crop_size"):
        value = getattr(processor, key, None)
        if value:
            told |= dict(value) if isinstance(value, Mapping) else dict(vars(value))
    for key in ("min_pixels", "max_pixels", "max_image_tiles", "max_patches", "patch_size"):
        told[key] = getattr(processor, key, None)
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in told.items() if isinstance(value, int))


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
