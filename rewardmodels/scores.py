"""Scores of responses, one row each with what they were given for: in memory, and saved as Parquet or JSONL.

Everything that later questions need stands in the row, so that models need not run again. Knows no scorer. No torch.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from probes.files import write_atomically, write_bytes
from probes.inputs import InputError
from probes.reading.sources import BadRecord

AS_IS = "as it is"
"""The view in which nothing is changed."""
Place = tuple[str, int]
"""A record's id and the place of one of its responses."""


@dataclass(frozen=True)
class ScoreRow:
    """One response under one view, and its score; or one comparison of the two responses of a pair."""

    record: str
    """The record's id; of a comparison, the pair's."""
    place: int
    """Of the response in its record, from 0; of a comparison 0 where the better response is shown first, 1 where it is
    shown second."""
    view: str
    """What the scorer was shown: ``AS_IS``, or what stood in for the images."""
    score: float | None
    """None where there is none; ``error`` says why. Of a comparison, positive where the better response wins."""
    error: str | None = None
    characters: int | None = None
    """Of the response; None for a comparison."""
    tokens: int | None = None
    """Of the response, where the scorer has a tokenizer."""
    group: str = ""
    source: str = ""
    cluster: str = ""
    prompt_digest: str | None = None
    """SHA-256 of the roles and texts that were shown."""
    image_digests: tuple[str | None, ...] = ()
    """SHA-256 of the images that were shown, the prompt's and then the response's; None where unreadable."""


_ABOUT = re.compile(r"\A(?:image (?:'[^']*'|\"[^\"]*\"|of \d+ bytes \([^)]*\)): )+")

SCHEMA = pa.schema(
    [
        pa.field("record", pa.string(), nullable=False),
        pa.field("place", pa.int32(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("error", pa.string()),
        pa.field("characters", pa.int32()),
        pa.field("tokens", pa.int32()),
        pa.field("group", pa.string()),
        pa.field("source", pa.string()),
        pa.field("cluster", pa.string()),
        pa.field("prompt_digest", pa.string()),
        pa.field("image_digests", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class Scores:
    """Scores of the responses of a set of preferences, under one or several views."""

    rows: tuple[ScoreRow, ...]
    scorer: str = ""
    compared: bool = False
    """Whether the rows are comparisons of pairs."""
    left_out: Mapping[str, tuple[BadRecord, ...]] = field(default_factory=dict)
    """By view, the records that could not be shown so, each with the reason."""
    problems: tuple[BadRecord, ...] = ()
    """Rows of a file that could not be used."""

    @property
    def views(self) -> tuple[str, ...]:
        """The views that there are scores for, in the order in which they come."""
        return tuple(dict.fromkeys(row.view for row in self.rows))

    @property
    def failed(self) -> tuple[ScoreRow, ...]:
        """The rows without a score."""
        return tuple(row for row in self.rows if row.score is None)

    def under(self, view: str) -> dict[Place, float]:
        """Return the scores under a view by record and place; those that failed are not among them."""
        return {(row.record, row.place): row.score for row in self.rows if row.view == view and row.score is not None}

    def __repr__(self) -> str:
        counts = Counter(row.view for row in self.rows)
        shown = ", ".join(f"{count} {view}" for view, count in counts.items())
        return f"Scores({self.scorer or 'scorer unknown'}: {shown or 'none'}; {len(self.failed)} failed)"

    def write(self, path: str | Path) -> None:
        """Write the rows, whole or not at all: ``.jsonl``, or ``.parquet``.

        Raises:
            InputError: the path ends in something else.
        """
        target = Path(path)
        if target.suffix == ".parquet":
            write_rows(target, self.rows)
        elif target.suffix == ".jsonl":
            lines = [json.dumps(asdict(row), ensure_ascii=False, allow_nan=False) for row in self.rows]
            write_bytes(target, "".join(f"{line}\n" for line in lines).encode())
        else:
            raise InputError(f"scores are written as .jsonl or .parquet, not to {target.name}")


def write_rows(path: Path, rows: Iterable[ScoreRow]) -> None:
    """Write rows as Parquet, whole or not at all."""
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)
    write_atomically(path, partial(pq.write_table, table, compression="zstd"))


def read_rows(path: Path) -> list[ScoreRow]:
    """Read rows that ``write_rows`` wrote.

    Raises:
        InputError: the file is broken, or holds other columns.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read ({' '.join(str(error).split())[:120]}): delete it") from error
    if table.schema.names != SCHEMA.names:
        raise InputError(f"{path} holds no scores of this version: delete it, or take another folder")
    return [replace(ScoreRow(**values), image_digests=tuple(values["image_digests"])) for values in table.to_pylist()]


def count_reasons(errors: Iterable[str | None]) -> dict[str, int]:
    """Count reasons by their first words, the most frequent first.

    >>> count_reasons(["too long: 9 tokens", "image 'a.png': too long: 8 tokens", "broken"])
    {'too long': 2, 'broken': 1}
    """
    return dict(Counter(map(reason_of, errors)).most_common())


def reason_of(error: str | None) -> str:
    """The first words of an error, the name of the image that it is about aside: what errors of one kind share.

    >>> reason_of("image 'a.png': no such file; check the path"), reason_of("image of 9 bytes (sha256 12): broken")
    ('no such file', 'broken')
    """
    said = _ABOUT.sub("", error or "no reason given")
    return re.split(r"[:;(]", said, maxsplit=1)[0].strip()[:100]
