"""Published tables: are the overall scores the means of the group scores that they claim to be?

A table is checked when it is loaded: papers mix up the mean over items and the mean over groups, and some overall
scores are neither. Rounding of every printed number is allowed for. Imports no torch.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

VL_REWARD_BENCH_SIZES: Mapping[str, int] = {"general": 183, "hallucination": 749, "reasoning": 318}
"""Items in VL-RewardBench's groups."""
SIZE_ROW = "n"
"""Name of the row of a table that holds the groups' sizes."""
_OVERALL, _MACRO = "overall", "macro"
_SLACK = 1e-9


class Rounded(NamedTuple):
    """A printed number: its value, and how far rounding may have moved it."""

    value: float
    half_unit: float

    @classmethod
    def parse(cls, text: str) -> "Rounded":
        """Read a printed number, with or without a percent sign; trailing zeros tell how it was rounded.

        Raises:
            ValueError: if it is no finite number.

        >>> Rounded.parse("71.80 %")
        Rounded(value=71.8, half_unit=0.005)
        """
        try:
            number = Decimal(text.strip().removesuffix("%").strip())
        except InvalidOperation:
            raise ValueError(f"{text!r} is no number") from None
        exponent = number.as_tuple().exponent
        if not isinstance(exponent, int):
            raise ValueError(f"{text!r} is no finite number")
        return cls(float(number), 0.5 * 10.0**exponent)


class Agreement(NamedTuple):
    """A printed mean beside the one that the group scores give."""

    published: Rounded | None
    """As printed; None if the table does not give it."""
    weighted: Rounded
    """Mean over items, of the printed group scores."""
    unweighted: Rounded
    """Mean over groups, of the printed group scores."""

    @property
    def is_weighted(self) -> bool:
        """Whether the printed number can be the mean over items."""
        return self.published is not None and _agree(self.published, self.weighted)

    @property
    def is_unweighted(self) -> bool:
        """Whether the printed number can be the mean over groups."""
        return self.published is not None and _agree(self.published, self.unweighted)


@dataclass(frozen=True)
class PublishedRow:
    """One line of a published table, checked."""

    name: str
    """Of the model."""
    scores: Mapping[str, Rounded]
    """By group."""
    overall: Agreement
    """The printed overall score, which should be the mean over items."""
    macro: Agreement
    """The printed macro average, which should be the mean over groups."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What does not fit, in words; empty where all that is printed fits."""
        found = []
        for label, agreement, right, wrong in (
            (_OVERALL, self.overall, "weighted", "unweighted"),
            (_MACRO, self.macro, "unweighted", "weighted"),
        ):
            if agreement.published is None or getattr(agreement, f"is_{right}"):
                continue
            expected, other = getattr(agreement, right), getattr(agreement, wrong)
            line = f"{label} {agreement.published.value:g} is not the {right} mean of its groups, {expected.value:.2f}"
            line += f" +- {expected.half_unit + agreement.published.half_unit:.2g}"
            if getattr(agreement, f"is_{wrong}"):
                line += f"; it is the {wrong} mean, {other.value:.2f}"
            found.append(line)
        return tuple(found)


@dataclass(frozen=True)
class PublishedTable:
    """A published table of group scores, every row checked."""

    sizes: Mapping[str, int]
    """Items in each group."""
    rows: tuple[PublishedRow, ...]
    """In the table's order."""

    @property
    def problems(self) -> dict[str, tuple[str, ...]]:
        """The rows that do not fit, by name, and why."""
        return {row.name: row.problems for row in self.rows if row.problems}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        rows = [
            {
                "name": row.name,
                "scores": {group: score.value for group, score in row.scores.items()},
                "weighted": row.overall.weighted.value,
                "unweighted": row.macro.unweighted.value,
                "overall": None if row.overall.published is None else row.overall.published.value,
                "macro": None if row.macro.published is None else row.macro.published.value,
                "problems": list(row.problems),
            }
            for row in self.rows
        ]
        return {"sizes": dict(self.sizes), "rows": rows}


