"""What the runs say: accuracy at home and elsewhere, degradation, reversal, blank images, frontier; with intervals.

The unit is the seed: each seed's runs in the three environments make one transfer matrix. Reads a run folder's cells;
trains nothing. No torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from probes.estimates import Estimate, difference, mean
from rewardmodels.degradation import ShortcutFailureDegradation, mean_degradation, shortcut_failure_degradation
from studies.shortcuts.frontier import below_frontier
from studies.shortcuts.grid import Stored, Task, no_cue, read_cell
from studies.shortcuts.settings import ENVIRONMENTS, TEXT_ONLY, Cell, Place

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Condition:
    """One place of the map."""

    backbone: str
    learnability: str
    strength: float
    steps: int
    stop: float = 1.0
    """Share of the training after which it is measured."""

    @property
    def place(self) -> Place:
        """Without the stop."""
        return Place(self.backbone, self.learnability, self.strength, self.steps)

    @property
    def label(self) -> str:
        """In a line."""
        stopped = "" if self.stop == 1.0 else f", stopped after {self.stop:.0%}"
        return (
            f"{self.backbone} backbone, {self.learnability} pictures, cue right on {self.strength:.0%}, "
            f"{self.steps} steps{stopped}"
        )


@dataclass(frozen=True)
class Summary:
    """One method in one condition; shares, over seeds."""

    condition: Condition
    method: str
    seeds: tuple[int, ...]
    dev: Estimate
    """I.i.d. accuracy on dev pictures, which alone may choose between methods and stops."""
    iid: Estimate
    ood: Estimate
    reversed: Estimate
    """With the own cue wrong as often as it was right."""
    blank: Estimate
    """I.i.d. accuracy that is lost when the image is blanked."""
    neutral: Estimate
    """With every cue right on half."""
    degradation: ShortcutFailureDegradation
    """Over the other environments' pairs, in points; the sizes of its sides are those of all seeds together."""
    ceiling: Estimate
    """The image-only ceiling: accuracy after the same training on pairs in which no cue tells anything."""
    below_frontier: Estimate | None
    """Distance to the two-cue frontier of each seed's own ceiling; None from a backbone that does not see, which has
    no evidence to weigh.
    """
    pairs: int
    """Test pairs behind each accuracy at home; twice as many behind those elsewhere."""


def summarise(folder: Path, condition: Condition, method: str, seeds: Sequence[int]) -> Summary:
    """Summarise a method in a condition over complete seeds.

    Raises:
        InputError: If a run is missing.
    """
    runs = [_Seed(folder, condition, method, seed) for seed in seeds]
    bounds = (0.0, 1.0)
    iid, ood = (np.array([getattr(run, name) for run in runs]) for name in ("iid", "ood"))
    ceilings = _ceilings(folder, condition, seeds)
    return Summary(
        condition,
        method,
        tuple(seeds),
        dev=mean([run.share("dev") for run in runs], bounds=bounds),
        iid=mean(iid, bounds=bounds),
        ood=mean(ood, bounds=bounds),
        reversed=mean([run.share("reversed") for run in runs], bounds=bounds),
        blank=mean([run.iid - run.share("blank") for run in runs], bounds=(-1.0, 1.0)),
        neutral=mean([run.share("neutral") for run in runs], bounds=bounds),
        degradation=mean_degradation([run.degradation for run in runs]),
        ceiling=mean(ceilings, bounds=bounds),
        below_frontier=_below(ceilings, condition, iid, ood),
        pairs=sum(run.pairs for run in runs),
    )


def compare(
    folder: Path, one: tuple[Condition, str], other: tuple[Condition, str], seeds: Sequence[int]
) -> tuple[Estimate, Estimate]:
    """A method in a condition minus another, at home and elsewhere, paired by seed.

    Raises:
        InputError: If a run is missing.
    """
    first = [_Seed(folder, *one, seed) for seed in seeds]
    second = [_Seed(folder, *other, seed) for seed in seeds]
    return (
        difference([run.iid for run in first], [run.iid for run in second]),
        difference([run.ood for run in first], [run.ood for run in second]),
    )


