"""Which focus rule to publish: fixed on a dev split, and beside it the oracle maximum, called that.

The Implicit visual misunderstanding paper's released code reports the maximum over rules and layers on the evaluation
samples themselves; that number is :func:`oracle_maximum` here. Knows nothing of models or files, and imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.clustering import as_flags, as_indices, as_targets
from probes.errors import counted
from probes.estimates import Estimate, proportion
from probes.focusing import RULES, check_rule, focus_by_depth, image_counts
from probes.inputs import InputError


@dataclass(frozen=True)
class Rule:
    """A focus rule over a number of last layers.

    >>> print(Rule("M-LND", 4))
    M-LND over the last 4 layers
    """

    name: str
    last: int

    def __post_init__(self) -> None:
        check_rule(self.name, self.last)

    def __str__(self) -> str:
        return f"{self.name} over the last {self.last} layers" if self.last > 1 else f"{self.name} over the last layer"

    @property
    def complexity(self) -> tuple[int, int]:
        """Order of simplicity: fewer layers first, then LND, M-LND, MC-LND."""
        return self.last, RULES.index(self.name)


@dataclass(frozen=True)
class RuleScore:
    """Attention accuracy under one rule."""

    rule: Rule
    estimate: Estimate


@dataclass(frozen=True)
class OracleMaximum:
    """The largest attention accuracy over all candidate rules, chosen on the very samples that it scores."""

    rule: Rule
    estimate: Estimate
    """Its interval does not count the choice: it is too narrow, and the value too high."""
    candidates: int
    """How many rules the maximum was taken over."""
    label: str = "oracle maximum (rule chosen on the evaluation samples)"


def score_rules(
    factors: npt.ArrayLike,
    target: npt.ArrayLike,
    correct: npt.ArrayLike,
    candidates: Sequence[Rule] | None = None,
    clusters: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> list[RuleScore]:
    """Attention accuracy under every candidate rule, simplest first.

    Args:
        factors: (samples, layers, images), padded with NaN.
        target: (samples,) 0-based image that holds the answer.
        correct: (samples,) whether the answer was right.
        candidates: rules to try; None tries each rule over the last 1, 2, ... and all layers.
        clusters: (samples,) base sample of each sample.
        level: confidence level in (0, 1).

    Raises:
        ValueError: if lengths differ, or a candidate asks for more layers than there are.
    """
    table, wanted, right = (
        np.asarray(factors, dtype=np.float64),
        as_indices(target, "target"),
        as_flags(correct, "correct"),
    )
    if table.ndim != 3 or not len(table) == wanted.size == right.size:
        raise ValueError(
            f"factors must be (samples, layers, images) with one target and one answer for each sample; got the shape "
            f"{table.shape}, {wanted.size} targets and {right.size} answers"
        )
    as_targets(wanted, image_counts(table))
    rules = _candidates(candidates, table.shape[1])
    labels = None if clusters is None else np.asarray(clusters)[right]
    deepest = {name: max(rule.last for rule in rules if rule.name == name) for name in {rule.name for rule in rules}}
    focused = {name: focus_by_depth(table[right], name, depth) for name, depth in deepest.items()}
    return [
        RuleScore(rule, proportion(focused[rule.name][:, rule.last - 1] == wanted[right], labels, level))
        for rule in rules
    ]


def choose_rule(
    factors: npt.ArrayLike,
    target: npt.ArrayLike,
    correct: npt.ArrayLike,
    candidates: Sequence[Rule] | None = None,
) -> Rule:
    """Choose rule and number of layers on a dev split: largest attention accuracy, the simplest among equals.

    Simplest is fewest layers, then LND, M-LND, MC-LND in this order.

    Args:
        factors: (samples, layers, images) of the dev split, padded with NaN.
        target: (samples,) 0-based image that holds the answer.
        correct: (samples,) whether the answer was right.
        candidates: rules to try; None tries each rule over the last 1, 2, ... and all layers.

    Raises:
        InputError: if no answer of the dev split is right.
        ValueError: as :func:`score_rules`.

    >>> str(choose_rule([[[0.9, 0.1], [0.2, 0.3]], [[0.1, 0.8], [0.4, 0.3]]], target=[0, 1], correct=[True, True]))
    'LND over the last 2 layers'
    """
    return _best(score_rules(factors, target, correct, candidates)).rule


def oracle_maximum(
    factors: npt.ArrayLike,
    target: npt.ArrayLike,
    correct: npt.ArrayLike,
    candidates: Sequence[Rule] | None = None,
    clusters: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> OracleMaximum:
    """Largest attention accuracy over the candidates on these very samples; only beside a rule fixed on a dev split.

    Arguments as :func:`score_rules`.

    Raises:
        InputError: if no answer is right.
        ValueError: as :func:`score_rules`.
    """
    scores = score_rules(factors, target, correct, candidates, clusters, level)
    best = _best(scores)
    return OracleMaximum(best.rule, best.estimate, len(scores))


def _candidates(candidates: Sequence[Rule] | None, layers: int) -> list[Rule]:
    if candidates is None:
        candidates = [Rule(name, last) for last in range(1, layers + 1) for name in RULES]
    if not candidates:
        raise ValueError("there are no candidate rules to choose from")
    deepest = max(candidates, key=lambda rule: rule.last)
    if deepest.last > layers:
        raise ValueError(f"the candidate {deepest} asks for more than the {counted(layers, 'layer')} with factors")
    return sorted(set(candidates), key=lambda rule: rule.complexity)


def _best(scores: list[RuleScore]) -> RuleScore:
    if scores[0].estimate.n == 0:
        raise InputError(
            "no answer is right, so there is no attention accuracy to choose a focus rule by; "
            "name a rule and a number of layers instead"
        )
    return max(scores, key=lambda score: score.estimate.value)
