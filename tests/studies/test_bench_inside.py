"""The inside bench: the full computation, what is held against it, its arithmetic and pages, and a small run."""

import json
import math
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from probes.files import digest_of_file
from probes.inputs import InputError
from probes.mixers.readers import reader_of
from probes.mixers.sums import FORMS
from studies import bench_process
from studies.bench_process import OUT_OF_MEMORY, Run
from studies.cli import main as command
from studies.inside_bench import bench, equality, page, process
from studies.inside_bench.bench import run_inside
from studies.inside_bench.cli import run
from studies.inside_bench.config import KINDS, CellKey, InsideBench, KindName, bars, checks, plan, timed_pairs
from studies.inside_bench.equality import hidden_attention_check, routing_check
from studies.inside_bench.forwards import prompt, ready
from studies.inside_bench.full import FullScan, full_routing, listening
from studies.inside_bench.models import decoder
from studies.inside_bench.results import Equality, InsideCell, InsideResults, make_cell, read_results
from studies.inside_bench.tables import markdown, print_inside
from tests.probes.mixers.recurrences import by_recurrence

SMALL = InsideBench(
    lengths=(64,),
    rows=4,
    pairs=2,
    processes=1,
    checked_length=48,
    images=2,
    threads=1,
    hidden=128,
    pattern="MEM*",
    layers=2,
    experts=8,
)
GIVEN = prompt(SMALL, SMALL.checked_length)


@pytest.fixture(scope="module")
def hybrid() -> Any:
    return decoder(SMALL, "hybrid")


@pytest.fixture(scope="module")
def dots1() -> Any:
    return decoder(SMALL, "dots1")


