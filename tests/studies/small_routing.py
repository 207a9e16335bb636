"""Tiny mixture-of-experts models under a LLaVA on disk, whose experts are known to be for images, and their questions.

The projector lifts one direction of image tokens far above that of text, and the first expert of every layer reads it:
what is found has to be what was planted.
"""

from pathlib import Path
from typing import Any

import torch

from tests.probes import hybrid_models
from tests.studies.small_audit import save_questions

FOR_IMAGES = 0
"""The expert that image tokens go to."""
_DIRECTION, _LIFT, _GAIN = 3, 40.0, 6.0


def save_model(folder: Path, name: str = "dots1", planted: bool = True, noise: float = 0.0) -> Path:
    """Save a tiny model of `hybrid_models` with its processor.

    Args:
        folder: Where to.
        name: Of `hybrid_models.DECODERS`.
        planted: Whether the first expert is for images.
        noise: Standard deviation added to the routers' weights: what a checkpoint of the same run differs by.
    """
    shared = hybrid_models.hooked(name)
    model: Any = type(shared.model)(shared.model.config).eval()
    model.load_state_dict(shared.model.state_dict())
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        if planted:
            model.model.multi_modal_projector.linear_2.bias[_DIRECTION] += _LIFT
        for part, module in model.named_modules():
            if part.endswith(("gate", "router")) and hasattr(module, "weight"):
                if planted:
                    module.weight[FOR_IMAGES, _DIRECTION] = _GAIN
                module.weight += noise * torch.randn(module.weight.shape, generator=generator)
    model.save_pretrained(folder)
    shared.processor.save_pretrained(folder)
    return folder


def save_data(folder: Path, count: int = 10) -> Path:
    """Questions of two tasks over two or three images."""
    return save_questions(folder, count=count, dev=0)
