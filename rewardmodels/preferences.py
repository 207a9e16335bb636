"""Preferences from a file, a folder or the hub: one call that says what it took and why; and our own lines, written.

Knows which formats there are; each is read in ``rewardmodels.readers``. No torch.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scipy.cluster.hierarchy import DisjointSet

from probes.errors import counted
from probes.inputs import ImageRef, InputError
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
from probes.reading.images import missing_allowed, noting_shortened
from probes.reading.keeping import on_disk, write_records
from probes.reading.references import by_index
from probes.reading.sources import BadRecord, RawRow, Source
from rewardmodels.readers import (
    llama_factory,
    mm_rlhf,
    mmrb2,
    ms_swift,
    multimodal_rewardbench,
    own,
    povid,
    rewardbench,
    rlhf_v,
    rm_bench,
    trl,
    vl_rewardbench,
    vlfeedback,
)
from rewardmodels.records import REPORTED, SKIPPED, Preference, PreferencePair, Response

__all__ = [
    "FORMATS",
    "BadRecord",
    "Preference",
    "PreferencePair",
    "Preferences",
    "Response",
    "read_preferences",
    "write_preferences",
]

KNOWN: dict[str, Format[Preference]] = {
    "sightcheck": Format(own.matches, own.WHY, own.read),
    "vlfeedback": Format(vlfeedback.matches, vlfeedback.WHY, vlfeedback.read),
    "generalizable-mm-rm": Format(vlfeedback.matches_pair, vlfeedback.WHY_PAIR, vlfeedback.read_pair),
    "rlhf-v": Format(rlhf_v.matches, rlhf_v.WHY, rlhf_v.read),
    "rlaif-v": Format(rlhf_v.matches_rlaif, rlhf_v.WHY_RLAIF, rlhf_v.read),
    "povid": Format(povid.matches, povid.WHY, povid.read),
    "trl": Format(trl.matches, trl.WHY, trl.read),
    "ms-swift": Format(ms_swift.matches, ms_swift.WHY, ms_swift.read),
    "llama-factory": Format(llama_factory.matches, llama_factory.WHY, llama_factory.read),
    "vl-rewardbench": Format(vl_rewardbench.matches, vl_rewardbench.WHY, vl_rewardbench.read),
    "vl-rewardbench-tsv": Format(vl_rewardbench.matches_tsv, vl_rewardbench.WHY_TSV, None),
    "multimodal-rewardbench": Format(
        multimodal_rewardbench.matches, multimodal_rewardbench.WHY, multimodal_rewardbench.read
    ),
    "mmrb2": Format(mmrb2.matches, mmrb2.WHY, mmrb2.read),
    "mm-rlhf-rewardbench": Format(mm_rlhf.matches, mm_rlhf.WHY, mm_rlhf.read),
    "rewardbench": Format(rewardbench.matches, rewardbench.WHY, rewardbench.read),
    "rewardbench-2": Format(rewardbench.matches_2, rewardbench.WHY_2, rewardbench.read_2),
    "rm-bench": Format(rm_bench.matches, rm_bench.WHY, rm_bench.read),
}
"""How each format is known and read."""
FORMATS: tuple[str, ...] = tuple(KNOWN)
"""Names that ``format`` may have."""


@dataclass(frozen=True)
class Preferences:
    """What was read: the usable records, each unusable row with its reason, and which format was taken and why."""

    records: tuple[Preference, ...]
    bad: tuple[BadRecord, ...]
    format: str
    why: str

    @property
    def ties(self) -> int:
        """The number of tied pairs, which ``pairs`` leaves out."""
        return sum(record.ties for record in self.records)

    @property
    def skipped(self) -> tuple[BadRecord, ...]:
        """The responses of usable records that could not be ranked: the record's id and the reason."""
        return tuple(BadRecord(record.id, reason) for record in self.records for reason in record.noted(SKIPPED))

    @property
    def reported(self) -> tuple[BadRecord, ...]:
        """What is publicly reported to be wrong with usable records: the record's id and the report."""
        return tuple(BadRecord(record.id, reason) for record in self.records for reason in record.noted(REPORTED))

    def pairs(self) -> tuple[PreferencePair, ...]:
        """Return every pair of a better and a worse response, in the order of the records."""
        return tuple(pair for record in self.records for pair in record.pairs())

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Preference]:
        return iter(self.records)

    def __repr__(self) -> str:
        groups = sorted({record.group for record in self.records if record.group})
        shown = ", ".join(groups[:6]) + (", …" if len(groups) > 6 else "")
        pairs = sum(record.pair_count for record in self.records)
        counts = ", ".join(
            [
                counted(len(self.records), "record"),
                counted(pairs, "pair"),
                counted(self.ties, "tie"),
                f"{counted(len(self.skipped), 'rating')} skipped",
            ]
        )
        return f"Preferences({counts}, {len(self.bad)} bad, format {self.format!r}, groups: {shown or '-'})"


