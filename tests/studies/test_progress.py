import io

import pytest

from studies.auditing.progress import LINE_EVERY, Counter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_where_there_is_no_terminal() -> None:
    stream, clock = io.StringIO(), Clock()
    with Counter("audit", total=100, done=20, stream=stream, clock=clock) as counter:
        for _ in range(80):
            clock.now += 0.5
            counter.advance(1)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 80 * 0.5 // LINE_EVERY
    assert lines[0] == "audit: 40/100, 2.0 samples/s, 0:00:30 left"
    assert lines[-1] == "audit: 100/100, 2.0 samples/s, 0:00:00 left"


def test_an_error_leaves_no_last_line() -> None:
    stream = io.StringIO()
    with pytest.raises(RuntimeError), Counter("audit", 3, stream=stream, clock=Clock()):
        raise RuntimeError
    assert stream.getvalue() == ""


def test_a_bar_on_a_terminal_shows_rate_and_time_left() -> None:
    stream = Terminal()
    with Counter("audit", total=4, stream=stream) as counter:
        for _ in range(4):
            counter.advance(1)
    shown = stream.getvalue()
    assert "audit" in shown and "4/4" in shown and "/s" in shown
