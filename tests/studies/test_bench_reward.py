"""The reward bench: its trainers and their turns, its arithmetic and page, and small runs in real processes."""

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import TrainerCallback

from probes.inputs import InputError
from studies.bench_process import OUT_OF_MEMORY, Run
from studies.cli import main as command
from studies.reward_bench import bench, page, process
from studies.reward_bench.arms import build_trainer
from studies.reward_bench.bench import run_reward
from studies.reward_bench.cli import run
from studies.reward_bench.config import ARMS, KINDS, KindName, RewardBench, timed_pairs
from studies.reward_bench.models import image_model
from studies.reward_bench.results import RewardCell, RewardResults, make_cell, read_results
from studies.reward_bench.stepping import SteppedTrainer
from studies.reward_bench.tables import markdown, print_reward

SMALL = RewardBench(
    pairs=2,
    warmup=1,
    device="cpu",
    threads=1,
    text_hidden=64,
    text_layers=1,
    text_tokens=24,
    text_batch=2,
    hidden=64,
    layers=1,
    grid=4,
    lora=2,
)


class Losses(TrainerCallback):  # type: ignore[misc]
    """Keeps which trainer took a step."""

    def __init__(self, name: str, order: list[str]) -> None:
        self.name, self.order = name, order

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.order.append(self.name)


@pytest.mark.slow
def test_trainers_take_their_steps_in_turn_and_train_as_they_do_alone(tmp_path: Path) -> None:
    alone = build_trainer(SMALL, "text", 4, tmp_path)
    alone.train()
    order: list[str] = []
    ours, theirs = (build_trainer(SMALL, name, 5, tmp_path) for name in ("text", "trl"))
    ours.add_callback(Losses("ours", order))
    theirs.add_callback(Losses("theirs", order))
    with SteppedTrainer(ours) as one, SteppedTrainer(theirs) as other:
        clocks = [trainer.step() for trainer in (one, other, other, one, one, other, other, one)]
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs", "theirs", "ours"]
    assert all(wall > 0 for wall, _ in clocks)
    assert ours.state.global_step == theirs.state.global_step == 4
    left, right, first = (
        trainer.model.state_dict() for trainer in (ours, theirs, build_trainer(SMALL, "text", 1, tmp_path))
    )
    assert any(not torch.equal(first[name], value) for name, value in left.items())
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], atol=1e-6, rtol=1e-4)


def test_what_a_trainer_raises_comes_out_of_its_step(tmp_path: Path) -> None:
    trainer = build_trainer(SMALL, "text", 3, tmp_path)
    with torch.no_grad():
        trainer.model.score.weight.fill_(math.nan)
    with SteppedTrainer(trainer) as stepped, pytest.raises(InputError, match="the loss is nan at step 0"):
        stepped.step()
    with SteppedTrainer(build_trainer(SMALL, "text", 1, tmp_path)) as short:
        short.step()
        with pytest.raises(RuntimeError, match="no step left"):
            short.step()
    with SteppedTrainer(build_trainer(SMALL, "text", 1, tmp_path)):
        """One that is never asked for a step ends too."""


class Pretended:
    """A trainer of a few steps that trains nothing; what it raises, it raises before its first."""

    def __init__(self, steps: int, error: Exception | None = None) -> None:
        self.steps, self.error = steps, error

    def add_callback(self, callback: Any) -> None:
        self.callback = callback

    def train(self) -> None:
        if self.error is not None:
            raise self.error
        control = type("Control", (), {"should_training_stop": False})()
        for _ in range(self.steps):
            self.callback.on_step_end(None, None, control)
            if control.should_training_stop:
                return


class Lingering(threading.Semaphore):
    """Its release wakes who waits, and only then goes on."""

    def release(self, n: int = 1) -> None:
        super().release(n)
        time.sleep(0.3)


