"""What the measures of a routing study are given back as, and the forms of their numbers. No torch."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from probes.estimates import Estimate
from studies.auditing.entries import Entry, entry_of
from studies.routing.evidence import FloatArray
from studies.routing.shards import Arrays


class Measured(NamedTuple):
    """What was found."""

    entries: list[Entry]
    """Of metrics.json. Beside the keys of every entry (`studies.auditing.entries`): `expert`, `label` (what
    specialisation tells apart), `checkpoint` and `against`, and `even`, `chance` or `floor`, the level to compare with.
    An interval without ends is one that is not made."""
    arrays: Arrays
    """By expert, for figures; estimates are value, low, high on the last axis."""
    left_out: list[str]
    """Measures that these questions do not allow, each with its reason."""


def together(*parts: Measured) -> Measured:
    """Several findings as one."""
    return Measured(
        [entry for part in parts for entry in part.entries],
        {name: array for part in parts for name, array in part.arrays.items()},
        [line for part in parts for line in part.left_out],
    )


def by_expert(name: str, layer: int, found: Sequence[Estimate], **more: Any) -> Iterator[Entry]:
    """One entry for each expert of a layer."""
    return (entry_of(name, each, {"layer": layer}, expert=expert, **more) for expert, each in enumerate(found))


def without_interval(value: float, n: int, clusters: int | None = None) -> Estimate:
    """A number for which no interval is made: its ends are written as null."""
    return Estimate(value, n, -math.inf, math.inf, clusters)


def intervals(found: Any) -> FloatArray:
    """Estimates, nested as they may be, as (..., 3): value, low, high.

    >>> intervals([Estimate(0.5, 4, 0.25, 0.75)]).tolist()
    [[0.5, 0.25, 0.75]]
    """
    if isinstance(found, Estimate):
        return np.array([found.value, found.low, found.high])
    return np.stack([intervals(each) for each in found])