def test_the_whole_matrix_is_that_of_the_recurrence_and_gives_the_layers_own_scan(hybrid: Any) -> None:
    with torch.no_grad(), listening(hybrid, "Mamba2Mixer", ("in_proj", "norm")) as mixers:
        hybrid(**GIVEN.inputs, use_cache=False)
    assert list(mixers) == [0, 2]
    for heard in mixers.values():
        full = FullScan.of(heard.module, heard.left["in_proj"])
        scan = reader_of(heard.module).scan(heard.module, {"in_proj": heard.left["in_proj"]}, None)
        torch.testing.assert_close(full.attention, by_recurrence(scan)[0], rtol=1e-4, atol=1e-6)
        own = heard.entered["norm"][0][0].double()
        torch.testing.assert_close(full.output(), own, rtol=1e-4, atol=1e-5)
        skipped = (full.skip[:, None, None] * full.values).transpose(0, 1).flatten(1)
        assert (own - skipped).norm() > 0.1 * own.norm(), "the scan itself has to matter"
        assert full.rows(torch.tensor([40]), "absolute").sum(-1).allclose(torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize("model", ["hybrid", "dots1"])
def test_routing_worked_out_by_hand_is_the_routers_own(model: str, request: pytest.FixtureRequest) -> None:
    made = request.getfixturevalue(model)
    with torch.no_grad(), listening(made, "TopkRouter", ()) as routers:
        made(**GIVEN.inputs, use_cache=False)
    assert list(routers) == [1]
    for heard in routers.values():
        found = full_routing(heard.module, heard.entered[""][0])
        _, weights, indices = heard.left[""]
        order = indices.sort(-1)
        assert torch.equal(found.indices, order.values)
        torch.testing.assert_close(found.weights, weights.gather(1, order.indices))
        assert not torch.equal(found.indices, found.by_logits)
        assert float(heard.module.e_score_correction_bias.abs().min()) > 0


def test_what_is_recorded_equals_the_full_computation(hybrid: Any, dots1: Any) -> None:
    found = [hidden_attention_check(hybrid, GIVEN, "hybrid")]
    found += [routing_check(model, GIVEN, name) for model, name in ((hybrid, "hybrid"), (dots1, "dots1"))]
    assert [(each.question, each.model, each.length, each.passes) for each in found] == [
        ("hidden attention", "hybrid", 48, True),
        ("routing", "hybrid", 48, True),
        ("routing", "dots1", 48, True),
    ]
    assert found[0].equal is None and found[0].control > 0.1
    assert all(each.equal == 1 and each.control < 0.9 for each in found[1:])
    for each in found:
        assert max(each.difference, each.own_difference) < 1e-5
        assert Equality.from_dict(json.loads(json.dumps(each.to_dict()))) == each


def test_a_record_that_is_a_little_wrong_is_seen(hybrid: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {name: getattr(equality, name) for name in ("hidden_attention", "hidden_rows", "record_routing")}
    with monkeypatch.context() as patched:
        patched.setattr(
            equality, "hidden_attention", lambda *args, **named: own["hidden_attention"](*args, **named) * 1.0001
        )
        assert not hidden_attention_check(hybrid, GIVEN, "hybrid").passes
    for shifted in ({"per_head": True}, {"maps": True}):
        moved = GIVEN._replace(spans=[(start + 1, stop + 1) for start, stop in GIVEN.spans])

        def record(model: Any, given: Any, _wrong: Any = shifted, _moved: Any = moved, **asked: Any) -> Any:
            return own["hidden_rows"](model, _moved if asked == _wrong else given, **asked)

        with monkeypatch.context() as patched:
            patched.setattr(equality, "hidden_rows", record)
            assert not hidden_attention_check(hybrid, GIVEN, "hybrid").passes

    def unknown(*args: Any, **named: Any) -> Any:
        found = own["hidden_attention"](*args, **named)
        return found * torch.nan if named["form"] == FORMS[-1] else found

    with monkeypatch.context() as patched:
        patched.setattr(equality, "hidden_attention", unknown)
        found = hidden_attention_check(hybrid, GIVEN, "hybrid")
        assert math.isnan(found.difference) and not found.passes

    def swapped(model: Any, inputs: Any, part: str) -> Any:
        found = own["record_routing"](model, inputs)
        (layer, record) = next(iter(found.items()))
        values = getattr(record, part).copy()
        values[5] = values[5][::-1] if part == "indices" else values[5] * 1.0001
        return found | {layer: replace(record, **{part: values})}

    for part in ("indices", "weights", "affinities"):
        with monkeypatch.context() as patched:
            patched.setattr(equality, "record_routing", lambda model, inputs, part=part: swapped(model, inputs, part))
            found = routing_check(hybrid, GIVEN, "hybrid")
        assert not found.passes and (found.equal == 47 / 48) == (part == "indices")


def test_a_check_whose_control_does_not_show_fails() -> None:
    assert Equality("hidden attention", "hybrid", 48, 1e-7, 1e-7, 0.5).passes
    assert not Equality("hidden attention", "hybrid", 48, 1e-7, 1e-7, 0.01).passes
    assert not Equality("hidden attention", "hybrid", 48, 1e-7, 1e-3, 0.5).passes
    assert Equality("routing", "hybrid", 48, 1e-7, 0.0, 0.2, 1.0).passes
    assert not Equality("routing", "hybrid", 48, 1e-7, 0.0, 1.0, 1.0).passes
    assert not Equality("routing", "hybrid", 48, 1e-7, 0.0, 0.2, 0.999).passes
    assert not Equality("routing", "hybrid", 48, error="boom").passes


def test_kinds_record_what_they_say_and_leave_the_model_alone(hybrid: Any, dots1: Any) -> None:
    models = {"hybrid": hybrid, "dots1": dots1}
    for kind in KINDS:
        model = models[KINDS[kind].model]
        with torch.no_grad(), ready("plain", model, GIVEN) as plain:
            plain()
            before = model(**GIVEN.inputs, use_cache=False).logits
        with ready(kind, model, GIVEN) as recorded:
            found = recorded()
        with torch.no_grad():
            assert torch.equal(model(**GIVEN.inputs, use_cache=False).logits, before)
        if kind == "rows":
            assert [each.shape for each in found] == [(1, 2, 2)] * 3
        elif kind == "maps":
            assert [[cells.shape for cells in form[0]] for form in found] == [[(2, 18)] * 2] * 3
        else:
            assert {layer: each.indices.shape for layer, each in found.items()} == {1: (48, 6)}
    assert GIVEN.rows[0].nonzero().flatten().tolist() == [44, 45, 46, 47]


def cell_of(key: CellKey, ratio: float = 1.0, peak: float = 1.0, error: str | None = None, n: int = 9) -> InsideCell:
    """A cell whose pairs and processes all give one ratio."""
    seconds, ones = (ratio,) * n, (1.0,) * n
    ours = [Run(100 * peak, 40.0, seconds, ones, seconds, ones, error)] + [Run(100 * peak, 40.0)] * 5
    return make_cell(key, ours, [Run(100.0, 40.0)] * 6)


@pytest.mark.slow
def test_a_small_bench_runs_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One forward in a process of its own; of a process, importing the libraries is nearly all that takes time."""
    own = process.in_process
    for module in (process, bench_process):
        monkeypatch.setattr(module, "limit_memory", lambda _: None, raising=False)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)

    def here(config: InsideBench, **task: Any) -> Any:
        with redirect_stdout(StringIO()) as said:
            process.main(json.dumps({"config": {**asdict(config), "out": None}, **task}))
        return json.loads(said.getvalue().splitlines()[-1])

    def run_task(config: InsideBench, key: CellKey, pairs: int, kind: str | None = None) -> Run:
        if (key.kind, kind) == ("routing-dots1", None):
            return own(config, key, pairs)
        return Run(**here(config, key=list(key), pairs=pairs, kind=kind or key.kind))

    def check(config: InsideBench, question: str, model: str) -> Equality:
        return Equality.from_dict(here(config, question=question, model=model))

    monkeypatch.setattr(bench, "in_process", run_task)
    monkeypatch.setattr(bench, "check_in_process", check)
    monkeypatch.setattr(bench, "make_cell", lambda *args: replace(make_cell(*args), passes=None))
    out = tmp_path / "new" / "inside.json"
    assert run(replace(SMALL, out=out)) == 0
    found = read_results(out)
    assert [cell.key for cell in found.cells] == plan(SMALL) and [cell.time.n for cell in found.cells] == [2] * 4
    for cell in found.cells:
        assert cell.error is None and cell.time.value > 0 and cell.memory.value > 0 and cell.memory.n == 1
    assert [check.passes for check in found.equality] == [True] * 3
    written = json.loads(out.read_text())
    assert written["passes"] is True and written["equality"][1]["equal"] == 1 and written["machine"]["torch"]
    assert {"time", "memory", "time_ratios", "length", "kind"} < set(written["cells"][0])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["inside.json"]
    shown = capsys.readouterr()
    assert "checking routing of dots1 at 48 tokens" in shown.err
    assert "cell 2 of 4: hidden attention of 4 rows, with maps, 64 tokens" in shown.err
    assert "Routing of dots.llm1 at 48 tokens: 100 % of choices equal" in shown.out


def test_a_check_that_cannot_be_made_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        returncode, stderr = 1, "Traceback\nValueError: no such layer\n"

    monkeypatch.setattr(process, "run_child", lambda *_: Done())
    found = process.check_in_process(SMALL, "routing", "hybrid")
    assert found.error == "ValueError: no such layer" and not found.passes
    assert Equality.from_dict(json.loads(json.dumps(found.to_dict()))).error == found.error


def test_bars_are_those_of_the_issue() -> None:
    """1.25 in time and 1.2 in memory for 64 rows at 16k tokens; 1.05 for routing, at every length; none elsewhere."""
    for kind, length, time, memory in (("rows", 16384, 1.25, 1.2), ("routing", 1024, 1.05, 1.05)):
        key = CellKey(kind, length)
        assert cell_of(key, time, memory).passes
        assert cell_of(key, time + 0.01, memory).passes is False
        assert cell_of(key, time, memory + 0.01).passes is False
        assert cell_of(key, 1.0, 1.0, "boom").passes is False
    assert all(bars(CellKey(kind, 16384)).time == 1.05 for kind in ("routing", "routing-dots1"))
    for key in (CellKey("rows", 4096), CellKey("maps", 16384)):
        assert cell_of(key, 9.0, 9.0).passes is None
    assert InsideBench().rows == 64 and max(InsideBench().lengths) == 16384 and InsideBench().checked_length == 1024


def test_a_cell_is_the_medians_of_its_pairs_and_processes() -> None:
    ours = [
        Run(120.0, 50.0, (2.0, 9.0), (1.0, 3.0), (3.0, 3.0), (1.0, 2.0)),
        Run(150.0, 60.0, (3.0,), (2.0,), (3.0,), (3.0,)),
    ]
    cell = make_cell(CellKey("rows", 64), ours, [Run(100.0, 50.0), Run(100.0, 50.0)])
    assert cell.time_ratios == (2.0, 3.0, 1.5) and (cell.time.value, cell.time.n) == (2.0, 3)
    assert (cell.memory.value, cell.memory.n) == (1.35, 2) and cell.peak_ratio == 1.35
    assert cell.cpu_ratio == 1.5 and (cell.increment, cell.plain_increment) == (80.0, 50.0)
    assert InsideCell.from_dict(json.loads(json.dumps(cell.to_dict()))) == cell


def test_processes_of_plain_forwards_are_shared_by_decoder_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def pretend(config: InsideBench, key: CellKey, pairs: int, kind: str | None = None) -> Run:
        started.append(f"{KINDS[key.kind].model} {kind}" if kind else key.kind)
        ones = (1.0,) * pairs
        return Run(2.0, 1.0, ones, ones, ones, ones)

    monkeypatch.setattr(bench, "in_process", pretend)
    monkeypatch.setattr(bench, "check_in_process", lambda _, question, model: Equality(question, model, 48))
    found = run_inside(replace(SMALL, pairs=4, processes=2), show=False)
    plain, other = "hybrid plain", "dots1 plain"
    first = [plain, "rows", "rows", plain, "maps", "maps", "routing", "routing"]
    assert started == [*first, other, "routing-dots1", "routing-dots1", other]
    assert [cell.time.n for cell in found.cells] == [4] * 4 and [cell.memory.n for cell in found.cells] == [2] * 4
    assert not found.passes, "nothing was checked"
    assert [timed_pairs(InsideBench(), length) for length in InsideBench().lengths] == [24, 24, 12]


def test_an_interrupted_bench_goes_on_after_the_cells_it_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(_: InsideBench, key: CellKey, __: Any) -> InsideCell:
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(key.kind)
        return cell_of(key, error={"maps": "boom", "routing": OUT_OF_MEMORY}.get(key.kind))

    monkeypatch.setattr(bench, "_measure", measure)
    monkeypatch.setattr(
        bench, "check_in_process", lambda _, question, model: Equality(question, model, 48, 1e-7, 1e-7, 0.5, 1.0)
    )
    config = replace(SMALL, out=tmp_path / "inside.json")
    with pytest.raises(KeyboardInterrupt):
        run_inside(config, show=False)
    assert json.loads((tmp_path / "inside.json").read_text())["passes"] is None
    measured.clear()
    with pytest.raises(InputError, match="--overwrite to replace it, --resume to go on"):
        run_inside(config, show=False)
    with pytest.raises(InputError, match=r"another config \(rows\)"):
        run_inside(config, show=False, resume=True, rows=5)
    found = run_inside(config, show=False, resume=True)
    assert measured == ["maps", "routing-dots1"] and [cell.kind for cell in found.cells] == list(KINDS)
    assert [cell.error for cell in found.cells] == [None, "boom", OUT_OF_MEMORY, None]


def test_a_missed_bar_or_an_unequal_record_gives_exit_status_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    equal = {"routing": Equality("routing", "hybrid", 1024, 1e-7, 0.0, 0.2, 1.0)}
    ratio = {1024: 1.04, 4096: 1.04}
    monkeypatch.setattr(bench, "_measure", lambda _, key, __: cell_of(key, ratio[key.length]))
    monkeypatch.setattr(bench, "check_in_process", lambda _, question, __: equal[question])
    words = [
        "bench",
        "inside",
        "--kinds",
        "routing",
        "--lengths",
        "1024",
        "4096",
        "--out",
        str(tmp_path / "inside.json"),
    ]
    assert command(words) == 0
    ratio[4096] = 1.06
    assert command([*words, "--overwrite"]) == 1
    assert "time missed" in capsys.readouterr().out
    # Five pairs have an interval without an end: whatever their median, they leave a bar of time undecided.
    monkeypatch.setattr(bench, "_measure", lambda _, key, __: cell_of(key, ratio[key.length], n=5))
    assert command([*words, "--overwrite"]) == 0
    assert "time undecided" in capsys.readouterr().out
    ratio[4096] = 1.04
    equal["routing"] = replace(equal["routing"], equal=0.999)
    assert command([*words, "--overwrite"]) == 1
    assert "every choice: missed" in capsys.readouterr().out
    assert command(words) == 2


def test_the_choices_are_the_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    assert get_args(KindName) == tuple(KINDS) == InsideBench().kinds
    assert checks(InsideBench(kinds=("routing-dots1", "maps"))) == [
        ("routing", "dots1"),
        ("hidden attention", "hybrid"),
    ]
    assert command(["bench", "inside", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(kind in shown for kind in KINDS)


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"kinds": ()}, "give some of rows, maps"),
        ({"kinds": ("rows", "row")}, "--kinds rows row: give some of"),
        ({"kinds": ("rows", "rows")}, "each once"),
        ({"lengths": ()}, "lengths"),
        ({"lengths": (8,)}, "at least 16 tokens for 2 images"),
        ({"lengths": (64, 64)}, "each length once"),
        ({"checked_length": 15}, "four times the 4 rows"),
        ({"pairs": 0}, "--pairs must be at least 1"),
        ({"layers": 1}, "--layers must be at least 2"),
        ({"hidden": 100}, "--hidden 100: give a multiple of 128"),
        ({"pattern": "M*"}, "with M and E in it"),
        ({"pattern": "MEX"}, "--pattern MEX"),
        ({"resume": True, "overwrite": True}, "leave one out"),
        ({"resume": True, "out": tmp_path / "absent.json"}, "nothing to resume"),
        ({"out": tmp_path}, "is a folder"),
    )
    for changes, message in refused:
        with pytest.raises(InputError, match=message):
            run_inside(SMALL, **changes)
    (tmp_path / "other.json").write_text('{"cells": [{"kind": "rows"}], "config": {}, "machine": {}, "equality": []}')
    with pytest.raises(InputError, match="no result of bench inside"):
        read_results(tmp_path / "other.json")


def results_of(*cells: InsideCell) -> InsideResults:
    equal = (
        Equality("hidden attention", "hybrid", 1024, 3e-7, 4e-7, 0.8),
        Equality("routing", "dots1", 1024, 2e-8, 0.0, 0.125, 1.0),
    )
    return InsideResults(InsideBench(), equal, cells, {"cores": 2, "torch": "2", "transformers": "5"})


def test_the_pages_say_what_held_and_what_did_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = results_of(
        cell_of(CellKey("rows", 16384), 1.02, 1.01),
        cell_of(CellKey("maps", 16384), 1.5),
        cell_of(CellKey("routing", 1024), 1.06, 1.2, n=5),
        cell_of(CellKey("routing-dots1", 1024), error="a | b"),
    )
    hidden, routing = (markdown(found, question) for question in page.PAGES)
    ratios = "1.02 [1.02, 1.02] | 1.02 | 1.01 [1.01, 1.01] | 1.02"
    assert f"| Hidden attention of 64 rows | 16,384 | {ratios} | time 1.25: holds; memory 1.20: holds |" in hidden
    assert "with maps | 16,384 | 1.50 [1.50, 1.50] | 1.50 | 1.00 [1.00, 1.00] | 1.00 | none |" in hidden
    assert "within 3e-07 of its largest number (bar 1e-05: holds)" in hidden and "dots.llm1" not in hidden
    assert "| time 1.05: undecided; memory 1.05: missed |" in routing
    assert "| a / b | – | – | – | time 1.05: not measured; memory 1.05: not measured |" in routing
    assert "100 % of choices equal" in routing and "the highest logits give 12.5 % of them" in routing
    monkeypatch.setenv("COLUMNS", "200")
    print_inside(found)
    shown = capsys.readouterr().out
    assert "memory missed" in shown and "dots.llm1: a | b" in shown
    text = "<!-- inside routing -->\nstale\n<!-- end -->\n"
    once = page.filled(text, "routing", found)
    assert "stale" not in once and page.filled(once, "routing", found) == once
    with pytest.raises(InputError, match="0 blocks '<!-- inside routing -->'"):
        page.filled("nothing", "routing", found)


def test_the_figure_has_a_line_for_each_kind() -> None:
    keys = [CellKey("rows", 1024), CellKey("rows", 4096), CellKey("routing", 4096)]
    drawn = page.drawn(results_of(*(cell_of(key, 1 + place / 10, 2.0) for place, key in enumerate(keys))))
    assert drawn["lengths"] == [1024, 4096]
    assert drawn["labels"] == ["hidden attention of 64 rows", "routing of every token, Nemotron-H"]
    np.testing.assert_allclose(drawn["time"], [[1.0, 1.1], [math.nan, 1.2]])
    np.testing.assert_allclose(drawn["memory"], [[2.0, 2.0], [math.nan, 2.0]])


def test_the_pages_show_the_committed_results() -> None:
    """Stale when this fails: run `python -m studies.inside_bench.page`."""
    shown = {question: path.read_text(encoding="utf-8") for question, path in page.PAGES.items()}
    if not page.RESULTS.exists():
        # Before the first measurement the places are there, and say so.
        assert all(f"<!-- inside {question} -->\nNot measured yet" in text for question, text in shown.items())
        return
    committed = read_results(page.RESULTS)
    assert {question: page.filled(text, question, committed) for question, text in shown.items()} == shown
    with Image.open(page.FIGURE) as figure:
        assert figure.info["Source"] == digest_of_file(page.RESULTS)
    assert [cell.key for cell in committed.cells] == plan(committed.config)
    assert [(check.question, check.model) for check in committed.equality] == checks(committed.config)
    for cell in committed.cells:
        if cell.error:
            continue
        ratios = sorted(cell.time_ratios)
        assert cell.time.n == len(ratios) == timed_pairs(committed.config, cell.length)
        middle = (ratios[(len(ratios) - 1) // 2] + ratios[len(ratios) // 2]) / 2
        assert cell.time.value == pytest.approx(middle)
        assert cell.peak_ratio == pytest.approx(cell.peak / cell.plain_peak)
        barred = [(cell.time.low, bars(cell.key).time), (cell.memory.low, bars(cell.key).memory)]
        missed = any(least > bar for least, bar in barred if bar is not None)
        assert cell.passes == (None if bars(cell.key).time is None else not missed)