def read_preferences(
    path_or_id: str | Path,
    format: str | None = None,
    split: str | None = None,
    *,
    subset: str | None = None,
    image_root: str | Path | None = None,
    allow_missing_images: bool = False,
    keep_images_in: str | Path | None = None,
    streaming: bool = True,
) -> Preferences:
    """Read a set of preferences.

    Every row becomes a record or a ``BadRecord``: nothing is dropped. Responses that a source rates with no number,
    and ties, are counted. Where ids come twice, the later record gets another one and is clustered with the first.
    Records that ask about one image are clustered with each other.

    Args:
        path_or_id: a file (.jsonl, .json, .tsv, .csv, .parquet), a folder of them, or a hub id ``owner/name``.
        format: one of ``FORMATS``; by default it is recognised by the columns, and refused where several fit.
        split: the split to read; it must be said where there are several.
        subset: the hub data set's configuration; by default all.
        image_root: where relative image paths start; by default the file's folder.
        allow_missing_images: take images whose file is not there by their path, for work on texts alone.
        keep_images_in: a folder; images that come as bytes are written there, once each, and not held in memory.
        streaming: whether ``datasets`` streams a hub data set or makes a copy first.

    Raises:
        InputError: there is no such file or data set, no row at all, no known format or several, several splits and
            none chosen, nothing in the split, no such image root, or a subset of local files.
    """
    refuse_unknown(KNOWN, format)
    shown = str(path_or_id)
    source = open_source(path_or_id, split, subset, image_root, streaming, (), "openbmb/RLAIF-V-Dataset")
    _refuse_scores(source, shown)
    name, why = recognise(source, KNOWN, format, shown, first_wins=False)
    _refuse_several_splits(source, split, shown)
    rows, note = in_split(source.rows, split, shown, "preference")
    left, origin = list(rows), source.why
    # The rows are let go of one by one.
    del rows, source
    with ExitStack() as stack:
        shortened = stack.enter_context(noting_shortened())
        missing = stack.enter_context(missing_allowed()) if allow_missing_images else []
        records, bad, renamed = _read(left, KNOWN[name])
    if keep_images_in is not None:
        records = [_spilled(record, Path(keep_images_in)) for record in records]
    records, shared = _clustered_by_image(records, renamed)
    read = Preferences(tuple(records), tuple(bad), name, "")
    told = f"{origin}; {why}{note}{substitutions(shortened)}{_missing(missing)}{_renamed(renamed)}{_shared(shared)}"
    told += _counts(read)
    return replace(read, why=told)


def write_preferences(path: str | Path, records: Iterable[Preference]) -> None:
    """Write records as our own JSONL, whole or not at all; images below the file's folder are named relative to it.

    Raises:
        InputError: a record's ``meta`` holds something that JSON cannot say.
    """
    write_records(path, records)


def _refuse_scores(source: Source, name: str) -> None:
    first = next((row.values for row in source.rows if row.error is None), {})
    if rm_bench.holds_scores_only(first):
        raise InputError(
            f"{name} holds scores of RM-Bench without the texts, so no preferences: "
            "read it with rewardmodels.readers.rm_bench.read_style_scores"
        )


