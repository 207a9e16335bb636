"""Reading a run folder: pieces, samples, SQL, memory, and what merging must not change."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from probes.inputs import InputError
from studies.run_folder.tables import TABLES
from studies.runs import Manifest, RunFolder
from tests.studies.made_run import contents, made_run, manifest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return made_run(tmp_path / "run")


class TestReading:
    def test_filters_columns_and_pages(self, run: RunFolder) -> None:
        right = pc.field("correct")
        assert run.read("samples", ["sample_id"], right).column(0).to_pylist() == ["0-0", "0-1", "2-0", "2-1"]
        assert run.read("samples", ["sample_id"], right, limit=2, offset=1).column(0).to_pylist() == ["0-1", "2-0"]
        assert run.read("samples", limit=0).num_rows == 0
        assert run.read("samples", offset=99).num_rows == 0
        assert run.count("samples", ~right) == 2
        with pytest.raises(InputError, match="no column colour"):
            run.read("samples", ["colour"])
        with pytest.raises(InputError, match="no table 'colours'"):
            run.read("colours")
        with pytest.raises(InputError, match="negative"):
            run.read("samples", offset=-1)

    @pytest.mark.parametrize("merged", [False, True])
    def test_sql(self, run: RunFolder, merged: bool) -> None:
        if merged:
            run.compact()
        rows = run.query("SELECT sample_id, map FROM maps JOIN samples USING (sample_id) WHERE sample_id = ?", ["1-1"])
        assert rows.to_pylist() == [{"sample_id": "1-1", "map": [0.0, 0.25, 0.5, 0.75]}]
        assert run.query("SELECT count(*) AS n FROM effects").to_pylist() == [{"n": 0}]
        for wrong in ("SELEC", "SELECT * FROM files", "SELECT colour FROM samples"):
            with pytest.raises(InputError, match="the query failed"):
                run.query(wrong)

    def test_sql_in_a_folder_whose_name_reads_like_a_pattern(self, tmp_path: Path) -> None:
        for name in ("a[1]*", "a1b"):
            path = tmp_path / name
            with RunFolder.create(path, Manifest(config={"study": name}, batches=1)) as made:
                made.write_batch(0, {"samples": [{"sample_id": name}]})
        found = RunFolder.open(tmp_path / "a[1]*").query("SELECT sample_id FROM samples")
        assert found.column(0).to_pylist() == ["a[1]*"]

    def test_one_sample(self, run: RunFolder) -> None:
        assert run.sample("1-0")["batch"] == 1
        assert run.rows_of("layers", "1-1").column("layer").to_pylist() == [1]
        with pytest.raises(InputError, match="no sample 'x'"):
            run.rows_of("layers", "x")

    def test_every_table_can_be_opened_empty(self, tmp_path: Path) -> None:
        with RunFolder.create(tmp_path / "run", manifest()) as made:
            for name, schema in TABLES.items():
                assert made.read(name).schema.equals(schema)
                assert made.query(f"SELECT * FROM {name}").num_rows == 0

    def test_a_page_of_a_large_run_is_read_in_little_memory(self, tmp_path: Path) -> None:
        batches, rows = 20, 1000
        with RunFolder.create(tmp_path / "run", manifest(batches=batches)) as made:
            for index in range(batches):
                ids = [f"{index}-{row}" for row in range(rows)]
                noise = np.random.default_rng(index).bytes(rows * 400).hex()
                texts = [noise[row * 800 : (row + 1) * 800] for row in range(rows)]
                made.write_batch(index, {"samples": {"sample_id": ids, "question": texts, "target": range(rows)}})
            made.finish()
        whole = peak(tmp_path / "run", "run.read('samples')")
        page = peak(tmp_path / "run", "run.read('samples', filter=pc.field('target') == 7, limit=5, offset=3)")
        assert whole > 25e6
        assert page < whole / 2

    def test_a_reader_goes_on_when_the_writer_merges_under_it(
        self, run: RunFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reader, whole = RunFolder.open(run.path), run.read("samples")
        files = reader._parts.files
        stale: list[list[Path]] = []
        monkeypatch.setattr(reader._parts, "files", lambda *given: stale.pop() if stale else files(*given))
        sql = "SELECT * FROM samples ORDER BY sample_id"
        reads: list[Callable[[], Any]] = [lambda: reader.read("samples"), lambda: reader.query(sql)]
        for read in reads:
            stale.append([run.path / "samples" / "gone.parquet"])
            assert read().to_pylist() == whole.to_pylist()
            assert not stale
        monkeypatch.setattr(reader._parts, "files", lambda *_: [run.path / "samples" / "gone.parquet"])
        with pytest.raises(InputError, match="is lost"):
            reader.read("samples")

    def test_repr(self, run: RunFolder) -> None:
        assert repr(run).endswith("3 of 3 batches, not finished)")


def peak(folder: Path, expression: str) -> int:
    """Peak of Arrow's memory in a process of its own, in bytes."""
    code = (
        "import pyarrow as pa, pyarrow.compute as pc; from studies.runs import RunFolder; "
        f"run = RunFolder.open({str(folder)!r}); assert {expression}.num_rows; "
        "print(pa.default_memory_pool().max_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


class TestFinishing:
    def test_merging_changes_no_row(self, run: RunFolder) -> None:
        before = {name: run.read(name) for name in TABLES}
        run.finish()
        assert {name: run.read(name) for name in TABLES} == before
        assert [path.name for path in (run.path / "samples").iterdir()] == ["part-merged.parquet"]
        assert repr(RunFolder.open(run.path)).endswith("finished)")
        run.finish()
        assert run.verify().ok

    def test_a_run_with_missing_batches_cannot_be_finished(self, tmp_path: Path) -> None:
        with RunFolder.create(tmp_path / "run", manifest()) as made, pytest.raises(InputError, match="first is 0"):
            made.finish()

    def test_a_merge_killed_before_its_commit_is_redone(self, run: RunFolder) -> None:
        before = run.read("samples")
        (run.path / "samples" / "part-merged.parquet").write_bytes(b"half of the work")
        run.close()
        with RunFolder.create(run.path, manifest(), resume=True) as again:
            assert again.read("samples") == before
            again.finish()
            assert again.read("samples") == before

    def test_a_merge_killed_after_its_commit_is_cleaned_up(self, run: RunFolder) -> None:
        before = run.read("samples")
        old = (run.path / "samples" / "part-000000.parquet").read_bytes()
        run.finish()
        run.close()
        (run.path / "samples" / "part-000000.parquet").write_bytes(old)
        assert RunFolder.open(run.path).read("samples") == before
        with RunFolder.create(run.path, manifest(), resume=True) as again:
            assert not (run.path / "samples" / "part-000000.parquet").exists()
            assert again.read("samples") == before

    def test_a_killed_and_resumed_run_is_equal_to_an_unbroken_one(self, tmp_path: Path) -> None:
        script = [sys.executable, "-m", "tests.studies.killed_writer"]
        whole, broken = tmp_path / "whole", tmp_path / "broken"
        subprocess.run([*script, str(whole), "0", "0"], cwd=ROOT, check=True)
        done = subprocess.run([*script, str(broken), "20", "1"], cwd=ROOT, check=True, capture_output=True, text=True)
        assert len(set(done.stdout.split())) > 2, "the kills must fall into different moments"
        assert contents(broken) == contents(whole)
        assert RunFolder.open(broken).verify().ok
