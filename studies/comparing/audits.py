"""Finished audits as the comparison reads them: one place for each sample of the headline split, paired by id.

It reads run folders; it knows no interval and no figure. No torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from probes.inputs import InputError
from probes.scores import Rule
from studies.auditing.entries import Entry, find
from studies.auditing.kinds import label_of
from studies.auditing.summary import headline_split
from studies.scaling import ROWS, Measured, check_comparable

if TYPE_CHECKING:
    from studies.runs import RunFolder

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


class ByKind(NamedTuple):
    """A measure beside attention factors, in the layers of one kind, for one row set."""

    measure: str
    layer_kind: str
    rows: str

    @property
    def label(self) -> str:
        """The same as a person would say it."""
        return f"{self.rows}, {label_of(self.measure, self.layer_kind)}"


Where = str | ByKind
"""What a focus is read from: the attention factors of a row set, by its name, or another measure."""


class Focused(NamedTuple):
    """What one run's rule picked for one row set."""

    image: IntArray
    """(samples,) 0-based image in focus; -1 where the row set was not recorded."""
    rule: Rule
    source: str
    """Where the rule comes from."""

    def as_json(self) -> dict[str, Any]:
        """The rule."""
        return {"rule": self.rule.name, "last": self.rule.last, "rule_source": self.source}


@dataclass(frozen=True)
class Audited:
    """The headline split of one finished audit, one place for each sample that went well, ids in order."""

    path: Path
    split: str
    manifest: dict[str, Any]
    ids: npt.NDArray[np.str_]
    cluster: npt.NDArray[np.str_]
    target: IntArray
    """(samples,) 0-based; -1 where a sample has none."""
    correct: npt.NDArray[np.float64]
    """(samples,) 1 or 0; NaN where the answer could not be scored."""
    focused: dict[str, Focused]
    """By row set."""
    by_kind: dict[ByKind, Focused] = field(default_factory=dict)
    """Of every measure beside attention factors that the run recorded."""

    @property
    def right(self) -> BoolArray:
        """(samples,) whether the answer was scored and is right."""
        return np.asarray(self.correct == 1)

    @property
    def scored(self) -> BoolArray:
        """(samples,) whether the answer could be scored."""
        return np.asarray(~np.isnan(self.correct))

    def scorable(self, where: Where) -> BoolArray:
        """(samples,) whether attention accuracy can be asked of a sample."""
        return np.asarray(self.scored & (self.target >= 0) & (self._image(where) >= 0))

    def hits(self, where: Where) -> BoolArray:
        """(samples,) whether the focus is the target image."""
        return np.asarray((self.target >= 0) & (self._image(where) == self.target))

    def _image(self, where: Where) -> IntArray:
        return (self.by_kind[where] if isinstance(where, ByKind) else self.focused[where]).image

    def only(self, ids: npt.NDArray[np.str_]) -> "Audited":
        """The same audit of some of its samples, in the order of ids."""
        kept = np.isin(self.ids, ids)
        return replace(
            self,
            ids=self.ids[kept],
            cluster=self.cluster[kept],
            target=self.target[kept],
            correct=self.correct[kept],
            focused={rows: found._replace(image=found.image[kept]) for rows, found in self.focused.items()},
            by_kind={where: found._replace(image=found.image[kept]) for where, found in self.by_kind.items()},
        )

    def as_json(self) -> dict[str, Any]:
        """Who was audited, by which rules, and the run's manifest."""
        by_kind = [{**where._asdict(), **found.as_json()} for where, found in self.by_kind.items()]
        return {
            "run": str(self.path),
            "model": self.manifest["config"]["model"],
            "model_digest": self.manifest["model_digest"],
            "data_digest": self.manifest["data_digest"],
            "rules": {rows: found.as_json() for rows, found in self.focused.items()},
            **({"rules_by_kind": by_kind} if by_kind else {}),
            "manifest": self.manifest,
        }


