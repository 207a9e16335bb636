"""Questions over several images, from a file, a folder or the hub: one call that says what it took and why.

Knows which formats there are; each is read in ``studies.readers``. No torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from probes.inputs import InputError
from probes.reading.formats import (
    Format,
    in_split,
    open_source,
    read_rows,
    recognise,
    refuse_unknown,
    split_of,
    substitutions,
)
from probes.reading.hub import PREFERRED_SPLITS
from probes.reading.images import noting_shortened
from probes.reading.keeping import on_disk
from probes.reading.references import by_index
from probes.reading.sources import BadRecord, RawRow
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


_FORMATS: dict[str, Format[MultiImageQuestion]] = {
    "sightcheck": Format(own.matches, own.WHY, own.read),
    "stme": Format(stme.matches, stme.WHY, stme.read),
    "milebench": Format(stme.matches_raw, stme.WHY_RAW, stme.read_raw),
    "blink": Format(blink.matches, blink.WHY, blink.read),
    "muirbench": Format(muirbench.matches, muirbench.WHY, muirbench.read),
    "mirb": Format(mirb.matches, mirb.WHY, mirb.read),
    "mirb-annotations": Format(mirb.matches_raw, mirb.WHY_RAW, mirb.read),
    "vlmevalkit": Format(vlmevalkit.matches, vlmevalkit.WHY, None),
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
    refuse_unknown(_FORMATS, format)
    preferred = blink.SPLITS if "blink" in str(path_or_id).lower() else PREFERRED_SPLITS
    source = open_source(path_or_id, split, subset, image_root, streaming, preferred)
    name, why = recognise(source, _FORMATS, format, str(path_or_id), first_wins=True)
    rows, note = in_split(source.rows, split or _default_split(source.rows, name), str(path_or_id), "question")
    left, origin = list(rows), source.why
    # The rows are let go of one by one.
    del rows, source
    with noting_shortened() as shortened:
        records, bad = _read_rows(left, name)
    if keep_images_in is not None:
        records = [_spilled(record, Path(keep_images_in)) for record in records]
    return Questions(tuple(records), tuple(bad), name, f"{origin}; {why}{note}{substitutions(shortened)}")


def _default_split(rows: Sequence[RawRow], name: str) -> str | None:
    there = {split_of(row) for row in rows}
    if name != "blink" or len(there) < 2:
        return None
    return next((split for split in blink.SPLITS if split in there), None)


def _read_rows(left: list[RawRow], name: str) -> tuple[list[MultiImageQuestion], list[BadRecord]]:
    records: dict[str, MultiImageQuestion] = {}

    def keep(record: MultiImageQuestion) -> None:
        check_answer(record)
        if record.id in records:
            raise InputError(f"the id {record.id!r} is already taken by an earlier row")
        records[record.id] = record

    bad = read_rows(left, _FORMATS[name].read or _with_index(left), keep)
    return list(records.values()), bad


def _with_index(rows: Sequence[RawRow]) -> Callable[[RawRow], MultiImageQuestion]:
    indexed = by_index(rows)
    return lambda raw: vlmevalkit.read(raw, indexed)


def _spilled(record: MultiImageQuestion, folder: Path) -> MultiImageQuestion:
    return replace(record, images=tuple(on_disk(image, folder) for image in record.images))
