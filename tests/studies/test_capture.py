"""The capture bench: its forwards against one another, its arithmetic, its pages, and small runs in real processes."""

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from probes.files import digest_of_file
from probes.inputs import InputError
from studies import bench_process
from studies.bench_process import OUT_OF_MEMORY, Run
from studies.capture import bench, page, process
from studies.capture.bench import run_capture
from studies.capture.config import KINDS, MEMORY_BAR, OURS, CaptureBench, CellKey, image_spans, plan, predicted_bytes
from studies.capture.forwards import decoder, prepared, prompt, ready
from studies.capture.results import CaptureCell, CaptureResults, closest_peer, make_cell, read_results
from studies.capture.tables import claim, markdown, print_capture

SMALL = CaptureBench(
    lengths=(64,),
    rows=(4,),
    kinds=("rows",),
    repeats=2,
    processes=1,
    images=2,
    padded_length=64,
    padded_batch=3,
    decode_length=64,
    decode_steps=20,
    threads=1,
    hidden=32,
    layers=2,
    heads=4,
    key_value_heads=2,
)
ROWS = CellKey("rows", 64, 4)


def enlarged(kind: str, key: CellKey) -> Any:
    """The factors that a kind returns, with weights so large that rows differ."""
    model = prepared(kind, SMALL)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name and "ln" not in name.split("."):
                weight.mul_(8)
    with ready(kind, model, prompt(SMALL, key), SMALL.decode_steps) as run:
        return run()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("rows", "anchor", "padded", "decode")])
def test_every_tool_answers_the_same_question(kind: str) -> None:
    for package in KINDS[kind].packages:
        pytest.importorskip(package.replace("-", "_"))
    expected = enlarged("rows", ROWS)
    found = enlarged(kind, ROWS)
    found = found.mean(2) if kind == "heads" else found
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    other = enlarged("anchor", CellKey("anchor", 64, 0))
    assert (other - expected).abs().max() > 1e-3


def test_the_padded_batch_holds_each_sequence_as_if_alone() -> None:
    key = CellKey("padded", 64, 4)
    batch = enlarged("padded", key)
    given = prompt(SMALL, key)
    model = decoder(SMALL)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.mul_(8)
    for sequence, length in enumerate((64, 56, 48)):
        assert int(given.inputs["attention_mask"][sequence].sum()) == length
        assert given.spans[sequence] == [(a + 64 - length, b + 64 - length) for a, b in image_spans(length, 2)]
        alone = given._replace(
            inputs={"input_ids": given.inputs["input_ids"][sequence : sequence + 1, 64 - length :]},
            rows=list(range(length - 4, length)),
            spans=[image_spans(length, 2)],
        )
        with ready("rows", model, alone, 0) as run:
            torch.testing.assert_close(batch[sequence : sequence + 1], run(), atol=1e-6, rtol=1e-4)


def test_the_memory_predicted_is_what_attention_holds() -> None:
    model = prepared("eager", SMALL)
    given = prompt(SMALL, ROWS)
    with torch.no_grad():
        kept: Any = model(**given.inputs, output_attentions=True).attentions
    held = sum(attention.nbytes for attention in kept)
    assert predicted_bytes(SMALL, CellKey("eager", 64, 4)) == held
    pytest.importorskip("transformer_lens")
    bridge: Any = prepared("lens_cache", SMALL)
    _, cache = bridge.run_with_cache(given.inputs["input_ids"])
    squares = {name: value.nbytes for name, value in cache.items() if value.shape[-2:] == (64, 64)}
    assert predicted_bytes(SMALL, CellKey("lens_cache", 64, 4)) == sum(squares.values())
    assert predicted_bytes(SMALL, CellKey("nnsight", 64, 4)) == 2 * held // SMALL.layers
    assert predicted_bytes(SMALL, ROWS) == 4 * (4 * 4 * 64 + 64)
    assert predicted_bytes(CaptureBench(), CellKey("anchor", 16384, 0)) < 2**24


@pytest.mark.slow
def test_a_small_capture_runs_in_processes_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = replace(SMALL, out=tmp_path / "new" / "bench.json")
    found = run_capture(config)
    (cell,) = found.cells
    assert (cell.kind, cell.length, cell.rows, cell.pairs, cell.error) == ("rows", 64, 4, 2, None)
    assert cell.time_ratio > 0
    assert 0.5 < cell.peak_ratio < 2
    assert cell.passes is None
    written = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert written["cells"][0]["peak_ratio"] == cell.peak_ratio
    assert written["config"]["lengths"] == [64]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["bench.json"]
    assert read_results(tmp_path / "new" / "bench.json").cells == found.cells
    shown = capsys.readouterr()
    assert "cell 1 of 1: sightcheck, 4 rows, 64 tokens" in shown.err
    assert "sightcheck: 4" in shown.out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["eager", "lens_cache", "nnsight"])
