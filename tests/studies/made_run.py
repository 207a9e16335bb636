"""A small run of three batches, for tests of the run folder, and all that is in one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from studies.runs import Manifest, RunFolder


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


def made_run(folder: Path) -> RunFolder:
    made = RunFolder.create(folder, manifest())
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
