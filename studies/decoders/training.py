"""Train a decoder with experts on the dense model's questions, under the dense model's own tower, which is not trained.

Run as ``python -m studies.decoders.training --decoder dots1 --emoji FOLDER --out FOLDER``. Dev accuracy per task and
the balance of the routers are measured along the way, the test split never. At each checkpoint the weights are kept as
they would be shipped, and the routing of a fixed set of dev questions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studies.benchmark.sources import FASHION_FOLDER, load_sources
from studies.decoders.balance import LoadBalance
from studies.decoders.checkpoints import keep_checkpoint, probe_questions
from studies.decoders.models import DecoderName, build_model
from studies.decoders.run import (
    DecoderRun,
    DecoderTrainingConfig,
    RoutedMeasurement,
    balance_of,
    resume_run,
    start_run,
    write_record,
)
from studies.dense.lessons import Lessons, answer_loss, states_of
from studies.dense.pictures import PictureStore, tower_features
from studies.dense.sequences import DevSet
from studies.dense.training import WATCHED, rate_share
from studies.multi_image import MultiImageQuestion

EMOJI_FOLDER = Path("node_modules/@iconify-json/fluent-emoji-flat")
"""Where ``npm install @iconify-json/fluent-emoji-flat`` puts it."""


@dataclass(frozen=True, eq=False)
class Material:
    """What every run of a grid learns from and is measured by."""

    processor: Any
    store: PictureStore
    features: Tensor
    """(views * pictures, 16, tower hidden), as `studies.dense.pictures.tower_features` gives them."""
    dev: DevSet
    probe: list[MultiImageQuestion]


def load_material(config: DecoderTrainingConfig, emoji: Path, fashion: Path) -> Material:
    """Draw the pictures and run them through the tower: about two minutes."""
    store = PictureStore(load_sources("train", emoji, fashion), config.pictures, config.picture_seed)
    watched = PictureStore(load_sources("dev", emoji, fashion), WATCHED, config.picture_seed + 1000)
    return make_material(config, store, watched)


def make_material(config: DecoderTrainingConfig, store: PictureStore, watched: PictureStore) -> Material:
    """The same from pictures that are drawn."""
    built = build_model(config.decoder, config.seed)
    return Material(
        built.processor,
        store,
        tower_features(built.model, store, config.views, config.picture_seed),
        DevSet(watched, config.dev_questions_per_task, config.picture_seed),
        probe_questions(config.probe_questions_per_task),
    )


def train(run: DecoderRun, material: Material, config: DecoderTrainingConfig, out: Path) -> Iterator[RoutedMeasurement]:
    """Train projector and decoder from where ``run`` stands, yielding a measurement at each checkpoint.

    A run that is stopped goes on from its last checkpoint, to the same weights.
    """
    model, tokenizer = run.model, material.processor.tokenizer
    model.model.vision_tower.requires_grad_(False)
    lessons = Lessons(tokenizer, material.store, config)
    balance = LoadBalance(model, config.balance_loss_share)
    if not run.step:
        keep_checkpoint(model, material.processor, material.probe, 0, out)
    started, first = time.monotonic(), run.step
    losses: list[tuple[float, float]] = []
    model.train()
    for step in range(first, config.steps):
        batch = lessons.batch(step)
        real = batch.input_ids != tokenizer.pad_token_id
        share = rate_share(step, config.steps, config.warm_up)
        with repeatable():
            with balance.watching():
                states = states_of(model, batch, material.features)
            wrong, uneven = answer_loss(model, states, batch), balance.loss(real)
            run.optimisers.step(wrong + uneven, config.learning_rate * share)
        balance.step(real, config.bias_rate * share)
        losses.append((wrong.item(), uneven.item()))
        if config.measured_after(step + 1):
            loss, balance_loss = (float(mean) for mean in np.mean(losses, axis=0))
            seconds = (time.monotonic() - started) / (step + 1 - first)
            accuracy = material.dev.accuracy(model, tokenizer)
            measured = RoutedMeasurement(step + 1, loss, seconds, accuracy, balance_loss, balance_of(balance.taken()))
            keep_checkpoint(model, material.processor, material.probe, step + 1, out)
            run.step, losses = step + 1, []
            run.history.append(measured)
            run.save(out)
            yield measured
            model.train()


@contextmanager
def repeatable() -> Iterator[None]:
    """While open, torch adds up in the same order every time.

    With several threads the gradients of gathered rows, such as tokens sent to experts, would otherwise differ in their
    last bits from one run to the next. One thread has a single order, and adds up several times faster in torch's own.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before or torch.get_num_threads() > 1)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def finish(config: DecoderTrainingConfig, material: Material, out: Path, resume: bool) -> None:
    """Train one decoder to its end, saying how far it is."""
    run = resume_run(config, out) if resume else start_run(config, out)
    for measurement in train(run, material, config, out):
        print(f"{config.decoder} {config.seed}  {measurement}", flush=True)
    write_record(run, config, out)


def main(
    decoder: DecoderName,
    out: Path,
    seed: int = 0,
    steps: int = 3500,
    emoji: Path = EMOJI_FOLDER,
    fashion: Path = FASHION_FOLDER,
    resume: bool = False,
) -> None:
    """Train one decoder and keep its checkpoints.

    Args:
        decoder: Whose architecture.
        out: Folder for state, checkpoints and routings and, at the end, `training.json`.
        seed: Of first weights and questions.
        steps: Optimiser steps.
        emoji: Unpacked npm package ``@iconify-json/fluent-emoji-flat``.
        fashion: Folder with Fashion-MNIST's four ``.gz`` files.
        resume: Go on from the last checkpoint.
    """
    config = DecoderTrainingConfig(decoder, seed, steps)
    finish(config, load_material(config, emoji, fashion), out, resume)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
