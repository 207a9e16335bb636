"""The trainers that the reward bench compares: TRL's and ours, on models and pairs of one seed.

Main model and proxy are set up as `sightcheck reward train` does. Knows nothing of clocks, processes or bars.
"""

import os
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers.trainer_callback import PrinterCallback
from trl import RewardConfig
from trl import RewardTrainer as TextRewardTrainer

from rewardmodels.objectives import make_objective
from rewardmodels.records import PreferencePair
from rewardmodels.training import RewardTrainer
from studies.reward.adapting import with_branches
from studies.reward.train import TrainConfig
from studies.reward_bench.config import ARMS, RewardBench
from studies.reward_bench.models import image_model, image_pairs, text_model, text_pairs

__all__ = ["build_trainer", "on_gpu"]

DECODER_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def on_gpu(config: RewardBench) -> bool:
    """Whether the bench runs on a GPU."""
    return config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())


def build_trainer(config: RewardBench, arm: str, steps: int, folder: Path) -> Any:
    """A trainer that is ready to start; its weights, data and order of data depend on the seed alone.

    Args:
        config: The bench.
        arm: A name of `ARMS`.
        steps: Most steps that it will take.
        folder: Where it may write; it saves nothing.
    """
    reads, trains, trainer, proxy, view = ARMS[arm]
    texts = reads == "text"
    batch = config.text_batch if texts else config.batch
    # A few batches more than steps, so that no training meets the end of its data.
    count = batch * (steps + 4)
    reward = text_model(config) if texts else image_model(config)
    pairs = text_pairs(config, count) if texts else image_pairs(config, count)
    settings = _settings(config, steps, batch, folder)
    made: Any
    if trainer == "trl":
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        made = TextRewardTrainer(
            model=reward.model,
            args=settings,
            train_dataset=Dataset.from_list([_row(pair) for pair in pairs]),
            processing_class=reward.processor,
        )
    else:
        asked = TrainConfig(
            out=folder,
            lora=config.lora if trains == "lora" else 0,
            lora_targets=DECODER_LAYERS,
            proxy=proxy,
            proxy_sees=view,  # type: ignore[arg-type]
        )
        branches = with_branches(asked, reward)
        objective = None if branches is None else make_objective("shortcut-aware")
        made = RewardTrainer(reward, pairs, settings, objective=objective, branches=branches, view=view)
    made.remove_callback(PrinterCallback)
    return made


def _settings(config: RewardBench, steps: int, batch: int, folder: Path) -> RewardConfig:
    gpu = on_gpu(config)
    return RewardConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=batch,
        max_length=None,
        learning_rate=1e-5,
        save_strategy="no",
        bf16=False,
        activation_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not gpu,
        dataloader_pin_memory=gpu,
        seed=config.seed,
    )


def _row(pair: PreferencePair) -> dict[str, Any]:
    """A pair as TRL's trainer takes it."""
    return {
        "prompt": [{"role": "user", "content": pair.prompt[0].text}],
        "chosen": [{"role": "assistant", "content": pair.chosen.text}],
        "rejected": [{"role": "assistant", "content": pair.rejected.text}],
    }
