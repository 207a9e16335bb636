"""What goes wrong inside an audit costs one sample its numbers, never the run, unless the model itself cannot work."""

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from probes.inputs import InputError
from studies.runs import RunFolder
from tests.studies.small_audit import Small, make_answerable, save_model, save_questions

pytestmark = pytest.mark.filterwarnings("ignore")


class Plain(Small):
    """Model and questions without a finished audit."""

    def __init__(self, root: Path) -> None:
        self.model, self.data = root / "model", root / "data"
        save_model(self.model)
        save_questions(self.data, count=8, dev=2)
        make_answerable(self.model, self.data)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Plain(tmp_path_factory.mktemp("small"))


def test_a_sample_that_fails_late_has_one_row_and_nothing_else(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studies.auditing import tables

    real = tables.region_rows

    def failing(record: Any, trace: Any) -> Any:
        if record.id == "q4":
            raise InputError("the box lies outside")
        return real(record, trace)

    monkeypatch.setattr(tables, "region_rows", failing)
    assert small.audit(tmp_path / "run", "--limit", "6") == 1
    run = RunFolder.open(tmp_path / "run")
    names = run.read("samples").column("sample_id").to_pylist()
    assert len(names) == len(set(names)) == 6 and run.verify().ok
    assert "outside" in run.sample("q4")["error"]
    for table in ("layers", "pairwise", "maps", "cells"):
        assert run.count(table, pc.field("sample_id") == "q4") == 0
