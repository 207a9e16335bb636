"""The capture bench: its arithmetic, and one small run through real processes."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probes.inputs import InputError
from studies import bench, bench_process
from studies.bench import CaptureCell, CaptureResults, run_capture
from studies.bench_process import CaptureBench, Run, image_spans

SMALL = CaptureBench(
    lengths=(64,),
    rows=(4,),
    eager_lengths=(),
    repeats=2,
    processes=1,
    images=2,
    threads=1,
    hidden=32,
    layers=2,
    heads=4,
    key_value_heads=2,
)


def test_a_small_capture_runs_in_processes_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run_capture(config=SMALL, out=tmp_path / "new" / "bench.json")
    (cell,) = results.cells
    assert (cell.kind, cell.length, cell.rows, cell.pairs, cell.error) == ("rows", 64, 4, 2, None)
    assert cell.time_ratio > 0
    assert 0.5 < cell.peak_ratio < 2
    assert cell.passes is None
    written = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert written["cells"][0]["peak_ratio"] == cell.peak_ratio
    assert written["config"]["lengths"] == [64]
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "bench.json"]
    shown = capsys.readouterr()
    assert "measuring 4 recorded rows at 64 tokens" in shown.err
    assert "4 rows" in shown.out


@pytest.mark.slow
def test_a_cell_over_its_memory_limit_says_so() -> None:
    config = replace(SMALL, memory_limit=2**20, lengths=(4096,))
    run = bench_process.in_process(config, "eager", 4096, 0, 0)
    assert run.error == "memory limit reached"
    cell = bench._cell("eager", 4096, 0, [Run(1.0, 0.5)], [run])
    assert cell.error == "memory limit reached"


def test_every_kind_runs_and_is_timed_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_process, "limit_memory", lambda _: None)
    for kind, pairs in (("plain", 0), ("rows", 3), ("eager", 2)):
        run = bench_process.run_here(SMALL, kind, 64, 4, pairs)
        assert len(run.seconds) == len(run.plain_seconds) == len(run.cpu_seconds) == pairs
        assert run.peak > 0


def test_ratios_are_medians_of_pairs_and_bars_are_applied() -> None:
    plain = [Run(peak=100.0, loaded=50.0)] * 3
    ours = [
        Run(109.0, 50.0, (1.0, 3.0), (1.0, 2.0), (1.0, 1.0), (1.0, 1.0)),
        Run(105.0, 50.0, (2.2,), (2.0,), (1.0,), (1.0,)),
        Run(130.0, 50.0),
    ]
    cell = bench._cell("rows", 2048, 64, plain, ours)
    assert cell.time_ratio == pytest.approx(1.1)
    assert cell.peak_ratio == pytest.approx(1.09)
    assert cell.increment_ratio == pytest.approx(59 / 50)
    assert cell.passes is True
    assert bench._cell("rows", 4096, 64, plain, ours).passes is False
    assert bench._cell("rows", 512, 64, plain, ours).passes is None
    assert bench._cell("eager", 4096, 0, plain, ours).passes is None
    failed = bench._cell("rows", 2048, 64, plain[:1], [Run(error="boom")])
    assert failed.passes is False
    assert failed.error == "boom"
    assert not CaptureResults(SMALL, (cell, failed)).passes


def test_an_interrupted_bench_goes_on_after_the_cells_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[int] = []

    def measure(_: CaptureBench, kind: str, length: int, rows: int) -> CaptureCell:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(rows)
        # A clock that stands still gives no ratio, and no error either.
        run = Run(1.0, 0.5, (1.0,), (1.0,), (1.0,), (0.0,), error="boom" if rows == 3 else None)
        return bench._cell(kind, length, rows, [run], [run])

    monkeypatch.setattr(bench, "_measure", measure)
    config = replace(SMALL, rows=(3, 4, 2), out=tmp_path / "bench.json")
    with pytest.raises(KeyboardInterrupt):
        run_capture(config=config, show=False)
    assert json.loads((tmp_path / "bench.json").read_text())["passes"] is None
    measured.clear()
    with pytest.raises(InputError, match="--overwrite to replace it, --resume to go on"):
        run_capture(config=config, show=False)
    results = run_capture(config=replace(config, resume=True))
    assert measured == [3, 2]
    assert [cell.rows for cell in results.cells] == [3, 4, 2]
    assert math.isnan(results.cells[1].cpu_ratio) and "nan" in capsys.readouterr().out
    assert json.loads((tmp_path / "bench.json").read_text())["passes"] is not None


def test_what_cannot_be_resumed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SMALL, out=tmp_path / "bench.json", resume=True)
    with pytest.raises(InputError, match="nothing to resume"):
        run_capture(config=config)
    (tmp_path / "bench.json").write_text("[1]")
    with pytest.raises(InputError, match="no result of bench capture"):
        run_capture(config=config)
    run = Run(1.0, 0.5, (1.0,), (1.0,), (1.0,), (1.0,))
    monkeypatch.setattr(bench, "_measure", lambda _, kind, length, rows: bench._cell(kind, length, rows, [run], [run]))
    run_capture(config=replace(config, resume=False, overwrite=True))
    with pytest.raises(InputError, match=r"another config \(hidden\)"):
        run_capture(config=replace(config, hidden=64))


def test_images_take_three_quarters_of_the_columns() -> None:
    for length, images in ((1024, 8), (4096, 8), (64, 2)):
        spans = image_spans(length, images)
        assert len(spans) == images
        assert sum(stop - start for start, stop in spans) == 3 * length // 4
        assert all(a < b <= c for (a, b), c in zip(spans, [start for start, _ in spans[1:]] + [length], strict=True))


def test_the_plan_holds_eager_only_at_its_lengths() -> None:
    config = CaptureBench(lengths=(1024, 2048), rows=(64, 1), eager_lengths=(1024,))
    assert bench._plan(config) == [
        ("rows", 1024, 64),
        ("rows", 1024, 1),
        ("eager", 1024, 0),
        ("rows", 2048, 64),
        ("rows", 2048, 1),
    ]


def test_settings_that_cannot_be_measured_are_refused() -> None:
    refused: tuple[dict[str, Any], ...] = (
        {"lengths": ()},
        {"repeats": 0},
        {"lengths": (8,)},
        {"rows": (0,)},
        {"rows": (9999,)},
    )
    for changes in refused:
        with pytest.raises(InputError, match=r"bench capture|lengths must be"):
            run_capture(config=replace(SMALL, **changes))


def test_importing_the_bench_loads_no_torch() -> None:
    code = "import sys, studies.bench; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_table_is_printed_for_failed_cells_too(capsys: pytest.CaptureFixture[str]) -> None:
    nan = float("nan")
    cell = CaptureCell("rows", 64, 4, nan, nan, nan, nan, nan, nan, nan, nan, 0, "memory limit reached", False)
    bench.print_capture(CaptureResults(SMALL, (cell,)))
    assert "memory" in capsys.readouterr().out
