"""The run folder: the seam between computing and looking. Written safely, batch by batch; read lazily.

Knows how files are laid out and nothing of models or of what a number means. No torch.

A batch is a set of Parquet files followed by a marker in ``batches/``; files without their marker do not exist for a
reader and are redone by a resumed run. Finishing a run merges the many small files of a table into one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from probes.errors import counted
from probes.files import (
    clean_temporaries,
    digest_of_folder,
    now,
    read_json,
    without_nan,
    write_atomically,
    write_bytes,
    write_json,
)
from probes.inputs import ImageRef, InputError
from studies.run_folder.images import image_path, save_image
from studies.run_folder.locking import WriterLock
from studies.run_folder.manifest import Manifest
from studies.run_folder.parts import Parts
from studies.run_folder.reading import check_columns, page, projected, steadily
from studies.run_folder.start import refuse_foreign, taken_up
from studies.run_folder.tables import BATCH_TABLES, FINAL_TABLES, TABLES, Rows, conform, table_schema
from studies.run_folder.verify import Verification, verify

__all__ = ["BATCH_TABLES", "TABLES", "Manifest", "RunFolder", "Verification", "digest_of_folder"]


class RunFolder:
    """One run on disk.

    ``RunFolder.create`` gives one that can be written, and holds the folder's lock until ``close`` (or the end of a
    ``with`` block); ``RunFolder.open`` gives one to read, also while another process writes.

    Attributes:
        path: the folder.
        manifest: what the run is.
    """

    def __init__(self, path: Path, manifest: Manifest, lock: WriterLock | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self._lock = lock
        self._parts = Parts(path, manifest.batches)

    @classmethod
    def create(cls, path: str | Path, manifest: Manifest, resume: bool = False) -> Self:
        """Start a run, or take one up again.

        Args:
            path: the folder; made if absent.
            manifest: what the run is to be.
            resume: go on with the run that the folder holds, if it holds one. Half-written batches are removed.

        Raises:
            InputError: the folder holds a run and ``resume`` is false; it holds something else; another process
                writes it; or the run it holds differs, in which case each changed key is named.
        """
        folder = Path(path)
        refuse_foreign(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(folder)
        try:
            clean_temporaries(folder)
            if (folder / "manifest.json").exists():
                manifest = taken_up(folder, manifest, resume)
            write_json(folder / "manifest.json", manifest.as_json())
            run = cls(folder, manifest, lock)
            run._parts.clean()
        except BaseException:
            lock.release()
            raise
        return run

    @classmethod
    def help_write(cls, path: str | Path, manifest: Manifest, helper: int) -> Self:
        """Open a run that the main process of a group has just started, to write batches and images beside it.

        Each process writes batches of its own, and only the main one finishes the run. ``helper`` counts from 1.

        Raises:
            InputError: the folder does not hold that run, as where processes share no files; or another process is
                that helper.
        """
        run = cls.open(path)
        differences = run.manifest.differences(manifest)
        if differences:
            raise InputError(f"process {helper} finds another run in {run.path}: {'; '.join(differences)}")
        run._lock = WriterLock(run.path, helper)
        return run

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run for reading, finished or not.

        Raises:
            InputError: there is no run at that path, or it has another schema version.
        """
        folder = Path(path)
        source = folder / "manifest.json"
        if not source.is_file():
            reason = "has no manifest.json" if folder.is_dir() else "does not exist"
            raise InputError(
                f"{folder} is not a run folder: it {reason}; give the folder that `sightcheck audit` wrote"
            )
        return cls(folder, Manifest.from_json(read_json(source), str(source)))

    # Writing

    def write_batch(self, index: int, tables: Mapping[str, Rows]) -> None:
        """Write all tables of a batch, then the marker that makes them exist.

        Args:
            index: the batch's place in the plan, from 0.
            tables: rows by table name; "samples" must be among them. The column ``batch`` is filled in.

        Raises:
            InputError: no such batch, already written, an unknown table or column, a value of the wrong type.
        """
        self._require_writer()
        if not 0 <= index < self.manifest.batches:
            raise InputError(f"batch {index} is outside the plan of {self.manifest.batches} batches")
        if "samples" not in tables:
            raise InputError(f"batch {index} has no table 'samples'")
        unknown = sorted(set(tables) - set(BATCH_TABLES))
        if unknown:
            raise InputError(f"batch {index}: unknown table {', '.join(unknown)}; known: {', '.join(BATCH_TABLES)}")
        if self._parts.is_done(index):
            raise InputError(f"batch {index} is already written")
        self._parts.write(index, {name: conform(name, rows, index) for name, rows in tables.items()})

    def save_image(self, image: ImageRef) -> str:
        """Keep an image for the explorer as ``images/<digest>.webp`` and return the digest of its original bytes.

        Pixels keep their place and number up to 2,048 a side; larger images are scaled down.
        """
        self._require_writer()
        return save_image(self.path / "images", image)

    def write_focus(self, rows: Rows, table: str = "focus") -> None:
        """Write ``focus.parquet``, or another key of ``FINAL_TABLES``, whole or not at all."""
        self._require_writer()
        content = conform(table, rows)
        write_atomically(self.path / f"{table}.parquet", lambda temporary: pq.write_table(content, temporary))

    def write_metrics(self, metrics: Sequence[Mapping[str, Any]]) -> None:
        """Write ``metrics.json``: a list of entries, each with a name and an estimate. NaN is written as null."""
        self._require_writer()
        write_json(self.path / "metrics.json", [without_nan(dict(entry)) for entry in metrics])

    def write_file(self, name: str, content: bytes | str) -> Path:
        """Write another file of the run, such as ``report.html`` or ``figures/layers.png``; returns its path.

        Raises:
            InputError: the name leads out of the folder, or is one that the run folder itself writes.
        """
        self._require_writer()
        parts = PurePosixPath(name).parts
        if not parts or PurePosixPath(name).is_absolute() or any(part.startswith(".") for part in parts):
            raise InputError(f"{name!r} is no name for a file of a run: give a plain relative path")
        own = {f"{table}.parquet" for table in FINAL_TABLES}
        if parts[0] in {*BATCH_TABLES, *own, "batches", "images", "manifest.json", "merged.json"}:
            raise InputError(f"{name!r} is written by the run folder itself: choose another name")
        path = self.path.joinpath(*parts)
        write_bytes(path, content.encode() if isinstance(content, str) else content)
        return path

    def compact(self) -> None:
        """Merge each table's many files into one, which makes reading a large run quick. Doing it twice is harmless.

        Raises:
            InputError: batches are missing.
        """
        self._require_writer()
        missing = self.missing_batches()
        if missing:
            raise InputError(
                f"{self.path}: {counted(len(missing), 'batch')} not written yet, the first is {missing[0]}"
            )
        self._parts.merge()

    def finish(self) -> None:
        """Compact the run and note the time: nothing is left to do. Doing it twice is harmless.

        Raises:
            InputError: batches are missing.
        """
        self.compact()
        if self.manifest.finished is None:
            self.manifest = replace(self.manifest, finished=now())
            write_json(self.path / "manifest.json", self.manifest.as_json())

    def close(self) -> None:
        """Give up the right to write; the run can still be read."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_writer(self) -> None:
        if self._lock is None:
            raise InputError(f"{self.path} is open for reading only: use RunFolder.create(..., resume=True) to write")

    # Reading

    def done_batches(self) -> frozenset[int]:
        """Return the numbers of the batches that are wholly written."""
        return self._parts.done()

    def missing_batches(self) -> list[int]:
        """Return the numbers of the planned batches that are not written, in order."""
        done = self.done_batches()
        return [index for index in range(self.manifest.batches) if index not in done]

    def dataset(self, table: str, batch: int | None = None) -> ds.Dataset:
        """Return a table as a lazy Arrow dataset over the batches that are done at this moment.

        With ``batch``, over the files which hold that batch; they may hold others too.
        """
        schema = table_schema(table)
        files = [str(path) for path in self._parts.files(table, batch)]
        if not files:
            return ds.dataset(schema.empty_table())
        return ds.dataset(files, schema=schema, format="parquet")

    def scan(
        self, table: str, columns: Sequence[str] | None = None, filter: pc.Expression | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Go through a table piece by piece, in the order of the plan, holding little of it in memory."""
        # Arrow's own defaults read many row groups ahead, which is most of a table of this size.
        scanner = self.dataset(table).scanner(
            columns=None if columns is None else list(columns),
            filter=filter,
            batch_size=1024,
            batch_readahead=0,
            fragment_readahead=0,
            fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=False),
        )
        yield from scanner.to_batches()

    def read(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> pa.Table:
        """Read rows of a table, in the order of the plan.

        Args:
            table: a key of ``TABLES``.
            columns: the columns to read; all by default.
            filter: an Arrow expression, such as ``pc.field("correct") & (pc.field("task") == "needle")``.
            limit: stop after that many rows; the rest of the table is not read.
            offset: leave out that many matching rows first.

        Raises:
            InputError: no such table, or no such column.
        """
        check_columns(table, columns)
        if limit is None and offset == 0:
            chosen = None if columns is None else list(columns)
            return steadily(lambda: self.dataset(table).to_table(columns=chosen, filter=filter))
        schema = projected(table, columns)
        return steadily(lambda: page(self.scan(table, columns, filter), schema, limit, offset))

    def count(self, table: str, filter: pc.Expression | None = None) -> int:
        """Count rows without loading them."""
        return steadily(lambda: int(self.dataset(table).count_rows(filter=filter)))

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> pa.Table:
        """Run SQL (DuckDB) over the run's tables, each a view by its own name; rows are read as they are needed.

        Raises:
            InputError: the SQL is wrong; the message is DuckDB's.
        """
        from studies.run_folder.query import query

        return steadily(lambda: query({name: self._parts.files(name) for name in TABLES}, sql, parameters))

    def sample(self, sample_id: str) -> dict[str, Any]:
        """Return one sample's row.

        Raises:
            InputError: the run has no such sample, or not yet.
        """
        found: dict[str, Any] = self.rows_of("samples", sample_id).to_pylist()[0]
        return found

    def rows_of(self, table: str, sample_id: str) -> pa.Table:
        """Return one sample's rows of a table; only its own batch is read.

        Raises:
            InputError: the run has no such sample.
        """
        chosen = pc.field("sample_id") == sample_id
        batches = self.read("samples", ["batch"], chosen, limit=1).column("batch").to_pylist()
        if not batches:
            raise InputError(f"{self.path} has no sample {sample_id!r}")
        batch = batches[0]
        if "batch" in table_schema(table).names:
            chosen = chosen & (pc.field("batch") == batch)
        return steadily(lambda: self.dataset(table, batch).to_table(filter=chosen))

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the entries of ``metrics.json``.

        Raises:
            InputError: the run was not finalised.
        """
        source = self.path / "metrics.json"
        if not source.is_file():
            raise InputError(f"{self.path} has no metrics.json yet: finish it with --resume")
        return list(read_json(source))

    def image_path(self, digest: str) -> Path:
        """Return where the image with that digest is kept, whether or not it is there.

        Raises:
            InputError: that is no SHA-256.
        """
        return image_path(self.path / "images", digest)

    def verify(self) -> Verification:
        """Compare every file with the digest noted when it was written; look for doubled samples and lost images."""
        return verify(self)

    def __repr__(self) -> str:
        done, planned = len(self.done_batches()), self.manifest.batches
        state = "finished" if self.manifest.finished else "not finished"
        return f"RunFolder({str(self.path)!r}, {done} of {planned} batches, {state})"
