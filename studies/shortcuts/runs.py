"""One training run of the study: from a backbone through the shipped trainer, measured on the way.

The proxy is trained once for each environment, strength and seed; its margins, step by step, stand in for the branch
in every method that asks for one (`studies.short_training`). Where gradients are not clipped that gives the numbers of
training both side by side, for half the work; here each is clipped by its own norm, where the joint trainer clips both
by their common one.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PrinterCallback, TrainerCallback
from trl import RewardConfig

from rewardmodels.loading import draw_head
from rewardmodels.model import RewardModel
from rewardmodels.objectives import make_objective
from studies.short_training import Margins, RecordedProxyTrainer, short_run
from studies.shortcuts.environments import make_pairs, strengths
from studies.shortcuts.pictures import split_pictures
from studies.shortcuts.preparing import PreparedPairs, margins, without_tower
from studies.shortcuts.settings import ENVIRONMENTS, STOPS, Method, Sizes

TEST_SETS = ("dev", *ENVIRONMENTS, "reversed", "blank", "neutral")
"""Pairs of unseen pictures.

"dev": the own environment's, for choosing; each environment's by name; "reversed": the own cue wrong as often as it was
right; "blank": the own environment's without the image; "neutral": every cue right on half.
"""


@dataclass(frozen=True)
class Data:
    """Prepared pairs of one environment, strength, learnability and seed."""

    train: PreparedPairs
    tests: Mapping[str, PreparedPairs]


@dataclass(frozen=True)
class RunResult:
    """Margins on each test set after each share of the training, and the run's own margins, step by step."""

    stops: tuple[float, ...]
    tests: Mapping[str, npt.NDArray[np.float32]]
    """(stops, pairs) margins."""
    steps: npt.NDArray[np.float32]
    """(steps, batch) margins before each step, in the order of the batches."""
    loss: npt.NDArray[np.float32]
    """(steps,)."""


def prepare(reward: RewardModel, environment: str, strength: float, noise: float, seed: int, sizes: Sizes) -> Data:
    """Draw and prepare the pairs of a run; they depend on environment, strength and seed, and on no method."""
    drawn = (seed, ENVIRONMENTS.index(environment), round(1000 * strength))

    def made(split: str, count: int, right: Mapping[str, float], part: int) -> PreparedPairs:
        return _made(reward, split, count, right, noise, (*drawn, part), environment)

    own = strengths(environment, strength)
    tests = {"dev": made("dev", sizes.dev_pairs, own, 1)}
    for at, other in enumerate(ENVIRONMENTS):
        tests[other] = made("test", sizes.test_pairs, strengths(other, strength), 2 + at)
    tests["reversed"] = made("test", sizes.test_pairs, strengths(environment, 1 - strength), 6)
    tests["blank"] = tests[environment].blank()
    tests["neutral"] = made("test", sizes.test_pairs, strengths("", 0.5), 7)
    return Data(made("train", sizes.train_pairs, own, 0), tests)


def prepare_without_cue(reward: RewardModel, noise: float, seed: int, sizes: Sizes) -> Data:
    """Draw and prepare pairs in which no cue tells anything, for training and as the test set "neutral"."""
    right, drawn = strengths("", 0.5), (seed, len(ENVIRONMENTS), 500)
    test = _made(reward, "test", len(ENVIRONMENTS) * sizes.test_pairs, right, noise, (*drawn, 7))
    return Data(_made(reward, "train", sizes.train_pairs, right, noise, (*drawn, 0)), {"neutral": test})


def _made(
    reward: RewardModel,
    split: str,
    count: int,
    right: Mapping[str, float],
    noise: float,
    drawn: Sequence[int],
    grouped_by: str = "",
) -> PreparedPairs:
    pairs = make_pairs(split_pictures()[split], count, right, noise, drawn, grouped_by)
    return PreparedPairs(reward, pairs, "states")


def train_proxy(start: RewardModel, data: Data, seed: int, sizes: Sizes, steps: int) -> RunResult:
    """Train the text-only proxy: plain Bradley-Terry on blank images; tested on blank images too."""
    blank = {name: prepared.blank() for name, prepared in data.tests.items()}
    return _train(start, data.train.blank(), blank, Method("text-only", "bradley-terry"), seed, sizes, steps)


def train_method(
    start: RewardModel,
    data: Data,
    method: Method,
    seed: int,
    sizes: Sizes,
    proxy: RunResult | None,
    steps: int,
) -> RunResult:
    """Train one reward model by a method.

    Args:
        start: The backbone; it is copied.
        data: The pairs.
        method: How.
        seed: Draws head and batches.
        sizes: Batch, learning rate and so on.
        proxy: The proxy's run of the same data, seed and steps, for methods that weigh by it.
        steps: Steps in all; measured after each of `STOPS`.

    Raises:
        ValueError: If the method needs a proxy and there is none, or it is another length's.
    """
    return _train(start, data.train, data.tests, method, seed, sizes, steps, proxy)


class _Measuring(TrainerCallback):  # type: ignore[misc]
    def __init__(self, tests: Mapping[str, PreparedPairs], steps: Sequence[int]) -> None:
        self._tests, self._steps = tests, steps
        self.found: dict[str, list[Margins]] = {name: [] for name in tests}

    def on_step_end(self, _args: Any, state: Any, _control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step in self._steps:
            for name, prepared in self._tests.items():
                self.found[name].append(margins(model, prepared))


def _train(
    start: RewardModel,
    train: PreparedPairs,
    tests: Mapping[str, PreparedPairs],
    method: Method,
    seed: int,
    sizes: Sizes,
    steps: int,
    proxy: RunResult | None = None,
) -> RunResult:
    options = dict(method.options)
    if method.objective == "group-dro":
        cue = train.groups[0][:-1]
        options["groups"] = (f"{cue}+", f"{cue}-")
    objective: Any = make_objective(method.objective, **options)
    if objective.needs_text and (proxy is None or len(proxy.steps) != steps):
        raise ValueError(f"{method.name} needs the margins of a proxy trained for as many steps")
    reward = RewardModel(without_tower(deepcopy(start.model)), start.processor)
    draw_head(reward.model, seed)
    objective.learn_text = False
    measuring = _Measuring(tests, [round(stop * steps) for stop in STOPS])
    with TemporaryDirectory() as folder:
        trainer = RecordedProxyTrainer(
            reward,
            train.pairs,
            _settings(Path(folder), method, seed, sizes, steps),
            objective=objective,
            collator=train.with_others(seed) if objective.needs_shuffled else train,
            callbacks=[measuring],
            recorded=None if proxy is None else proxy.steps,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    loss = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return RunResult(
        STOPS,
        {name: np.stack(values) for name, values in measuring.found.items()},
        torch.stack(trainer.own).numpy(),
        np.array(loss, dtype=np.float32),
    )


def _settings(folder: Path, method: Method, seed: int, sizes: Sizes, steps: int) -> RewardConfig:
    return short_run(
        folder,
        steps=steps,
        batch=sizes.batch,
        learning_rate=sizes.learning_rate * method.rate,
        warm_up=sizes.warm_up,
        clip=sizes.clip,
        seed=seed,
    )