def raised_within(seconds: float, step: Callable[[], object]) -> BaseException | None:
    """What a step raises; a step that waits for ever fails the test instead of hanging it."""
    found: list[BaseException | None] = []

    def take() -> None:
        try:
            step()
            found.append(None)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "the step never came back"
    return found[0]


def test_no_step_is_made_up_while_the_thread_of_an_ended_training_still_lives() -> None:
    stepped = SteppedTrainer(Pretended(1))
    stepped._rested = Lingering(0)
    with stepped:
        stepped.step()
        with pytest.raises(RuntimeError, match="no step left"):
            stepped.step()


def test_a_step_after_the_end_is_refused_and_does_not_wait() -> None:
    error = ValueError("boom")
    with SteppedTrainer(Pretended(3, error)) as failed:
        assert [raised_within(10, failed.step) for _ in range(3)] == [error] * 3
    with SteppedTrainer(Pretended(1)) as short:
        short.step()
        for _ in range(2):
            assert "no step left" in str(raised_within(10, short.step))
    assert "no step left" in str(raised_within(10, short.step))


def test_images_take_three_quarters_of_a_conversation_and_are_gone_where_they_are_removed(tmp_path: Path) -> None:
    config = replace(SMALL, grid=14)
    reward = image_model(config)
    trainer = build_trainer(config, "branch-removed", 3, tmp_path)
    batch = trainer.data_collator([{"index": place, "evaluates": False} for place in range(4)])
    image = reward.model.config.image_token_id
    tokens = batch["attention_mask"].sum(1)
    shown = (batch["input_ids"] == image).sum(1)
    assert shown.tolist() == [config.image_tokens] * 8
    assert 0.7 < float((shown / tokens).mean()) < 0.8
    assert "pixel_values" not in batch["proxy"] and not (batch["proxy"]["input_ids"] == image).any()
    assert torch.equal(batch["proxy"]["attention_mask"].sum(1), tokens - shown)
    blank = build_trainer(config, "branch-blank", 3, tmp_path).data_collator([{"index": 0, "evaluates": False}])
    assert blank["proxy"]["pixel_values"].shape == blank["pixel_values"].shape
    assert blank["proxy"]["pixel_values"].std(dim=(2, 3)).max() < 1e-4 < blank["pixel_values"].std()


@pytest.mark.parametrize("arm", [arm for arm in ARMS if ARMS[arm].reads == "images"])
def test_each_arm_trains_what_it_says(tmp_path: Path, arm: str) -> None:
    trainer = build_trainer(SMALL, arm, 1, tmp_path)
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert trained and not any("vision_tower" in name for name in trained)
    adapters = {name for name in trained if "lora_" in name}
    assert bool(adapters) == (ARMS[arm].trains == "lora")
    # Two matrices on each of seven layers, for every branch.
    assert len(adapters) == {"plain-lora": 14, "branch-removed": 28, "branch-blank": 28}.get(arm, 0)
    plain = build_trainer(SMALL, "plain-whole", 1, tmp_path).model
    if ARMS[arm].proxy == "copy":
        assert len(trained) == 2 * sum(parameter.requires_grad for parameter in plain.parameters())
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, parameter in trainer.model.named_parameters() if not torch.equal(before[name], parameter)}
    # B is zero at first, so that A has no gradient, and weight decay is off.
    assert moved and moved <= trained and {name for name in trained if "lora_B" in name} <= moved


