"""Questions over several images, from a file, a folder or the hub: one call that says what it took and why.

Knows which formats there are; each is read in ``studies.readers``. No torch.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from probes.files import write_bytes
from probes.inputs import ImageRef, InputError
from probes.reading.hub import PREFERRED_SPLITS, is_hub_id, read_hub
from probes.reading.images import noting_shortened
from probes.reading.rows import Row
from probes.reading.sources import BadRecord, RawRow, Source, read_source
from studies.answers import read_answers
from studies.questions import MultiImageQuestion, Questions, write_questions
from studies.readers import blink, mirb, muirbench, own, stme, vlmevalkit
from studies.scoring import answer_correct, check_answer

__all__ = [
    "FORMATS",
    "BadRecord",
    "MultiImageQuestion",
    "Questions",
    "answer_correct",
    "read_answers",
    "read_questions",
    "write_questions",
]


class _Format(NamedTuple):
    matches: Callable[[Row], bool]
    why: str
    read: Callable[[RawRow], MultiImageQuestion] | None
    """None for VLMEvalKit, whose rows may point at one another."""


_FORMATS: dict[str, _Format] = {
    "sightcheck": _Format(own.matches, own.WHY, own.read),
    "stme": _Format(stme.matches, stme.WHY, stme.read),
    "milebench": _Format(stme.matches_raw, stme.WHY_RAW, stme.read_raw),
    "blink": _Format(blink.matches, blink.WHY, blink.read),
    "muirbench": _Format(muirbench.matches, muirbench.WHY, muirbench.read),
    "mirb": _Format(mirb.matches, mirb.WHY, mirb.read),
    "mirb-annotations": _Format(mirb.matches_raw, mirb.WHY_RAW, mirb.read),
    "vlmevalkit": _Format(vlmevalkit.matches, vlmevalkit.WHY, None),
}
FORMATS: tuple[str, ...] = tuple(_FORMATS)
"""Names that ``format`` may have, in the order in which they are tried."""


def read_questions(
    path_or_id: str | Path,
    format: str | None = None,
    split: str | None = None,
    *,
    subset: str | None = None,
    image_root: str | Path | None = None,
    keep_images_in: str | Path | None = None,
    streaming: bool = True,
) -> Questions:
    """Read a set of questions.

    Every row becomes a record or a ``BadRecord``: nothing is dropped.

    Args:
        path_or_id: a file (.jsonl, .json, .tsv, .csv, .parquet), a folder of them, or a hub id ``owner/name``.
        format: one of ``FORMATS``; by default it is recognised by the names of the columns.
        split: keep only this split. On the hub, by default: test, or val, or the only one (BLINK: val).
        subset: the hub data set's configuration; by default all.
        image_root: where relative image paths start; by default the file's folder.
        keep_images_in: a folder; images that come as bytes are written there, once each, and not held in memory.
        streaming: whether ``datasets`` streams a hub data set or makes a copy first.

    Raises:
        InputError: there is no such file or data set, no row at all, no known format, nothing in that split, no such
            image root, or a subset of local files.
    """
    if format is not None and format not in _FORMATS:
        raise InputError(f"the format {format!r} is not known; known: {', '.join(FORMATS)}")
    source = _source(path_or_id, split, subset, image_root, streaming)
    name, why = _recognise(source, format, str(path_or_id))
    rows, note = _of_split(source.rows, name, split)
    if not rows:
        found = ", ".join(sorted({_split_of(row) or "unnamed" for row in source.rows}))
        raise InputError(f"{path_or_id} has no question in the split {split!r}; its splits: {found}")
    left, origin = list(reversed(rows)), source.why
    # Of a hundred thousand rows, raw ones and records together would be the most that an audit ever holds.
    del rows, source
    with noting_shortened() as shortened:
        records, bad = _read_rows(left, name)
    if keep_images_in is not None:
        records = [_spilled(record, Path(keep_images_in)) for record in records]
    return Questions(tuple(records), tuple(bad), name, f"{origin}; {why}{note}{_substitutions(shortened)}")


def _substitutions(shortened: Mapping[str, str]) -> str:
    if not shortened:
        return ""
    given, found = next(iter(shortened.items()))
    count = "1 image is" if len(shortened) == 1 else f"{len(shortened)} images are"
    return f"; {count} not where the rows say and taken by the last parts of the path, such as {found} for {given}"


def _source(
    path_or_id: str | Path, split: str | None, subset: str | None, image_root: str | Path | None, streaming: bool
) -> Source:
    path = Path(path_or_id)
    if image_root is not None and not Path(image_root).is_dir():
        raise InputError(f"the image root {image_root} is no folder: give the one that image paths start from")
    if path.exists():
        if subset is not None:
            raise InputError(f"{path} is no hub data set, so it has no subset {subset!r}: leave the subset out")
        return read_source(path, None if image_root is None else Path(image_root))
    name = str(path_or_id)
    if not is_hub_id(name) or path.suffix.lower() in (".jsonl", ".json", ".tsv", ".csv", ".parquet"):
        raise InputError(f"{name} does not exist: give a file, a folder, or a hub id such as BLINK-Benchmark/BLINK")
    preferred = blink.SPLITS if "blink" in name.lower() else PREFERRED_SPLITS
    return read_hub(name, split, subset, streaming, preferred)


def _recognise(source: Source, format: str | None, name: str) -> tuple[str, str]:
    readable = [row for row in source.rows if row.error is None]
    if not source.rows:
        raise InputError(f"{name} holds no row")
    if format is not None:
        return format, f"format {format}, as asked for"
    for row in readable:
        for known, form in _FORMATS.items():
            if form.matches(row.values):
                return known, f"format {known}: {form.why}"
    if not readable:
        raise InputError(f"{name}: no row can be read; the first, {source.rows[0].place}: {source.rows[0].error}")
    columns = ", ".join(str(column) for column in list(readable[0].values)[:12])
    raise InputError(
        f"{name} is in no known format: its columns are {columns}; known formats: "
        + "; ".join(f"{known} ({form.why})" for known, form in _FORMATS.items())
    )


def _of_split(rows: Sequence[RawRow], name: str, split: str | None) -> tuple[Sequence[RawRow], str]:
    """Rows that do not say their split are in every one, so that no unreadable row goes unnoticed."""
    there = {_split_of(row) for row in rows}
    if split is None and name == "blink" and len(there) > 1:
        split = next((known for known in blink.SPLITS if known in there), None)
    if split is None:
        return rows, ""
    kept = [row for row in rows if (_split_of(row) or split) == split]
    left = len(rows) - len(kept)
    return kept, f"; split {split}" + (f", {left} rows of other splits left out" if left else "")


def _split_of(raw: RawRow) -> str | None:
    own_split = raw.values.get("split")
    return own_split if isinstance(own_split, str) and own_split else raw.split


def _read_rows(left: list[RawRow], name: str) -> tuple[list[MultiImageQuestion], list[BadRecord]]:
    """Turn rows into records, from the end of the list on, letting go of each."""
    read = _FORMATS[name].read or _with_index(left)
    records: dict[str, MultiImageQuestion] = {}
    bad: list[BadRecord] = []
    while left:
        raw = left.pop()
        try:
            if raw.error is not None:
                raise InputError(raw.error)
            record = read(raw)
            check_answer(record)
            if record.id in records:
                raise InputError(f"the id {record.id!r} is already taken by an earlier row")
            records[record.id] = record
        except InputError as error:
            bad.append(BadRecord(_name(raw), f"{raw.place}: {error}"))
    return list(records.values()), bad


def _with_index(rows: Sequence[RawRow]) -> Callable[[RawRow], MultiImageQuestion]:
    by_index = {str(raw.values.get("index")): raw.values for raw in rows}
    return lambda raw: vlmevalkit.read(raw, by_index)


def _name(raw: RawRow) -> str:
    for key in ("id", "sample_id", "idx", "index"):
        value = raw.values.get(key)
        if isinstance(value, str | int) and str(value).strip():
            return str(value).encode("utf-8", "replace").decode()
    return raw.place


def _spilled(record: MultiImageQuestion, folder: Path) -> MultiImageQuestion:
    return replace(record, images=tuple(_on_disk(image, folder) for image in record.images))


def _on_disk(image: ImageRef, folder: Path) -> ImageRef:
    if image.data is None:
        return image
    path = folder / hashlib.sha256(image.data).hexdigest()
    if not path.is_file():
        write_bytes(path, image.data)
    return ImageRef(path=str(path))
