import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from probes.files import write_bytes
from probes.inputs import ImageRef, InputError
from studies.run_folder.locking import WriterLock
from studies.run_folder.tables import SAMPLES, TABLES, conform
from studies.runs import Manifest, RunFolder, digest_of_folder

ROOT = Path(__file__).parents[2]


def manifest(**changes: Any) -> Manifest:
    return Manifest(
        **{"config": {"model": {"dtype": "float32"}, "rows": 2}, "batches": 3, "seeds": {"data": 0}, **changes}
    )


def tables(index: int, rows: int = 2) -> dict[str, Any]:
    ids = [f"{index}-{row}" for row in range(rows)]
    return {
        "samples": [{"sample_id": name, "cluster": name, "task": "needle", "correct": index % 2 == 0} for name in ids],
        "layers": {
            "sample_id": ids,
            "rows": ["paper"] * rows,
            "layer": np.arange(rows),
            "layer_kind": ["attention"] * rows,
            "measure": ["factor"] * rows,
            "image": [0] * rows,
            "head": [-1] * rows,
            "factor": np.linspace(0, 1, rows, dtype=np.float32),
        },
        "maps": [{"sample_id": name, "rows": "paper", "layer": 0, "image": 0, "map": np.arange(4) / 4} for name in ids],
    }


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path / "run", manifest())
    for index in range(3):
        made.write_batch(index, tables(index))
    return made


