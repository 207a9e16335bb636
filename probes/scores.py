"""From attention factors and answers to published numbers: attention accuracy, IVM rate, and what stands beside them.

The one place to import scores from. Arrays in, :class:`~probes.estimates.Estimate` out, clustered by base sample.
Knows nothing of models, files or figures, and imports no torch.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.clustering import BoolArray, FloatArray, as_flags, as_indices, as_targets, as_vector
from probes.estimates import Estimate, proportion
from probes.focusing import (
    RULES,
    focus,
    focus_all,
    focus_by_depth,
    focus_histogram,
    focus_shares,
    image_counts,
)
from probes.positions import PositionSpread, PositionStudy, position_spread, position_study
from probes.regions import RegionScore, RegionSummary, region_attention_accuracy, region_summary
from probes.rulechoice import OracleMaximum, Rule, RuleScore, choose_rule, oracle_maximum, score_rules

__all__ = [
    "RULES",
    "Agreement",
    "OracleMaximum",
    "PositionSpread",
    "PositionStudy",
    "RegionScore",
    "RegionSummary",
    "Rule",
    "RuleScore",
    "Scoreboard",
    "accuracy_by_layer",
    "attention_accuracy",
    "attention_accuracy_when_wrong",
    "causal_agreement",
    "chance_level",
    "choose_rule",
    "focus",
    "focus_all",
    "focus_by_depth",
    "focus_histogram",
    "focus_rate",
    "focus_shares",
    "image_counts",
    "ivm_rate",
    "oracle_maximum",
    "position_spread",
    "position_study",
    "region_attention_accuracy",
    "region_summary",
    "score_rules",
    "scoreboard",
    "shared_focus_rate",
]


@dataclass(frozen=True)
class Scoreboard:
    """Attention accuracy with everything that it must be read beside."""

    answer_accuracy: Estimate
    """P(answer correct)."""
    attention_accuracy: Estimate
    """P(focus = target | answer correct): the headline."""
    ivm_rate: Estimate
    """P(focus != target | answer correct): right answers that looked elsewhere."""
    attention_when_wrong: Estimate
    """P(focus = target | answer wrong)."""
    attention_overall: Estimate
    """P(focus = target)."""
    chance: float
    """Mean of 1 / images over all samples."""
    chance_when_right: float
    """Mean of 1 / images over the right answers: the chance line of the headline."""
    chance_when_wrong: float
    """Mean of 1 / images over the wrong answers."""


@dataclass(frozen=True)
class Agreement:
    """How often the focus is the image whose removal hurts the answer most."""

    estimate: Estimate
    chance: float
    """Mean of 1 / images over the samples used."""


def attention_accuracy(
    focused: npt.ArrayLike,
    target: npt.ArrayLike,
    correct: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """P(focus = target | answer correct), as in the Implicit visual misunderstanding paper's released code.

    Args:
        focused: (samples,) 0-based image in focus.
        target: (samples,) 0-based image that holds the answer.
        correct: (samples,) whether the answer was right.
        clusters: (samples,) base sample of each sample; None takes samples as independent.
        level: confidence level in (0, 1).

    Returns:
        The estimate over right answers only; without any, NaN with [0, 1].

    Raises:
        ValueError: if lengths differ, or a sample has no target or is unscored.

    >>> attention_accuracy([0, 1, 2, 2], [0, 1, 0, 2], [True, True, True, False]).value
    0.6666666666666666
    """
    hit, right = _hits(focused, target), as_flags(correct, "correct")
    return _among(hit, right, clusters, level)


def ivm_rate(
    focused: npt.ArrayLike,
    target: npt.ArrayLike,
    correct: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """P(focus != target | answer correct): one minus :func:`attention_accuracy`. The name is ours.

    >>> ivm_rate([0, 1, 2, 2], [0, 1, 0, 2], [True, True, True, False]).value
    0.33333333333333337
    """
    return attention_accuracy(focused, target, correct, clusters, level).complement()


def attention_accuracy_when_wrong(
    focused: npt.ArrayLike,
    target: npt.ArrayLike,
    correct: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """P(focus = target | answer wrong); arguments and errors as :func:`attention_accuracy`.

    >>> attention_accuracy_when_wrong([0, 1, 2, 2], [0, 1, 0, 2], [True, True, True, False]).value
    1.0
    """
    hit, right = _hits(focused, target), as_flags(correct, "correct")
    return _among(hit, ~right, clusters, level)


def focus_rate(
    focused: npt.ArrayLike, target: npt.ArrayLike, clusters: npt.ArrayLike | None = None, level: float = 0.95
) -> Estimate:
    """P(focus = target) whatever the answer; arguments and errors as :func:`attention_accuracy`.

    >>> focus_rate([0, 1, 2, 2], [0, 1, 0, 2]).value
    0.75
    """
    return proportion(_hits(focused, target), clusters, level)


def shared_focus_rate(
    factors: npt.ArrayLike,
    target: npt.ArrayLike,
    rule: str = "M-LND",
    last: int = 4,
    clusters: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """P(focus = target) with ties shared: the control of an untrained, teacher-forced model.

    An untrained model has no right answers to condition on. With target positions balanced, it sits at
    :func:`chance_level`; uniform attention gives chance exactly.

    Args:
        factors: (samples, layers, images), padded with NaN.
        target: (samples,) 0-based image that holds the answer.
        rule: focus rule.
        last: how many of the last layers count.
        clusters: (samples,) base sample (or weight seed) of each sample.
        level: confidence level in (0, 1).

    Raises:
        ValueError: as :func:`focus_shares`, and if a target is not an image of its sample.

    >>> shared_focus_rate([[[0.2, 0.2]], [[0.1, 0.1]]], target=[0, 1]).value
    0.5
    """
    images = image_counts(factors)
    if images.size == 0:
        return proportion([], clusters, level)
    wanted = as_targets(target, images)
    shares = focus_shares(factors, rule, last)
    return proportion(shares[np.arange(len(shares)), wanted], clusters, level)


def chance_level(n_images: npt.ArrayLike) -> float:
    """Chance of a blind focus: the mean of one over the number of images. NaN without samples.

    Args:
        n_images: (samples,) images that each sample's focus may fall on (see :func:`image_counts`; without the anchor
            in image-to-image retrieval).

    Raises:
        ValueError: if a sample has fewer than one image.

    >>> chance_level([2, 4])
    0.375
    """
    counts = as_vector(n_images, "n_images")
    if counts.size and counts.min() < 1:
        raise ValueError(f"every sample needs at least one image, got {counts.min():g}")
    return float((1.0 / counts).mean()) if counts.size else math.nan


def scoreboard(
    focused: npt.ArrayLike,
    target: npt.ArrayLike,
    correct: npt.ArrayLike,
    n_images: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Scoreboard:
    """All numbers that stand beside attention accuracy, from the same samples.

    Args:
        focused: (samples,) 0-based image in focus.
        target: (samples,) 0-based image that holds the answer.
        correct: (samples,) whether the answer was right.
        n_images: (samples,) images that the focus may fall on.
        clusters: (samples,) base sample of each sample.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if lengths differ, a sample has no target or is unscored, or an index is not below ``n_images``.
    """
    hit, right, images = _hits(focused, target), as_flags(correct, "correct"), as_vector(n_images, "n_images")
    as_targets(target, images)
    as_targets(focused, images)
    headline = _among(hit, right, clusters, level)
    return Scoreboard(
        answer_accuracy=proportion(right, clusters, level),
        attention_accuracy=headline,
        ivm_rate=headline.complement(),
        attention_when_wrong=_among(hit, ~right, clusters, level),
        attention_overall=proportion(hit, clusters, level),
        chance=chance_level(images),
        chance_when_right=chance_level(images[right]),
        chance_when_wrong=chance_level(images[~right]),
    )


def accuracy_by_layer(
    factors: npt.ArrayLike,
    target: npt.ArrayLike,
    correct: npt.ArrayLike | None = None,
    clusters: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> list[Estimate]:
    """Attention accuracy of each single layer: the focus is that layer's largest factor, equal ones sharing it.

    A layer that sees no image (a sliding window that lies behind them all) has equal factors, and so no focus: sharing
    puts it at chance, where taking the first image would credit it with every target that stands first.

    Args:
        factors: (samples, layers, images), padded with NaN.
        target: (samples,) 0-based image that holds the answer.
        correct: (samples,) whether the answer was right; None takes all samples, which gives P(focus = target).
        clusters: (samples,) base sample of each sample.
        level: confidence level in (0, 1).

    Returns:
        One estimate for each layer, in the order of the factors' layer axis.

    Raises:
        ValueError: as :func:`attention_accuracy` and :func:`focus_all`.
    """
    table = np.asarray(factors, dtype=np.float64)
    if table.ndim != 3:
        raise ValueError(f"factors must be (samples, layers, images), got the shape {table.shape}")
    wanted = as_targets(target, image_counts(table))
    kept = np.ones(len(table), dtype=bool) if correct is None else as_flags(correct, "correct")
    layers = [focus_shares(table[:, [layer]], "LND", 1) for layer in range(table.shape[1])]
    return [_among(shares[np.arange(len(table)), wanted], kept, clusters, level) for shares in layers]


def causal_agreement(
    focused: npt.ArrayLike,
    effects: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    min_effect: float | None = None,
    level: float = 0.95,
) -> Agreement:
    """Share of samples whose focus is the image of largest causal effect; equal effects share the hit.

    Args:
        focused: (samples,) 0-based image in focus.
        effects: (samples, images) drop in the answer's log-probability when each image is removed, padded with NaN.
        clusters: (samples,) base sample of each sample.
        min_effect: leave out samples whose largest effect is not above this: no image mattered to them. None keeps all.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if lengths differ, a sample has no effects, or a focus falls on an image without effect.

    >>> causal_agreement([0, 1], [[2.0, 0.1], [3.0, 0.2]]).estimate.value
    0.5
    """
    table, chosen = np.asarray(effects, dtype=np.float64), as_indices(focused, "focused")
    if table.ndim != 2 or len(table) != chosen.size:
        raise ValueError(f"effects must be (samples, images) for {chosen.size} samples, got the shape {table.shape}")
    if chosen.size == 0:
        return Agreement(proportion([], clusters, level), math.nan)
    shares, present = focus_shares(table[:, None], "LND", 1), ~np.isnan(table)
    rows = np.arange(len(table))
    astray = (chosen >= table.shape[1]) | ~present[rows, np.minimum(chosen, table.shape[1] - 1)]
    if astray.any():
        sample = int(astray.argmax())
        raise ValueError(f"sample {sample}: the focus {chosen[sample]} is not among the images with a causal effect")
    kept = np.ones(len(table), dtype=bool) if min_effect is None else np.nanmax(table, axis=1) > min_effect
    estimate = _among(shares[rows, chosen], kept, clusters, level)
    return Agreement(estimate, chance_level(present.sum(axis=1)[kept]))


def _among(success: FloatArray | BoolArray, kept: BoolArray, clusters: npt.ArrayLike | None, level: float) -> Estimate:
    if success.shape != kept.shape:
        raise ValueError(f"lengths differ: {success.size} samples in focus, {kept.size} answers")
    labels = None if clusters is None else np.asarray(clusters)
    if labels is not None and labels.shape != kept.shape:
        raise ValueError(f"clusters must hold one label for each of the {kept.size} samples, got {labels.shape}")
    return proportion(success[kept], None if labels is None else labels[kept], level)


def _hits(focused: npt.ArrayLike, target: npt.ArrayLike) -> BoolArray:
    chosen, wanted = as_indices(focused, "focused"), as_indices(target, "target")
    if chosen.size != wanted.size:
        raise ValueError(f"lengths differ: {chosen.size} samples in focus, {wanted.size} targets")
    return np.asarray(chosen == wanted)
