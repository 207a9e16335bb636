"""Every published number of an audit, from evidence to entries of `metrics.json`.

It knows arrays, rules and splits. It knows no files and no models. No torch.

An entry is a flat mapping: `name`, `rows` (row set or null), `rule` and `last` (null for single layers), `rule_source`,
`task` (null for all), `split`, `layer` (null unless the number is of one layer), `estimate`, and `chance` where a
blind focus has one. Further keys say what the samples have in common: `n_images`, `places`, `position`,
`intervention`, `window`, `subset`; and `left_out` says how many were not counted: base samples in which a place of the
position study failed, or samples of the causal check to which no image mattered.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.estimates import Estimate, proportion
from probes.inputs import InputError
from probes.scores import (
    Rule,
    Scoreboard,
    accuracy_by_layer,
    causal_agreement,
    chance_level,
    choose_rule,
    focus_all,
    focus_shares,
    oracle_maximum,
    position_study,
    scoreboard,
)
from studies.auditing.evidence import BoolArray, Evidence, FloatArray, IntArray
from studies.position import base_of

Entry = dict[str, Any]
DEFAULT_RULE = Rule("M-LND", 4)
"""The rule of a run whose data cannot choose one."""

MIN_EFFECT = 0.01
"""Nats: where no image's loss changes the answer's log-probability by more, the largest effect is rounding noise."""

DEV = "dev"


@dataclass(frozen=True)
class Choice:
    """A focus rule and where it comes from."""

    rule: Rule
    source: str


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
            entries += _of_group(chosen, choices, {"task": task, "split": split}, oracle=split != DEV)
        for count in sorted(set(part.n_images.tolist())):
            where = {"task": None, "split": split, "n_images": count}
            entries += _of_group(part.where(part.n_images == count), choices, where, oracle=False, layers=False)
        entries += list(_focus_histogram(part, choices, {"task": None, "split": split}))
        entries += list(_causal(part, choices, {"task": None, "split": split}))
    entries += list(_regions(evidence, splits))
    return entries


def position_metrics(
    evidence: Evidence, choices: dict[str, Choice], seed: int, asked: Mapping[str, int]
) -> list[Entry]:
    """Spread of answer accuracy and of attention accuracy over target places, apart for each number of places.

    A base sample counts where every one of its places was answered and scored, so that all places are compared on the
    same questions. The others are counted as `left_out`.

    Args:
        evidence: Samples of a position study, every base sample at every place.
        choices: Rules fixed on the dev split of the audit that the study belongs to.
        seed: Of the bootstrap.
        asked: By base sample (see `studies.position.base_of`), at how many places its target was put.
    """
    entries: list[Entry] = []
    for rows, choice in choices.items():
        scored = evidence.where(evidence.scorable(rows))
        bases = np.asarray([base_of(name) for name in scored.ids], dtype=np.str_)
        found = Counter(bases.tolist())
        without = {base_of(name) for name in evidence.where(~evidence.has_rows(rows)).ids}
        for count in sorted(set(asked.values())):
            meant = {base for base, places in asked.items() if places == count and base not in without}
            # Of a base sample without any answer nobody knows whether it would have had rows of its anchor.
            meant = {base for base in meant if rows != "anchor" or found[base]}
            whole = {base for base in meant if found[base] == count}
            if count > 1 and meant:
                group = scored.where(np.isin(bases, list(whole)))
                where = {"task": None, "split": "position study", "places": count}
                entries += _of_places(group, rows, choice, where, seed, len(meant) - len(whole))
    return entries


def _of_group(
    part: Evidence, choices: dict[str, Choice], where: Entry, oracle: bool, layers: bool = True
) -> list[Entry]:
    scored = ~np.isnan(part.correct)
    answers = proportion(part.correct[scored] == 1, part.cluster[scored])
    entries = [_entry("answer_accuracy", answers, where)]
    for rows, choice in choices.items():
        kept = part.where(part.scorable(rows))
        if not len(kept):
            continue
        focused = focus_of(kept, rows, choice.rule)
        board = scoreboard(focused, kept.target, kept.correct == 1, kept.candidates(rows), kept.cluster)
        ruled = {**where, "rows": rows, **_ruled(choice)}
        entries += _board(board, len(kept), ruled)
        entries += _by_layer(kept, rows, where) if layers else []
        entries += _oracle(kept, rows, where, choice) if oracle else []
    return entries


def _board(board: Scoreboard, n: int, where: Entry) -> list[Entry]:
    flat = Estimate(board.chance, n, board.chance, board.chance)
    return [
        _entry("answer_accuracy", board.answer_accuracy, {**where, "rule": None, "last": None, "rule_source": None}),
        _entry("attention_accuracy", board.attention_accuracy, where, chance=board.chance_when_right),
        _entry("ivm_rate", board.ivm_rate, where, chance=1.0 - board.chance_when_right),
        _entry("attention_when_wrong", board.attention_when_wrong, where, chance=board.chance_when_wrong),
        _entry("attention_overall", board.attention_overall, where, chance=board.chance),
        _entry("chance", flat, where),
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
            entries.append(_entry(name, estimate, {**where, "rows": rows, "layer": layer}, chance=chance))
    return entries


def _oracle(kept: Evidence, rows: str, where: Entry, choice: Choice) -> list[Entry]:
    right = kept.correct == 1
    if not right.any():
        return []
    best = oracle_maximum(kept.factors[rows], kept.target, right, clusters=kept.cluster)
    source = f"{best.label}; {best.candidates} rules tried; not comparable with {choice.rule}"
    ruled = {**where, "rows": rows, "rule": best.rule.name, "last": best.rule.last, "rule_source": source}
    return [_entry("oracle_maximum", best.estimate, ruled, chance=chance_level(kept.candidates(rows)[right]))]


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
                ruled = {**where, "rows": rows, **_ruled(choice), "places": images, "position": place}
                yield _entry("focus_share", estimate, ruled, chance=1.0 / images)


def _causal(part: Evidence, choices: dict[str, Choice], where: Entry) -> Iterator[Entry]:
    for effect in part.effects:
        measured = ~np.isnan(effect.values).all(axis=1)
        named = {**where, "intervention": effect.intervention, "window": effect.window}
        aimed = part.where(measured & (part.target >= 0))
        if measured.any():
            nothing = _largest(effect.values[measured]) <= MIN_EFFECT
            yield _entry("no_image_matters", proportion(nothing, part.cluster[measured]), named)
        if len(aimed):
            yield _agreement(
                "target_has_largest_effect", aimed.target, _effects_on_candidates(aimed, effect), aimed, named
            )
        for rows, choice in choices.items():
            kept = part.where(measured & part.has_rows(rows))
            if len(kept):
                yield from _agreements(kept, rows, choice, _effects_seen(kept, effect, rows), named)


def _agreements(kept: Evidence, rows: str, choice: Choice, effects: FloatArray, where: Entry) -> Iterator[Entry]:
    focused = focus_of(kept, rows, choice.rule)
    ruled = {**where, "rows": rows, **_ruled(choice)}
    yield _agreement("causal_agreement", focused, effects, kept, ruled)
    off = (kept.correct == 1) & (kept.target >= 0) & (focused != kept.target)
    for subset, image in (("right, focus elsewhere", focused), ("right, focus elsewhere: target", kept.target)):
        usable = off & _within(effects, image)
        own = {**ruled, "subset": subset}
        yield _agreement("causal_agreement", image[usable], effects[usable], kept.where(usable), own)
    for index, layer in enumerate(kept.layers):
        single = focus_all(kept.factors[rows][:, [index]], "LND", 1)
        yield _agreement("causal_agreement", single, effects, kept, {**where, "rows": rows, "layer": layer})


def _agreement(name: str, image: IntArray, effects: FloatArray, kept: Evidence, where: Entry) -> Entry:
    found = causal_agreement(image, effects, kept.cluster, min_effect=MIN_EFFECT)
    return _entry(name, found.estimate, {**where, "left_out": len(image) - found.estimate.n}, chance=found.chance)


def _largest(effects: FloatArray) -> FloatArray:
    """(samples,) the largest effect of any image; every sample has one."""
    return np.asarray(np.nanmax(effects, axis=1))


def _same(kept: Evidence, effect: Any) -> Any:
    return next(
        entry for entry in kept.effects if (entry.intervention, entry.window) == (effect.intervention, effect.window)
    )


def _effects_on_candidates(kept: Evidence, effect: Any) -> FloatArray:
    """The effects on those images that can be the target: not on the anchor of an image-to-image sample."""
    if "anchor" not in kept.factors:
        return np.asarray(_same(kept, effect).values)
    seen = ~np.isnan(kept.factors["anchor"]).all(axis=1) | ~kept.has_rows("anchor")[:, None]
    return np.where(seen, _same(kept, effect).values, np.nan)


def _effects_seen(kept: Evidence, effect: Any, rows: str) -> FloatArray:
    """The effects on those images that the focus may fall on: the anchor is no candidate of its own rows."""
    seen = ~np.isnan(kept.factors[rows]).all(axis=1)
    return np.where(seen, _same(kept, effect).values, np.nan)


def _within(effects: FloatArray, image: IntArray) -> BoolArray:
    safe = np.clip(image, 0, effects.shape[1] - 1)
    return np.asarray(~np.isnan(effects[np.arange(len(effects)), safe]) & (image >= 0))


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
            yield _entry(name, estimate, {**where, "layer": layer}, chance=float(chance[index]))
        headline = {**where, "rule": f"layer {group.layers[chosen]}", "rule_source": source}
        yield _entry(name, proportion(table[:, chosen], group.cluster), headline, chance=float(chance[chosen]))


def _of_places(group: Evidence, rows: str, choice: Choice, where: Entry, seed: int, left_out: int) -> Iterator[Entry]:
    ruled = {**where, "rows": rows, **_ruled(choice), "left_out": left_out}
    if not len(group):
        for name in ("answer_spread", "attention_spread", "spread_gap"):
            yield _entry(name, proportion([]), ruled)
        return
    focused = focus_of(group, rows, choice.rule)
    study = position_study(focused, group.target, group.correct == 1, group.cluster, seed=seed)
    count = group.candidates(rows)
    right = group.correct == 1
    for name, spread in (("answer", study.answer), ("attention", study.attention)):
        yield _entry(f"{name}_spread", spread.range, ruled, noise=spread.noise_range)
        yield _entry(f"{name}_spread_std", spread.std, ruled)
        for place, estimate in zip(spread.positions, spread.by_position, strict=True):
            chance = chance_level(count[right]) if name == "attention" else None
            yield _entry(f"{name}_accuracy", estimate, {**ruled, "position": place}, chance=chance)
    yield _entry("spread_gap", study.gap, ruled)


def _ruled(choice: Choice) -> Entry:
    return {"rule": choice.rule.name, "last": choice.rule.last, "rule_source": choice.source}


def _entry(name: str, estimate: Estimate, where: Entry, **more: Any) -> Entry:
    base: Entry = {"name": name, "rows": None, "rule": None, "last": None, "rule_source": None, "task": None}
    known = {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in more.items()}
    return {**base, "split": None, "layer": None, **where, "estimate": estimate.to_dict(), **known}


QUALIFIERS = ("task", "layer", "n_images", "places", "position", "intervention", "window", "subset")
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