def check_row(
    name: str,
    scores: Mapping[str, str],
    sizes: Mapping[str, int],
    *,
    overall: str | None = None,
    macro: str | None = None,
) -> PublishedRow:
    """Check the means of one published line: overall should be that over items, macro that over groups.

    Each printed number may be off by half of its last digit; a mean agrees if it lies within what these allow.

    Args:
        name: of the model.
        scores: score of each group, as printed.
        sizes: items in each group.
        overall: the printed mean over items, if any.
        macro: the printed mean over groups, if any.

    Raises:
        ValueError: if a group lacks its size or score, a size is not positive, or a score is no number.

    >>> row = check_row("judge", {"a": "80", "b": "60"}, {"a": 300, "b": 100}, overall="70")
    >>> row.problems
    ('overall 70 is not the weighted mean of its groups, 75.00 +- 1; it is the unweighted mean, 70.00',)
    """
    if not scores or set(scores) != set(sizes):
        raise ValueError(f"{name}: scores are of the groups {sorted(scores)}, sizes of {sorted(sizes)}")
    if min(sizes.values()) < 1:
        raise ValueError(f"sizes of groups must be >= 1, got {dict(sizes)}")
    read = {group: Rounded.parse(text) for group, text in scores.items()}
    total = sum(sizes.values())
    weighted = _mean(read, {group: size / total for group, size in sizes.items()})
    unweighted = _mean(read, dict.fromkeys(sizes, 1 / len(sizes)))
    printed = [None if text is None else Rounded.parse(text) for text in (overall, macro)]
    return PublishedRow(name, read, *(Agreement(number, weighted, unweighted) for number in printed))


def load_published_table(path: str | Path, sizes: Mapping[str, int] | None = None) -> PublishedTable:
    """Read a table of group scores from CSV or TSV, and check every row.

    The first column names the model; columns called "overall" and "macro" (in any case) are the printed means, where
    given, and every other column is a group. A row named "n" holds the sizes of groups. An empty mean is not checked.

    Args:
        path: the file; ``.tsv`` is split at tabs, anything else at commas.
        sizes: items in each group; overrides none and is needed only where the table has no row "n".

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the table has no rows or groups, sizes are missing or given twice, a row is short or long, or a
            cell is no number; the message names the line.
    """
    place = Path(path)
    with place.open(encoding="utf-8-sig", newline="") as file:
        lines = [row for row in csv.reader(file, delimiter="\t" if place.suffix == ".tsv" else ",") if any(row)]
    if len(lines) < 2 or len(lines[0]) < 2:
        raise ValueError(f"{place} holds no table: it needs a line of names and a line for each model")
    header = [cell.strip() for cell in lines[0]]
    if len(set(header)) != len(header):
        raise ValueError(f"{place}: two columns have one name in {header}")
    records = [_record(place, number, header, line) for number, line in enumerate(lines[1:], start=2)]
    groups = [column for column in header[1:] if column.lower() not in (_OVERALL, _MACRO)]
    found = [record for record in records if record[header[0]].lower() == SIZE_ROW]
    if len(found) + (sizes is not None) != 1:
        raise ValueError(f"{place}: give the groups' sizes once, in a row named {SIZE_ROW!r} or as sizes=")
    if sizes is None:
        sizes = {group: _size(place, group, found[0][group]) for group in groups}
    means = {column.lower(): column for column in header[1:]}
    rows = []
    for record in records:
        if record in found:
            continue
        printed = {name: (record[means[name]] or None) if name in means else None for name in (_OVERALL, _MACRO)}
        try:
            row = check_row(record[header[0]], {group: record[group] for group in groups}, sizes, **printed)
        except ValueError as error:
            raise ValueError(f"{place}, {record[header[0]]}: {error}") from None
        rows.append(row)
    if not rows:
        raise ValueError(f"{place} holds no model")
    return PublishedTable(dict(sizes), tuple(rows))


def _record(place: Path, number: int, header: Sequence[str], line: Sequence[str]) -> dict[str, str]:
    if len(line) != len(header):
        raise ValueError(f"{place}, line {number}: {len(line)} cells under {len(header)} columns")
    return {column: cell.strip() for column, cell in zip(header, line, strict=True)}


def _size(place: Path, group: str, cell: str) -> int:
    if not cell.isdecimal():
        raise ValueError(f"{place}: the size of {group!r} must be a whole number, got {cell!r}")
    return int(cell)


def _mean(scores: Mapping[str, Rounded], weights: Mapping[str, float]) -> Rounded:
    value = math.fsum(weights[group] * score.value for group, score in scores.items())
    return Rounded(value, math.fsum(weights[group] * score.half_unit for group, score in scores.items()))


def _agree(printed: Rounded, expected: Rounded) -> bool:
    return abs(printed.value - expected.value) <= printed.half_unit + expected.half_unit + _SLACK
