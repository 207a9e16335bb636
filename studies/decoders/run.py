"""The settings, the state and the measurements of one training run. Knows nothing of batches and balancing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from probes.errors import InputError
from probes.experts.load import largest_over_mean, load_entropy
from probes.files import read_json, write_json
from studies.bundled import BUNDLED_MODEL
from studies.decoders.balance import BIAS_RATE, LOSS_SHARE
from studies.decoders.models import DecoderName, build_model
from studies.dense.pictures import PictureCounts
from studies.dense.state import Measurement, TrainingRun

CONFIG_FILE, RECORD_FILE = "config.json", "training.json"
EARLY_CHECKPOINTS = (100, 200, 300, 400, 500, 750, 1000, 1250, 1500, 1750)
"""Routing settles early, so checkpoints are dense there; later there is one every 500 steps."""


@dataclass(frozen=True)
class DecoderTrainingConfig:
    """One training run of a decoder; `steps` are optimiser steps, `batch` sequences a step.

    Pictures and their views are drawn as the dense model's were, whatever the seed: the seed decides first weights and
    questions.
    """

    decoder: DecoderName
    seed: int = 0
    steps: int = 3500
    batch: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warm_up: int = 200
    views: int = 3
    bias_rate: float = BIAS_RATE
    """At its height: it falls with the learning rate, so that routing settles as the weights do."""
    balance_loss_share: float = LOSS_SHARE
    pictures: PictureCounts = field(default_factory=PictureCounts)
    picture_seed: int = 0
    dev_questions_per_task: int = 120
    probe_questions_per_task: int = 10
    checkpoints: tuple[int, ...] = (*EARLY_CHECKPOINTS, *range(2000, 5000, 500))
    """Steps after which the run is measured and saved; the last step and, unmeasured, step 0 are added."""

    def measured_after(self, step: int) -> bool:
        """Whether the run is measured and saved after so many steps."""
        return step in self.checkpoints or step == self.steps


@dataclass(frozen=True)
class RoutedMeasurement(Measurement):
    """The same of a model with experts, with the balance of its routers since the last measurement."""

    balance_loss: float
    """Mean of the weighted sequence-wise loss."""
    load: dict[str, dict[str, float]]
    """By layer: load of the most called expert over the mean, and entropy over that of an even load."""

    def __str__(self) -> str:
        worst = max(layer["largest_over_mean"] for layer in self.load.values())
        return f"{super().__str__()}  largest load {worst:.2f} x mean"


class DecoderRun(TrainingRun):
    """A training run of a model with experts."""

    measured: ClassVar[type[Measurement]] = RoutedMeasurement


def balance_of(called: Mapping[int, Tensor]) -> dict[str, dict[str, float]]:
    """How even the load of each layer is, as `RoutedMeasurement` holds it, by how often each expert was called."""
    return {
        str(layer): {
            "largest_over_mean": float(largest_over_mean(counts.numpy())),
            "entropy": float(load_entropy(counts.numpy())),
        }
        for layer, counts in called.items()
    }


def start_run(config: DecoderTrainingConfig, out: Path) -> DecoderRun:
    """A run before its first step; its settings are written, so that it is only resumed with the same."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / CONFIG_FILE, _plain(config))
    return _fresh(config)


def resume_run(config: DecoderTrainingConfig, out: Path) -> DecoderRun:
    """A run as it was last saved.

    Raises:
        InputError: If nothing is there to resume, or it was started with other settings; names them.
    """
    before, now = read_json(out / CONFIG_FILE), _plain(config)
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if changed:
        raise InputError(
            f"{out} was started with another {', '.join(changed)}: give the same settings, or another --out"
        )
    run = _fresh(config)
    run.load(out)
    return run


def write_record(run: DecoderRun, config: DecoderTrainingConfig, out: Path) -> None:
    """Write settings and history of a finished run as JSON."""
    history = [asdict(measurement) for measurement in run.history]
    record = {"config": _plain(config), "tower_accuracy": run.tower_accuracy, "dev_history": history}
    write_json(out / RECORD_FILE, record)


def _fresh(config: DecoderTrainingConfig) -> DecoderRun:
    run = DecoderRun(build_model(config.decoder, config.seed).model, config.weight_decay)
    run.tower_accuracy = read_json(BUNDLED_MODEL / RECORD_FILE)["tower_accuracy"]
    return run


def _plain(config: DecoderTrainingConfig) -> dict[str, Any]:
    """The settings as JSON has them."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return found
