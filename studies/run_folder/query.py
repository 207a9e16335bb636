"""SQL over the Parquet files of a run, by DuckDB.

Knows files and table names only. No torch.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from probes.inputs import InputError
from studies.run_folder.tables import table_schema


def query(
    files: Mapping[str, Sequence[Path]], sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> pa.Table:
    """Run one SQL statement over tables given as Parquet files, each a view by its name.

    Args:
        files: the files of each table; a table without files is an empty view.
        sql: the statement; ``?`` or ``$name`` stand for parameters.
        parameters: their values, never pasted into the text.

    Raises:
        InputError: DuckDB refuses the statement; its reason is given.
        FileNotFoundError: a file has gone.
    """
    try:
        # Without this, a misspelled table would be looked for among the variables of this program.
        with duckdb.connect(config={"python_enable_replacements": False}) as connection:
            for name, paths in files.items():
                if paths:
                    connection.read_parquet([_literal(path) for path in paths]).create_view(name)
                else:
                    connection.register(name, _without_half(table_schema(name)).empty_table())
            return connection.sql(sql, params=parameters or None).to_arrow_table()
    except duckdb.IOException as error:
        raise FileNotFoundError(str(error)) from error
    except duckdb.Error as error:
        raise InputError(f"the query failed: {error}") from error


def _literal(path: Path) -> str:
    """The path as a pattern that matches itself alone: DuckDB reads ``*``, ``?`` and ``[`` in names as wildcards."""
    return re.sub(r"[*?\[]", lambda sign: f"[{sign[0]}]", str(path))


def _without_half(schema: pa.Schema) -> pa.Schema:
    """DuckDB reads half-precision numbers from Parquet, and not from Arrow."""
    half, single = pa.list_(pa.float16()), pa.list_(pa.float32())
    return pa.schema([field.with_type(single) if field.type == half else field for field in schema])
