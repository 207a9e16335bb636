"""Writing a run folder: batches and their tables, interruptions, and the manifest."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.inputs import InputError
from studies.run_folder.files import write_bytes
from studies.run_folder.tables import SAMPLES, conform
from studies.runs import RunFolder
from tests.studies.made_run import made_run, manifest, tables

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return made_run(tmp_path / "run")


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


def test_no_torch() -> None:
    heavy = "{'torch', 'transformers', 'datasets'}"
    code = f"import sys, studies.runs, studies.multi_image; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
