"""The tables of a run folder: one explicit Arrow schema each, and the conversion of rows into it.

Knows column names and types only: nothing about folders, models or how a number was computed. No torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from probes.inputs import InputError

SCHEMA_VERSION = 1
"""Raised whenever a column changes its name, type or meaning."""

Rows: TypeAlias = pa.Table | Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]]
"""What a table may be given as: an Arrow table, a list of row mappings, or a mapping of columns (lists or arrays)."""


def _schema(required: Mapping[str, pa.DataType], optional: Mapping[str, pa.DataType] | None = None) -> pa.Schema:
    fields = [pa.field(name, kind, nullable=False) for name, kind in required.items()]
    fields += [pa.field(name, kind, nullable=True) for name, kind in (optional or {}).items()]
    return pa.schema(fields)


_BATCH = {"batch": pa.int32()}

SAMPLES = _schema(
    {"sample_id": pa.string(), **_BATCH},
    {
        "cluster": pa.string(),
        "task": pa.string(),
        "split": pa.string(),
        "n_images": pa.int32(),
        "target": pa.int32(),
        "answer": pa.string(),
        "gold": pa.string(),
        "correct": pa.bool_(),
        "log_probability": pa.float64(),
        "prompt_tokens": pa.int32(),
        "answer_tokens": pa.int32(),
        "question": pa.string(),
        "image_digests": pa.list_(pa.string()),
        "image_widths": pa.list_(pa.int32()),
        "image_heights": pa.list_(pa.int32()),
        "boxes": pa.list_(pa.list_(pa.float32())),
        "error": pa.string(),
        "effects_error": pa.string(),
        "seconds": pa.float64(),
    },
)
"""One row per sample. ``correct`` is null where nothing could be scored, ``error`` is null where all went well.
``effects_error`` says why a sample that was asked has no causal effects, where these were to be measured.
``image_digests`` is null at an image whose bytes cannot be read.

``boxes`` are gold regions: left, top, right, bottom in pixels of the target image.
"""

LAYERS = _schema(
    {
        "sample_id": pa.string(),
        **_BATCH,
        "rows": pa.string(),
        "layer": pa.int32(),
        "layer_kind": pa.string(),
        "measure": pa.string(),
        "image": pa.int32(),
        "head": pa.int32(),
    },
    {"factor": pa.float32()},
)
"""One row per sample, row set, layer, image and measure; ``layer`` is the true index, ``head`` is -1 for the mean over
heads. A layer of two kinds, such as attention beside a state space, has rows of each kind with its own measures.
"""

PAIRWISE = _schema(
    {
        "sample_id": pa.string(),
        **_BATCH,
        "layer": pa.int32(),
        "from_image": pa.int32(),
        "to_image": pa.int32(),
    },
    {"factor": pa.float32()},
)
"""Image to image and text: index n stands for the text.

A factor is 0 where the causal mask rules the pair out, and null where the sample has no text there.
"""

MAPS = _schema(
    {
        "sample_id": pa.string(),
        **_BATCH,
        "rows": pa.string(),
        "layer": pa.int32(),
        "image": pa.int32(),
        "map": pa.list_(pa.float16()),
    }
)
"""Attention per image token of one image, in the order of ``cells``."""

CELLS = _schema(
    {
        "sample_id": pa.string(),
        **_BATCH,
        "image": pa.int32(),
        "token": pa.int32(),
        "tile": pa.int32(),
        "frame": pa.int32(),
        "row": pa.int32(),
        "column": pa.int32(),
        "thumbnail": pa.bool_(),
        "left": pa.float32(),
        "top": pa.float32(),
        "right": pa.float32(),
        "bottom": pa.float32(),
        "kept": pa.bool_(),
    }
)
"""The pixel box of each image token in the original image."""

EFFECTS = _schema(
    {
        "sample_id": pa.string(),
        **_BATCH,
        "intervention": pa.string(),
        "window": pa.string(),
        "image": pa.int32(),
    },
    {"effect": pa.float64()},
)
"""Drop in the answer's log-probability (nats) when one image is blanked, swapped or knocked out."""

