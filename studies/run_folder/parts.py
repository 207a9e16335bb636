"""The Parquet files of a run's batches: written file by file, made to exist by a marker, merged when all are there.

Knows file names and markers; nothing of what the columns mean. No torch.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from probes.files import clean_temporaries, digest_of_file, read_json, write_atomically, write_json
from studies.run_folder.tables import BATCH_TABLES

_MERGED = "part-merged.parquet"
_GROUP_ROWS = 16_384
_GROUP_BYTES = 2 * 2**20


class Parts:
    """The part files of one run.

    Unmerged, batch 12 is ``<table>/part-000012.parquet`` for each of its tables, and exists once
    ``batches/000012.json`` does. Merged, each table is one ``part-merged.parquet``, and exists once ``merged.json``
    does. Each change is one rename, so a kill at any moment leaves one of the two states.
    """

    def __init__(self, root: Path, batches: int) -> None:
        self._root = root
        self._batches = batches

    @property
    def is_merged(self) -> bool:
        """Whether the merged files are the ones that count."""
        return (self._root / "merged.json").is_file()

    def done(self) -> frozenset[int]:
        """Return the batches that are wholly written."""
        if self.is_merged:
            return frozenset(range(self._batches))
        folder = self._root / "batches"
        if not folder.is_dir():
            return frozenset()
        return frozenset(int(path.stem) for path in folder.iterdir() if path.suffix == ".json" and path.stem.isdigit())

    def is_done(self, index: int) -> bool:
        """Whether one batch is wholly written."""
        return self.is_merged or (self._root / "batches" / f"{index:06d}.json").is_file()

    def files(self, table: str, batch: int | None = None) -> list[Path]:
        """Return the files that a table, or one batch of it, is in at this moment, in the order of the plan."""
        if table not in BATCH_TABLES:
            path = self._root / f"{table}.parquet"
            return [path] if path.is_file() else []
        folder = self._root / table
        if not folder.is_dir():
            return []
        if self.is_merged:
            return [folder / _MERGED] if (folder / _MERGED).is_file() else []
        if batch is not None:
            path = folder / _part(batch)
            return [path] if self.is_done(batch) and path.is_file() else []
        there = {path.name for path in folder.iterdir()}
        return [folder / name for index in sorted(self.done()) if (name := _part(index)) in there]

    def write(self, index: int, tables: Mapping[str, pa.Table]) -> None:
        """Write a batch's tables and then its marker. Tables without rows get no file."""
        noted = {}
        for name, table in tables.items():
            if table.num_rows:
                path = self._root / name / _part(index)
                write_atomically(path, partial(_write, table))
                noted[name] = {"rows": table.num_rows, "sha256": digest_of_file(path)}
        write_json(self._root / "batches" / f"{index:06d}.json", {"batch": index, "tables": noted})

    def noted(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield each file that must be there, with the rows and digest noted when it was written."""
        if self.is_merged:
            for table, note in read_json(self._root / "merged.json")["tables"].items():
                yield self._root / table / _MERGED, note
            return
        for index in sorted(self.done()):
            for table, note in read_json(self._root / "batches" / f"{index:06d}.json")["tables"].items():
                yield self._root / table / _part(index), note

    def leftovers(self) -> list[Path]:
        """Return files that no marker vouches for: of a batch being written now, or of a killed writer."""
        vouched = {path for table in BATCH_TABLES for path in self.files(table)}
        found = [path for table in BATCH_TABLES for path in (self._root / table).glob("part-*.parquet")]
        if self.is_merged:
            found += (self._root / "batches").glob("*.json")
        return sorted(path for path in found if path not in vouched)

    def clean(self) -> None:
        """Delete temporary files and leftovers. Only the holder of the writer's lock may call this."""
        for folder in [self._root, *(path for path in self._root.iterdir() if path.is_dir())]:
            clean_temporaries(folder)
        for path in self.leftovers():
            path.unlink(missing_ok=True)

    def merge(self) -> None:
        """Put each table into one file, in the order of the plan, then delete the files of the batches."""
        if not self.is_merged:
            noted = {}
            for table, schema in BATCH_TABLES.items():
                files = self.files(table)
                if files:
                    path = self._root / table / _MERGED
                    write_atomically(path, partial(_merge, files, schema))
                    noted[table] = {"rows": pq.read_metadata(path).num_rows, "sha256": digest_of_file(path)}
            write_json(self._root / "merged.json", {"batches": self._batches, "tables": noted})
        self.clean()


def _part(index: int) -> str:
    return f"part-{index:06d}.parquet"


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def _merge(files: list[Path], schema: pa.Schema, path: Path) -> None:
    """Row groups keep the batches in order, so that a filter on ``batch`` skips all groups but its own."""
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        held: list[pa.Table] = []
        rows = size = 0
        for file in files:
            with pq.ParquetFile(file) as source:
                table = source.read(use_threads=False)
            held.append(table)
            rows, size = rows + table.num_rows, size + table.nbytes
            if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
                writer.write_table(pa.concat_tables(held).combine_chunks())
                held, rows, size = [], 0, 0
        if held:
            writer.write_table(pa.concat_tables(held).combine_chunks())
