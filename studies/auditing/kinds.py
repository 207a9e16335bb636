"""The numbers of an audit by kind of layer, as a table: attention factors beside every other measure. No torch.

It reads entries of `metrics.json` and names things; it computes nothing, and puts no two kinds together.
"""

from collections.abc import Sequence
from typing import NamedTuple

from probes.scores import Rule
from studies.auditing.entries import Entry, find
from studies.auditing.mixers import MEASURES

ATTENTION = "attention"
"""The kind of the layers that attention factors are of."""

MEASURE_NAMES = {
    None: "attention factor",
    MEASURES["absolute"]: "hidden attention, absolute",
    MEASURES["value"]: "hidden attention, value-weighted",
}
"""What measures are called where people read."""

KIND_COLUMNS = (
    ("P(target | right)", "attention_accuracy"),
    ("P(target | wrong)", "attention_when_wrong"),
    ("P(target)", "attention_overall"),
    ("chance", "chance"),
)
"""Headings of the table by kind and the metrics below them; see `studies.auditing.summary.COLUMNS`."""


class KindRow(NamedTuple):
    """What one measure says in the layers of one kind, for one row set, over all tasks."""

    layer_kind: str
    measure: str
    rows: str
    rule: str
    source: str
    """Where the rule comes from."""
    entries: dict[str, Entry | None]
    """By metric name, those of `KIND_COLUMNS`."""


def measures_of(entries: Sequence[Entry]) -> list[tuple[str | None, str]]:
    """The measures that entries are about and the kinds of their layers, attention factors (None) first.

    >>> measures_of([{"name": "chance", "measure": "hidden_attention_value", "layer_kind": "state space"}])
    [(None, 'attention'), ('hidden_attention_value', 'state space')]
    """
    named = dict.fromkeys((entry["measure"], entry["layer_kind"]) for entry in entries if entry.get("measure"))
    return [(None, ATTENTION), *named]


def named_kind(measure: str | None, layer_kind: str) -> dict[str, str | None]:
    """The keys by which `find` finds the entries of a measure."""
    return {"measure": measure, "layer_kind": None if measure is None else layer_kind}


def label_of(measure: str | None, layer_kind: str) -> str:
    """A measure in the layers of a kind, in a legend.

    >>> label_of(None, "attention"), label_of("hidden_attention_value", "state space")
    ('attention', 'state space: hidden attention, value-weighted')
    """
    return layer_kind if measure is None else f"{layer_kind}: {MEASURE_NAMES.get(measure, measure)}"


def kind_rows(entries: Sequence[Entry], split: str | None) -> list[KindRow]:
    """A row for each kind of layer, measure and row set; none where attention factors are the only measure."""
    measures = measures_of(entries)
    if len(measures) == 1:
        return []
    rows = []
    for measure, layer_kind in measures:
        keys = {"split": split, **named_kind(measure, layer_kind)}
        for ruled in find(entries, "attention_overall", rows=..., **keys):
            own = {name: next(iter(find(entries, name, rows=ruled["rows"], **keys)), None) for _, name in KIND_COLUMNS}
            rule = str(Rule(ruled["rule"], ruled["last"]))
            named = MEASURE_NAMES.get(measure, str(measure))
            rows.append(KindRow(layer_kind, named, ruled["rows"], rule, ruled["rule_source"], own))
    return rows