def test_a_cell_over_its_memory_limit_is_a_result_with_its_size(kind: str) -> None:
    config = replace(SMALL, memory_limit=2**20, lengths=(4096,), kinds=(kind,))
    key = CellKey(kind, 4096, 4)
    run = process.in_process(config, key, 0)
    assert run.error == OUT_OF_MEMORY
    cell = make_cell(config, key, [Run(1.0, 0.5)], [run])
    assert cell.out_of_memory and cell.predicted == predicted_bytes(config, key) and cell.plain_peak == 1
    assert CaptureResults(config, (cell,)).passes


def test_what_a_failed_process_says_is_told_apart() -> None:
    wrapped = "RuntimeError: DefaultCPUAllocator: can't allocate memory\n\nNNsightException: see above"
    assert bench_process.why(1, wrapped) == bench_process.why(-9, "") == OUT_OF_MEMORY
    assert bench_process.why(1, "Traceback\nValueError: no such kind\n") == "ValueError: no such kind"
    assert bench_process.why(3, "") == "exit status 3"
    assert bench_process.why(-11, "") == "ended by SIGSEGV"


@pytest.mark.slow
def test_every_kind_of_plain_forward_is_timed_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (process, bench_process):
        monkeypatch.setattr(module, "limit_memory", lambda _: None)
    for kind, pairs in (("rows", 3), ("padded", 2), ("decode", 1), ("plain", 0)):
        run = process.run_here(SMALL, CellKey("rows" if kind == "plain" else kind, 64, 4), pairs, kind)
        assert len(run.seconds) == len(run.plain_seconds) == len(run.cpu_seconds) == pairs
        assert run.peak > 0


def test_ratios_are_medians_and_bars_are_applied() -> None:
    plain = [Run(peak=100.0, loaded=50.0)] * 3
    ours = [
        Run(109.0, 50.0, (1.0, 3.0), (1.0, 2.0), (1.0, 1.0), (1.0, 1.0)),
        Run(105.0, 50.0, (2.2,), (2.0,), (1.0,), (1.0,)),
        Run(130.0, 50.0),
    ]

    def cell(kind: str, length: int) -> CaptureCell:
        return make_cell(SMALL, CellKey(kind, length, 64), plain, ours)

    assert cell("rows", 2048).time_ratio == pytest.approx(1.1)
    assert cell("rows", 2048).peak_ratio == pytest.approx(1.09)
    assert cell("rows", 2048).increment_ratio == pytest.approx(59 / 50)
    passes = {(kind, length): cell(kind, length).passes for kind in KINDS for length in (512, 2048, 4096)}
    assert {key for key, passed in passes.items() if passed is False} == {
        (kind, 4096) for kind in ("rows", "anchor", "maps", "padded")
    }
    assert {key for key, passed in passes.items() if passed} == {
        *((kind, 2048) for kind in ("rows", "anchor", "maps", "padded", "heads", "decode")),
        ("heads", 4096),
        ("decode", 4096),
    }
    failed = make_cell(SMALL, CellKey("rows", 2048, 64), plain[:1], [Run(error="boom")])
    assert failed.passes is False and failed.error == "boom"
    assert not CaptureResults(SMALL, (cell("rows", 2048), failed)).passes
    broken = make_cell(SMALL, CellKey("eager", 2048, 64), plain[:1], [Run(error="boom")])
    assert broken.passes is None and not CaptureResults(SMALL, (broken,)).passes


def test_an_interrupted_bench_goes_on_after_the_cells_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[int] = []

    def measure(config: CaptureBench, key: CellKey, _: Any) -> CaptureCell:
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(key.rows)
        # A clock that stands still gives no ratio, and no error either.
        error = {3: "boom", 5: OUT_OF_MEMORY}.get(key.rows)
        run = Run(1.0, 0.5, (1.0,), (1.0,), (1.0,), (0.0,), error)
        return make_cell(config, key, [run], [run])

    monkeypatch.setattr(bench, "_measure", measure)
    config = replace(SMALL, rows=(3, 4, 5, 2), out=tmp_path / "bench.json")
    with pytest.raises(KeyboardInterrupt):
        run_capture(config, show=False)
    assert json.loads((tmp_path / "bench.json").read_text())["passes"] is None
    measured.clear()
    with pytest.raises(InputError, match="--overwrite to replace it, --resume to go on"):
        run_capture(config, show=False)
    found = run_capture(config, resume=True)
    assert measured == [3, 2]
    assert [cell.rows for cell in found.cells] == [3, 4, 5, 2]
    assert math.isnan(found.cells[1].cpu_ratio) and "nan" in capsys.readouterr().out
    assert json.loads((tmp_path / "bench.json").read_text())["passes"] is not None


