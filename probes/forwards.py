"""One plain forward of a model, for whoever listens to it; knows nothing of what is heard."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from probes.decoder import shares_keys


def run_once(model: nn.Module, inputs: Mapping[str, Any]) -> None:
    """One forward without gradients or cache, and with no more logits than one row where the model allows it."""
    accepted = inspect.signature(model.forward).parameters
    extra: dict[str, Any] = {"use_cache": False}
    if "logits_to_keep" in accepted and "labels" not in inputs and not shares_keys(model):
        extra["logits_to_keep"] = 1
    with torch.no_grad():
        model(**{**extra, **inputs})