@pytest.mark.slow
def test_a_small_bench_runs_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One task in a process of its own; of a process, importing the libraries is nearly all that takes time."""
    own = process.in_process
    monkeypatch.setattr(process, "limit_training", lambda *_, **__: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "1")

    def run_task(config: RewardBench, task: str, name: str) -> Run:
        if task == "memory":
            return own(config, task, name) if name == "branch-blank" else Run(peak=2.0**30, loaded=2.0**29)
        with redirect_stdout(StringIO()) as said:
            process.main(json.dumps({"config": {**asdict(config), "out": None}, "task": task, "name": name}))
        return Run(**json.loads(said.getvalue().splitlines()[-1]))

    monkeypatch.setattr(bench, "in_process", run_task)
    out = tmp_path / "new" / "reward.json"
    assert run(replace(SMALL, pairs=4, kinds=("branch-blank",), out=out)) == 0
    found = read_results(out)
    (cell,) = found.cells
    assert (cell.kind, cell.time.n, len(cell.time_ratios), cell.error, cell.passes) == (
        "branch-blank",
        2,
        2,
        None,
        None,
    )
    assert cell.time.value > 0 and 0 < cell.increment < cell.peak
    assert cell.peak_ratio == cell.peak / 2**30 and cell.increment_ratio == cell.increment / 2**29
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["reward.json"]
    written = json.loads(out.read_text())
    assert written["passes"] is True and "kinds" not in written["config"] and written["machine"]["trl"]
    shown = capsys.readouterr()
    assert "cell 1 of 1: LoRA branch, blank images" in shown.err
    assert "LoRA branch" in shown.out


@pytest.mark.slow
def test_a_training_over_its_memory_limit_is_a_printed_result(capsys: pytest.CaptureFixture[str]) -> None:
    config = replace(SMALL, memory_limit=2**20, text_hidden=512, text_tokens=256)
    run_of = process.in_process(config, "memory", "trl")
    assert run_of.error == OUT_OF_MEMORY
    cell = make_cell("branch-blank", Run(), [run_of], [Run(1.0, 0.5)])
    assert cell.out_of_memory and cell.passes is None and cell.plain_peak == 1.0
    results = RewardResults(replace(config, kinds=("branch-blank",)), (cell,))
    assert results.passes
    print_reward(results)
    assert "LoRA branch, blank images: out of memory (0.000977 GiB allowed)" in capsys.readouterr().out
    assert "| – | out of memory (0.000977 GiB allowed) | – | – | – | none |" in markdown(results)
    barred = make_cell("text", Run(), [Run(1.0, 0.5)], [run_of])
    assert barred.out_of_memory and barred.passes is False and barred.error == f"trl: {OUT_OF_MEMORY}"


def cell_of(kind: str, ratio: float, peak: float = 1.0, error: str | None = None, spread: float = 0.01) -> RewardCell:
    """A cell whose pairs lie evenly around a ratio."""
    seconds = tuple(ratio * (1 + spread * (place - 10) / 10) for place in range(21))
    ones = (1.0,) * 21
    timed = Run(seconds=seconds, plain_seconds=ones, cpu_seconds=seconds, plain_cpu_seconds=ones)
    return make_cell(kind, timed, [Run(100 * peak, 40.0, error=error)], [Run(100.0, 40.0)])


def test_a_cell_is_the_medians_of_its_pairs_and_processes() -> None:
    timed = Run(
        seconds=(2.0, 9.0, 3.0),
        plain_seconds=(1.0, 3.0, 2.0),
        cpu_seconds=(3.0, 3.0, 3.0),
        plain_cpu_seconds=(1.0, 2.0, 3.0),
    )
    ours, plain = [Run(110.0, 50.0), Run(130.0, 60.0)], [Run(100.0, 50.0)]
    cell = make_cell("branch-removed", timed, ours, plain)
    assert cell.time_ratios == (2.0, 3.0, 1.5)
    assert (cell.time.value, cell.time.n, cell.time.low, cell.time.high) == (2.0, 3, -math.inf, math.inf)
    assert (cell.cpu_ratio, cell.seconds, cell.plain_seconds) == (1.5, 3.0, 2.0)
    assert (cell.peak, cell.plain_peak, cell.increment, cell.plain_increment) == (120.0, 100.0, 65.0, 50.0)
    assert cell.peak_ratio == pytest.approx(1.2) and cell.increment_ratio == pytest.approx(1.3)
    assert cell.passes is False


def test_bars_are_those_of_the_issue() -> None:
    """Throughput 0.97 of TRL's; 1.3 in time and 1.15 in memory for the branch without images; none elsewhere."""
    assert cell_of("text", 1.03).passes and not cell_of("text", 1.035, spread=0.001).passes
    assert cell_of("text", 1.0, peak=9.0).passes
    assert cell_of("branch-removed", 1.29, 1.149).passes
    assert cell_of("branch-removed", 1.31, 1.0).passes is False
    assert cell_of("branch-removed", 1.0, 1.16).passes is False
    assert cell_of("branch-removed", 1.0, 1.0, "boom").passes is False
    for kind in set(KINDS) - {"text", "branch-removed"}:
        assert cell_of(kind, 9.0, 9.0).passes is None
    throughput = cell_of("text", 1.25, spread=0.2).throughput
    assert throughput.value == pytest.approx(0.8)
    assert throughput.low < 0.8 < throughput.high < 1.0


