"""How routing moves along training: checkpoints held against the model and against each other. No torch.

Experts are matched by number, which keeps its meaning along one training run and has none between two.
"""

from collections.abc import Callable, Sequence

import numpy as np

from probes.clustering import cluster_index
from probes.experts.evenness import evenness
from probes.experts.records import TEXT
from probes.experts.rules import IntArray
from probes.experts.saved import SavedRouting
from probes.experts.specialisation import specialisation
from probes.experts.stability import Stability, stability
from studies.auditing.entries import Entry, entry_of
from studies.routing.command import LAST
from studies.routing.evidence import RoutingEvidence
from studies.routing.measured import Measured, intervals, without_interval

NO_STEP = -1
"""In the array of steps: not known."""


def along_training(
    evidence: RoutingEvidence, permutations: int, seed: int, on_shuffle: Callable[[], object] | None = None
) -> Measured:
    """Stability of every checkpoint, and how specialised and how even each is.

    All of it is of the questions that every checkpoint has, so that points differ in nothing else. The model stands
    last, held against itself as well: that is 1, and what was recorded twice would show there.

    Args:
        evidence: What was recorded.
        permutations: Shuffles behind each p-value.
        seed: Of shuffles and bootstraps.
        on_shuffle: Called after each shuffle.
    """
    if not evidence.checkpoints:
        return Measured([], {}, ["stability along training: no --checkpoints are given"])
    points, left_out = _common([*evidence.checkpoints, (LAST, evidence.saved)])
    if not points:
        return Measured([], {}, left_out)
    last = points[-1][1]
    entries: list[Entry] = []
    against_last, floors = [], []
    for at, (name, saved) in enumerate(points):
        where = {"checkpoint": name, "step": saved.step}
        found = _held(evidence, saved, last)
        entries += _stability_entries(where | {"against": LAST}, found, saved)
        against_last.append([each.overlap for each in found])
        floors.append([each.overlap_floor_of_loads for each in found])
        if at:
            before, earlier = points[at - 1]
            beside = _held(evidence, earlier, saved)
            entries += _stability_entries(where | {"against": before}, beside, saved)
    trends = [_trend(evidence, name, saved, permutations, seed, on_shuffle) for name, saved in points]
    entries += [entry for trend in trends for entry in trend.entries]
    arrays = {
        "checkpoints": np.array([name for name, _ in points], dtype=np.str_),
        "steps": np.array([NO_STEP if saved.step is None else saved.step for _, saved in points]),
        "overlap": intervals(against_last),
        "overlap_floor": np.array(evidence.saved.k / evidence.saved.experts),
        "overlap_floor_of_loads": np.array(floors),
        "entropy_along": np.stack([trend.arrays["entropy"] for trend in trends]),
        "information_along": np.stack([trend.arrays["information"] for trend in trends]),
        "chance_along": np.stack([trend.arrays["chance"] for trend in trends]),
    }
    return Measured(entries, arrays, left_out)


def _common(points: Sequence[tuple[str, SavedRouting]]) -> tuple[list[tuple[str, SavedRouting]], list[str]]:
    """Every point on the questions that all have, and what is to be said of the others; no points if none is left."""
    held = [set(saved.names) for _, saved in points]
    names = [name for name in points[-1][1].names if all(name in each for each in held)]
    most = len(points[-1][1].names)
    fewest = min(points, key=lambda point: len(point[1].names))[0]
    if not names:
        return [], [f"stability along training: no question is in every checkpoint ({fewest} has fewest)"]
    lost = f"{most - len(names)} of {most} questions along training: not in every checkpoint ({fewest} has fewest)"
    return [(name, saved.of_questions(names)) for name, saved in points], [lost] if len(names) < most else []


def _held(evidence: RoutingEvidence, first: SavedRouting, second: SavedRouting) -> list[Stability]:
    """Two checkpoints on the same questions."""
    return stability(first.indices, second.indices, first.experts, _clusters(evidence, first))


def _stability_entries(where: Entry, found: list[Stability], saved: SavedRouting) -> list[Entry]:
    entries = []
    for layer, each in zip(saved.layers, found, strict=True):
        place = {"layer": layer, **where}
        floors = {"floor": each.overlap_floor, "floor_of_loads": each.overlap_floor_of_loads}
        entries += [
            entry_of("overlap", each.overlap, place, **floors),
            entry_of("jaccard", each.jaccard, place, floor=each.jaccard_floor),
            entry_of("load_correlation", each.load_correlation, place),
        ]
    return entries


def _trend(
    evidence: RoutingEvidence,
    name: str,
    saved: SavedRouting,
    permutations: int,
    seed: int,
    on_shuffle: Callable[[], object] | None,
) -> Measured:
    """How even and how specialised in images one checkpoint is, layer by layer."""
    clusters = _clusters(evidence, saved)
    even = [evenness(layer, saved.experts, clusters, seed=seed).entropy for layer in saved.indices]
    where = {"checkpoint": name, "step": saved.step}
    entries = [
        entry_of("checkpoint_entropy", each, {"layer": layer, **where}, even=1.0)
        for layer, each in zip(saved.layers, even, strict=True)
    ]
    blank = np.full(len(saved.layers), np.nan)
    arrays = {"entropy": np.array([each.value for each in even]), "information": blank, "chance": blank}
    shown = saved.images != TEXT
    if shown.any() and not shown.all():
        found = specialisation(saved.indices, shown, clusters, saved.experts, permutations, seed, on_shuffle)
        arrays |= {"information": found.information, "chance": found.chance}
        entries += [
            entry_of(
                "checkpoint_specialisation",
                without_interval(float(found.information[at]), found.tokens, found.clusters),
                {"layer": layer, "label": "modality", **where},
                chance=float(found.chance[at]),
                p_value=float(found.p_value[at]),
            )
            for at, layer in enumerate(saved.layers)
        ]
    return Measured(entries, arrays, [])


def _clusters(evidence: RoutingEvidence, saved: SavedRouting) -> IntArray:
    names = np.array(evidence.clusters_of(saved.names), dtype=np.str_)
    return cluster_index(names[saved.samples], len(saved.samples))[0]
