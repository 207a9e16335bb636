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

from studies.benchmark.rendering import CONCEPTS
from studies.benchmark.sources import FASHION_FOLDER, NEEDLES, load_sources
from studies.dense.model import SIZES, build_model, build_processor, build_tokenizer
from studies.dense.pictures import PictureCounts, PictureStore, tower_features
from studies.dense.sequences import IGNORED, Batch, BatchMaker, DevSet
from studies.run_folder.files import write_atomically, write_bytes

WATCHED = PictureCounts(emoji=12, digits=40, clothes=40, needles=60)
STATE_FILE = "training_state.pt"
CURRICULUM_SHARE = 0.3
"""The number of images grows from 2 to 8 over this share of the steps."""


@dataclass(frozen=True)
class TrainingConfig:
    """One training run. ``tower_steps`` and ``steps`` are optimiser steps, ``batch`` sequences a step."""

    size: str = "medium"
    seed: int = 0
    tower_steps: int = 2400
    tower_batch: int = 192
    tower_learning_rate: float = 2e-3
    steps: int = 6000
    batch: int = 32
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warm_up: int = 200
    pictures: PictureCounts = field(default_factory=PictureCounts)
    measure_every: int = 500
    dev_questions_per_task: int = 120


@dataclass(frozen=True)
class Measurement:
    """Dev accuracy per task after ``step`` steps, with the mean loss since the last one."""

    step: int
    loss: float
    seconds_per_step: float
    accuracy: dict[str, float]

    def __str__(self) -> str:
        tasks = "  ".join(f"{task} {share:.2f}" for task, share in self.accuracy.items())
        return f"step {self.step}  loss {self.loss:.3f}  {self.seconds_per_step:.2f} s/step  {tasks}"


def train_tower(model: Any, store: PictureStore, config: TrainingConfig) -> float:
    """Teach the vision tower to name single pictures and what they hide. Returns the last 100 steps' accuracy."""
    tower = model.model.vision_tower
    width = tower.config.hidden_size
    torch.manual_seed(config.seed + 100)
    heads = nn.ModuleList([nn.Linear(width, len(CONCEPTS)), nn.Linear(width, 1 + len(NEEDLES))])
    learning = [*tower.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(learning, lr=0.0, weight_decay=config.weight_decay)
    rng = np.random.default_rng([config.seed, 2])
    right: list[float] = []
    for step in range(config.tower_steps):
        _set_rate(optimiser, config.tower_learning_rate * rate_share(step, config.tower_steps, 100))
        chosen = rng.integers(len(store.pixels), size=config.tower_batch)
        concepts, needles = torch.from_numpy(store.concepts[chosen]), torch.from_numpy(store.needles[chosen])
        states = tower(store.values(chosen)).last_hidden_state[:, 1:]
        named, hidden = heads[0](states.mean(1)), heads[1](states).amax(1)
        loss = nn.functional.cross_entropy(named, concepts) + nn.functional.cross_entropy(hidden, needles)
        _step(loss, learning, optimiser)
        right.append(((named.argmax(-1) == concepts) & (hidden.argmax(-1) == needles)).float().mean().item())
    return float(np.mean(right[-100:]))


def train(
    model: Any,
    processor: Any,
    store: PictureStore,
    dev: DevSet,
    config: TrainingConfig,
    out: Path,
    resume: bool = False,
) -> Iterator[Measurement]:
    """Train projector and decoder, yielding a measurement every ``config.measure_every`` steps and at the end.

    Raises:
        FileNotFoundError: ``resume`` without a state to go on from.
    """
    maker = BatchMaker(processor.tokenizer, store, config.batch)
    model.model.vision_tower.requires_grad_(False)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=0.0, weight_decay=config.weight_decay, betas=(0.9, 0.98))
    first = load_state(model, optimiser, out) if resume else 0
    features = tower_features(model, store)
    started, losses = time.monotonic(), []
    model.train()
    for step in range(first, config.steps):
        rng = np.random.default_rng([config.seed, 3, step])
        _set_rate(optimiser, config.learning_rate * rate_share(step, config.steps, config.warm_up))
        batch = maker.batch(rng, int(rng.integers(2, _most_images(step, config.steps) + 1)))
        states = states_of(model, batch, features)
        answered = batch.labels[:, 1:] != IGNORED
        loss = nn.functional.cross_entropy(model.lm_head(states[:, :-1][answered]), batch.labels[:, 1:][answered])
        _step(loss, learning, optimiser)
        losses.append(loss.item())
        if (step + 1) % config.measure_every == 0 or step + 1 == config.steps:
            seconds = (time.monotonic() - started) / (step + 1 - first)
            accuracy = dev.accuracy(model, processor.tokenizer)
            save_state(model, optimiser, step + 1, out)
            yield Measurement(step + 1, float(np.mean(losses[-config.measure_every :])), seconds, accuracy)
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


def _most_images(step: int, steps: int) -> int:
    return 2 + min(6, int(7 * step / (CURRICULUM_SHARE * steps)))


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def states_of(model: Any, batch: Batch, features: Tensor) -> Tensor:
    """Last hidden states (batch, tokens, hidden), as the model makes them from pixels: the tower is frozen."""
    embeddings = model.get_input_embeddings()(batch.input_ids)
    images = model.model.multi_modal_projector(features[batch.pictures])
    places = (batch.input_ids == model.config.image_token_id)[..., None].expand_as(embeddings)
    embeddings = embeddings.masked_scatter(places, images)
    states: Tensor = model.model.language_model(inputs_embeds=embeddings).last_hidden_state
    return states


def _step(loss: Tensor, parameters: list[nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()


def save_state(model: Any, optimiser: torch.optim.Optimizer, step: int, out: Path) -> None:
    """Write what `load_state` goes on from, through a temporary name."""
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
    write_atomically(out / STATE_FILE, lambda temporary: torch.save(state, temporary))


def load_state(model: Any, optimiser: torch.optim.Optimizer, out: Path) -> int:
    """Load weights and optimiser; returns the number of steps done.

    Raises:
        FileNotFoundError: There is nothing to resume.
    """
    path = out / STATE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is absent: there is nothing to resume, so start without --resume")
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def save_model(model: Any, processor: Any, record: dict[str, Any], out: Path) -> None:
    """Save weights (bfloat16 safetensors), processor and chat template, and the training's record as JSON."""
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(out)
    processor.save_pretrained(out)
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
    tower = None if resume else train_tower(model, store, config)
    dev = DevSet(watched, config.dev_questions_per_task, config.seed)
    history = []
    for measurement in train(model, processor, store, dev, config, out, resume):
        print(measurement, flush=True)
        history.append(asdict(measurement))
    record = {"config": asdict(config), "tower_accuracy": tower, "dev_history": history}
    save_model(model, processor, record, out)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