def test_a_missed_bar_gives_exit_status_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = {"text": cell_of("text", 1.0), "branch-removed": cell_of("branch-removed", 1.5)}
    monkeypatch.setattr(bench, "_measure", lambda _, kind, __: cells[kind])
    out = tmp_path / "reward.json"
    words = ["bench", "reward", "--out", str(out), "--kinds"]
    assert command([*words, "text"]) == 0
    assert command([*words, "text", "branch-removed", "--overwrite"]) == 1
    assert json.loads(out.read_text())["passes"] is False
    assert "missed" in capsys.readouterr().out
    assert command([*words, "text"]) == 2
    cells["branch-blank"] = cell_of("branch-blank", 1.0, error="boom")
    assert command([*words, "branch-blank", "--overwrite"]) == 1


def test_an_interrupted_bench_goes_on_after_the_cells_it_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(config: RewardBench, kind: str, _: Any) -> RewardCell:
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(kind)
        return cell_of(kind, 1.0, error={"branch-removed": "boom", "branch-blank": OUT_OF_MEMORY}.get(kind))

    monkeypatch.setattr(bench, "_measure", measure)
    config = replace(SMALL, out=tmp_path / "reward.json")
    with pytest.raises(KeyboardInterrupt):
        run_reward(config, show=False)
    assert json.loads((tmp_path / "reward.json").read_text())["passes"] is None
    measured.clear()
    with pytest.raises(InputError, match="--overwrite to replace it, --resume to go on"):
        run_reward(config, show=False)
    with pytest.raises(InputError, match=r"another config \(batch\)"):
        run_reward(config, show=False, resume=True, batch=2)
    found = run_reward(config, show=False, resume=True)
    assert measured == ["branch-removed", "copy-removed", "copy-blank"]
    assert [cell.kind for cell in found.cells] == list(KINDS)
    again = read_results(tmp_path / "reward.json")
    assert [(cell.kind, cell.time, cell.error) for cell in again.cells] == [
        (cell.kind, cell.time, cell.error) for cell in found.cells
    ]


def left_behind(out: Path, monkeypatch: pytest.MonkeyPatch) -> RewardBench:
    """A whole file, in which text and the branch that sees blank images failed."""
    failed = {"text": "boom", "branch-blank": "boom"}
    monkeypatch.setattr(bench, "_measure", lambda _, kind, __: cell_of(kind, 1.0, error=failed.get(kind)))
    run_reward(replace(SMALL, out=out), show=False)
    assert [cell.error for cell in read_results(out).cells] == ["boom", None, "boom", None, None]
    return replace(SMALL, out=out, resume=True)


