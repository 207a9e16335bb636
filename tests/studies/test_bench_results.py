"""What both benches ask of the file that they go on with: the options, the settings and the machine."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from probes.inputs import InputError
from studies import bench_results
from studies.bench_results import cells_before, check_out, kept_cells, settings_of, telling_how_to_go_on, this_machine


@dataclass(frozen=True)
class Bench:
    rows: tuple[int, ...] = (1, 2)
    threads: int = 1
    out: Path | None = None
    resume: bool = False
    overwrite: bool = False


def written(out: Path, config: Bench, /, **changes: Any) -> Path:
    record = {"config": settings_of(config), "machine": this_machine(), "cells": [{"rows": 1}]}
    out.write_text(json.dumps(record | changes))
    return out


def test_the_settings_are_all_options_but_those_of_the_file() -> None:
    assert settings_of(Bench()) == {"rows": (1, 2), "threads": 1}
    assert settings_of(Bench(), apart=("rows",)) == {"threads": 1}


def test_the_cells_of_the_same_bench_are_read_as_they_were_written(tmp_path: Path) -> None:
    out = written(tmp_path / "bench.json", Bench())
    assert cells_before("bench it", out, settings_of(Bench()), this_machine()) == [{"rows": 1}]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": {"rows": [1, 2], "threads": 2}}, r"another config \(threads\)"),
        ({"config": {"rows": [1, 2]}}, r"another config \(threads\)"),
        ({"config": {"rows": [1, 2], "threads": 1, "gone": 1}}, r"another config \(gone\)"),
        ({"machine": {**this_machine(), "cores": -1}}, r"another machine \(cores\)"),
        ({"machine": None}, "is no result of bench it"),
        ({"cells": 3}, "is no result of bench it"),
    ],
)
def test_another_bench_is_not_gone_on_with(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    out = written(tmp_path / "bench.json", Bench(), **changes)
    with pytest.raises(InputError, match=said):
        cells_before("bench it", out, settings_of(Bench()), this_machine())


def test_what_is_no_result_is_not_gone_on_with(tmp_path: Path) -> None:
    for out in (None, tmp_path / "absent.json"):
        with pytest.raises(InputError, match="nothing to resume"):
            cells_before("bench it", out, {}, {})
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(InputError, match="no result of bench it"):
        cells_before("bench it", tmp_path / "list.json", {}, {})
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        cells_before("bench it", tmp_path / "text.json", {}, {})


@dataclass(frozen=True)
class Cell:
    rows: int
    error: str | None = None
    out_of_memory: bool = False


def test_cells_are_kept_unless_they_failed_and_are_asked_for_again() -> None:
    rows: list[dict[str, Any]] = [
        {"rows": 1},
        {"rows": 2, "error": "boom"},
        {"rows": 3, "error": "memory", "out_of_memory": True},
    ]

    def read(row: dict[str, Any]) -> Cell:
        return Cell(**row)

    def kept(**asked: Any) -> list[int]:
        return [cell.rows for cell in kept_cells("bench it", None, rows, read, **asked)]

    assert kept() == [1, 3]
    assert kept(asked=lambda cell: cell.rows == 2) == [1, 3]
    assert kept(asked=lambda cell: cell.rows != 2) == [1, 2, 3]
    with pytest.raises(InputError, match="no result of bench it"):
        kept_cells("bench it", None, [{"columns": 1}], read)


def test_out_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    config = Bench(out=tmp_path / "bench.json")
    check_out(config)
    check_out(Bench())
    written(tmp_path / "bench.json", config)
    with pytest.raises(InputError, match="is there: give --overwrite"):
        check_out(config)
    check_out(replace(config, resume=True))
    check_out(replace(config, overwrite=True))
    with pytest.raises(InputError, match="leave one out"):
        check_out(replace(config, resume=True, overwrite=True))
    with pytest.raises(InputError, match="is a folder"):
        check_out(replace(config, out=tmp_path))


def test_an_interruption_says_how_to_go_on_where_something_was_written(tmp_path: Path, capsys: Any) -> None:
    config = Bench(out=tmp_path / "bench.json")
    for said in ("", "sightcheck bench it --out"):
        with pytest.raises(KeyboardInterrupt), telling_how_to_go_on("bench it", config):
            raise KeyboardInterrupt
        shown = capsys.readouterr().err
        assert said in shown and bool(said) == ("--resume" in shown)
        written(tmp_path / "bench.json", config)


def test_a_machine_is_told_by_the_packages_that_a_bench_runs() -> None:
    found = this_machine(("torch", "no-such-package"))
    assert found["torch"] and found["no-such-package"] is None and "transformers" not in found
    assert set(found) - {"no-such-package"} < set(this_machine())


def test_both_benches_ask_here() -> None:
    from studies import bench_scale
    from studies.capture import bench, results

    for module in (bench_scale, bench):
        assert vars(module)["check_out"] is bench_results.check_out
    for module in (bench_scale, results):
        assert vars(module)["cells_before"] is bench_results.cells_before
