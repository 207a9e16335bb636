"""`app.py` turns what a user can mend into one line and exit status 2."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from probes.inputs import InputError

APP = str(Path(__file__).parents[1] / "app.py")


def test_bad_input_is_one_line_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def refusing() -> str:
        raise InputError("port 7860 cannot be used: choose another")

    monkeypatch.setattr("studies.explorer.app.launch", refusing)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(APP, run_name="__main__")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "sightcheck: port 7860 cannot be used: choose another\n"


def test_errors_of_our_own_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studies.explorer.app.launch", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        runpy.run_path(APP, run_name="__main__")
