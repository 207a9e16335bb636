"""Train the bundled dense model: first the vision tower on single pictures, then the rest on questions.

Run as ``python -m studies.dense.training --emoji FOLDER --out FOLDER``. Batches are composed as training goes, from
pictures drawn beforehand; every draw comes from the seed and the step, so a resumed run sees the same batches. Dev
accuracy per task is measured along the way, the test split never.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from probes.files import write_bytes
from studies.benchmark.rendering import CONCEPTS
from studies.benchmark.sources import FASHION_FOLDER, NEEDLES, load_sources
from studies.dense.augmentation import augment
from studies.dense.lessons import Lessons, answer_loss, states_of
from studies.dense.model import SIZES, build_model, build_processor, build_tokenizer
from studies.dense.pictures import PictureCounts, PictureStore, tower_features
from studies.dense.sequences import DevSet
from studies.dense.state import Measurement, Optimisers, TrainingRun

WATCHED = PictureCounts(emoji=12, digits=40, clothes=40, needles=60)
LABEL_SMOOTHING = 0.05


@dataclass(frozen=True)
class TrainingConfig:
    """One training run. ``tower_steps`` and ``steps`` are optimiser steps, ``batch`` sequences a step.

    ``views`` is how many versions of each picture the decoder sees: as drawn, and changed by `augment`.
    """

    size: str = "medium"
    seed: int = 0
    tower_steps: int = 4000
    tower_batch: int = 192
    tower_learning_rate: float = 2e-3
    steps: int = 5000
    batch: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warm_up: int = 200
    views: int = 3
    pictures: PictureCounts = field(default_factory=PictureCounts)
    measure_every: int = 500
    dev_questions_per_task: int = 120


def train_tower(model: Any, store: PictureStore, watched: PictureStore, config: TrainingConfig) -> dict[str, float]:
    """Teach the vision tower to name single pictures and what they hide, each picture changed every time.

    Returns:
        Share of pictures of which both are named: of the last 100 steps ("training") and of ``watched`` ("held_out").
    """
    tower = model.model.vision_tower.train()
    width = tower.config.hidden_size
    torch.manual_seed(config.seed + 100)
    heads = nn.ModuleList([nn.Linear(width, len(CONCEPTS)), nn.Linear(width, 1 + len(NEEDLES))])
    optimisers = Optimisers(tower.named_parameters(), config.weight_decay, heads.parameters())
    rng, generator = np.random.default_rng([config.seed, 2]), torch.Generator().manual_seed(config.seed + 200)
    right: list[float] = []
    for step in range(config.tower_steps):
        chosen = rng.integers(len(store.pixels), size=config.tower_batch)
        named, hidden = _named(tower, heads, augment(store.values(chosen), generator))
        concepts, needles = torch.from_numpy(store.concepts[chosen]), torch.from_numpy(store.needles[chosen])
        loss = nn.functional.cross_entropy(named, concepts, label_smoothing=LABEL_SMOOTHING)
        loss = loss + nn.functional.cross_entropy(hidden, needles)
        optimisers.step(loss, config.tower_learning_rate * rate_share(step, config.tower_steps, 100))
        right.append(((named.argmax(-1) == concepts) & (hidden.argmax(-1) == needles)).float().mean().item())
    return {"training": float(np.mean(right[-100:])), "held_out": _held_out(tower.eval(), heads, watched)}


def _named(tower: Any, heads: nn.ModuleList, values: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of what each picture shows, from the mean over its tokens, and of what it hides, from the best token."""
    states = tower(values).last_hidden_state[:, 1:]
    return heads[0](states.mean(1)), heads[1](states).amax(1)


@torch.no_grad()
def _held_out(tower: Any, heads: nn.ModuleList, watched: PictureStore) -> float:
    right = []
    for part in np.array_split(np.arange(len(watched.pixels)), 8):
        named, hidden = _named(tower, heads, watched.values(part))
        both = (named.argmax(-1).numpy() == watched.concepts[part]) & (
            hidden.argmax(-1).numpy() == watched.needles[part]
        )
        right.append(both)
    return float(np.concatenate(right).mean())


def train(
    run: TrainingRun, processor: Any, store: PictureStore, dev: DevSet, config: TrainingConfig, out: Path
) -> Iterator[Measurement]:
    """Train projector and decoder from where ``run`` stands, yielding a measurement every ``measure_every`` steps.

    The run is saved to ``out`` at each measurement, the last one after ``config.steps``.
    """
    model = run.model
    model.model.vision_tower.requires_grad_(False)
    lessons = Lessons(processor.tokenizer, store, config)
    features = tower_features(model, store, config.views, config.seed)
    started, first, losses = time.monotonic(), run.step, []
    model.train()
    for step in range(first, config.steps):
        batch = lessons.batch(step)
        loss = answer_loss(model, states_of(model, batch, features), batch)
        run.optimisers.step(loss, config.learning_rate * rate_share(step, config.steps, config.warm_up))
        losses.append(loss.item())
        if (step + 1) % config.measure_every == 0 or step + 1 == config.steps:
            seconds = (time.monotonic() - started) / (step + 1 - first)
            accuracy = dev.accuracy(model, processor.tokenizer)
            measured = Measurement(step + 1, float(np.mean(losses[-config.measure_every :])), seconds, accuracy)
            run.step = step + 1
            run.history.append(measured)
            run.save(out)
            yield measured
            model.train()


def rate_share(step: int, steps: int, warm_up: int) -> float:
    """Share of the peak learning rate: linear warm-up, then cosine to a twentieth.

    >>> rate_share(0, 100, 10), rate_share(10, 100, 10), round(rate_share(100, 100, 10), 3)
    (0.1, 1.0, 0.05)
    """
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


def save_model(run: TrainingRun, processor: Any, config: TrainingConfig, out: Path) -> None:
    """Save weights (bfloat16 safetensors), processor and chat template, and the training's record as JSON."""
    out.mkdir(parents=True, exist_ok=True)
    run.model.to(torch.bfloat16).save_pretrained(out)
    processor.save_pretrained(out)
    history = [asdict(measurement) for measurement in run.history]
    record = {"config": asdict(config), "tower_accuracy": run.tower_accuracy, "dev_history": history}
    write_bytes(out / "training.json", f"{json.dumps(record, indent=1)}\n".encode())


def main(
    emoji: Path,
    out: Path,
    fashion: Path = FASHION_FOLDER,
    config: TrainingConfig = TrainingConfig(),
    resume: bool = False,
) -> None:
    """Train one size of the dense model and save it.

    Args:
        emoji: Unpacked npm package ``@iconify-json/fluent-emoji-flat``.
        out: Folder for the state and, at the end, the model.
        fashion: Folder with Fashion-MNIST's four ``.gz`` files.
        config: Sizes and steps.
        resume: Go on from the last measurement.
    """
    store = PictureStore(load_sources("train", emoji, fashion), config.pictures, config.seed)
    watched = PictureStore(load_sources("dev", emoji, fashion), WATCHED, config.seed + 1000)
    processor = build_processor(build_tokenizer(store.pool, np.random.default_rng(0)))
    model = build_model(SIZES[config.size], processor.tokenizer, config.seed)
    dev = DevSet(watched, config.dev_questions_per_task, config.seed)
    run = TrainingRun(model, config.weight_decay)
    if resume:
        run.load(out)
    else:
        run.tower_accuracy = train_tower(model, store, watched, config)
        run.save(out)
    for measurement in train(run, processor, store, dev, config, out):
        print(measurement, flush=True)
    save_model(run, processor, config, out)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
