"""Shortcut-failure degradation: how much worse a reward model ranks where the text alone misleads. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from probes.clustering import as_flags
from probes.estimates import Estimate, mean
from rewardmodels.group_means import share_gap


@dataclass(frozen=True, eq=False, repr=False)
class ShortcutFailureDegradation(Estimate):
    """An :class:`~probes.estimates.Estimate` in percentage points, with the sizes of its two sides.

    Noisy where few pairs fail: look at ``n_minus`` first.
    """

    n_plus: int = 0
    """Pairs that the text-only model ranks correctly, S+."""
    n_minus: int = 0
    """Pairs that it ranks wrongly, S-."""

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}; {self.n_plus} with the shortcut, {self.n_minus} against it)"

    def to_dict(self) -> dict[str, float | int | None]:
        """Return plain JSON values: those of an Estimate, and both sizes."""
        return {**super().to_dict(), "n_plus": self.n_plus, "n_minus": self.n_minus}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "ShortcutFailureDegradation":
        """Undo :meth:`to_dict`.

        Raises:
            ValueError: if the record misses a value.
        """
        base = Estimate.from_dict(record)
        missing = [name for name in ("n_plus", "n_minus") if name not in record]
        if missing:
            raise ValueError(f"a record of shortcut-failure degradation needs {', '.join(missing)}")
        return cls(
            base.value, base.n, base.low, base.high, base.clusters, int(record["n_plus"]), int(record["n_minus"])
        )


def shortcut_failure_degradation(
    correct: npt.ArrayLike,
    correct_text: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    level: float = 0.95,
) -> ShortcutFailureDegradation:
    """Estimate the drop of accuracy from the pairs that a text-only model ranks correctly to those that it does not.

    ``100 * (accuracy on S+ - accuracy on S-)``: a reconstruction, as no source gives the formula. The
    text-only model is trained on the same source as the model in question. The sides are two groups of different
    pairs: their Wilson intervals are combined as by Newcombe (1998); with clusters, those intervals are clustered and
    a cluster that has pairs on both sides lends the two means its correlation.

    Args:
        correct: (pairs,) booleans: the multimodal reward model ranks the pair correctly.
        correct_text: (pairs,) booleans: the text-only reward model does.
        clusters: (pairs,) base sample of each pair; None takes pairs as independent.
        level: confidence level in (0, 1).

    Returns:
        The degradation in percentage points, with ``n_plus`` and ``n_minus``; NaN with [-100, 100] if either is 0.

    Raises:
        ValueError: if values are missing or no booleans, or lengths differ.

    >>> found = shortcut_failure_degradation([True, True, True, False], [True, True, False, False])
    >>> found.value, found.n_plus, found.n_minus
    (50.0, 2, 2)
    """
    hits, by_text = as_flags(correct, "correct"), as_flags(correct_text, "correct_text")
    if hits.size != by_text.size:
        raise ValueError(f"correct and correct_text must hold the same pairs, got {hits.size} and {by_text.size}")
    gap = share_gap(hits, by_text, clusters, level)[2]
    n_plus = int(by_text.sum())
    return ShortcutFailureDegradation(
        100 * gap.value, gap.n, 100 * gap.low, 100 * gap.high, gap.clusters, n_plus, hits.size - n_plus
    )


def mean_degradation(runs: Sequence[ShortcutFailureDegradation]) -> ShortcutFailureDegradation:
    """Estimate the mean degradation over independent runs, such as seeds, with Student's interval.

    Args:
        runs: One degradation each, in percentage points; their own intervals do not enter.

    Returns:
        The mean, cut at -100 and 100; ``n`` counts runs, ``n_plus`` and ``n_minus`` the pairs of all runs together.

    >>> one = shortcut_failure_degradation([True, True, True, False], [True, True, False, False])
    >>> found = mean_degradation([one, one])
    >>> found.value, found.n, found.n_plus, found.n_minus
    (50.0, 2, 4, 4)
    """
    over = mean([run.value for run in runs], bounds=(-100.0, 100.0))
    n_plus, n_minus = sum(run.n_plus for run in runs), sum(run.n_minus for run in runs)
    return ShortcutFailureDegradation(over.value, over.n, over.low, over.high, over.clusters, n_plus, n_minus)
