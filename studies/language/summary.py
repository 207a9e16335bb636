"""What the runs say: accuracy with the cue as in training, useless and reversed, in one form, and the pull of length.

Every test item has four answers, right and wrong, short and long. Accuracy where the longer answer is right on a share
p of pairs is the mean of both cases weighted by p: no drawing of test pairs adds to the noise. The unit is the seed.
Trains nothing. No torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from probes.estimates import Estimate, difference, mean
from rewardmodels.degradation import ShortcutFailureDegradation, mean_degradation, shortcut_failure_degradation
from rewardmodels.evaluation import pair_credits
from rewardmodels.lengths import partial_correlation
from studies.language.settings import STRENGTH

FloatArray = npt.NDArray[np.float64]
RIGHT_SHORT, RIGHT_LONG, WRONG_SHORT, WRONG_LONG = range(4)


class Scored(NamedTuple):
    """One run's scores of its test items.

    Attributes:
        scores: (items, 4), right and short, right and long, wrong and short, wrong and long.
        lengths: (items, 4) characters of the answers.
    """

    scores: npt.NDArray[Any]
    lengths: npt.NDArray[Any]


class Numbers(NamedTuple):
    """What one run's scores say; shares of pairs, ties one half, and a correlation."""

    iid: float
    ood: float
    reversed: float
    matched: float
    longer_right: float
    shorter_right: float
    correlation: float


@dataclass(frozen=True)
class Summary:
    """One method, over seeds."""

    method: str
    iid: Estimate
    """With the longer answer right as often as in training."""
    ood: Estimate
    """With the longer answer right in half of the pairs."""
    reversed: Estimate
    """With the longer answer wrong as often as it was right in training."""
    matched: Estimate
    """Both answers short, or both long."""
    longer_right: Estimate
    shorter_right: Estimate
    correlation: Estimate
    """Of score and log-length among the four answers to one item, right and wrong apart."""
    degradation: ShortcutFailureDegradation
    """Of each seed's o.o.d. pairs, those whose longer answer is right minus the others; with the pairs of all seeds."""
    iid_gain: Estimate
    """Minus plain, paired by seed."""
    ood_gain: Estimate
    matched_gain: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in values.items()}


def numbers_of(run: Scored) -> Numbers:
    """Work out one run's numbers.

    >>> numbers_of(Scored(np.array([[0.0, 2.0, -1.0, 1.0]]), np.array([[4, 40, 4, 40]]))).ood
    0.5
    """
    right, wrong = run.scores[:, :2].astype(np.float64), run.scores[:, 2:].astype(np.float64)
    longer = float(pair_credits(right[:, 1], wrong[:, 0]).mean())
    shorter = float(pair_credits(right[:, 0], wrong[:, 1]).mean())
    matched = float(np.mean([pair_credits(right[:, side], wrong[:, side]) for side in (0, 1)]))
    items = np.repeat(np.arange(len(run.scores)), 4)
    correlation = partial_correlation(
        run.scores.astype(np.float64).ravel(),
        np.log2(run.lengths.astype(np.float64)).ravel(),
        np.tile([1.0, 1.0, 0.0, 0.0], len(run.scores)),
        within=items,
    )
    return Numbers(
        iid=STRENGTH * longer + (1 - STRENGTH) * shorter,
        ood=(longer + shorter) / 2,
        reversed=(1 - STRENGTH) * longer + STRENGTH * shorter,
        matched=matched,
        longer_right=longer,
        shorter_right=shorter,
        correlation=correlation.value,
    )


def summarise(
    method: str,
    runs: Sequence[Scored],
    plain: Sequence[Scored],
) -> Summary:
    """Summarise a method over seeds.

    Args:
        method: Its name.
        runs: Of each seed.
        plain: Plain training's, of the same seeds.
    """
    found, base = ([numbers_of(run) for run in some] for some in (runs, plain))

    def over(name: str, bounds: tuple[float, float] = (0.0, 1.0)) -> Estimate:
        return mean([getattr(each, name) for each in found], bounds=bounds)

    def gain(name: str) -> Estimate:
        return difference([getattr(each, name) for each in found], [getattr(each, name) for each in base])

    return Summary(
        method=method,
        iid=over("iid"),
        ood=over("ood"),
        reversed=over("reversed"),
        matched=over("matched"),
        longer_right=over("longer_right"),
        shorter_right=over("shorter_right"),
        correlation=over("correlation", (-1.0, 1.0)),
        degradation=_degradation(runs),
        iid_gain=gain("iid"),
        ood_gain=gain("ood"),
        matched_gain=gain("matched"),
    )


def rulers() -> Mapping[str, Mapping[str, float]]:
    """What the longer answer gets: it needs no run."""
    return {"longer answer": {"iid": STRENGTH, "ood": 0.5, "reversed": round(1 - STRENGTH, 6), "matched": 0.5}}


def _degradation(runs: Sequence[Scored]) -> ShortcutFailureDegradation:
    each = [shortcut_failure_degradation(_mixed(run), np.tile([True, False], len(run.scores))) for run in runs]
    return mean_degradation(each)


def _mixed(run: Scored) -> npt.NDArray[np.bool_]:
    """Of each item's two pairs of unlike length, whether they are ranked right: longer right, then shorter right."""
    longer = run.scores[:, RIGHT_LONG] > run.scores[:, WRONG_SHORT]
    shorter = run.scores[:, RIGHT_SHORT] > run.scores[:, WRONG_LONG]
    return np.stack([longer, shorter], axis=1).ravel()
