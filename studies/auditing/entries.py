"""The form of an entry of `metrics.json`, and how one is found again. It knows no numbers' meaning. No torch.

An entry is a flat mapping: `name`, `rows` (row set or null), `rule` and `last` (null for single layers), `rule_source`,
`task` (null for all), `split`, `layer` (null unless the number is of one layer), `estimate`, and `chance` where a
blind focus has one. An entry with `measure` and `layer_kind` is about that measure in the layers of that kind, its rule
included; one without is about attention factors. Further keys say what the samples have in common: `n_images`,
`places`, `position`, `intervention`, `window`, `subset`; and `left_out` says how many were not counted: base samples in
which a place of the position study failed, or samples of the causal check to which no image mattered or of which one
could not be taken away (a blank one has nothing to blank).
"""

import math
from collections.abc import Sequence
from typing import Any

from probes.estimates import Estimate

Entry = dict[str, Any]


def entry_of(name: str, estimate: Estimate, where: Entry, **more: Any) -> Entry:
    """An entry with every key that all have; a number that is NaN becomes null."""
    base: Entry = {"name": name, "rows": None, "rule": None, "last": None, "rule_source": None, "task": None}
    known = {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in more.items()}
    return {**base, "split": None, "layer": None, **where, "estimate": estimate.to_dict(), **known}


BY_KIND = ("measure", "layer_kind")
"""Keys of an entry that is about another measure than attention factors."""

QUALIFIERS = ("task", "layer", "n_images", "places", "position", "intervention", "window", "subset", *BY_KIND)
"""Keys that narrow what an entry is about; `find` takes one that is not named as null."""


def find(entries: Sequence[Entry], name: str, **keys: Any) -> list[Entry]:
    """Entries of a name with the given keys; qualifiers that are not named must be null, `...` lets any value through.

    >>> entries = [{"name": "chance", "task": None}, {"name": "chance", "task": "needle"}]
    >>> [find(entries, "chance"), len(find(entries, "chance", task=...))]
    [[{'name': 'chance', 'task': None}], 2]
    """
    wanted = dict.fromkeys(QUALIFIERS) | keys
    return [
        entry
        for entry in entries
        if entry["name"] == name and all(value is ... or entry.get(key) == value for key, value in wanted.items())
    ]
