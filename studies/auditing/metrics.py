"""The numbers of an audit, from evidence to entries of `metrics.json`.

It knows arrays, rules and splits. It knows no files and no models. No torch.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from probes.estimates import Estimate, proportion
from probes.scores import (
    Scoreboard,
    accuracy_by_layer,
    chance_level,
    focus_shares,
    oracle_maximum,
    scoreboard,
)
from studies.auditing.causal_metrics import KNOCKOUT, causal_metrics
from studies.auditing.choices import DEV, Choice, focus_of
from studies.auditing.entries import Entry, entry_of
from studies.auditing.evidence import BoolArray, Evidence


def audit_metrics(evidence: Evidence, choices: dict[str, Choice]) -> list[Entry]:
    """All entries of an audit without its position study."""
    entries: list[Entry] = []
    splits = [
        split for split in (DEV, *sorted(set(evidence.split.tolist()) - {DEV})) if (evidence.split == split).any()
    ]
    for split in splits:
        part = evidence.where(evidence.split == split)
        for task in (None, *sorted(set(part.task.tolist()) - {""})):
            chosen = part if task is None else part.where(part.task == task)
            where = {"task": task, "split": split}
            entries += _of_group(chosen, choices, where, oracle=split != DEV)
            entries += list(causal_metrics(chosen, choices, where, layers=task is None))
        for count in sorted(set(part.n_images.tolist())):
            where = {"task": None, "split": split, "n_images": count}
            entries += _of_group(part.where(part.n_images == count), choices, where, oracle=False, layers=False)
        entries += list(_focus_histogram(part, choices, {"task": None, "split": split}))
    entries += list(_regions(evidence, splits))
    return entries


def of_reading(entries: Iterable[Entry], measure: str, layer_kind: str) -> list[Entry]:
    """Entries that were made of a reading's evidence, named after it.

    Those that hang on no focus stand once already. So do those of a knock-out that cuts softmax attention alone: what
    another kind of layer carries is untouched, so that its focus has nothing to agree with. One that cuts mixers too
    has.

    Args:
        entries: What `audit_metrics` or `position_metrics` made of it.
        measure: The reading's measure.
        layer_kind: The kind of its layers.
    """
    named = {"measure": measure, "layer_kind": layer_kind}
    return [
        {**entry, **named}
        for entry in entries
        if entry["rows"] is not None
        and not entry["name"].startswith("answer_")
        and entry.get("intervention") != KNOCKOUT
    ]


def _of_group(
    part: Evidence, choices: dict[str, Choice], where: Entry, oracle: bool, layers: bool = True
) -> list[Entry]:
    scored = ~np.isnan(part.correct)
    answers = proportion(part.correct[scored] == 1, part.cluster[scored])
    entries = [entry_of("answer_accuracy", answers, where)]
    for rows, choice in choices.items():
        kept = part.where(part.scorable(rows))
        if not len(kept):
            continue
        focused = focus_of(kept, rows, choice.rule)
        board = scoreboard(focused, kept.target, kept.correct == 1, kept.candidates(rows), kept.cluster)
        ruled = {**where, "rows": rows, **choice.as_keys()}
        entries += _board(board, len(kept), ruled)
        entries += _by_layer(kept, rows, where) if layers else []
        entries += _oracle(kept, rows, where, choice) if oracle else []
    return entries


def _board(board: Scoreboard, n: int, where: Entry) -> list[Entry]:
    flat = Estimate(board.chance, n, board.chance, board.chance)
    return [
        entry_of("answer_accuracy", board.answer_accuracy, {**where, "rule": None, "last": None, "rule_source": None}),
        entry_of("attention_accuracy", board.attention_accuracy, where, chance=board.chance_when_right),
        entry_of("ivm_rate", board.ivm_rate, where, chance=1.0 - board.chance_when_right),
        entry_of("attention_when_wrong", board.attention_when_wrong, where, chance=board.chance_when_wrong),
        entry_of("attention_overall", board.attention_overall, where, chance=board.chance),
        entry_of("chance", flat, where),
    ]


def _by_layer(kept: Evidence, rows: str, where: Entry) -> list[Entry]:
    right = kept.correct == 1
    count = kept.candidates(rows)
    parts: list[tuple[str, BoolArray | None, float]] = [
        ("attention_accuracy", right, chance_level(count[right])),
        ("attention_overall", None, chance_level(count)),
    ]
    entries = []
    for name, chosen, chance in parts:
        estimates = accuracy_by_layer(kept.factors[rows], kept.target, chosen, kept.cluster)
        for layer, estimate in zip(kept.layers, estimates, strict=True):
            entries.append(entry_of(name, estimate, {**where, "rows": rows, "layer": layer}, chance=chance))
    return entries


def _oracle(kept: Evidence, rows: str, where: Entry, choice: Choice) -> list[Entry]:
    right = kept.correct == 1
    if not right.any():
        return []
    best = oracle_maximum(kept.factors[rows], kept.target, right, clusters=kept.cluster)
    source = f"{best.label}; {best.candidates} rules tried; not comparable with {choice.rule}"
    ruled = {**where, "rows": rows, "rule": best.rule.name, "last": best.rule.last, "rule_source": source}
    return [entry_of("oracle_maximum", best.estimate, ruled, chance=chance_level(kept.candidates(rows)[right]))]


def _focus_histogram(part: Evidence, choices: dict[str, Choice], where: Entry) -> Iterator[Entry]:
    """Share of the focus that each place gets: what recency and sinks alone would give."""
    for rows, choice in choices.items():
        kept = part.where(part.has_rows(rows))
        count = kept.candidates(rows)
        for images in sorted(set(count.tolist())):
            group = kept.where(count == images)
            shares = focus_shares(group.factors[rows], choice.rule.name, choice.rule.last)
            for place in range(images):
                estimate = proportion(shares[:, place], group.cluster)
                ruled = {**where, "rows": rows, **choice.as_keys(), "places": images, "position": place}
                yield entry_of("focus_share", estimate, ruled, chance=1.0 / images)


def _regions(evidence: Evidence, splits: Sequence[str]) -> Iterator[Entry]:
    """Region attention accuracy by layer, and of the layer that the dev split chooses."""
    have = ~np.isnan(evidence.regions["region_hit"]).all(axis=1)
    if not have.any():
        return
    dev = evidence.where(have & (evidence.split == DEV)).regions["region_hit"]
    chosen = int(np.argmax(dev.mean(axis=0))) if len(dev) else len(evidence.layers) - 1
    source = "dev split" if len(dev) else "default: last layer, the data have no dev split with regions"
    for split in splits:
        part = evidence.where(have & (evidence.split == split))
        for task in (None, *sorted(set(part.task.tolist()) - {""})):
            group = part if task is None else part.where(part.task == task)
            if len(group):
                where = {"task": task, "split": split, "rows": "paper"}
                yield from _region_entries(group, where, chosen, source)


def _region_entries(group: Evidence, where: Entry, chosen: int, source: str) -> Iterator[Entry]:
    named: list[tuple[str, str]] = [("region_attention_accuracy", "region_hit"), ("region_top_ratio", "region_top")]
    chance = group.regions["region_chance"].mean(axis=0)
    for name, measure in named:
        table = group.regions[measure]
        for index, layer in enumerate(group.layers):
            estimate = proportion(table[:, index], group.cluster)
            yield entry_of(name, estimate, {**where, "layer": layer}, chance=float(chance[index]))
        headline = {**where, "rule": f"layer {group.layers[chosen]}", "rule_source": source}
        yield entry_of(name, proportion(table[:, chosen], group.cluster), headline, chance=float(chance[chosen]))