def test_a_bench_that_is_interrupted_again_loses_no_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = {3, 5}
    measured: list[int] = []

    def measure(config: CaptureBench, key: CellKey, _: Any) -> CaptureCell:
        if len(measured) == 1 and not failing:
            raise KeyboardInterrupt
        measured.append(key.rows)
        run = Run(1.0, 0.5, (1.0,), (1.0,), (1.0,), (1.0,), error="boom" if key.rows in failing else None)
        return make_cell(config, key, [run], [run])

    monkeypatch.setattr(bench, "_measure", measure)
    config = replace(SMALL, kinds=("rows",), rows=(3, 4, 5, 2), out=tmp_path / "bench.json")
    run_capture(config, show=False)
    failing.clear()
    measured.clear()
    with pytest.raises(KeyboardInterrupt):
        run_capture(config, show=False, resume=True)
    written = json.loads((tmp_path / "bench.json").read_text())
    assert measured == [3] and [cell["rows"] for cell in written["cells"]] == [3, 4, 2] and written["passes"] is None
    measured.clear()
    assert [cell.rows for cell in run_capture(config, show=False, resume=True).cells] == [3, 4, 5, 2]
    assert measured == [5] and json.loads((tmp_path / "bench.json").read_text())["passes"] is not None


def test_what_cannot_be_resumed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SMALL, out=tmp_path / "bench.json", resume=True)
    with pytest.raises(InputError, match="nothing to resume"):
        run_capture(config)
    (tmp_path / "bench.json").write_text("[1]")
    with pytest.raises(InputError, match="no result of bench capture"):
        run_capture(config)
    run = Run(1.0, 0.5, (1.0,), (1.0,), (1.0,), (1.0,))
    monkeypatch.setattr(bench, "_measure", lambda config, key, _: make_cell(config, key, [run], [run]))
    run_capture(config, resume=False, overwrite=True)
    with pytest.raises(InputError, match=r"another config \(hidden\)"):
        run_capture(config, hidden=64)


def test_plain_processes_of_a_length_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def pretend(config: CaptureBench, key: CellKey, pairs: int, kind: str | None = None) -> Run:
        started.append(kind or key.kind)
        times = (1.0,) * pairs
        return Run(1.0, 0.5, times, times, times, times)

    monkeypatch.setattr(bench, "in_process", pretend)
    kinds = ("rows", "maps", "padded", "decode")
    run_capture(replace(SMALL, kinds=kinds, repeats=4, processes=2), show=False)
    assert started.count("plain") == 2
    assert started == [
        *("plain", "rows", "rows", "plain", "maps", "maps"),
        *("padded plain", "padded", "padded", "padded plain"),
        *("decode plain", "decode", "decode", "decode plain"),
    ]


def test_images_take_three_quarters_of_the_columns() -> None:
    for length, images in ((1024, 8), (4096, 8), (64, 2)):
        spans = image_spans(length, images)
        assert len(spans) == images
        assert sum(stop - start for start, stop in spans) == 3 * length // 4
        assert all(a < b <= c for (a, b), c in zip(spans, [start for start, _ in spans[1:]] + [length], strict=True))


def test_the_plan_holds_every_kind_at_every_length() -> None:
    config = CaptureBench(lengths=(1024, 2048), kinds=("rows", "anchor", "eager", "decode"))
    assert plan(config) == [
        *(("rows", 1024, 64), ("rows", 1024, 1), ("anchor", 1024, 0), ("eager", 1024, 64)),
        *(("rows", 2048, 64), ("rows", 2048, 1), ("anchor", 2048, 0), ("eager", 2048, 64)),
        ("decode", 4096, 0),
    ]


def test_settings_that_cannot_be_measured_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"lengths": ()}, "at least one length"),
        ({"repeats": 0}, "one repeat"),
        ({"kinds": ()}, "one kind"),
        ({"lengths": (8,)}, "lengths must be"),
        ({"rows": (0,)}, "rows between 1"),
        ({"rows": (9999,)}, "rows between 1"),
        ({"kinds": ("rows", "row")}, "--kinds row: there are rows, anchor"),
        ({"resume": True, "overwrite": True}, "leave one out"),
        ({"out": Path(__file__).parent}, "is a folder"),
        ({"padded_batch": 8, "padded_length": 1024}, "7 at most"),
    )
    for changes, message in refused:
        with pytest.raises(InputError, match=message):
            run_capture(SMALL, **changes)
    monkeypatch.setattr(bench, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"needs nnsight, which is not installed: pip install 'sightcheck\[bridges\]'"):
        run_capture(SMALL, kinds=("nnsight",))