def contents(folder: Path) -> dict[str, Any]:
    """Every file of a run but its lock, Parquet as sorted rows without the one column that may differ."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            kept = table.drop_columns([column for column in ("seconds",) if column in table.column_names])
            found[name] = sorted(map(repr, kept.to_pylist()))
        elif name == "merged.json":
            found[name] = {table: note["rows"] for table, note in json.loads(path.read_text())["tables"].items()}
        elif name == "manifest.json":
            times = ("created", "resumed", "finished")
            found[name] = {key: value for key, value in json.loads(path.read_text()).items() if key not in times}
        elif path.is_file() and name != ".lock":
            found[name] = path.read_bytes()
    return found


class TestWriting:
    def test_what_is_written_is_read_in_the_order_of_the_plan(self, tmp_path: Path) -> None:
        with RunFolder.create(tmp_path / "run", manifest()) as made:
            for index in (2, 0, 1):
                made.write_batch(index, tables(index))
            assert made.read("samples", ["sample_id", "batch"]).to_pylist() == [
                {"sample_id": f"{index}-{row}", "batch": index} for index in range(3) for row in range(2)
            ]
            assert made.read("samples").schema.equals(SAMPLES)
            assert made.read("effects").num_rows == 0

    def test_files_without_their_marker_do_not_exist(self, run: RunFolder) -> None:
        (run.path / "batches" / "000001.json").unlink()
        assert run.done_batches() == {0, 2}
        assert run.missing_batches() == [1]
        assert set(run.read("layers").column("batch").to_pylist()) == {0, 2}
        assert run.query("SELECT DISTINCT batch FROM samples ORDER BY batch").column(0).to_pylist() == [0, 2]

    def test_resuming_removes_what_a_killed_writer_left(self, run: RunFolder) -> None:
        (run.path / "batches" / "000001.json").unlink()
        (run.path / "samples" / ".tmp-1-part-000002.parquet").write_bytes(b"half")
        (run.path / ".tmp-1-manifest.json").write_bytes(b"half")
        run.close()
        with RunFolder.create(run.path, manifest(), resume=True) as again:
            assert not list(run.path.rglob(".tmp-*"))
            assert not (run.path / "samples" / "part-000001.parquet").exists()
            again.write_batch(1, tables(1))
            assert again.verify().ok

    def test_a_failing_write_leaves_nothing_and_spares_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        write_bytes(path, b"old")
        with pytest.raises(TypeError):
            write_bytes(path, object())  # type: ignore[arg-type]
        assert [found.name for found in tmp_path.iterdir()] == ["file"]
        assert path.read_bytes() == b"old"

    @pytest.mark.parametrize(
        ("index", "batch", "reason"),
        [
            (0, tables(0), "already written"),
            (3, tables(3), "outside the plan"),
            (1, {"layers": []}, "no table 'samples'"),
            (1, {"samples": [], "extra": []}, "unknown table extra"),
            (1, {"samples": [{"sample_id": "a", "colour": 1}]}, "unknown column colour"),
            (1, {"samples": [{"cluster": "a"}]}, "sample_id is missing"),
            (1, {"samples": [{"sample_id": None, "cluster": "a"}]}, "1 nulls"),
            (1, {"samples": [{"sample_id": "a", "target": "third"}]}, "column target must be int32"),
            (1, {"samples": [{"sample_id": "a", "target": 2**40}]}, "column target must be int32"),
            (1, {"samples": {"sample_id": ["a", "b"], "task": ["x"]}}, "different lengths"),
        ],
    )
    def test_a_wrong_batch_is_refused_by_name(
        self, tmp_path: Path, index: int, batch: dict[str, Any], reason: str
    ) -> None:
        with RunFolder.create(tmp_path / "run", manifest()) as made:
            made.write_batch(0, tables(0))
            with pytest.raises(InputError, match=reason):
                made.write_batch(index, batch)
            assert made.done_batches() == {0}

    def test_a_reader_cannot_write(self, run: RunFolder) -> None:
        with pytest.raises(InputError, match="reading only"):
            RunFolder.open(run.path).write_metrics([])

    @pytest.mark.parametrize("name", ["../out", "/out", "", ".lock", "samples/x.parquet", "manifest.json", "a/../../b"])
    def test_files_stay_inside(self, run: RunFolder, name: str) -> None:
        with pytest.raises(InputError, match=r"no name|itself"):
            run.write_file(name, "x")

    def test_metrics_hold_no_nan(self, run: RunFolder) -> None:
        run.write_metrics([{"name": "a", "estimate": {"value": math.nan, "n": 0, "low": 0.0}}])
        assert run.read_metrics() == [{"name": "a", "estimate": {"value": None, "n": 0, "low": 0.0}}]

    def test_focus_and_other_files(self, run: RunFolder) -> None:
        run.write_focus([{"sample_id": "0-0", "rows": "paper", "rule": "LND", "last": 4, "focus": 1}])
        assert run.read("focus").column("focus").to_pylist() == [1]
        assert run.rows_of("focus", "0-0").num_rows == 1
        assert run.write_file("figures/a.txt", "x").read_text() == "x"


@given(
    st.lists(
        st.fixed_dictionaries(
            {"sample_id": st.text(max_size=5)},
            optional={
                "target": st.none() | st.integers(-(2**31), 2**31 - 1),
                "correct": st.none() | st.booleans(),
                "log_probability": st.none() | st.floats(allow_nan=False),
                "image_digests": st.none() | st.lists(st.text(max_size=3), max_size=3),
            },
        ),
        max_size=5,
    )
)
@settings(max_examples=40, deadline=None)
def test_rows_become_a_table_and_come_back(rows: list[dict[str, Any]]) -> None:
    table = conform("samples", rows, 7)
    assert table.schema.equals(SAMPLES)
    empty = dict.fromkeys(SAMPLES.names)
    assert table.to_pylist() == [{**empty, **row, "batch": 7} for row in rows]


class TestManifest:
    def test_resuming_with_another_config_names_each_changed_key(self, run: RunFolder) -> None:
        run.close()
        changed = manifest(config={"model": {"dtype": "bfloat16"}, "top": 1}, seeds={"data": 1}, model_digest="b")
        with pytest.raises(InputError) as caught:
            RunFolder.create(run.path, changed, resume=True)
        message = str(caught.value)
        for part in (
            "config.model.dtype: 'float32' before, 'bfloat16' now",
            "config.rows: 2 before, absent now",
            "config.top: absent before, 1 now",
            "seeds.data: 0 before, 1 now",
            "model_digest: None before, 'b' now",
        ):
            assert part in message

    def test_a_number_is_not_its_boolean(self) -> None:
        assert manifest(config={"a": 1}).differences(manifest(config={"a": True}))
        assert not manifest(config={"a": (1, 2)}).differences(manifest(config={"a": [1, 2]}))

    def test_another_run_is_not_written_over(self, run: RunFolder, tmp_path: Path) -> None:
        run.close()
        with pytest.raises(InputError, match="already holds a run"):
            RunFolder.create(run.path, manifest())
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(InputError, match="other files"):
            RunFolder.create(tmp_path, manifest(), resume=True)
        assert not (tmp_path / ".lock").exists()
        with pytest.raises(InputError, match="is a file"):
            RunFolder.create(tmp_path / "notes.txt", manifest())

    def test_other_versions_are_told(self, run: RunFolder) -> None:
        run.close()
        with pytest.warns(UserWarning, match="torch"):
            RunFolder.create(run.path, manifest(versions={**run.manifest.versions, "torch": "0"}), resume=True).close()
        assert len(RunFolder.open(run.path).manifest.resumed) == 1

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda content: content.update(schema_version=99), "schema 99"),
            (lambda content: content["config"].update(rows=3), "edited"),
            (lambda content: content.pop("batches"), "not a run manifest"),
            (lambda content: content.pop("schema_version"), "no schema_version"),
        ],
    )
    def test_a_foreign_manifest_is_refused(
        self, run: RunFolder, change: Callable[[dict[str, Any]], object], reason: str
    ) -> None:
        source = run.path / "manifest.json"
        content = json.loads(source.read_text())
        change(content)
        source.write_text(json.dumps(content))
        with pytest.raises(InputError, match=reason):
            RunFolder.open(run.path)

    @pytest.mark.parametrize("value", [math.nan, math.inf, object(), b"x"])
    def test_a_config_holds_plain_values(self, value: object) -> None:
        with pytest.raises(InputError, match=r"config\.a\[0\]"):
            manifest(config={"a": [value]})

    def test_no_batch_is_no_run(self) -> None:
        with pytest.raises(InputError, match="at least one batch"):
            manifest(batches=0)

    def test_there_is_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="does not exist"):
            RunFolder.open(tmp_path / "none")
        with pytest.raises(InputError, match=r"no manifest\.json"):
            RunFolder.open(tmp_path)


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


class TestVerifying:
    def test_a_changed_a_lost_and_a_doubled_thing(self, run: RunFolder) -> None:
        path = run.path / "layers" / "part-000001.parquet"
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert run.verify().problems == ("layers/part-000001.parquet is not what was written",)
        path.unlink()
        assert run.verify().problems == ("layers/part-000001.parquet is lost",)

    def test_a_doubled_sample_and_a_missing_image(self, tmp_path: Path) -> None:
        with RunFolder.create(tmp_path / "run", manifest(batches=2)) as made:
            made.write_batch(0, {"samples": [{"sample_id": "a", "image_digests": ["0" * 64]}]})
            made.write_batch(1, {"samples": [{"sample_id": "a"}]})
            (made.path / "samples" / "part-000005.parquet").write_bytes(b"")
            found = made.verify()
        assert found.problems == ("sample a was written 2 times",)
        assert (found.samples, found.images_missing, found.leftovers) == (2, 1, 1)
        assert "1 problems" in str(found)


class TestImages:
    def test_small_images_are_kept_once_and_without_loss(self, run: RunFolder, tmp_path: Path) -> None:
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
        picture.save(tmp_path / "a.png")
        image = ImageRef(path=str(tmp_path / "a.png"))
        digest = run.save_image(image)
        first = run.image_path(digest).stat().st_mtime_ns
        assert run.save_image(image) == digest == image.digest
        assert run.image_path(digest).stat().st_mtime_ns == first
        assert np.array_equal(np.asarray(Image.open(run.image_path(digest)).convert("RGB")), np.asarray(picture))

    def test_large_images_are_scaled_down(self, run: RunFolder, tmp_path: Path) -> None:
        Image.new("RGB", (4096, 64), "red").save(tmp_path / "a.png")
        with Image.open(run.image_path(run.save_image(ImageRef(path=str(tmp_path / "a.png"))))) as kept:
            assert kept.size == (2048, 32)

    @pytest.mark.parametrize("digest", ["", "../manifest", "A" * 64, "0" * 63, "0" * 64 + "\n"])
    def test_a_digest_cannot_lead_out(self, run: RunFolder, digest: str) -> None:
        with pytest.raises(InputError, match="no image digest"):
            run.image_path(digest)


class TestLock:
    def test_a_second_writer_is_refused_by_the_first_ones_name(self, run: RunFolder) -> None:
        with pytest.raises(InputError, match=f"written by process {os.getpid()}"):
            RunFolder.create(run.path, manifest(), resume=True)
        assert run.verify().ok
        run.close()
        run.close()
        RunFolder.create(run.path, manifest(), resume=True).close()

    def test_another_process_is_refused_until_it_dies(self, tmp_path: Path) -> None:
        code = (
            "import sys, time; from pathlib import Path; from studies.run_folder.locking import WriterLock; "
            f"lock = WriterLock(Path({str(tmp_path)!r})); print('held', flush=True); time.sleep(60)"
        )
        holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {holder.pid} "):
            RunFolder.create(tmp_path, manifest())
        holder.kill()
        holder.wait()
        assert (tmp_path / ".writer.json").exists()
        with RunFolder.create(tmp_path, manifest()) as made:
            assert made.missing_batches() == [0, 1, 2]

    def test_a_broken_note_does_no_harm(self, tmp_path: Path) -> None:
        lock = WriterLock(tmp_path)
        (tmp_path / ".writer.json").write_text("{")
        with pytest.raises(InputError, match="another process"):
            WriterLock(tmp_path)
        lock.release()


class TestDigest:
    def test_of_names_and_contents_only(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / name / "sub").mkdir(parents=True)
            (tmp_path / name / "sub" / "a").write_bytes(b"x")
            (tmp_path / name / "b").write_bytes(b"y")
        os.utime(tmp_path / "two" / "b", (0, 0))
        (tmp_path / "two" / ".hidden").write_bytes(b"z")
        first = digest_of_folder(tmp_path / "one")
        assert first == digest_of_folder(tmp_path / "two")
        (tmp_path / "two" / "b").rename(tmp_path / "two" / "c")
        assert first != digest_of_folder(tmp_path / "two")
        (tmp_path / "one" / "b").write_bytes(b"Y")
        assert first != digest_of_folder(tmp_path / "one")

    def test_links_count_as_their_files(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "a").write_bytes(b"x")
        (tmp_path / "linked").mkdir()
        (tmp_path / "linked" / "a").symlink_to(tmp_path / "real" / "a")
        assert digest_of_folder(tmp_path / "real") == digest_of_folder(tmp_path / "linked")

    def test_nothing_has_no_digest(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="does not exist"):
            digest_of_folder(tmp_path / "none")
        with pytest.raises(InputError, match="holds no file"):
            digest_of_folder(tmp_path)


def test_no_torch() -> None:
    heavy = "{'torch', 'transformers', 'datasets'}"
    code = f"import sys, studies.runs, studies.multi_image; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
