"""Figures of published files: estimates in, figures out. Knows no file."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from probes.estimates import Estimate
from rewardmodels.evaluation import GroupedAccuracy
from rewardmodels.pair_scores import PairColumns
from rewardmodels.rulers import BesideRulers
from rewardmodels.style_scores import StyleReport
from rewardmodels.text_cues import TextCues

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def styles(found: StyleReport) -> "Figure":
    """Mean scores by style, and the style matrix."""
    from viz import rewards

    value, low, high = _numbers([cell for row in found.matrix.accuracy for cell in row])
    side = len(found.matrix.styles)
    return rewards.style_matrix(
        found.matrix.styles,
        value.reshape(side, side),
        np.stack(_numbers(found.matrix.chosen), axis=1),
        np.stack(_numbers(found.matrix.rejected), axis=1),
        low.reshape(side, side),
        high.reshape(side, side),
    )


def centred(found: StyleReport) -> "Figure":
    """Easy, normal and hard accuracy, as it scores and with each style's mean taken off."""
    names = ("easy", "normal", "hard", "average")
    series = {
        "as it scores": [getattr(found.matrix, name) for name in names],
        "each style's mean taken off (ours)": [getattr(found.centred, name) for name in names],
    }
    return _compared(names, series)


def rulers(found: BesideRulers, cues: TextCues) -> "Figure":
    """What rules without content rank right: length, a coin, and the surface's cues."""
    from viz import rewards

    shown: dict[str, Estimate] = {**{f"{name} answer": each for name, each in found.rulers.items() if name != "random"}}
    shown |= {name: each for name, each in cues.cues.items() if name != "longer"}
    shown |= {"all cues, held out": cues.together.micro, "a coin": found.rulers["random"]}
    return rewards.rulers(list(shown), *_numbers(list(shown.values())), scored=0, quantity="pairs ranked right")


def groups(longer: GroupedAccuracy, cues: TextCues) -> "Figure":
    """The longer answer, and all cues together, in each category."""
    names = [*longer.groups, "all pairs"]
    series = {
        "the longer answer": [*longer.groups.values(), longer.micro],
        "all cues, held out": [*cues.together.groups.values(), cues.together.micro],
    }
    return _compared(names, series)


def length(columns: PairColumns, correlation: Estimate) -> "Figure":
    """Scores against lengths."""
    from viz import rewards

    return rewards.reward_against_length(
        columns.chosen,
        columns.rejected,
        columns.chosen_lengths,
        columns.rejected_lengths,
        (correlation.value, correlation.low, correlation.high),
        quantity="score",
    )


def _compared(names: Sequence[str], series: Mapping[str, Sequence[Estimate]]) -> "Figure":
    from viz import papers

    parts = [_numbers(estimates) for estimates in series.values()]
    value, low, high = (np.stack([part[at] for part in parts]) for at in range(3))
    return papers.ranking(names, value, low, high, 0.5, list(series), quantity="pairs ranked right")


def _numbers(estimates: Sequence[Estimate]) -> tuple[npt.NDArray[np.float64], ...]:
    """Values, lower and upper ends; (estimates,) each."""
    return tuple(np.array([getattr(each, name) for each in estimates]) for name in ("value", "low", "high"))