def degradations(folder: Path, condition: Condition, method: str, seeds: Sequence[int]) -> FloatArray:
    """(seeds,) shortcut-failure degradation elsewhere, in points.

    Raises:
        InputError: If a run is missing.
    """
    return np.array([_Seed(folder, condition, method, seed).degradation.value for seed in seeds])


def transfer(folder: Path, condition: Condition, method: str, seeds: Sequence[int]) -> FloatArray:
    """(seeds, train, test) accuracies, as `rewardmodels.transfer.transfer_matrix` takes them.

    Raises:
        InputError: If a run is missing.
    """
    return np.array([_Seed(folder, condition, method, seed).matrix for seed in seeds])


class _Seed:
    """The runs of one seed in all environments."""

    def __init__(self, folder: Path, condition: Condition, method: str, seed: int) -> None:
        self._cells = {name: _stored(folder, condition, method, name, seed) for name in ENVIRONMENTS}
        self._text = {name: _stored(folder, condition, TEXT_ONLY, name, seed) for name in ENVIRONMENTS}
        self._stop = condition.stop

    def _right(self, stored: Stored, test: str) -> FloatArray:
        return ranked_right(stored.tests[test][stored.stops.index(self._stop)])

    @property
    def matrix(self) -> FloatArray:
        """(train, test) accuracies."""
        return np.array(
            [[self._right(self._cells[train], test).mean() for test in ENVIRONMENTS] for train in ENVIRONMENTS]
        )

    @property
    def iid(self) -> float:
        """Mean of the diagonal."""
        return float(self.matrix.diagonal().mean())

    @property
    def ood(self) -> float:
        """Mean off the diagonal."""
        matrix = self.matrix
        return float(matrix[~np.eye(len(matrix), dtype=bool)].mean())

    @property
    def pairs(self) -> int:
        """Test pairs at home."""
        return sum(self._cells[name].tests[name].shape[1] for name in ENVIRONMENTS)

    def share(self, test: str) -> float:
        """Mean accuracy on a test set over environments."""
        return float(np.mean([self._right(self._cells[name], test).mean() for name in ENVIRONMENTS]))

    @property
    def degradation(self) -> ShortcutFailureDegradation:
        """Over the other environments' pairs."""
        right, by_text = [], []
        for train in ENVIRONMENTS:
            for test in ENVIRONMENTS:
                if test != train:
                    right.append(self._right(self._cells[train], test) > 0.5)
                    by_text.append(self._right(self._text[train], test) > 0.5)
        return shortcut_failure_degradation(np.concatenate(right), np.concatenate(by_text))


def _stored(folder: Path, condition: Condition, method: str, environment: str, seed: int) -> Stored:
    return _cell(folder, Task(*condition.place, environment, seed).cell(method))


@lru_cache(maxsize=256)
def _cell(folder: Path, cell: Cell) -> Stored:
    """A finished run, which never changes: every method is compared with the same plain and text-only runs."""
    return read_cell(folder, cell)


def ranked_right(margins: npt.NDArray[np.float32]) -> FloatArray:
    """Which pairs are ranked right; ties count one half."""
    right: FloatArray = (np.sign(margins.astype(np.float64)) + 1) / 2
    return right


def _ceilings(folder: Path, condition: Condition, seeds: Sequence[int]) -> FloatArray:
    """(seeds,) accuracy where no cue tells anything, after the same share of the training."""
    runs = [_cell(folder, no_cue(condition.place, seed).cell("plain")) for seed in seeds]
    margins = [run.tests["neutral"][run.stops.index(condition.stop)] for run in runs]
    return np.array([ranked_right(each).mean() for each in margins])


def _below(ceilings: FloatArray, condition: Condition, iid: FloatArray, ood: FloatArray) -> Estimate | None:
    if condition.backbone != "seeing" or (ceilings <= 0.5).any() or (ceilings >= 1.0).any():
        return None
    own = zip(ceilings, iid, ood, strict=True)
    return mean([float(below_frontier(ceiling, condition.strength, home, away)) for ceiling, home, away in own])
