"""Rulers that read an answer's surface alone: more lines, more numbers, fewer hedges; each, and all together.

They see neither image nor prompt. What they rank right, a benchmark cannot count as seen. Imports no torch.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.clustering import FloatArray, cluster_index
from probes.estimates import Estimate, proportion
from rewardmodels.evaluation import GroupedAccuracy, pair_credits, shares_by_group

_MARKDOWN = re.compile(r"\*\*|^#+ |^\s*[-*] |^\s*\d+\. |^\|", re.MULTILINE)
_HEDGES = re.compile(
    r"\b(?:might|may|could|possibly|perhaps|seems?|appears?|likely|unclear|sorry|apologi[sz]e|cannot|can't)\b", re.I
)


def _counter(pattern: str) -> Callable[[str], float]:
    compiled = re.compile(pattern)
    return lambda text: float(len(compiled.findall(text)))


CUES: Mapping[str, Callable[[str], float]] = {
    "longer": lambda text: float(len(text)),
    "more lines": lambda text: float(text.count("\n")),
    "more markdown": lambda text: float(len(_MARKDOWN.findall(text))),
    "more numbers": _counter(r"\d+"),
    "more capitals": _counter(r"\b[A-Z]\w+"),
    "more hedges": lambda text: float(len(_HEDGES.findall(text))),
    "more of I": _counter(r"\bI\b"),
}
"""What is counted in an answer, by what its ruler prefers."""


@dataclass(frozen=True)
class TextCues:
    """Pair accuracy of rulers that read the surface of the two answers."""

    cues: Mapping[str, Estimate]
    """Of each cue; ties, where both answers have as many, count one half."""
    tied: Mapping[str, int]
    """Pairs that each cue cannot tell."""
    together: GroupedAccuracy
    """Of all cues in one logistic model, which never saw the pairs of the question that it ranks."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "cues": {name: estimate.to_dict() for name, estimate in self.cues.items()},
            "tied": dict(self.tied),
            "together": self.together.to_dict(),
        }


def text_cues(
    chosen: Sequence[str],
    rejected: Sequence[str],
    groups: Sequence[str],
    clusters: Sequence[str],
    *,
    folds: int = 10,
    seed: int = 0,
    level: float = 0.95,
) -> TextCues:
    """Estimate what each cue, and all of them, rank right.

    Args:
        chosen: (pairs,) texts of the better answers.
        rejected: (pairs,) texts of the worse answers.
        groups: (pairs,) category of each pair.
        clusters: (pairs,) what pairs share, such as their question; a cluster is in one fold.
        folds: Parts in which the clusters are held out from the logistic model.
        seed: Draws the folds.
        level: Confidence level in (0, 1).

    Raises:
        ValueError: If there is no pair, lengths differ, or there are fewer than two clusters or folds.

    >>> found = text_cues(["a long answer", "another one"], ["short", "one"], ["all"] * 2, ["a", "b"], folds=2)
    >>> found.cues["longer"].value, found.tied["more lines"]
    (1.0, 2)
    """
    better, worse = _counts(chosen), _counts(rejected)
    if better.shape != worse.shape or len(better) == 0:
        raise ValueError(f"texts must be of the same pairs, at least one, got {len(better)} and {len(worse)}")
    credits = {name: pair_credits(better[:, at], worse[:, at]) for at, name in enumerate(CUES)}
    # Twice as long is as telling of short answers as of long ones.
    margins = held_out_margins(np.log1p(better) - np.log1p(worse), clusters, folds=folds, seed=seed)
    right = np.where(margins > 0, 1.0, np.where(margins == 0, 0.5, 0.0))
    return TextCues(
        cues={name: proportion(right, clusters, level) for name, right in credits.items()},
        tied={name: int((right == 0.5).sum()) for name, right in credits.items()},
        together=shares_by_group(right, groups, clusters, ties=int((margins == 0).sum()), level=level),
    )


def held_out_margins(
    differences: npt.ArrayLike, clusters: npt.ArrayLike, *, folds: int = 10, seed: int = 0, strength: float = 1.0
) -> FloatArray:
    """Score each pair by a logistic model of feature differences that was fitted without its cluster's fold.

    The model has no intercept, so changing the sides of a pair changes the sign of its margin and nothing else.

    Args:
        differences: (pairs, features) of the better answer minus the worse one.
        clusters: (pairs,) what pairs share.
        folds: Parts; at most as many as clusters.
        seed: Draws them.
        strength: Of the pull of the weights towards 0, features standardised.

    Returns:
        (pairs,) margins, positive where the better answer wins.

    Raises:
        ValueError: If there are fewer than two clusters or folds, or lengths differ.
    """
    table = np.asarray(differences, dtype=np.float64)
    index, count = cluster_index(clusters, len(table))
    if min(count, folds) < 2:
        raise ValueError(f"held-out margins need two clusters and two folds or more, got {count} and {folds}")
    fold_of = np.random.default_rng(seed).permutation(count) % min(folds, count)
    margins = np.zeros(len(table))
    for fold in range(min(folds, count)):
        held = fold_of[index] == fold
        scale = np.sqrt((table[~held] ** 2).mean(axis=0))
        scaled = table / np.where(scale > 0, scale, 1.0)
        margins[held] = scaled[held] @ _logistic(scaled[~held], strength)
    return margins


def _logistic(table: FloatArray, strength: float) -> FloatArray:
    """Weights that make every row's margin positive as far as it can be had."""
    from sklearn.linear_model import LogisticRegression

    # Each pair is given from both sides, as a classifier needs two classes: its loss counts twice.
    model = LogisticRegression(C=1 / (2 * strength), fit_intercept=False, solver="newton-cholesky", tol=1e-10)
    model.fit(np.vstack([table, -table]), np.repeat([1, 0], len(table)))
    weights: FloatArray = model.coef_[0]
    return weights


def _counts(texts: Sequence[str]) -> FloatArray:
    return np.array([[count(text) for count in CUES.values()] for text in texts], dtype=np.float64).reshape(
        len(texts), len(CUES)
    )