def test_importing_the_bench_loads_no_torch() -> None:
    code = "import sys, studies.capture.bench; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def cells(**ratios: float) -> tuple[CaptureCell, ...]:
    """Cells at 4,096 tokens by kind, each with one number for time and memory."""
    nan = math.nan
    made = []
    for kind, ratio in ratios.items():
        error = OUT_OF_MEMORY if ratio < 0 else None
        value = nan if error else ratio
        five = (value,) * 5
        made.append(CaptureCell(kind, 4096, 64, *five, 1.0, value, 1e9, value, 7, 2**32, error, None))
    return tuple(made)


def test_the_nearest_peer_is_named() -> None:
    found = cells(rows=1.1, maps=0.5, eager=4.4, nnsight=2.2, lens_cache=-1)
    nearest = closest_peer(found, 4096)
    assert {name: cell.kind for name, (cell, _) in nearest.items()} == {"time": "nnsight", "memory": "nnsight"}
    assert [multiple for _, multiple in nearest.values()] == pytest.approx([2.0, 2.0])
    assert closest_peer(found, 1024) == closest_peer(cells(rows=1.0, lens_cache=-1), 4096) == {}


def test_tables_say_what_ran_out_of_memory_and_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    machine = {"cores": 2, "torch": "2", "transformers": "5"}
    found = CaptureResults(replace(SMALL, lengths=(4096,)), cells(rows=1.04, eager=12.3, lens_cache=-1), machine)
    written = markdown(found)
    assert "| **Sightcheck**: 64 rows | 1.04 / 1.04 |" in written
    assert "| transformers, eager: output_attentions, kept | 12 / 12 |" in written
    assert "| TransformerLens: run_with_cache, everything | out of memory (4.0 GiB) |" in written
    assert written.endswith("0 of 0 cells that have one hold it.")
    missed = replace(found.cells[0], passes=False)
    assert "0 of 1 cells that have one hold it (missed: 64 rows at 4,096 tokens)." in markdown(
        replace(found, cells=(missed,))
    )
    assert "takes 4 % more time and 4 % more memory" in claim(found)
    assert "takes 11.8 times as long" in claim(found)
    assert claim(found).endswith("11.8 times as much.")
    close = replace(found, cells=cells(rows=1.04, eager=1.56))
    assert "1.5 times as much: it holds one layer's" in claim(close)
    assert "what its forward adds to them is 1.5 times what ours adds." in claim(close)
    failed = replace(found.cells[1], error="boom | bang")
    assert "failed: boom / bang" in markdown(replace(found, cells=(found.cells[0], failed)))
    print_capture(found)
    assert "4.0 GiB" in capsys.readouterr().out


def test_the_figure_draws_the_predicted_size_where_memory_ran_out() -> None:
    found = CaptureResults(replace(SMALL, lengths=(4096,)), cells(rows=1.04, eager=12.3, lens_cache=-1))
    drawn = page.drawn(found)
    assert drawn["labels"][0] == "sightcheck: 64 rows"
    np.testing.assert_allclose(drawn["time"][:, 0], [1.04, 12.3, math.nan])
    np.testing.assert_allclose(drawn["foreseen"][:, 0], [math.nan, math.nan, (2**32 + 1e9) / 1e9])


def test_a_page_without_its_blocks_is_refused() -> None:
    found = CaptureResults(SMALL, cells(rows=1.0, eager=2.0), {"cores": 2})
    text = "<!-- capture claim -->\nstale\n<!-- end -->\n<!-- capture table -->\nstale\n<!-- end -->\n"
    once = page.filled(text, found)
    assert "stale" not in once and page.filled(once, found) == once
    with pytest.raises(InputError, match="0 blocks '<!-- capture claim -->'"):
        page.filled("nothing", found)


def test_the_readme_shows_the_committed_results() -> None:
    """Stale when this fails: run `python -m studies.capture.page`."""
    committed = read_results(page.RESULTS)
    assert page.filled(page.README.read_text(), committed) == page.README.read_text()
    with Image.open(page.FIGURE) as figure:
        assert figure.info["Source"] == digest_of_file(page.RESULTS)
    assert {cell.key for cell in committed.cells} == set(plan(committed.config))
    for cell in committed.cells:
        bar = next((bar for start, bar in KINDS[cell.kind].time_bars if cell.length >= start), None)
        holds = bar is not None and not cell.error and cell.time_ratio <= bar and cell.peak_ratio <= MEMORY_BAR
        assert cell.passes == (None if bar is None else holds)
    assert all(asdict(cell)["predicted"] == predicted_bytes(committed.config, cell.key) for cell in committed.cells)
    assert {KINDS[cell.kind].tool for cell in committed.cells} > {OURS}
