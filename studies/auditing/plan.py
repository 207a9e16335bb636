"""Which samples an audit takes, and in which batches: a pure function of data and config.

It knows identifiers, counts and lengths. It knows no model, no image and no file, so that a resumed run plans
exactly what the first one planned.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

BatchKind = Literal["refused", "trace"]
T = TypeVar("T")

REFUSED_SIZE = 512
"""Samples without a trace that share one batch."""


@dataclass(frozen=True)
class Item:
    """One sample as the plan sees it.

    Attributes:
        id: Sample id, unique in the run.
        shape: What must be equal for two prompts to have equal token length, longest first when sorted backwards:
            number of images, number of tokens, and whatever else decides the length.
        anchor: Whether rows of the last image are recorded too (image-to-image tasks).
    """

    id: str
    shape: tuple[int, ...]
    anchor: bool = False


@dataclass(frozen=True)
class Batch:
    """Samples that are computed and written together; `index` names its files in the run folder."""

    index: int
    kind: BatchKind
    ids: tuple[str, ...]


def plan_batches(items: Sequence[Item], batch_size: int, refused: Sequence[str] = ()) -> list[Batch]:
    """Group samples by equal prompt shape and cut each group into batches.

    Long prompts come first, so that a run that needs too much memory says so at once. Inside a group the order of
    the data is kept.

    Args:
        items: The samples to trace.
        batch_size: Most samples in a batch, at least 1.
        refused: Samples that could not be read; they get rows with their errors, in batches of their own.

    Raises:
        ValueError: If the batch size is below 1, or an id occurs twice.

    >>> items = [Item("a", (2, 30)), Item("b", (3, 40)), Item("c", (2, 30)), Item("d", (2, 30))]
    >>> [batch.ids for batch in plan_batches(items, 2)]
    [('b',), ('a', 'c'), ('d',)]
    """
    if batch_size < 1:
        raise ValueError(f"a batch needs at least one sample, not {batch_size}")
    counts = Counter([*refused, *(item.id for item in items)])
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"sample id {twice[0]!r} occurs {counts[twice[0]]} times; ids must be unique")
    groups: dict[tuple[tuple[int, ...], bool], list[str]] = {}
    for item in items:
        groups.setdefault((item.shape, item.anchor), []).append(item.id)
    parts: list[tuple[BatchKind, tuple[str, ...]]] = [("refused", part) for part in _chunks(refused, REFUSED_SIZE)]
    for key in sorted(groups, reverse=True):
        parts += [("trace", part) for part in _chunks(groups[key], batch_size)]
    return [Batch(index, kind, part) for index, (kind, part) in enumerate(parts)]


def draw(ids: Iterable[str], count: int | None, seed: int) -> list[str]:
    """Draw `count` ids by their digests, the same ones whatever else the data holds; order as given.

    >>> draw(["a", "b", "c", "d"], 2, seed=0) == draw(["a", "b", "c", "d"], 2, seed=0)
    True
    """
    names = list(ids)
    if count is None or count >= len(names):
        return names
    chosen = set(sorted(names, key=lambda name: rank(name, seed))[: max(count, 0)])
    return [name for name in names if name in chosen]


def draw_evenly(groups: dict[str, str], count: int | None, seed: int) -> list[str]:
    """Draw `count` ids so that every group gets its turn: the n-th of each group before the (n+1)-th of any.

    Args:
        groups: Group of each id, in the order of the data.
        count: How many; None for all.
        seed: Changes which ids are drawn.
    """
    if count is None or count >= len(groups):
        return list(groups)
    turn: dict[str, int] = {}
    order = []
    for name in sorted(groups, key=lambda name: rank(name, seed)):
        turn[groups[name]] = turn.get(groups[name], -1) + 1
        order.append((turn[groups[name]], rank(name, seed), name))
    chosen = {name for _, _, name in sorted(order)[: max(count, 0)]}
    return [name for name in groups if name in chosen]


def rank(name: str, seed: int) -> str:
    """Where an id stands in the draws of a seed; depends on nothing else."""
    return hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()


def _chunks(values: Sequence[T], size: int) -> list[tuple[T, ...]]:
    return [tuple(values[start : start + size]) for start in range(0, len(values), size)]
