"""A page of rows out of a stream of pieces, read no further than needed.

Knows table schemas; nothing of folders. No torch.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pyarrow as pa

from probes.inputs import InputError
from studies.run_folder.tables import table_schema

_Result = TypeVar("_Result")


def check_columns(table: str, columns: Sequence[str] | None) -> None:
    """Refuse columns that a table does not have.

    Raises:
        InputError: one is unknown; those there are follow.
    """
    names = table_schema(table).names
    unknown = sorted(set(columns or ()) - set(names))
    if unknown:
        raise InputError(f"table {table} has no column {', '.join(unknown)}; it has {', '.join(names)}")


def projected(table: str, columns: Sequence[str] | None) -> pa.Schema:
    """Return a table's schema, of the chosen columns in the chosen order."""
    schema = table_schema(table)
    return schema if columns is None else pa.schema([schema.field(column) for column in columns])


def page(pieces: Iterator[pa.RecordBatch], schema: pa.Schema, limit: int | None, offset: int) -> pa.Table:
    """Take rows ``offset`` to ``offset + limit`` of pieces, and ask for no piece after the last that is needed.

    Raises:
        InputError: a negative limit or offset.
    """
    if offset < 0 or (limit is not None and limit < 0):
        raise InputError(f"limit and offset count rows and cannot be negative: limit {limit}, offset {offset}")
    kept: list[pa.RecordBatch] = []
    wanted = math.inf if limit is None else limit
    for piece in pieces:
        if wanted <= 0:
            break
        skipped = min(offset, piece.num_rows)
        offset -= skipped
        taken = piece.slice(skipped, None if math.isinf(wanted) else int(wanted))
        wanted -= taken.num_rows
        if taken.num_rows:
            kept.append(taken)
    return pa.Table.from_batches(kept, schema=schema)


def steadily(action: Callable[[], _Result]) -> _Result:
    """Do it again if files went away in the middle: the writer has just merged them.

    Raises:
        InputError: they are gone the second time too.
    """
    try:
        return action()
    except FileNotFoundError:
        pass
    try:
        return action()
    except FileNotFoundError as error:
        raise InputError(f"a file of the run is lost: {error}") from error
