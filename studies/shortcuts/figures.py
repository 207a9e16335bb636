"""The study's figures: every method of a place against the two-cue frontier, and the headline's transfer matrices.

Gathers numbers for `viz.rewards`; computes nothing of its own. No torch.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from probes.estimates import Estimate, mean
from studies.shortcuts.frontier import frontier
from studies.shortcuts.settings import ENVIRONMENTS, HEADLINE, STOPS, TEXT_ONLY
from studies.shortcuts.summary import Condition, Summary, summarise, transfer

STOPPED = "plain, stopped early"


def write_figures(folder: Path, summaries: Sequence[Summary]) -> list[Path]:
    """Draw what is complete into `figures/`; returns the files.

    Args:
        folder: The run folder.
        summaries: At the end of training.

    Raises:
        InputError: If a run has gone missing.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    written = []
    for condition in dict.fromkeys(each.condition for each in summaries):
        here = [each for each in summaries if each.condition == condition and each.method != TEXT_ONLY]
        early = replace(condition, stop=STOPS[0])
        stopped = summarise(folder, early, "plain", here[0].seeds)
        written.append(_draw_place(folder, condition, here, stopped))
    headline = [each for each in summaries if each.condition == Condition(*HEADLINE)]
    written += [_draw_transfer(folder, each) for each in headline if each.method in ("plain", "SFC", "SFC^0.7")]
    return written


def _draw_place(folder: Path, condition: Condition, here: Sequence[Summary], stopped: Summary) -> Path:
    from viz import papers, rewards

    shown = [(STOPPED, stopped), *((each.method, each) for each in here)]
    seen = here[0].below_frontier is not None
    line = frontier(here[0].ceiling.value, condition.strength) if seen else None
    figure = rewards.home_and_elsewhere(
        [name for name, _ in shown],
        [_ends(each.iid) for _, each in shown],
        [_ends(each.ood) for _, each in shown],
        line,
        title=f"{condition.label}; n = {len(here[0].seeds)} seeds",
    )
    path = folder / "figures" / f"{'-'.join(map(str, condition.place))}.png"
    return papers.save(figure, path)


def _draw_transfer(folder: Path, summary: Summary) -> Path:
    from viz import papers, rewards

    found = transfer(folder, summary.condition, summary.method, summary.seeds)
    cells = [[mean(found[:, row, column], bounds=(0.0, 1.0)) for column in range(3)] for row in range(3)]
    value, low, high = (
        np.array([[getattr(cell, end) for cell in row] for row in cells]) for end in ("value", "low", "high")
    )
    figure = rewards.transfer_matrix(ENVIRONMENTS, value, low, high, limits=(0.5, 1.0), title=summary.method)
    name = summary.method.replace("^", "").replace(" ", "-").replace(",", "")
    return papers.save(figure, folder / "figures" / f"transfer-{name}.png")


def _ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high
