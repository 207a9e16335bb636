"""What the tables of benches share: tables of Markdown, ratios with their intervals, and why cells failed."""

import math
from collections.abc import Iterable, Sequence

from probes.estimates import Estimate
from studies.bench_cells import PairedCell

MEGABYTE = 2**20
GIGABYTE = 2**30


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table.

    >>> markdown_table(["a", "b"], [["1", "2"]])
    ['| a | b |', '| --- | --- |', '| 1 | 2 |']
    """
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def with_interval(estimate: Estimate) -> str:
    """A ratio and its interval; one without ends, as that of a median of few, is not written.

    >>> with_interval(Estimate(1.2, 9, 1.125, 1.3)), with_interval(Estimate(1.2, 4, -math.inf, math.inf))
    ('1.20 [1.12, 1.30]', '1.20 (n = 4)')
    """
    if math.isinf(estimate.high - estimate.low):
        return f"{estimate.value:.2f} (n = {estimate.n})"
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def least_to_most(values: Sequence[float], form: str) -> str:
    """The least and the most, or both at once.

    >>> least_to_most([3, 1], "d"), least_to_most([0.5], ".2f")
    ('1 to 3', '0.50')
    """
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"


def failure(cell: PairedCell, memory_limit: int) -> str:
    """Why a cell failed, with the memory that it was allowed (bytes) where that is why."""
    if cell.out_of_memory:
        return f"{cell.error} ({memory_limit / GIGABYTE:.3g} GiB allowed)"
    return str(cell.error)
