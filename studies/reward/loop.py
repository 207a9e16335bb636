"""The training itself: TRL's loop with a bar, a log, whole checkpoints and an orderly stop on Ctrl-C."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import ProgressCallback

from rewardmodels.training import RewardTrainer
from studies.auditing.progress import Counter
from studies.reward.folder import CHECKPOINTS, step_of
from studies.reward.results import card_of
from studies.reward.settings import trainer_settings

if TYPE_CHECKING:
    from studies.auditing.processes import Processes
    from studies.reward.folder import TrainFolder
    from studies.reward.parts import Prepared
    from studies.reward.train import TrainConfig


def train(config: "TrainConfig", prepared: "Prepared", folder: "TrainFolder", processes: "Processes") -> bool:
    """Train from the start, or from the folder's checkpoint; the prepared model then holds what was learned.

    Returns:
        Whether the last step was reached: false after Ctrl-C, with a checkpoint of the last step.

    Raises:
        InputError: If the loss is not finite, or the settings do not go together.
    """
    done = step_of(folder.checkpoint) if folder.checkpoint else 0
    watch = _Watch(folder, prepared.steps, config.batch_size, done)
    callbacks: list[TrainerCallback] = [watch]
    if config.log_to == "tensorboard" and processes.is_main:
        callbacks.append(_tensorboard(folder, done))
    trainer = RewardTrainer(
        prepared.reward,
        prepared.pairs,
        trainer_settings(config, prepared, processes, folder.path / CHECKPOINTS),
        objective=prepared.objective,
        branches=prepared.branches,
        view=config.proxy_sees,
        card=lambda running: card_of(config, prepared, running.state.global_step),
        callbacks=callbacks,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    if done >= prepared.steps:
        # Trained to the end and stopped before the results: the loop itself would begin another epoch.
        trainer._load_from_checkpoint(str(folder.checkpoint))
        return True
    with watch.stopping_in_order(processes.count == 1):
        trainer.train(resume_from_checkpoint=str(folder.checkpoint) if folder.checkpoint else None)
    return bool(trainer.state.global_step >= prepared.steps)


def _tensorboard(folder: "TrainFolder", done: int) -> TrainerCallback:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    # Steps behind the checkpoint are done again: what was shown of them is taken back.
    writer = SummaryWriter(str(folder.path / "tensorboard"), purge_step=done + 1 if done else None)
    callback: TrainerCallback = TensorBoardCallback(writer)
    return callback


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Draws the bar, writes the log, and ends a step in order when Ctrl-C asks for it."""

    def __init__(self, folder: "TrainFolder", steps: int, pairs_a_step: int, done: int) -> None:
        self._folder = folder
        self._pairs = pairs_a_step
        self._counter = Counter("training (pairs)", steps * pairs_a_step, done * pairs_a_step)
        self._open = False
        self._stop = False

    @contextmanager
    def stopping_in_order(self, alone: bool) -> Iterator[None]:
        """Take the first Ctrl-C as a wish to stop after this step; several processes cannot agree on one in time."""
        before = signal.getsignal(signal.SIGINT)

        def stop(*_: Any) -> None:
            self._stop = True
            signal.signal(signal.SIGINT, before)
            print("\nending this step and saving it; Ctrl-C again stops at once", file=sys.stderr)

        if alone:
            signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            if self._open:
                self._counter.__exit__(None, None, None)

    def on_train_begin(self, _: Any, state: TrainerState, *__: Any, **___: Any) -> None:
        """Open the bar."""
        if state.is_world_process_zero:
            self._counter.__enter__()
            self._open = True

    def on_step_end(self, _: Any, state: TrainerState, control: TrainerControl, **__: Any) -> None:
        """Move the bar, and stop where that was asked for."""
        if self._open:
            self._counter.reach(state.global_step * self._pairs)
        if self._stop:
            control.should_save = control.should_training_stop = True

    def on_log(self, _: Any, state: TrainerState, __: Any, logs: dict[str, Any] | None = None, **___: Any) -> None:
        """Write a line of what a step gave."""
        if state.is_world_process_zero and logs and "loss" in logs:
            told = {name: value for name, value in logs.items() if name != "total_flos"}
            self._folder.log({"step": state.global_step, **told})
