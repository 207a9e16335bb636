"""What a routing study publishes: entries of metrics.json, and arrays by expert that figures are drawn from.

It knows evidence and arithmetic; nothing of models, folders or figures. No torch.
"""

from collections.abc import Callable

import numpy as np

from probes.clustering import cluster_index
from probes.estimates import Estimate, mean, proportion
from probes.experts.evenness import evenness
from probes.experts.load import co_activation, load_estimates
from probes.experts.pairs import strongest_pair
from probes.experts.rules import IntArray
from studies.auditing.entries import Entry, entry_of
from studies.routing.along import along_training
from studies.routing.evidence import RoutingEvidence
from studies.routing.measured import Measured, by_expert, intervals, together, without_interval
from studies.routing.specialising import kinds_told_apart, specialise

SHARED = "shared"
"""In an entry's `expert`: the layer's shared experts."""


def most_shuffles(evidence: RoutingEvidence, permutations: int) -> int:
    """How many shuffles `measures` comes to, should the checkpoints have a question in common."""
    points = len(evidence.checkpoints) + 1 if evidence.checkpoints else 0
    return permutations * (len(kinds_told_apart(evidence)) + points)


def measures(
    evidence: RoutingEvidence, permutations: int, seed: int, on_shuffle: Callable[[], object] | None = None
) -> Measured:
    """Measure everything that was recorded.

    Args:
        evidence: What was recorded.
        permutations: Shuffles behind each p-value.
        seed: Of shuffles and bootstraps.
        on_shuffle: Called after each shuffle, which are what takes time.
    """
    saved = evidence.saved
    samples, _ = cluster_index(evidence.by_token(evidence.clusters), saved.indices.shape[1])
    sizes = {"layers": saved.layers, "experts": saved.experts, "k": saved.k, "questions": len(saved.names)}
    whole = Measured([], {name: np.array(size) for name, size in sizes.items()}, [])
    return together(
        whole,
        _loads(evidence, samples, seed),
        _choices(evidence, samples),
        specialise(evidence, samples, permutations, seed, on_shuffle),
        _pairs(evidence, samples, seed),
        _knockouts(evidence),
        along_training(evidence, permutations, seed, on_shuffle),
    )


def _loads(evidence: RoutingEvidence, samples: IntArray, seed: int) -> Measured:
    saved = evidence.saved
    entries: list[Entry] = []
    loads = [load_estimates(layer, saved.experts, samples) for layer in saved.indices]
    for layer, own, indices in zip(saved.layers, loads, saved.indices, strict=True):
        even = evenness(indices, saved.experts, samples, seed=seed)
        entries += [
            entry_of("load_entropy", even.entropy, {"layer": layer}, even=1.0),
            entry_of("load_gini", even.gini, {"layer": layer}, even=0.0),
            entry_of("largest_over_mean", even.largest_over_mean, {"layer": layer}, even=1.0),
            *by_expert("load", layer, own, even=saved.k / saved.experts),
        ]
    return Measured(entries, {"load": intervals(loads)}, [])


def _choices(evidence: RoutingEvidence, samples: IntArray) -> Measured:
    """How narrow choices are, and how many of them the bias makes."""
    saved = evidence.saved
    entries: list[Entry] = []
    for at, layer in enumerate(saved.layers):
        for name, table in (("margin", evidence.margins), ("margin_without_bias", evidence.margins_without_bias)):
            # Infinite where groups shut out every other expert: nothing could have been chosen instead.
            finite = np.isfinite(table[at])
            left = table[at][finite].astype(np.float64)
            tenths = {f"tenth_{part}": float(np.quantile(left, part / 10)) for part in (1, 5, 9)} if left.size else {}
            estimate = mean(left, samples[finite])
            entries.append(entry_of(name, estimate, {"layer": layer}, left_out=int((~finite).sum()), **tenths))
        entries.append(entry_of("moved_by_bias", proportion(evidence.moved[at], samples), {"layer": layer}))
    return Measured(entries, {}, [])


def _pairs(evidence: RoutingEvidence, samples: IntArray, seed: int) -> Measured:
    """Which experts are called together, one layer at a time: a table of tokens and experts is large."""
    saved = evidence.saved
    if saved.k < 2:
        return Measured([], {}, ["co-activation: each token goes to one expert"])
    found = [co_activation(layer, saved.experts) for layer in saved.indices]
    entries = []
    for layer, indices in zip(saved.layers, saved.indices, strict=True):
        pair = strongest_pair(indices, saved.experts, samples, seed=seed)
        if pair is not None:
            entries.append(entry_of("strongest_pair", pair.ratio, {"layer": layer}, experts=list(pair.experts), even=1))
    left_out = [] if entries else ["the strongest pair of experts: of four samples or more, and of common experts"]
    counts, expected = (np.stack([getattr(each, name) for each in found]) for name in ("counts", "expected"))
    return Measured(entries, {"pairs": counts, "pairs_expected": expected}, left_out)


def _knockouts(evidence: RoutingEvidence) -> Measured:
    """What answers lose without each expert, in nats."""
    found, saved = evidence.knockouts, evidence.saved
    if not found.names:
        return Measured([], {}, ["expert knock-outs: none went well, or none were asked for (--knockout N)"])
    clusters = evidence.clusters_of(found.names)
    table = [[mean(column, clusters) for column in found.effects[:, at].T] for at in range(len(saved.layers))]
    entries = [
        each
        for layer, own in zip(saved.layers, table, strict=True)
        for each in by_expert("knockout_effect", layer, own)
    ]
    shared: list[Estimate] = []
    for at, layer in enumerate(saved.layers):
        column = found.shared[:, at]
        there = not np.isnan(column).any()
        shared.append(mean(column, clusters) if there else without_interval(np.nan, 0))
        if there:
            entries.append(entry_of("knockout_effect", shared[-1], {"layer": layer}, expert=SHARED))
    arrays = {"knockout": intervals(table), "knockout_shared": intervals(shared), "knockouts": np.array(len(clusters))}
    return Measured(entries, arrays, [])
