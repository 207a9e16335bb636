"""From scores of responses, or verdicts on pairs, to the two numbers that each pair has. Imports no torch."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from probes.clustering import FloatArray
from rewardmodels.preferences import Preferences
from rewardmodels.records import PreferencePair
from rewardmodels.scores import AS_IS, Scores

Sides = Mapping[str, tuple[float, float]]
"""By pair id, the scores of the better and the worse response."""


class PlacedPair(NamedTuple):
    """A pair, and where its responses stand in their record."""

    pair: PreferencePair
    better: int
    worse: int


class PairColumns(NamedTuple):
    """Pairs as the numbers of this package take them: (pairs,) each, lengths in characters."""

    chosen: FloatArray
    rejected: FloatArray
    chosen_lengths: FloatArray
    rejected_lengths: FloatArray
    groups: list[str]
    clusters: list[str]


def placed_pairs(preferences: Preferences) -> list[PlacedPair]:
    """Return every pair with its places, in the order of the records."""
    return [
        PlacedPair(pair, better, worse)
        for record in preferences
        for pair, (better, worse) in zip(record.pairs(), record.pair_places(), strict=True)
    ]


def pair_sides(pairs: Sequence[PlacedPair], scores: Scores, view: str = AS_IS) -> Sides:
    """Return both scores of every pair that has both; of comparisons, the mean margin of both orders, and 0."""
    known = scores.under(view)
    keys = {
        pair.id: ((pair.id, 0), (pair.id, 1)) if scores.compared else ((pair.record, better), (pair.record, worse))
        for pair, better, worse in pairs
    }
    both = {name: (known[one], known[two]) for name, (one, two) in keys.items() if one in known and two in known}
    if not scores.compared:
        return both
    return {name: ((first + second) / 2, 0.0) for name, (first, second) in both.items()}


def pair_columns(pairs: Sequence[PlacedPair], sides: Sides) -> PairColumns:
    """Put pairs that all have their scores into columns."""
    values = np.array([sides[each.pair.id] for each in pairs], dtype=np.float64).reshape(-1, 2)
    lengths = np.array([(len(each.pair.chosen.text), len(each.pair.rejected.text)) for each in pairs], dtype=np.float64)
    lengths = lengths.reshape(-1, 2)
    return PairColumns(
        values[:, 0],
        values[:, 1],
        lengths[:, 0],
        lengths[:, 1],
        [each.pair.group or "all" for each in pairs],
        [each.pair.cluster for each in pairs],
    )