def test_a_bench_that_is_interrupted_again_loses_no_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = left_behind(out := tmp_path / "reward.json", monkeypatch)
    measured: list[str] = []

    def measure(_: RewardBench, kind: str, __: Any) -> RewardCell:
        if measured:
            raise KeyboardInterrupt
        measured.append(kind)
        return cell_of(kind, 1.0)

    monkeypatch.setattr(bench, "_measure", measure)
    with pytest.raises(KeyboardInterrupt):
        run_reward(config, show=False)
    assert measured == ["text"]
    assert [cell.kind for cell in read_results(out).cells] == ["text", "branch-removed", "copy-removed", "copy-blank"]
    assert json.loads(out.read_text())["passes"] is None
    measured.clear()
    assert [cell.kind for cell in run_reward(config, show=False).cells] == list(KINDS) and measured == ["branch-blank"]
    assert json.loads(out.read_text())["passes"] is True


def test_what_is_not_asked_for_stays_in_a_bench_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = left_behind(out := tmp_path / "reward.json", monkeypatch)
    monkeypatch.setattr(bench, "_measure", lambda *_: pytest.fail("all that is asked for is there"))
    before = out.read_bytes()
    found = run_reward(config, show=False, kinds=("copy-blank",))
    assert [cell.kind for cell in found.cells] == list(KINDS) and out.read_bytes() == before
    assert not found.passes, "a failure that nobody asked to mend is still one"
    monkeypatch.setattr(bench, "_measure", lambda _, kind, __: cell_of(kind, 1.0))
    found = run_reward(config, show=False, kinds=("branch-blank", "copy-blank"))
    assert [(cell.kind, cell.error) for cell in found.cells] == [
        (kind, "boom" if kind == "text" else None) for kind in KINDS
    ]


def test_processes_of_what_is_measured_against_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, str]] = []

    def pretend(config: RewardBench, task: str, name: str) -> Run:
        started.append((task, name))
        if name == "copy-removed":
            return Run(error="boom")
        ones = (1.0,) * (timed_pairs(config, name) if task == "time" else 0)
        return Run(2.0, 1.0, ones, ones, ones, ones)

    monkeypatch.setattr(bench, "in_process", pretend)
    found = run_reward(replace(SMALL, processes=2), show=False)
    memory = [name for task, name in started if task == "memory"]
    assert {name: memory.count(name) for name in memory} == dict.fromkeys(ARMS, 2)
    # What failed is not timed.
    assert [name for task, name in started if task == "time"] == [kind for kind in KINDS if kind != "copy-removed"]
    assert [cell.time.n for cell in found.cells] == [4, 2, 1, 0, 1]
    assert not found.passes


def test_the_choices_are_the_comparisons(capsys: pytest.CaptureFixture[str]) -> None:
    assert get_args(KindName) == tuple(KINDS) == RewardBench().kinds
    assert command(["bench", "reward", "--kinds", "branch"]) == 2
    assert command(["bench", "reward", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(kind in shown for kind in KINDS)


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"kinds": ()}, "give some of text, branch-removed"),
        ({"kinds": ("text", "plain-lora")}, "--kinds text plain-lora: give some of"),
        ({"kinds": ("text", "text")}, "each once"),
        ({"pairs": 0}, "pairs"),
        ({"grid": 3}, "grid"),
        ({"hidden": 100}, "--hidden 100: give a multiple of 64"),
        ({"resume": True, "overwrite": True}, "leave one out"),
        ({"resume": True, "out": tmp_path / "absent.json"}, "nothing to resume"),
        ({"out": tmp_path}, "is a folder"),
    )
    for changes, message in refused:
        with pytest.raises(InputError, match=message):
            run_reward(SMALL, **changes)
    (tmp_path / "other.json").write_text('{"cells": [{"kind": "rows"}], "config": {}, "machine": {}}')
    with pytest.raises(InputError, match="no result of bench reward"):
        read_results(tmp_path / "other.json")


