"""Trainers that wait for leave before every step, so that two of them take their steps in turn in one process.

Each trains in a thread of its own by its own unchanged `train()`, and only one of them runs at a time. A step is timed
from the leave to the end of its optimiser step: fetching and collating a batch, logging and metrics are in it.
"""

import threading
import time
from types import TracebackType
from typing import Any

import torch
from transformers import TrainerCallback


class SteppedTrainer:
    """A trainer as a context: it starts with the first step that is asked for, and stops when the context ends.

    Args:
        trainer: A transformers trainer with more `max_steps` than will be asked for.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._leave, self._rested = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._ends = self._done = False
        self._error: BaseException | None = None
        self._start = self._clocked = (0.0, 0.0)
        trainer.add_callback(_Rest(self))

    def __enter__(self) -> "SteppedTrainer":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ends = True
        self._leave.release()
        self._thread.join()

    def step(self) -> tuple[float, float]:
        """Take one step; wall-clock seconds, and processor seconds of this process over all threads.

        Raises:
            Exception: What the trainer raised.
            RuntimeError: If it has ended its training already.
        """
        if not self._done:
            self._leave.release()
            self._rested.acquire()
        if self._error is not None:
            raise self._error
        if self._done:
            raise RuntimeError("the trainer has no step left: give it more max_steps")
        return self._clocked

    def rest(self) -> bool:
        """Called by the trainer at the end of a step; waits for leave, and returns whether to stop."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        wall, processor = _clocks()
        self._clocked = (wall - self._start[0], processor - self._start[1])
        self._rested.release()
        self._wait()
        return self._ends

    def _train(self) -> None:
        self._wait()
        try:
            if not self._ends:
                self._trainer.train()
        except BaseException as error:
            self._error = error
        # Before the release: whoever waits for it reads the flag, and the thread outlives it by a little.
        self._done = True
        self._rested.release()

    def _wait(self) -> None:
        self._leave.acquire()
        self._start = _clocks()


class _Rest(TrainerCallback):  # type: ignore[misc]
    def __init__(self, stepped: SteppedTrainer) -> None:
        self._stepped = stepped

    def on_step_end(self, _: Any, __: Any, control: Any, **___: Any) -> Any:
        """End the training when it is told to."""
        control.should_training_stop = self._stepped.rest() or control.should_training_stop
        return control


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
