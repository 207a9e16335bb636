"""What of a reward model is trained: frozen parts, adapters, and the text-only proxy beside it. It loads no data."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from probes.inputs import InputError

if TYPE_CHECKING:
    from rewardmodels.model import RewardModel
    from rewardmodels.proxies import Branches
    from studies.reward.train import TrainConfig


def frozen_names(model: Any, freeze: str, sees: bool) -> set[str]:
    """Names of the parameters that are not trained.

    Args:
        model: A classifier.
        freeze: "vision", "none", or a regular expression that is searched in the names.
        sees: Whether the model reads images.

    Raises:
        InputError: If the encoder of images is not known, or the expression is none or fits nothing, or everything.
    """
    names = [name for name, _ in model.named_parameters()]
    if freeze == "none" or (freeze == "vision" and not sees):
        return set()
    if freeze == "vision":
        encoder = model.get_encoder(modality="image")
        inside = {id(parameter) for parameter in encoder.parameters()}
        found = {name for name, parameter in model.named_parameters() if id(parameter) in inside}
        if len(found) >= len(names) - 1:
            raise InputError(
                f"--freeze vision: the image encoder of {type(model).__name__} is not known; give a regular expression "
                f"of its parameters' names (such as {names[0]}), or none"
            )
        return found
    try:
        found = {name for name in names if re.search(freeze, name)}
    except re.error as error:
        raise InputError(f"--freeze {freeze}: no regular expression ({error}); give vision, none or one") from None
    if not found or "score.weight" in found:
        fits = "the head itself" if found else f"no parameter; they have names such as {names[0]}"
        raise InputError(f"--freeze {freeze} fits {fits}")
    return found


def with_branches(config: "TrainConfig", reward: "RewardModel") -> "Branches | None":
    """Freeze, add adapters, and put the proxy beside the model."""
    from rewardmodels.proxies import adapter_branches, copied_branches

    frozen = frozen_names(reward.model, config.freeze, reward.sees)
    _freeze(reward.model, frozen)
    if config.lora:
        from peft import get_peft_model

        targets = _lora_targets(reward.model, config.lora_targets, frozen)
        pretrained = _pretrained(config, reward) if config.proxy == "copy" else None
        plain = reward.model
        reward.model = get_peft_model(plain, _lora(config, targets))
        if config.proxy == "lora":
            return adapter_branches(reward.model, _lora(config, targets))
        if config.proxy == "copy":
            return copied_branches(reward.model, pretrained, not config.proxy_frozen)
        return None
    if config.proxy == "none":
        return None
    branches = copied_branches(reward.model, _pretrained(config, reward), not config.proxy_frozen)
    # A proxy that was trained before comes with all its parts to be trained.
    _freeze(branches.proxy_classifier(), frozen)
    return branches


def _freeze(model: Any, names: set[str]) -> None:
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)


def _lora_targets(model: Any, ends: Sequence[str], frozen: set[str]) -> list[str]:
    import torch

    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    found = [name for name in linear if name.split(".")[-1] in ends and f"{name}.weight" not in frozen]
    if not found:
        known = sorted({name.split(".")[-1] for name in linear} - {"score"})
        raise InputError(f"--lora-targets {' '.join(ends)} fit no layer that is trained; there are {', '.join(known)}")
    return found


def _lora(config: "TrainConfig", targets: list[str]) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=config.lora, lora_alpha=2 * config.lora, target_modules=targets, modules_to_save=["score"])


def _pretrained(config: "TrainConfig", reward: "RewardModel") -> Any | None:
    from rewardmodels.model import RewardModel

    if config.proxy_model is None:
        return None
    loaded = RewardModel.from_pretrained(
        config.proxy_model,
        dtype=reward.model.dtype,
        device="cpu",
        trust_remote_code=config.trust_remote_code,
        allow_pickle=config.allow_pickle,
    )
    ours, theirs = len(reward.processor.get_vocab() if not reward.sees else reward.processor.tokenizer.get_vocab()), 0
    theirs = loaded.model.get_input_embeddings().num_embeddings
    if theirs < ours or loaded.meta.template not in ("", reward.meta.template):
        raise InputError(
            f"--proxy-model {config.proxy_model}: it has another tokenizer or chat template than {config.model}, and "
            "both read the same tokens: give a proxy trained from the same base"
        )
    return loaded.model
