"""Short training runs by the shipped trainer, as studies make them by the hundred: their settings, and a known proxy.

A jointly trained proxy learns by plain Bradley-Terry on inputs of its own, and no method changes what it learns. So it
can be trained beforehand, once for many methods, and its margins stand in for the branch, step by step. Gradients are
then clipped by each model's own norm.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from trl import RewardConfig

from rewardmodels.training import RewardTrainer, Scored

Margins = npt.NDArray[np.float32]


class RecordedProxyTrainer(RewardTrainer):
    """The shipped trainer with the proxy's margins of each step known beforehand."""

    brings_text_margins = True

    def __init__(self, *args: Any, recorded: Margins | None = None, **kwargs: Any) -> None:
        self._recorded = recorded
        self.own: list[Tensor] = []
        super().__init__(*args, **kwargs)

    def _scored(self, model: Any, inputs: dict[str, Any], aside: Mapping[str, Any]) -> Scored:
        rewards = super()._scored(model, inputs, aside).rewards
        better, worse = self._apart(rewards.detach().float())[0].chunk(2)
        self.own.append(better - worse)
        if self._recorded is None or not self._objective.needs_text:
            return Scored(rewards)
        return Scored(rewards, torch.from_numpy(self._recorded[self.state.global_step]))


def short_run(
    folder: Path, *, steps: int, batch: int, learning_rate: float, warm_up: int, clip: float, seed: int
) -> RewardConfig:
    """Settings of a run on the CPU that saves nothing and reports to nobody; its rate falls linearly to nothing.

    Args:
        folder: Where it may write.
        steps: Optimiser steps.
        batch: Pairs a step.
        learning_rate: At its height.
        warm_up: Steps up to there.
        clip: Largest norm of a gradient; 0 does not clip.
        seed: Of every draw.
    """
    return RewardConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=warm_up,
        max_grad_norm=clip,
        weight_decay=0.0,
        seed=seed,
        data_seed=seed,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        dataloader_drop_last=True,
        remove_unused_columns=False,
    )
