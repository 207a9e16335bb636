"""What a training run keeps of a checkpoint: weights as they are shipped, and the routing of a fixed set of questions.

The routing is recorded from the saved weights, as anyone who loads them records it. Knows nothing of training.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from probes.experts.files import save_routing
from probes.experts.saved import SavedRouting
from probes.model import HookedModel
from studies.bundled import BUNDLED_DATA
from studies.multi_image import MultiImageQuestion, read_questions
from studies.routing.recording import probe_routing

WEIGHTS_FOLDER, ROUTING_FOLDER = "checkpoints", "routing"


def checkpoint_name(step: int) -> str:
    """What a checkpoint's folder and its routing's file are called.

    >>> checkpoint_name(200)
    'step-00200'
    """
    return f"step-{step:05d}"


def probe_questions(per_task: int) -> list[MultiImageQuestion]:
    """The first dev questions of each task of the bundled benchmark: the same at every checkpoint of every run."""
    taken: dict[str, list[MultiImageQuestion]] = {}
    for record in read_questions(BUNDLED_DATA, split="dev"):
        own = taken.setdefault(record.task, [])
        if len(own) < per_task:
            own.append(record)
    return [record for own in taken.values() for record in own]


def keep_checkpoint(model: Any, processor: Any, probe: list[MultiImageQuestion], step: int, out: Path) -> SavedRouting:
    """Write weights and routing of one checkpoint below ``out``.

    Args:
        model: The model as it is trained, in float32; it is left as found.
        processor: What goes with it.
        probe: The questions that are routed, each followed by its right answer.
        step: Training steps behind it.
        out: The run's folder.
    """
    folder = out / WEIGHTS_FOLDER / checkpoint_name(step)
    save_rounded(model, processor, folder)
    # One question at a time: no padding and no company can move a choice that is close.
    routing = probe_routing(HookedModel.from_pretrained(folder, device="cpu"), probe, step, batch=1)
    (out / ROUTING_FOLDER).mkdir(parents=True, exist_ok=True)
    save_routing(out / ROUTING_FOLDER / f"{checkpoint_name(step)}.npz", routing)
    return routing


def save_rounded(model: Any, processor: Any, folder: Path) -> None:
    """Save a model in bfloat16, the routers' biases as they are: steps of them are smaller than bfloat16 can tell."""
    exact = {name: value for name, value in model.named_buffers() if name.endswith("e_score_correction_bias")}
    rounded = deepcopy(model).to(torch.bfloat16)
    for name, value in exact.items():
        owner = rounded.get_submodule(name.rpartition(".")[0])
        owner.e_score_correction_bias = value.detach().clone()
    if not rounded.config.tie_word_embeddings:
        rounded.lm_head.weight = torch.nn.Parameter(rounded.lm_head.weight.detach().clone())
    folder.mkdir(parents=True, exist_ok=True)
    rounded.save_pretrained(folder)
    processor.save_pretrained(folder)
