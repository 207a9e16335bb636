"""Fixing a focus rule on the dev split, and what a rule focuses on. No torch."""

from dataclasses import dataclass

import numpy as np

from probes.inputs import InputError
from probes.scores import Rule, choose_rule, focus_all
from studies.auditing.entries import Entry
from studies.auditing.evidence import Evidence, IntArray

DEFAULT_RULE = Rule("M-LND", 4)
"""The rule of a run whose data cannot choose one."""

DEV = "dev"


@dataclass(frozen=True)
class Choice:
    """A focus rule and where it comes from."""

    rule: Rule
    source: str

    def as_keys(self) -> Entry:
        """The keys of an entry that say by which rule it was scored."""
        return {"rule": self.rule.name, "last": self.rule.last, "rule_source": self.source}


def choose(evidence: Evidence, rows: str) -> Choice:
    """Fix the focus rule of a row set on the dev split, and on nothing else.

    Without right answers with a target in the dev split the default rule is taken, and the source says so.
    """
    layers = len(evidence.layers)
    default = Rule(DEFAULT_RULE.name, min(DEFAULT_RULE.last, layers))
    dev = evidence.where((evidence.split == DEV) & evidence.scorable(rows))
    if not len(dev):
        return Choice(default, "default: the data have no dev split that could choose a rule")
    right = dev.correct == 1
    try:
        return Choice(choose_rule(dev.factors[rows], dev.target, right), f"dev split, {right.sum()} right answers")
    except InputError:
        return Choice(default, "default: no answer of the dev split is right, so it cannot choose a rule")


def focus_of(evidence: Evidence, rows: str, rule: Rule) -> IntArray:
    """(samples,) the image in focus; -1 where the row set was not recorded."""
    focused = np.full(len(evidence), -1, dtype=np.int64)
    kept = evidence.has_rows(rows)
    if kept.any():
        focused[kept] = focus_all(evidence.factors[rows][kept], rule.name, rule.last)
    return focused
