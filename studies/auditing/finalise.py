"""Ends a run: fixes the focus rules, writes `focus.parquet`, `focus_by_kind.parquet` and `metrics.json`.

It knows the order of these steps and the files they touch; the numbers are made in `metrics` and `position_metrics`.
No torch.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from studies.auditing.choices import Choice, choose, focus_of
from studies.auditing.entries import Entry
from studies.auditing.evidence import Evidence, Reading, gather, readings
from studies.auditing.metrics import audit_metrics, of_reading
from studies.auditing.position_metrics import position_metrics
from studies.position import base_of

if TYPE_CHECKING:
    from studies.runs import RunFolder

POSITION_FOLDER = "position"
"""Folder inside a run that holds the run of its position study."""


class Ruled(NamedTuple):
    """A reading beside the attention factor, with the rules that were fixed for it alone."""

    measure: str
    layer_kind: str
    evidence: Evidence
    choices: dict[str, Choice]


class Final(NamedTuple):
    """What a finalised run says."""

    evidence: Evidence
    choices: dict[str, Choice]
    entries: list[Entry]
    by_kind: list[Ruled]
    """Measures beside the attention factor, apart for each kind of layer."""


def finalise(folder: "RunFolder") -> Final:
    """Fix the focus rule of each row set on the dev split, write every sample's focus, and all metrics.

    The rules come from the dev split of this very run, or are the documented default; each metric names its rule and
    the rule's source. A measure beside the attention factor gets rules of its own in each kind of layer, so that none
    runs over layers of two kinds. Finalising twice gives the same files.
    """
    evidence = gather(folder)
    choices = {rows: choose(evidence, rows) for rows in evidence.factors}
    by_kind = [_ruled(reading) for reading in readings(folder, evidence)]
    folder.write_focus(focus_rows(evidence, choices))
    if by_kind:
        folder.write_focus([row for ruled in by_kind for row in _focus_rows_by_kind(ruled)], "focus_by_kind")
    inner, seed = _position_study(folder.path / POSITION_FOLDER), int(folder.manifest.seeds.get("seed", 0))
    entries = audit_metrics(evidence, choices)
    entries += [] if inner is None else position_metrics(inner.evidence, choices, seed, inner.asked)
    for ruled in by_kind:
        entries += of_reading(audit_metrics(ruled.evidence, ruled.choices), ruled.measure, ruled.layer_kind)
        entries += _of_position_study(inner, ruled, seed)
    folder.write_metrics(entries)
    return Final(evidence, choices, entries, by_kind)


def focus_rows(evidence: Evidence, choices: dict[str, Choice]) -> list[dict[str, object]]:
    """Rows of `focus.parquet`: one per sample and row set that was recorded for it."""
    rows: list[dict[str, object]] = []
    for name, choice in choices.items():
        rule = {"rows": name, "rule": choice.rule.name, "last": choice.rule.last}
        focused = focus_of(evidence, name, choice.rule).tolist()
        rows += [
            {"sample_id": sample, **rule, "focus": image}
            for sample, image in zip(evidence.ids, focused, strict=True)
            if image >= 0
        ]
    return rows


def _ruled(reading: Reading) -> Ruled:
    choices = {rows: choose(reading.evidence, rows) for rows in reading.evidence.factors}
    return Ruled(reading.measure, reading.layer_kind, reading.evidence, choices)


def _focus_rows_by_kind(ruled: Ruled) -> list[dict[str, object]]:
    named = {"measure": ruled.measure, "layer_kind": ruled.layer_kind}
    return [{**named, **row} for row in focus_rows(ruled.evidence, ruled.choices)]


class _Moved(NamedTuple):
    """The finished position study of a run."""

    evidence: Evidence
    readings: dict[tuple[str, str], Evidence]
    """By measure and kind of layer."""
    asked: Counter[str]
    """At how many places the target of each base sample was put."""


def _position_study(path: Path) -> _Moved | None:
    from studies.runs import RunFolder

    if not (path / "manifest.json").is_file():
        return None
    inner = RunFolder.open(path)
    if inner.missing_batches():
        return None
    asked = Counter(base_of(name) for name in inner.read("samples", columns=["sample_id"]).column(0).to_pylist())
    evidence = gather(inner)
    found = {(each.measure, each.layer_kind): each.evidence for each in readings(inner, evidence)}
    return _Moved(evidence, found, asked)


def _of_position_study(inner: _Moved | None, ruled: Ruled, seed: int) -> list[Entry]:
    moved = None if inner is None else inner.readings.get((ruled.measure, ruled.layer_kind))
    if inner is None or moved is None:
        return []
    choices = {rows: choice for rows, choice in ruled.choices.items() if rows in moved.factors}
    return of_reading(position_metrics(moved, choices, seed, inner.asked), ruled.measure, ruled.layer_kind)
