"""What scores of right and wrong answers in several styles tell about a reward model: is it paid for style?

For published files of scores that come without the answers: the place of a style, from plain to rich, stands where the
length would. Scores in, estimates out; the files are read in `rewardmodels.readers.rm_bench`. Imports no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.clustering import FloatArray
from probes.estimates import Estimate, mean
from rewardmodels.lengths import LengthCorrelations, length_correlations
from rewardmodels.styles import STYLES, StyleMatrix, style_matrix


@dataclass(frozen=True)
class StyleReport:
    """What to print of a reward model's scores by style."""

    matrix: StyleMatrix
    """As it scores; ties get nothing, as in RM-Bench."""
    domains: Mapping[str, StyleMatrix]
    """The same in each domain; empty where domains are not known."""
    correlations: LengthCorrelations
    """Of the score and the style's place, from plain to rich."""
    right_is_worth: Estimate
    """Mean score of right answers minus that of wrong ones in the same styles."""
    rich_is_worth: Estimate
    """Mean score in the richest style minus that in the plainest, of the same item and side."""
    centred: StyleMatrix
    """With each style's mean taken off its scores, as the other half of the items has it: see `style_centred`."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "matrix": self.matrix.to_dict(),
            "domains": {name: found.to_dict() for name, found in self.domains.items()},
            "correlations": self.correlations.to_dict(),
            "right_is_worth": self.right_is_worth.to_dict(),
            "rich_is_worth": self.rich_is_worth.to_dict(),
            "centred": self.centred.to_dict(),
        }


def style_report(
    chosen: npt.ArrayLike,
    rejected: npt.ArrayLike,
    domains: Sequence[str] | None = None,
    clusters: npt.ArrayLike | None = None,
    *,
    styles: Sequence[str] = STYLES,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> StyleReport:
    """Ask every question that scores by style can answer. Items are clusters at least.

    Args:
        chosen: (items, styles) scores of the right answer in every style, from plain to rich.
        rejected: (items, styles) scores of the wrong answer in the same styles.
        domains: (items,) domain of each item, where known; accuracies are then macro means over domains.
        clusters: (items,) what items share; None takes items as independent.
        styles: Names of the styles.
        resamples: Bootstrap draws.
        seed: Of the bootstraps and of the halves.
        level: Confidence level in (0, 1).

    Raises:
        ValueError: If shapes differ, scores are missing, or there are fewer than two styles or items.
    """
    names = None if domains is None else np.asarray(domains)
    matrix = style_matrix(chosen, rejected, names, clusters, styles=styles, ties=0.0, level=level)
    right, wrong = np.asarray(chosen, dtype=np.float64), np.asarray(rejected, dtype=np.float64)
    shared = np.arange(len(right)) if clusters is None else np.asarray(clusters)
    even = style_centred(right, wrong, seed=seed)
    both = np.stack([right, wrong], axis=1)
    return StyleReport(
        matrix=matrix,
        domains={} if names is None else _by_domain(right, wrong, names, shared, styles, level),
        correlations=style_correlations(right, wrong, shared, resamples=resamples, seed=seed, level=level),
        right_is_worth=mean((right - wrong).mean(1), shared, level),
        rich_is_worth=mean((both[:, :, -1] - both[:, :, 0]).mean(1), shared, level),
        centred=style_matrix(*even, names, clusters, styles=styles, ties=0.0, level=level),
    )


def style_correlations(
    chosen: npt.ArrayLike,
    rejected: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> LengthCorrelations:
    """Correlations of the score and the style's place, from plain to rich; right and wrong answers are the quality.

    Args:
        chosen: (items, styles) scores of right answers.
        rejected: (items, styles) scores of wrong answers.
        clusters: (items,) what items share; None takes items as independent.
        resamples: Bootstrap draws.
        seed: Of the draws.
        level: Confidence level in (0, 1).

    Raises:
        ValueError: As `length_correlations`.
    """
    both = np.stack([np.asarray(side, dtype=np.float64) for side in (chosen, rejected)], axis=1)
    count, _, width = both.shape
    item = np.arange(count)
    return length_correlations(
        both.ravel(),
        np.tile(np.arange(width, dtype=np.float64), 2 * count),
        np.tile(np.repeat([1.0, 0.0], width), count),
        np.repeat(item, 2 * width),
        np.repeat(item if clusters is None else np.asarray(clusters), 2 * width),
        resamples=resamples,
        seed=seed,
        level=level,
    )


def style_centred(chosen: npt.ArrayLike, rejected: npt.ArrayLike, *, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Take each style's mean off its scores, as estimated on the other half of the items.

    A reward model that pays every answer alike for its style ranks by content afterwards; what style bias is left
    depends on the answer. No item helps to set its own correction. Ours.

    Args:
        chosen: (items, styles) scores of right answers.
        rejected: (items, styles) scores of wrong answers.
        seed: Draws the halves.

    Returns:
        The two arrays, corrected.

    Raises:
        ValueError: If shapes differ, or there are fewer than two items.

    >>> right, wrong = style_centred([[1.0, 5.0], [1.0, 5.0]], [[0.0, 4.0], [0.0, 4.0]])
    >>> right.tolist(), wrong.tolist()
    ([[0.5, 0.5], [0.5, 0.5]], [[-0.5, -0.5], [-0.5, -0.5]])
    """
    both = np.stack([np.asarray(side, dtype=np.float64) for side in (chosen, rejected)], axis=1)
    if len(both) < 2:
        raise ValueError(f"a correction from the other half of the items needs two items or more, got {len(both)}")
    order = np.random.default_rng(seed).permutation(len(both))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    corrected = both.copy()
    for own, other in (halves, halves[::-1]):
        corrected[own] -= both[other].mean(axis=(0, 1))
    return corrected[:, 0], corrected[:, 1]


def _by_domain(
    right: FloatArray,
    wrong: FloatArray,
    names: npt.NDArray[Any],
    clusters: npt.NDArray[Any],
    styles: Sequence[str],
    level: float,
) -> dict[str, StyleMatrix]:
    found = {}
    for name in np.unique(names):
        own = names == name
        found[str(name)] = style_matrix(
            right[own], wrong[own], None, clusters[own], styles=styles, ties=0.0, level=level
        )
    return found
