"""Progress of long work on stderr: a bar with rate and time left on a terminal, a line now and then elsewhere.

It knows counts and a clock, and nothing of what is counted.
"""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_EVERY = 10.0
"""Seconds between two lines where there is no terminal."""


class Counter:
    """Counts finished samples and says how fast it goes and how long it will take.

    Args:
        label: What is being done.
        total: Samples in all.
        done: Samples that an earlier run finished; they do not count for the rate.
        stream: Where to write; stderr by default.
        clock: Monotonic seconds.
        unit: What is counted, in the plural.
    """

    def __init__(
        self,
        label: str,
        total: int,
        done: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        unit: str = "samples",
    ) -> None:
        self.label, self.total, self.done, self.unit = label, total, done, unit
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._first, self._start = done, clock()
        self._last_line = self._last_change = self._start
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> Self:
        self._first, self._start = self.done, self._clock()
        self._last_line = self._last_change = self._start
        if self._stream.isatty():
            self._bar = _bar(self._stream)
            self._task = self._bar.add_task(self.label, total=self.total, completed=self.done, rate="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            self._line()

    def advance(self, count: int) -> None:
        """Note that `count` more samples are finished."""
        self.reach(self.done + count)

    def is_due(self) -> bool:
        """Whether a second has passed since the last change: where counting itself takes time, it is done then."""
        return self._clock() - self._last_change >= 1.0

    def reach(self, done: int) -> None:
        """Note how many samples are finished in all."""
        self.done, self._last_change = done, self._clock()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=f"{self.rate():.1f}/s")
        elif self._clock() - self._last_line >= LINE_EVERY and self.done < self.total:
            self._line()

    def rate(self) -> float:
        """Samples per second since this run began."""
        return (self.done - self._first) / max(self._clock() - self._start, 1e-9)

    def _line(self) -> None:
        self._last_line = self._clock()
        left = (self.total - self.done) / self.rate() if self.done > self._first else None
        when = "" if left is None else f", {duration(left)} left"
        text = f"{self.label}: {self.done}/{self.total}, {self.rate():.1f} {self.unit}/s{when}"
        print(text, file=self._stream, flush=True)


def _bar(stream: TextIO) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(file=stream),
    )


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(3725.2)
    '1:02:05'
    """
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