def test_importing_the_bench_loads_no_torch() -> None:
    code = "import sys, studies.reward_bench.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(
    ("ratio", "spread", "said"),
    [(1.29, 0.001, "holds"), (1.2, 0.5, "undecided"), (1.4, 0.5, "undecided"), (1.4, 0.01, "missed")],
)
def test_a_bar_is_decided_by_the_whole_interval(
    ratio: float,
    spread: float,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cell = cell_of("branch-removed", ratio, 1.2, spread=spread)
    sides = {value <= 1.3 for value in (cell.time.low, cell.time.high)}
    assert said == {frozenset({True}): "holds", frozenset({False}): "missed"}.get(frozenset(sides), "undecided")
    assert f"| time 1.30: {said}; memory 1.15: missed |" in markdown(RewardResults(RewardBench(), (cell,)))
    monkeypatch.setenv("COLUMNS", "200")
    print_reward(RewardResults(RewardBench(), (cell,)))
    assert f"time {said}" in capsys.readouterr().out
    # The exit status goes by what the table says; here memory is within its bar.
    passing = cell_of("branch-removed", ratio, 1.1, spread=spread)
    assert passing.passes is RewardResults(RewardBench(), (passing,)).passes is (said != "missed")
    assert cell.passes is False, "its memory is beyond the bar"


def test_few_pairs_decide_nothing() -> None:
    seconds, ones = (0.1,) * 5, (1.0,) * 5
    timed = Run(seconds=seconds, plain_seconds=ones, cpu_seconds=seconds, plain_cpu_seconds=ones)
    cell = make_cell("text", timed, [Run(1.0, 0.5)], [Run(1.0, 0.5)])
    assert cell.passes and "steps a second at least 0.97: undecided |" in markdown(
        RewardResults(RewardBench(), (cell,))
    )


def test_the_page_says_what_held_and_what_did_not() -> None:
    machine = {"cores": 2, "torch": "2", "trl": "1"}
    cells = (
        cell_of("text", 1.01),
        cell_of("branch-removed", 1.29, 1.1, spread=0.1),
        cell_of("copy-removed", 1.5, error="a | b"),
    )
    written = markdown(RewardResults(RewardBench(), cells, machine))
    assert "| pairs of steps | time, 2 threads [95 %] | processor time | peak memory, 1 process each |" in written
    assert "| 21 | 1.01 [1.00, 1.02]; steps a second 0.99 [0.99, 1.00] | 1.01 | 1.00 | 1.00 |" in written
    assert "steps a second at least 0.97: holds |" in written
    assert "time 1.30: undecided; memory 1.15: holds |" in written
    assert "| – | a / b | – | – | – | none |" in written
    failed = RewardResults(RewardBench(), (cell_of("branch-removed", 1.0, error="boom"),), machine)
    assert "| – | boom | – | – | – | time 1.30: not measured; memory 1.15: not measured |" in markdown(failed)
    text = "<!-- reward table -->\nstale\n<!-- end -->\n"
    once = page.filled(text, RewardResults(RewardBench(), cells, machine))
    assert "stale" not in once
    with pytest.raises(InputError, match="0 blocks '<!-- reward table -->'"):
        page.filled("nothing", RewardResults(RewardBench(), cells, machine))


def test_the_page_shows_the_committed_results() -> None:
    """Stale when this fails: run `python -m studies.reward_bench.page`."""
    committed = read_results(page.RESULTS)
    shown = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(shown, committed) == shown
    assert {kind for kind in KINDS if KINDS[kind].time_bar is not None} <= {cell.kind for cell in committed.cells}
    for cell in committed.cells:
        ratios = sorted(cell.time_ratios)
        assert cell.time.n == len(ratios) == timed_pairs(committed.config, cell.kind)
        middle = (ratios[(len(ratios) - 1) // 2] + ratios[len(ratios) // 2]) / 2
        assert cell.time.value == pytest.approx(middle)
        assert cell.peak_ratio == pytest.approx(cell.peak / cell.plain_peak)
        kind = KINDS[cell.kind]
        bars = [(cell.time.low, kind.time_bar), (cell.peak_ratio, kind.memory_bar)]
        missed = any(least > bar for least, bar in bars if bar is not None)
        assert cell.passes == (not missed if kind.time_bar is not None else None)
