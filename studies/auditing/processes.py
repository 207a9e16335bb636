"""The processes that share an audit: which batches each computes, and what all of them must agree on.

`accelerate launch` starts them, accelerate's `PartialState` joins them; here is only who does what. It knows no models
and no files. Importing it loads no torch, and an audit of one process never asks for accelerate.
"""

import atexit
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from typing import TypeVar

from probes.inputs import InputError

T = TypeVar("T")

LONGEST_WAIT = timedelta(days=7)
"""How long a process waits for the others: one that is done early waits for the slowest's last batch."""

_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


@dataclass(frozen=True)
class Processes:
    """The processes of one audit, as one of them sees them.

    Attributes:
        index: Which one this is; 0 is the main one, which alone draws the progress bar and ends the run.
        count: How many there are.
        device: The device of this process; None leaves it to the loader.
    """

    index: int = 0
    count: int = 1
    device: str | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process ends the run and speaks for all."""
        return self.index == 0

    def share(self, batches: Sequence[T]) -> Sequence[T]:
        """The batches that this process computes: every n-th, so that long prompts are spread evenly.

        >>> Processes(1, 2).share([4, 7, 8, 9])
        [7, 9]
        """
        return batches[self.index :: self.count]

    def agreed(self, value: T) -> T:
        """The main process's value, in every process."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        shared: list[T] = broadcast_object_list([value])
        return shared[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Wait for all at the end of a step; one that fails in any process is refused in all, and said once.

        Raises:
            InputError: In the main process, with the reason of the first process that was refused.
            SystemExit: In the others, with the exit status of bad input.
        """
        if self.count == 1:
            yield
            return
        reason = None
        try:
            yield
        except (InputError, MemoryError) as error:
            reason = str(error)
        from accelerate.utils import gather_object

        reasons = [text for text in gather_object([reason]) if text is not None]
        if not reasons:
            return
        self.leave()
        if self.is_main:
            raise InputError(reasons[0])
        raise SystemExit(2)

    @contextmanager
    def one_voice(self) -> Iterator[None]:
        """Let only the main process write its notes on stderr."""
        if self.is_main:
            yield
        else:
            with redirect_stderr(StringIO()):
                yield

    def refuse_difference(self, **seen: object) -> None:
        """Refuse if the processes see different things, such as a folder that is not shared between machines.

        Raises:
            InputError: In the main process, naming what differs.
            SystemExit: In the others.
        """
        if self.count == 1:
            return
        main = self.agreed(seen)
        with self.together():
            names = [name for name, value in seen.items() if value != main[name]]
            if names:
                raise InputError(
                    f"process {self.index} of {self.count} sees another {' and '.join(names)} than the main process: "
                    "give all processes the same files"
                )

    def leave(self) -> None:
        """Take leave of the others, at the very end: whoever goes first must not cut off one that still listens."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()
            PartialState().destroy_process_group()


ALONE = Processes()
"""An audit of a single process."""


def join(device: str | None, device_map: str | None = None) -> Processes:
    """Find the other processes that a launcher started, and wait until all are there.

    Args:
        device: What `--device` says.
        device_map: What `--device-map` says.

    Returns:
        This process among them; with several, each takes the GPU of its local number, or the CPU.

    Raises:
        InputError: In the main process, if `--device` names a single GPU for several processes, or each of them would
            spread its model over all.
    """
    if _count() == 1:
        _warn_of_lone_launch()
        return ALONE
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=LONGEST_WAIT)
    processes = Processes(state.process_index, state.num_processes, str(state.device))
    with processes.together():
        if device not in (None, "cpu"):
            raise InputError(
                f"--device {device} is for one process, and {processes.count} were started: leave it out, and each "
                "takes a GPU of its own"
            )
        if device_map is not None:
            raise InputError(
                f"--device-map {device_map} spreads one model over all devices, and {processes.count} processes were "
                "started: give one of the two"
            )
    return processes


def end(status: int) -> None:
    """End this process at once if it is one of several; the end of an interpreter is for a process alone.

    While an interpreter goes, a thread of the group that still holds a tensor aborts the process, and launchers report
    SIGABRT in place of the status (pytorch/pytorch#179291).

    Args:
        status: The exit status.
    """
    if _count() == 1:
        return
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # Closed at the other end.
            stream.flush()
    os._exit(status)


def _count() -> int:
    """How many processes the launcher says that it started; 1 without one."""
    return next((int(os.environ[name]) for name in _WORLD_SIZES if os.environ.get(name, "").isdigit()), 1)


def _warn_of_lone_launch() -> None:
    """Say that `accelerate launch --cpu --num_processes 2` starts one process, unless it has a host file for mpirun."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_ADDR" in os.environ:
        print(
            "accelerate launch --cpu has started one process, whatever --num_processes says: for several on a CPU, "
            "give --multi_gpu in place of --cpu, or --mpirun_hostfile",
            file=sys.stderr,
        )