def audited(folder: "RunFolder") -> Audited:
    """Read the headline split of a finished audit.

    Raises:
        InputError: If the run is no audit, was not finished, or has no scored answer, no attention or no target.
    """
    manifest = folder.manifest.as_json()
    if manifest["config"].get("study") != "audit":
        raise InputError(f"{folder.path} is no audit: give a folder that `sightcheck audit` wrote")
    if manifest["finished"] is None:
        raise InputError(f"{folder.path} is not finished: finish it with sightcheck audit ... --resume")
    entries = folder.read_metrics()
    split = headline_split(entries)
    if split is None:
        raise InputError(f"{folder.path} has no scored answers: there is nothing to compare")
    columns = ["sample_id", "cluster", "target", "correct", "split"]
    table = folder.read("samples", columns=columns, filter=pc.field("error").is_null()).to_pylist()
    samples = sorted((row for row in table if (row["split"] or "") == split), key=lambda row: row["sample_id"])
    ids = [row["sample_id"] for row in samples]
    found = Audited(
        path=folder.path,
        split=split,
        manifest=manifest,
        ids=np.asarray(ids, dtype=np.str_),
        cluster=np.asarray([row["cluster"] for row in samples], dtype=np.str_),
        target=np.asarray([-1 if row["target"] is None else row["target"] for row in samples], dtype=np.int64),
        correct=np.asarray([np.nan if row["correct"] is None else row["correct"] for row in samples], np.float64),
        focused=dict(_focused(folder, ids, entries, split)),
        by_kind=dict(_focused_by_kind(folder, ids, entries, split)),
    )
    if (found.target < 0).all():
        raise InputError(
            f"{folder.path} has no sample with a target image in the split {split!r}, so no focus can be right: "
            "audit questions that name their target"
        )
    for rows in ROWS:
        if rows not in found.focused or not found.scorable(rows).any():
            raise InputError(
                f"{folder.path} has no scored answer with a target and recorded attention ({rows} rows) in the split "
                f"{split!r}: audit the questions with --model"
            )
    return found


class Pair(NamedTuple):
    """Two audits of the same samples in the same order.

    A measure beside attention factors is compared where both have it, in layers of the same kind.
    """

    baseline: Audited
    candidate: Audited
    only_baseline: int
    """Samples that went well in the baseline alone, and are left out."""
    only_candidate: int
    """Samples that went well in the candidate alone, and are left out."""

    @property
    def by_kind(self) -> list[ByKind]:
        """The measures beside attention factors that both recorded."""
        return [where for where in self.baseline.by_kind if where in self.candidate.by_kind]


def paired(baseline: Audited, candidate: Audited) -> Pair:
    """Both audits of the samples that went well in both, in the same order.

    Raises:
        InputError: If they asked differently, or no sample went well in both; names both folders.
    """
    try:
        check_comparable([Measured(each.split, (), each.manifest) for each in (baseline, candidate)])
    except InputError as error:
        raise InputError(f"{baseline.path} and {candidate.path} cannot be compared: {error}") from None
    ids = np.intersect1d(baseline.ids, candidate.ids)
    pair = Pair(baseline.only(ids), candidate.only(ids), len(baseline.ids) - len(ids), len(candidate.ids) - len(ids))
    if not any((pair.baseline.scorable(rows) & pair.candidate.scorable(rows)).any() for rows in ROWS):
        raise InputError(
            f"{baseline.path} and {candidate.path} have no sample in common that went well and was scored in both: "
            "see their reports for what failed, and audit again"
        )
    return pair


def _focused(
    folder: "RunFolder", ids: Sequence[str], entries: Sequence[Entry], split: str
) -> Iterator[tuple[str, Focused]]:
    for rows in ROWS:
        picked = folder.read("focus", filter=pc.field("rows") == rows).to_pylist()
        if picked:
            yield rows, _picked(picked, ids, find(entries, "attention_accuracy", split=split, rows=rows))


def _focused_by_kind(
    folder: "RunFolder", ids: Sequence[str], entries: Sequence[Entry], split: str
) -> Iterator[tuple[ByKind, Focused]]:
    table: dict[ByKind, list[dict[str, Any]]] = {}
    for row in folder.read("focus_by_kind").to_pylist():
        table.setdefault(ByKind(row["measure"], row["layer_kind"], row["rows"]), []).append(row)
    for where in sorted(each for each in table if each.rows in ROWS):
        yield where, _picked(table[where], ids, find(entries, "attention_accuracy", split=split, **where._asdict()))


def _picked(picked: Sequence[dict[str, Any]], ids: Sequence[str], ruled: Sequence[Entry]) -> Focused:
    """What rows of a table of focus picked, and the source of their rule by its entries."""
    place = {sample: index for index, sample in enumerate(ids)}
    image = np.full(len(ids), -1, dtype=np.int64)
    for row in picked:
        if row["sample_id"] in place and row["focus"] is not None:
            image[place[row["sample_id"]]] = row["focus"]
    source = ruled[0]["rule_source"] if ruled else "not said"
    return Focused(image, Rule(picked[0]["rule"], picked[0]["last"]), source)