UNREAD = _schema({"sample_id": pa.string(), **_BATCH, "part": pa.string(), "error": pa.string()})
"""What could not be read of a sample that has its answer and attention, and why."""

FOCUS = _schema(
    {
        "sample_id": pa.string(),
        "rows": pa.string(),
        "rule": pa.string(),
        "last": pa.int32(),
    },
    {"focus": pa.int32()},
)
"""The image that a rule picks, made once when the run is finalised. Null where there is no pick."""

FOCUS_BY_KIND = _schema(
    {
        "sample_id": pa.string(),
        "measure": pa.string(),
        "layer_kind": pa.string(),
        "rows": pa.string(),
        "rule": pa.string(),
        "last": pa.int32(),
    },
    {"focus": pa.int32()},
)
"""The same for measures beside the attention factor, whose rules run over layers of one kind."""

BATCH_TABLES: Mapping[str, pa.Schema] = {
    "samples": SAMPLES,
    "layers": LAYERS,
    "pairwise": PAIRWISE,
    "maps": MAPS,
    "cells": CELLS,
    "effects": EFFECTS,
    "unread": UNREAD,
}
"""The tables written batch by batch."""

FINAL_TABLES: Mapping[str, pa.Schema] = {"focus": FOCUS, "focus_by_kind": FOCUS_BY_KIND}
"""The tables written once, when a run is finalised."""

TABLES: Mapping[str, pa.Schema] = {**BATCH_TABLES, **FINAL_TABLES}
"""Every table that can be read."""


def table_schema(name: str) -> pa.Schema:
    """Return the schema of a table.

    Raises:
        InputError: there is no table of that name; the message lists those there are.
    """
    if name not in TABLES:
        raise InputError(f"a run has no table {name!r}; it has {', '.join(TABLES)}")
    return TABLES[name]


def conform(name: str, rows: Rows, batch: int | None = None) -> pa.Table:
    """Turn rows into the table's own schema: columns in order, missing optional columns filled with null.

    Args:
        name: a key of ``TABLES``.
        rows: an Arrow table, row mappings, or columns.
        batch: the batch number, written into the ``batch`` column where the schema has one.

    Raises:
        InputError: an unknown column, a missing required column, a null in one, or a value of the wrong type.

    >>> conform("effects", [{"sample_id": "a", "intervention": "blank", "window": "all", "image": 0}], 3).to_pylist()
    [{'sample_id': 'a', 'batch': 3, 'intervention': 'blank', 'window': 'all', 'image': 0, 'effect': None}]
    """
    schema = table_schema(name)
    columns = _columns(name, rows)
    length = len(next(iter(columns.values()))) if columns else 0
    if batch is not None and "batch" in schema.names:
        columns["batch"] = pa.array([batch] * length, pa.int32())
    unknown = sorted(set(columns) - set(schema.names))
    if unknown:
        raise InputError(f"table {name}: unknown column {', '.join(unknown)}; it takes {', '.join(schema.names)}")
    arrays = [_array(name, field, columns.get(field.name), length) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _columns(name: str, rows: Rows) -> dict[str, Any]:
    if isinstance(rows, pa.Table):
        return {column: rows.column(column).combine_chunks() for column in rows.column_names}
    if isinstance(rows, Mapping):
        columns = dict(rows)
        lengths = {column: len(values) for column, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"table {name}: columns of different lengths: {lengths}")
        return columns
    keys = _keys(rows)
    return {key: [row.get(key) for row in rows] for key in keys}


def _keys(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _array(name: str, field: pa.Field, values: Any, length: int) -> pa.Array:
    if values is None:
        if field.nullable or length == 0:
            return pa.nulls(length, field.type)
        raise InputError(f"table {name}: the column {field.name} is missing")
    try:
        array = values.cast(field.type) if isinstance(values, pa.Array) else pa.array(values, field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"table {name}: column {field.name} must be {field.type}: {error}") from error
    if array.null_count and not field.nullable:
        raise InputError(f"table {name}: column {field.name} has {array.null_count} nulls and may have none")
    return array
