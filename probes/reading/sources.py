"""Raw rows out of files: JSONL, JSON, TSV, CSV, Parquet, and folders of them. Each row comes with its place.

Knows containers and no benchmark format. No torch.
"""

import csv
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probes.inputs import InputError

KINDS = (".jsonl", ".json", ".tsv", ".csv", ".parquet")
"""What is read, and in a folder with several kinds: which goes first."""

_SPLIT = re.compile(r"(?:^|[-_.])(train|test|val|validation|dev)(?:[-_.]|$)", re.IGNORECASE)
_NOT_DATA = frozenset({"dataset_infos.json", "dataset_info.json", "state.json", "package.json", "metadata.json"})
_ROWS_UNDER = ("data", "pairs")


@dataclass(frozen=True)
class RawRow:
    """One row as its container gives it, or the reason why it could not be taken out."""

    place: str
    """File and line, or row number from 1: how messages call the row."""
    values: Mapping[str, Any] = field(default_factory=dict)
    root: Path = Path()
    """The folder that relative image paths start from."""
    source: str = ""
    """Name of the file without its ending, or of the hub's configuration: some formats keep the task there."""
    split: str | None = None
    number: int = 0
    """The row's number within its source, from 1."""
    shared: Mapping[str, Any] = field(default_factory=dict)
    """What the file says about all of its rows."""
    error: str | None = None


@dataclass(frozen=True)
class BadRecord:
    """A row that could not be used: its id, or its place in the file, and the reason in one line."""

    id: str
    error: str


@dataclass(frozen=True)
class Source:
    """The rows of one data set, and a line saying where they come from."""

    rows: tuple[RawRow, ...]
    why: str


def read_source(path: Path, image_root: Path | None = None) -> Source:
    """Read all rows of a file, or of a folder's files of one kind.

    Args:
        path: a file, or a folder.
        image_root: where relative image paths start; by default each file's own folder.

    Raises:
        InputError: there is nothing to read, or a single file that cannot be read at all.
    """
    if path.is_file():
        return Source(tuple(_file_rows(path, path.parent, image_root)), f"file {path.name}")
    files = [found for found in sorted(path.rglob("*")) if _is_data(found, path)]
    kinds = [kind for kind in KINDS if any(found.suffix.lower() == kind for found in files)]
    if not kinds:
        raise InputError(f"{path} holds no {', '.join(KINDS)} file: give the file or folder that holds the rows")
    chosen = [found for found in files if found.suffix.lower() == kinds[0]]
    left = len(files) - len(chosen)
    why = f"{len(chosen)} {kinds[0]} files" + (
        f"; left out {left} of other kinds ({', '.join(kinds[1:])})" if left else ""
    )
    rows: list[RawRow] = []
    for found in chosen:
        try:
            rows += _file_rows(found, path, image_root)
        except InputError as error:
            rows.append(RawRow(place=found.relative_to(path).as_posix(), error=str(error)))
    return Source(tuple(rows), why)


def _is_data(path: Path, root: Path) -> bool:
    hidden = any(part.startswith((".", "__")) for part in path.relative_to(root).parts)
    return path.suffix.lower() in KINDS and not hidden and path.name not in _NOT_DATA and path.is_file()


def _file_rows(path: Path, root: Path, image_root: Path | None) -> Iterator[RawRow]:
    name = path.relative_to(root).as_posix()
    kind = path.suffix.lower()
    source = path.parent.name if kind == ".parquet" and path.parent != root else path.stem
    split = _SPLIT.search(path.stem)
    for number, place, values, shared, error in _contents(path, kind, name):
        yield RawRow(
            place=place,
            values=values,
            root=image_root or path.parent,
            source=source,
            split=split.group(1).lower() if split else None,
            number=number,
            shared=shared,
            error=error,
        )


_Content = tuple[int, str, Mapping[str, Any], Mapping[str, Any], str | None]


def _contents(path: Path, kind: str, name: str) -> Iterator[_Content]:
    try:
        if kind == ".jsonl":
            yield from _jsonl(path, name)
        elif kind == ".json":
            yield from _json(path, name)
        elif kind in (".tsv", ".csv"):
            yield from _separated(path, name, "\t" if kind == ".tsv" else ",")
        elif kind == ".parquet":
            yield from _parquet(path, name)
        else:
            raise InputError(f"{name} ends in {kind or 'nothing'}: {', '.join(KINDS)} are read")
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}") from error


def _row(number: int, place: str, values: Any, shared: Mapping[str, Any] | None = None) -> _Content:
    if isinstance(values, Mapping):
        return number, place, values, shared or {}, None
    return number, place, {}, {}, f"the row is a {type(values).__name__}, not a mapping of names to values"


def parse_json(text: str) -> Any:
    """Read JSON.

    Raises:
        InputError: it is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}") from error


def _jsonl(path: Path, name: str) -> Iterator[_Content]:
    with path.open("rb") as file:
        number = 0
        for line, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            number += 1
            place = f"{name} line {line}"
            try:
                yield _row(number, place, parse_json(raw.decode("utf-8-sig" if line == 1 else "utf-8")))
            except (InputError, UnicodeDecodeError) as error:
                yield number, place, {}, {}, str(error)


def _json(path: Path, name: str) -> Iterator[_Content]:
    try:
        content = parse_json(path.read_bytes().decode("utf-8-sig"))
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{name} is not JSON: {error}") from error
    shared: Mapping[str, Any] = {}
    rows = content
    if isinstance(content, dict):
        key = next((key for key in _ROWS_UNDER if isinstance(content.get(key), list)), None)
        if key is None:
            raise InputError(f"{name} must hold a list of rows, or a mapping with such a list under 'data' or 'pairs'")
        rows = content[key]
        shared = {other: value for other, value in content.items() if other != key}
    if not isinstance(rows, list):
        raise InputError(f"{name} must hold a list of rows, not a {type(content).__name__}")
    for number, values in enumerate(rows, start=1):
        yield _row(number, f"{name} row {number}", values, shared)


def _separated(path: Path, name: str, separator: str) -> Iterator[_Content]:
    # Encoded images are longer than the module's own limit for one field.
    csv.field_size_limit(max(csv.field_size_limit(), min(sys.maxsize, 2**31 - 1)))
    with path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
        reader = csv.reader(file, delimiter=separator)
        header: list[str] | None = None
        number, start = 0, 1
        try:
            for fields in reader:
                end = reader.line_num
                if header is None:
                    header = fields
                elif fields:
                    number += 1
                    place = f"{name} line {start}" if start == end else f"{name} lines {start} to {end}"
                    yield _fields(number, place, header, fields)
                start = end + 1
        except csv.Error as error:
            yield number + 1, f"{name} line {start}", {}, {}, f"the rest of the file cannot be read: {error}"
    if header is None:
        raise InputError(f"{name} is empty")


def _fields(number: int, place: str, header: list[str], fields: list[str]) -> _Content:
    if len(fields) != len(header):
        reason = (
            f"{len(fields)} fields under {len(header)} columns; is a quotation mark left open, or a separator unquoted?"
        )
        return number, place, dict(zip(header, fields, strict=False)), {}, reason
    return number, place, dict(zip(header, fields, strict=True)), {}, None


def _parquet(path: Path, name: str) -> Iterator[_Content]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64):
                for values in batch.to_pylist():
                    number += 1
                    yield _row(number, f"{name} row {number}", values)
    except pa.ArrowException as error:
        if number == 0:
            raise InputError(f"{name} is not a readable Parquet file: {error}") from error
        yield number + 1, f"{name} row {number + 1}", {}, {}, f"the rest of the file cannot be read: {error}"
