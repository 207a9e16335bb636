"""The numbers of a position study, from evidence to entries. It knows arrays and no models. No torch."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from probes.estimates import proportion
from probes.scores import chance_level, position_study
from studies.auditing.choices import Choice, focus_of
from studies.auditing.entries import Entry, entry_of
from studies.auditing.evidence import Evidence
from studies.position import base_of


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


def _of_places(group: Evidence, rows: str, choice: Choice, where: Entry, seed: int, left_out: int) -> Iterator[Entry]:
    ruled = {**where, "rows": rows, **choice.as_keys(), "left_out": left_out}
    if not len(group):
        for name in ("answer_spread", "attention_spread", "spread_gap"):
            yield entry_of(name, proportion([]), ruled)
        return
    focused = focus_of(group, rows, choice.rule)
    study = position_study(focused, group.target, group.correct == 1, group.cluster, seed=seed)
    count = group.candidates(rows)
    right = group.correct == 1
    for name, spread in (("answer", study.answer), ("attention", study.attention)):
        yield entry_of(f"{name}_spread", spread.range, ruled, noise=spread.noise_range)
        yield entry_of(f"{name}_spread_std", spread.std, ruled)
        for place, estimate in zip(spread.positions, spread.by_position, strict=True):
            chance = chance_level(count[right]) if name == "attention" else None
            yield entry_of(f"{name}_accuracy", estimate, {**ruled, "position": place}, chance=chance)
    yield entry_of("spread_gap", study.gap, ruled)