def _refuse_several_splits(source: Source, split: str | None, name: str) -> None:
    there = sorted({found for row in source.rows if (found := split_of(row))})
    if split is None and len(there) > 1:
        raise InputError(f"{name} has the splits {', '.join(there)}: choose one")


def _read(left: list[RawRow], form: Format[Preference]) -> tuple[list[Preference], list[BadRecord], dict[str, str]]:
    records: dict[str, Preference] = {}
    renamed: dict[str, str] = {}

    def keep(record: Preference) -> None:
        taken, name = record.id, record.id
        copies = 1
        while name in records:
            if replace(record, id=name, base=records[name].base) == records[name]:
                raise InputError(f"it is the same as an earlier row with the id {taken!r}")
            copies += 1
            name = f"{taken}~{copies}"
        if name != taken:
            renamed[name] = taken
            record = replace(record, id=name, base=record.base or records[taken].cluster)
        records[name] = record

    bad = read_rows(left, form.read or _with_index(left), keep)
    return list(records.values()), bad, renamed


def _clustered_by_image(records: Sequence[Preference], repeated: Collection[str]) -> tuple[list[Preference], int]:
    """Cluster records that show one image, with all that is clustered with them already; and how many that changes.

    An image is known by its path or its bytes: files are not opened for it. Clusters that a source gives stay as they
    are: benchmarks count by them.

    Args:
        records: With `base` where the source gives one, or where their id came before.
        repeated: The ids of the latter.
    """
    given = {record.base for record in records if record.id not in repeated} - {None}
    ours = [record for record in records if record.cluster not in given]
    sets: Any = DisjointSet()
    for record in ours:
        sets.add(record.cluster)
        for image in (image for turn in record.prompt for image in turn.images):
            sets.add(image)
            sets.merge(record.cluster, image)
    first: dict[Any, str] = {}
    for record in ours:
        first.setdefault(sets[record.cluster], record.cluster)
    found, changed = [], 0
    for record in records:
        if record.cluster not in given:
            cluster = first[sets[record.cluster]]
            if cluster != record.cluster:
                record, changed = replace(record, base=cluster), changed + 1
        found.append(record)
    return found, changed


def _with_index(rows: Sequence[RawRow]) -> Callable[[RawRow], Preference]:
    indexed = by_index(rows)
    return lambda raw: vl_rewardbench.read_tsv(raw, indexed)


def _missing(missing: Sequence[str]) -> str:
    count = len(set(missing))
    return f"; {count} {'image is' if count == 1 else 'images are'} not there and kept by name" if count else ""


def _renamed(renamed: Mapping[str, str]) -> str:
    if not renamed:
        return ""
    one = next(iter(renamed.values()))
    count = counted(len(renamed), "row")
    return f"; {count} under an id that is taken, such as {one}: now ~2, ~3, …, clustered with the first"


def _shared(shared: int) -> str:
    if not shared:
        return ""
    asks, them = ("record asks", "is") if shared == 1 else ("records ask", "are")
    return f"; {shared} {asks} about an image of an earlier one, and {them} clustered with it"


def _counts(read: Preferences) -> str:
    told = ""
    if read.ties:
        told += f"; {read.ties} tied pairs left out"
    if read.skipped:
        told += f"; {len(read.skipped)} responses not ranked, such as {read.skipped[0].id}: {read.skipped[0].error}"
    for report in dict.fromkeys(record.error for record in read.reported):
        told += f"; {counted(sum(record.error == report for record in read.reported), 'record')}: {report}"
    return told


def _spilled(record: Preference, folder: Path) -> Preference:
    def kept(images: Sequence[ImageRef]) -> tuple[ImageRef, ...]:
        return tuple(on_disk(image, folder) for image in images)

    return replace(
        record,
        prompt=tuple(replace(turn, images=kept(turn.images)) for turn in record.prompt),
        responses=tuple(replace(response, images=kept(response.images)) for response in record.responses),
    )
