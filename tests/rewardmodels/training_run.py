"""A short training run on the bundled model as a process of its own, for `accelerate launch` and for kills.

    python training_run.py OUT KIND STEPS [RESUME]

KIND: plain, plain-lora, copy (shortcut-aware with a full copy), copied-lora (a full copy of a LoRA model), lora (with a
LoRA branch) or groups (group-DRO). Twenty pairs a
step over all processes. Losses and rewards go to OUT/log.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig, get_peft_model
from trl import RewardConfig

from rewardmodels.model import RewardModel
from rewardmodels.objectives import make_objective
from rewardmodels.proxies import adapter_branches, copied_branches
from rewardmodels.training import RewardTrainer
from tests.rewardmodels.drawn import WORDS, drawn_pairs

BUNDLED = Path(__file__).parents[2] / "studies" / "assets" / "dense"
PAIRS_A_STEP = 8


def lora() -> Any:
    """A small adapter with a head of its own."""
    return LoraConfig(r=4, target_modules=["q_proj", "v_proj"], modules_to_save=["score"])


def trainer(out: Path, kind: str, steps: int, processes: int = 1, **changes: Any) -> RewardTrainer:
    """A trainer on sixty-four pairs."""
    # Margins of one text under two images nearly cancel: in 32 bits their rounding grows from step to step.
    dtype = torch.float64 if kind == "contrast" else torch.float32
    reward = RewardModel.from_base(BUNDLED, dtype=dtype, device="cpu")
    torch.manual_seed(0)
    branches = None
    objective: Any = None
    if kind in ("lora", "plain-lora", "copied-lora"):
        reward.model = get_peft_model(reward.model, lora())
    if kind == "lora":
        branches = adapter_branches(reward.model, lora())
    elif kind in ("copy", "copied-lora"):
        branches = copied_branches(reward.model)
    if branches is not None:
        objective = make_objective("shortcut-aware", normalize=True)
    elif kind == "groups":
        objective = make_objective("group-dro", groups=sorted(WORDS))
    elif kind == "contrast":
        objective = make_objective("image-contrast", ranking=0.5)
    settings: dict[str, Any] = {
        "output_dir": str(out),
        "max_steps": steps,
        "per_device_train_batch_size": PAIRS_A_STEP // processes,
        "logging_steps": 1,
        "save_steps": 5,
        "learning_rate": 1e-3,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **changes,
    }
    return RewardTrainer(reward, drawn_pairs(64), RewardConfig(**settings), objective=objective, branches=branches)


def losses(log: list[dict[str, Any]], key: str = "loss") -> list[float]:
    """What a trainer logged, step by step."""
    return [entry[key] for entry in log if "loss" in entry]


def main() -> None:
    """Train, and write down what was logged."""
    out, kind, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    run = trainer(out, kind, steps, PartialState(cpu=True).num_processes)
    run.train(resume_from_checkpoint=sys.argv[4] if len(sys.argv) > 4 else None)
    if run.accelerator.is_main_process:
        (out / "log.json").write_text(json.dumps(run.state.log_history))


if __name__ == "__main__":
    main()
