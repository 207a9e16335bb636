"""One plain forward of a model, for whoever listens to it; knows nothing of what is heard."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from probes.decoder import shares_keys
from probes.families import ONE_VIDEO
from probes.inputs import InputError


def run_once(model: nn.Module, inputs: Mapping[str, Any]) -> None:
    """One forward without gradients or cache, and with no more logits than one row where the model allows it.

    Raises:
        InputError: If the model would drop tokens of a video on the way, so that columns would be those of others.
    """
    _refuse_videos(model, inputs)
    accepted = inspect.signature(model.forward).parameters
    extra: dict[str, Any] = {"use_cache": False}
    if "logits_to_keep" in accepted and "labels" not in inputs and not shares_keys(model):
        extra["logits_to_keep"] = 1
    with torch.no_grad():
        model(**{**extra, **inputs})


def _refuse_videos(model: Any, inputs: Mapping[str, Any]) -> None:
    kind = getattr(getattr(model, "config", None), "model_type", "")
    made = inputs.get("mm_encoder_outputs") or {}
    if kind in ONE_VIDEO and (inputs.get("pixel_values_videos") is not None or "video" in made):
        raise InputError(
            f"{kind} drops tokens of its video inside its forward, where rows and columns of "
            "input_ids are no longer its own: give the inputs and spans of "
            "probes.reduction.videos.prepare_videos(model, inputs, spans)"
        )
