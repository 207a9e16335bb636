"""Which of several known formats rows are in, and rows turned into records one by one: the loop of every reading.

Knows no format itself: a package brings its own. No torch.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from probes.errors import counted
from probes.inputs import InputError
from probes.reading.hub import PREFERRED_SPLITS, is_hub_id, read_hub
from probes.reading.rows import Row
from probes.reading.sources import KINDS, BadRecord, RawRow, Source, read_source

Record = TypeVar("Record")
_ID_NAMES = ("id", "ID", "pair_id", "sample_id", "idx", "index")


class Format(NamedTuple, Generic[Record]):
    """How rows of one format are known and read."""

    matches: Callable[[Row], bool]
    why: str
    """What a row must have, in words: said when the format is taken, and in the list of known formats."""
    read: Callable[[RawRow], Record] | None
    """None where rows point at one another, so that the reader needs all of them."""


def open_source(
    path_or_id: str | Path,
    split: str | None = None,
    subset: str | None = None,
    image_root: str | Path | None = None,
    streaming: bool = True,
    preferred: Sequence[str] = PREFERRED_SPLITS,
    example: str = "BLINK-Benchmark/BLINK",
) -> Source:
    """Read the raw rows of a file, a folder or a hub data set.

    Args:
        path_or_id: a file, a folder, or a hub id ``owner/name``.
        split: the split to read on the hub; local rows are sorted out later, by ``in_split``.
        subset: the hub data set's configuration.
        image_root: where relative image paths start; by default each file's folder.
        streaming: whether a hub data set is streamed.
        preferred: the order in which a hub data set's split is chosen where none is asked for.
        example: a hub id for the message that says what could be given.

    Raises:
        InputError: there is no such file or data set, no row in it, no such image root, or a subset of local files.
    """
    path = Path(path_or_id)
    if image_root is not None and not Path(image_root).is_dir():
        raise InputError(f"the image root {image_root} is no folder: give the one that image paths start from")
    if path.exists():
        if subset is not None:
            raise InputError(f"{path} is no hub data set, so it has no subset {subset!r}: leave the subset out")
        source = read_source(path, None if image_root is None else Path(image_root))
    elif is_hub_id(str(path_or_id)) and path.suffix.lower() not in KINDS:
        source = read_hub(str(path_or_id), split, subset, streaming, preferred)
    else:
        raise InputError(f"{path_or_id} does not exist: give a file, a folder, or a hub id such as {example}")
    if not source.rows:
        raise InputError(f"{path_or_id} holds no row")
    return source


def refuse_unknown(formats: Mapping[str, Format[Record]], asked: str | None) -> None:
    """Refuse a format that there is none of.

    Raises:
        InputError: the format is not known.
    """
    if asked is not None and asked not in formats:
        raise InputError(f"the format {asked!r} is not known; known: {', '.join(formats)}")


def recognise(
    source: Source, formats: Mapping[str, Format[Record]], asked: str | None, name: str, first_wins: bool
) -> tuple[str, str]:
    """Say which format the first row that is in any is in, and why.

    Args:
        source: the rows.
        formats: what is known, by name.
        asked: the format that the caller asks for, which is then taken as it is.
        name: how messages call the data.
        first_wins: whether the order of ``formats`` decides where a row fits several; otherwise such rows are refused.

    Raises:
        InputError: no row can be read, none is in a known format, or the first one fits several formats.
    """
    refuse_unknown(formats, asked)
    if asked is not None:
        return asked, f"format {asked}, as asked for"
    readable = [row for row in source.rows if row.error is None]
    for row in readable:
        fitting = [known for known, form in formats.items() if form.matches(row.values)]
        if len(fitting) > 1 and not first_wins:
            raise InputError(
                f"{name} may be in several formats, "
                + " or ".join(f"{known} ({formats[known].why})" for known in fitting)
                + ": say which, by format="
            )
        if fitting:
            return fitting[0], f"format {fitting[0]}: {formats[fitting[0]].why}"
    if not readable:
        raise InputError(f"{name}: no row can be read; the first, {source.rows[0].place}: {source.rows[0].error}")
    columns = ", ".join(str(column) for column in list(readable[0].values)[:12])
    raise InputError(
        f"{name} is in no known format: its columns are {columns}; known formats: "
        + "; ".join(f"{known} ({form.why})" for known, form in formats.items())
    )


def in_split(rows: Sequence[RawRow], split: str | None, name: str, what: str) -> tuple[Sequence[RawRow], str]:
    """Keep the rows of one split, and say so; rows that do not say theirs are in every one.

    Args:
        rows: all rows.
        split: the split; None keeps everything.
        name: how messages call the data.
        what: what a row is, for the message.

    Raises:
        InputError: nothing is in that split.
    """
    if split is None:
        return rows, ""
    # So that no unreadable row goes unnoticed.
    kept = [row for row in rows if (split_of(row) or split) == split]
    if not kept:
        found = ", ".join(sorted({split_of(row) or "unnamed" for row in rows}))
        raise InputError(f"{name} has no {what} in the split {split!r}; its splits: {found}")
    left = len(rows) - len(kept)
    return kept, f"; split {split}" + (f", {counted(left, 'row')} of other splits left out" if left else "")


def split_of(raw: RawRow) -> str | None:
    """Return the split that a row names, or else its file."""
    own_split = raw.values.get("split")
    return own_split if isinstance(own_split, str) and own_split else raw.split


def read_rows(left: list[RawRow], read: Callable[[RawRow], Record], keep: Callable[[Record], None]) -> list[BadRecord]:
    """Turn rows into records, letting go of each row, and return those that could not be used.

    Args:
        left: the rows, emptied on the way: of a hundred thousand, raw rows and records together would be the most
            that is ever held.
        read: makes a record of a row, or raises ``InputError``.
        keep: takes a record, or raises ``InputError``.
    """
    bad: list[BadRecord] = []
    left.reverse()
    while left:
        raw = left.pop()
        try:
            if raw.error is not None:
                raise InputError(raw.error)
            keep(read(raw))
        except InputError as error:
            bad.append(BadRecord(name_of(raw), f"{raw.place}: {error}"))
    return bad


def name_of(raw: RawRow) -> str:
    """Return what a row calls itself, or else its place."""
    for key in _ID_NAMES:
        value = raw.values.get(key)
        if isinstance(value, str | int) and str(value).strip():
            return str(value).encode("utf-8", "replace").decode()
    return raw.place


def substitutions(shortened: Mapping[str, str]) -> str:
    """Say which images were taken by the last parts of their path only; empty where none was."""
    if not shortened:
        return ""
    given, found = next(iter(shortened.items()))
    count = "1 image is" if len(shortened) == 1 else f"{len(shortened)} images are"
    return f"; {count} not where the rows say and taken by the last parts of the path, such as {found} for {given}"
