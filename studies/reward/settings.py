"""The objective of a training run, and the settings that TRL's trainer takes. It loads neither model nor data."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.inputs import InputError
from rewardmodels.records import PreferencePair

if TYPE_CHECKING:
    from rewardmodels.bradley_terry import Objective
    from studies.auditing.processes import Processes
    from studies.reward.parts import Prepared
    from studies.reward.train import TrainConfig


def objective_of(config: "TrainConfig", pairs: Sequence[PreferencePair]) -> "Objective":
    """The objective that the options name.

    Raises:
        InputError: If it has no such option, or refuses a value.
    """
    from rewardmodels.objectives import make_objective

    options: dict[str, Any] = {"center": config.center, "learn_text": not config.proxy_frozen}
    given = {
        "exponent": config.exponent,
        "floor": config.floor,
        "step": config.group_step,
        "ranking": config.ranking,
        "contrast": config.contrast,
    }
    options |= {option: value for option, value in given.items() if value is not None}
    if config.normalize:
        options["normalize"] = True
    if config.objective == "group-dro":
        options["groups"] = tuple(sorted({pair.group for pair in pairs}))
    try:
        return make_objective(config.objective, **options)
    except ValueError as error:
        raise InputError(f"--objective {config.objective}: {error}") from error


def trainer_settings(config: "TrainConfig", prepared: "Prepared", processes: "Processes", out: Path) -> Any:
    """TRL's settings of the run.

    Raises:
        InputError: If the pairs of a step cannot be shared out evenly.
    """
    import torch
    from trl import RewardConfig

    from studies.auditing.processes import LONGEST_WAIT

    parts = config.accumulate * processes.count
    if config.batch_size % parts:
        raise InputError(
            f"--batch-size {config.batch_size} pairs cannot be shared by {processes.count} processes in "
            f"{config.accumulate} parts: give a multiple of {parts}"
        )
    without_images = any(not any(turn.images for turn in pair.prompt) for pair in prepared.pairs)
    idle = prepared.reward.sees and (
        without_images or (prepared.branches is not None and config.proxy_sees == "removed")
    )
    settings = RewardConfig(
        output_dir=str(out),
        max_steps=prepared.steps,
        dataloader_pin_memory=torch.cuda.is_available(),
        per_device_train_batch_size=config.batch_size // parts,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.rate,
        warmup_steps=math.ceil(0.03 * prepared.steps),
        logging_steps=1,
        save_steps=config.save_every,
        save_total_limit=config.keep,
        seed=config.seed,
        bf16=config.dtype != "float32",
        activation_checkpointing=config.gradient_checkpointing,
        report_to="trackio" if config.log_to == "trackio" else "none",
        project="sightcheck",
        run_name=config.out.name,
        disable_tqdm=True,
        use_cpu=config.device == "cpu",
        ddp_find_unused_parameters=idle,
        ddp_timeout=int(LONGEST_WAIT.total_seconds()),
    )
    if settings.n_gpu > 1:
        # One process drives one GPU; several are accelerate's business.
        settings._n_gpu = 1
    return settings
