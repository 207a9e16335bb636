"""An audit shared by real processes equals that of one, bit for bit, also when one of them was killed on the way."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from probes.inputs import InputError
from studies.auditing.processes import Processes, join
from studies.cli import command, main
from studies.run_folder.locking import WriterLock
from studies.runs import RunFolder
from tests.studies.small_audit import save_model, save_questions
from tests.studies.test_audit_resume import ROOT, assert_equal

SETTINGS = ["--batch-size", "1", "--max-new-tokens", "3", "--maps", "all", "--causal", "2", "--position-study"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model, questions of which one has a broken image, and the run `whole` of one process."""
    root = tmp_path_factory.mktemp("shared")
    save_model(root / "model")
    data = save_questions(root / "data", count=8)
    (data / "2-0.png").write_bytes(b"broken")
    assert alone(root, "whole") == 1
    yield root


def alone(root: Path, name: str, *words: str) -> int:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with patch("studies.auditing.figures.draw_figures", return_value=[]):
            return main(arguments(root, name, *words))
    finally:
        torch.set_num_threads(threads)


def arguments(root: Path, name: str, *words: str) -> list[str]:
    named = ["--model", str(root / "model"), "--data", str(root / "data"), "--out", str(root / name)]
    return ["audit", *named, *SETTINGS, *words]


def launched(root: Path, name: str, *words: str, killed: int = -1, count: int = 2) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(count)]
    launch += ["--main_process_port", "0", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    return subprocess.run(
        [*launch, "-m", "tests.studies.shared_audit", str(killed), *arguments(root, name, *words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def assert_same(root: Path, name: str) -> None:
    assert_equal(root / "whole", root / name)
    assert_equal(root / "whole" / "position", root / name / "position")
    assert RunFolder.open(root / name).verify().ok
    assert not [path for path in (root / name).rglob("*") if ".tmp-" in path.name or ".lock-" in path.name]


@pytest.mark.slow
def test_killed_and_resumed_by_any_number_of_processes_is_bit_equal(folder: Path) -> None:
    broken = launched(folder, "broken", killed=1)
    assert broken.returncode != 0
    left = RunFolder.open(folder / "broken")
    assert 1 <= len(left.done_batches()) < left.manifest.batches and left.manifest.finished is None
    shutil.copytree(folder / "broken", folder / "taken over")
    resumed = launched(folder, "broken", "--resume")
    assert resumed.returncode == 1, resumed.stderr[-3000:]
    assert_same(folder, "broken")
    assert resumed.stdout.count("Does the focus hit the target image?") == 1
    assert resumed.stderr.count("audit: 8/8") == resumed.stderr.count("questions, 0 unusable") == 1
    assert resumed.stderr.count("1 sample failed; the first: q2") == 1
    assert alone(folder, "taken over", "--resume") == 1
    assert_same(folder, "taken over")


@pytest.mark.slow
def test_more_processes_than_batches_left_and_a_changed_config(folder: Path) -> None:
    assert launched(folder, "three", killed=0, count=3).returncode != 0
    changed = launched(folder, "three", "--resume", "--seed", "5")
    assert changed.returncode == 1 and changed.stderr.count("\nsightcheck: ") == 1, changed.stderr
    assert "seed: 0 before, 5 now" in changed.stderr and "exitcode  : 2" in changed.stderr, changed.stderr
    assert launched(folder, "three", "--resume", count=3).returncode == 1
    assert_same(folder, "three")
    assert launched(folder, "three", "--resume", count=2).returncode == 1
    assert_same(folder, "three")


def test_batches_are_shared_out_without_overlap() -> None:
    shares = [Processes(index, 3).share(range(7)) for index in range(3)]
    assert sorted(batch for share in shares for batch in share) == list(range(7))
    assert max(map(len, shares)) - min(map(len, shares)) == 1


def test_one_process_asks_for_no_others(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join("cpu") == Processes()
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    join(None)
    assert "started one process" in capsys.readouterr().err


def test_only_a_process_of_several_is_ended_without_the_interpreters_own_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    monkeypatch.setattr("atexit._run_exitfuncs", lambda: print("cleaned up"))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert command(["audit", "--samples", "none"]) == 2 and not ended
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command(["audit", "--samples", "none"]) == 2 and ended == [2]
    assert capfd.readouterr().out == "cleaned up\n"


def test_a_process_that_the_others_refuse_ends_with_their_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(words: object) -> int:
        raise SystemExit(2)

    monkeypatch.setattr("studies.cli.main", refused)
    assert command([]) == 2


def test_who_leaves_with_a_message_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def left(words: object) -> int:
        raise SystemExit("a message")

    monkeypatch.setattr("studies.cli.main", left)
    with pytest.raises(SystemExit, match="a message"):
        command([])


def test_no_run_is_taken_while_a_helper_of_an_earlier_group_writes(tmp_path: Path) -> None:
    helper = WriterLock(tmp_path, helper=1)
    with pytest.raises(InputError, match=f"being written by process {os.getpid()}"):
        WriterLock(tmp_path)
    helper.release()
    (tmp_path / ".lock-2").touch()
    lock = WriterLock(tmp_path)
    assert [path.name for path in tmp_path.glob(".lock-*")] == []
    lock.release()
    WriterLock(tmp_path).release()
