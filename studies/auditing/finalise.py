"""Ends a run: fixes the focus rules, writes `focus.parquet` and `metrics.json`.

It knows the order of these steps and the files they touch; the numbers are made in `metrics` and `position_metrics`.
No torch.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from studies.auditing.choices import Choice, choose, focus_of
from studies.auditing.entries import Entry
from studies.auditing.evidence import Evidence, gather
from studies.auditing.metrics import audit_metrics
from studies.auditing.position_metrics import position_metrics
from studies.position import base_of

if TYPE_CHECKING:
    from studies.runs import RunFolder

POSITION_FOLDER = "position"
"""Folder inside a run that holds the run of its position study."""


class Final(NamedTuple):
    """What a finalised run says."""

    evidence: Evidence
    choices: dict[str, Choice]
    entries: list[Entry]


def finalise(folder: "RunFolder") -> Final:
    """Fix the focus rule of each row set on the dev split, write every sample's focus, and all metrics.

    The rules come from the dev split of this very run, or are the documented default; each metric names its rule and
    the rule's source. Finalising twice gives the same files.
    """
    evidence = gather(folder)
    choices = {rows: choose(evidence, rows) for rows in evidence.factors}
    folder.write_focus(focus_rows(evidence, choices))
    entries = audit_metrics(evidence, choices)
    entries += _of_position_study(folder.path / POSITION_FOLDER, choices, int(folder.manifest.seeds.get("seed", 0)))
    folder.write_metrics(entries)
    return Final(evidence, choices, entries)


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


def _of_position_study(path: Path, choices: dict[str, Choice], seed: int) -> list[Entry]:
    from studies.runs import RunFolder

    if not (path / "manifest.json").is_file():
        return []
    inner = RunFolder.open(path)
    if inner.missing_batches():
        return []
    asked = Counter(base_of(name) for name in inner.read("samples", columns=["sample_id"]).column(0).to_pylist())
    return position_metrics(gather(inner), choices, seed, asked)
