"""The state of a training run: weights, optimisers, steps done and what was measured. Knows nothing of batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from probes.files import write_atomically
from studies.dense.muon import Muon

STATE_FILE = "training_state.pt"
LARGEST_GRADIENT_NORM = 1.0
UNDECAYED = ("A_log", "D", "dt_bias")
"""Parameters of Mamba-2 that go without weight decay, by their own name."""

Kind = Literal["matrix", "stack", "undecayed", "other"]


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


class Optimisers:
    """Muon for the weight matrices inside the layers, AdamW for embeddings, heads, norms, biases and convolutions.

    With AdamW alone the by-name look-up appears after some 4,000 steps of the medium size, with Muon after some 1,000.
    Experts that are stacked in one parameter go to Muon too, each a matrix. Rates and decay of state-space layers go
    without weight decay, as Mamba's authors train them.
    """

    def __init__(
        self,
        layers: Iterable[tuple[str, nn.Parameter]],
        weight_decay: float,
        heads: Iterable[nn.Parameter] = (),
    ) -> None:
        """Take named parameters of layers, and of heads on top of them, which go to AdamW as they are."""
        trained, on_top = list(layers), list(heads)
        by_kind: dict[Kind, list[nn.Parameter]] = {"matrix": [], "stack": [], "undecayed": [], "other": []}
        for name, weight in trained:
            by_kind[_kind(name, weight)].append(weight)
        self.parameters: list[nn.Parameter] = [weight for _, weight in trained] + on_top
        decayed = [{"params": by_kind["other"] + on_top}]
        undecayed = [{"params": by_kind["undecayed"], "weight_decay": 0.0}] if by_kind["undecayed"] else []
        self._parts: list[torch.optim.Optimizer] = [
            Muon(by_kind["matrix"], weight_decay=weight_decay),
            torch.optim.AdamW(decayed + undecayed, lr=0.0, weight_decay=weight_decay, betas=(0.9, 0.98)),
        ]
        if by_kind["stack"]:
            self._parts.append(Muon(by_kind["stack"], weight_decay=weight_decay))

    def step(self, loss: torch.Tensor, rate: float) -> None:
        """One step down ``loss`` at learning rate ``rate``, the gradient's norm clipped."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, LARGEST_GRADIENT_NORM)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """State of both, in order."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Take up what `state_dict` gave."""
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


def _kind(name: str, weight: nn.Parameter) -> Kind:
    """Which optimiser a parameter of the layers is for."""
    *path, own = name.split(".")
    if weight.ndim == 3 and "experts" in path:
        return "stack"
    if weight.ndim == 2 and "embed" not in name and "lm_head" not in path:
        return "matrix"
    return "undecayed" if own in UNDECAYED else "other"


class TrainingRun:
    """One run: the model, the optimisers of projector and decoder, and how far it has come.

    Attributes:
        step: Optimiser steps done with projector and decoder.
        tower_accuracy: What `studies.dense.training.train_tower` returned.
        history: The measurements so far.
    """

    measured: ClassVar[type[Measurement]] = Measurement
    """What the history holds."""

    def __init__(self, model: Any, weight_decay: float) -> None:
        self.model = model
        trained = [(name, weight) for name, weight in model.named_parameters() if "vision_tower" not in name]
        self.optimisers = Optimisers(trained, weight_decay)
        self.step = 0
        self.tower_accuracy: dict[str, float] = {}
        self.history: list[Measurement] = []

    def __repr__(self) -> str:
        return f"TrainingRun({self.step} steps done, {len(self.history)} measurements)"

    def save(self, out: Path) -> None:
        """Write what `load` goes on from, through a temporary name."""
        state = {
            "model": self.model.state_dict(),
            "optimisers": self.optimisers.state_dict(),
            "step": self.step,
            "tower_accuracy": self.tower_accuracy,
            "history": [asdict(measurement) for measurement in self.history],
        }
        write_atomically(out / STATE_FILE, lambda temporary: torch.save(state, temporary))

    def load(self, out: Path) -> None:
        """Take up what `save` wrote.

        Raises:
            FileNotFoundError: There is nothing to resume.
        """
        path = out / STATE_FILE
        if not path.is_file():
            raise FileNotFoundError(f"{path} is absent: there is nothing to resume, so start without --resume")
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimisers.load_state_dict(state["optimisers"])
        self.step, self.tower_accuracy = int(state["step"]), state["tower_accuracy"]
        self.history = [self.measured(**row) for row in state["history"]]
