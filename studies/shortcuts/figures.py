"""The study's figures: the map of gains, methods of a place against the two-cue frontier, and transfer matrices.

Gathers numbers for `viz.rewards`; computes nothing of its own. No torch.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from probes.estimates import Estimate, mean
from studies.shortcuts.frontier import frontier
from studies.shortcuts.settings import CONTRAST_ALONE, ENVIRONMENTS, HEADLINE, METHODS, STOPS, TEXT_ONLY, Place
from studies.shortcuts.summary import Condition, Summary, summarise, transfer
from studies.shortcuts.verdict import HALF_RATE, PLAIN, gain, gain_of_stopping, stopped

EARLY = (PLAIN, HALF_RATE)
"""Methods that are also shown as they were when they had been trained for a share of the steps."""
MAPPED = (*map(stopped, EARLY), *(method.name for method in (*METHODS, CONTRAST_ALONE) if method.name != PLAIN))
"""What the map shows, of what was run in more places than one."""


def write_figures(folder: Path, summaries: Sequence[Summary], headline: Place = HEADLINE) -> list[Path]:
    """Draw what is complete into `figures/`; returns the files.

    Args:
        folder: The run folder.
        summaries: At the end of training.
        headline: The place whose transfer matrices are drawn.

    Raises:
        InputError: If a run has gone missing.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    written = []
    for condition in dict.fromkeys(each.condition for each in summaries):
        here = [each for each in summaries if each.condition == condition and each.method != TEXT_ONLY]
        written.append(_draw_place(folder, condition, here))
    judged = [each for each in summaries if each.condition == Condition(*headline)]
    written += [_draw_transfer(folder, each) for each in judged if each.method in ("plain", "SFC", "SFC^0.7")]
    if len({each.condition for each in summaries}) > 1:
        written.append(_draw_map(folder, summaries))
    return written


def _draw_map(folder: Path, summaries: Sequence[Summary]) -> Path:
    from viz import papers, rewards

    gains = {}
    for each in summaries:
        if each.method in EARLY:
            early = gain_of_stopping(folder, each.condition, each.method, each.seeds)
            gains[each.condition, stopped(each.method)] = early
        if each.method in MAPPED:
            gains[each.condition, each.method] = gain(folder, each.condition, each.method, each.seeds)
    places = sorted({condition for condition, _ in gains}, key=_map_order)
    rows = list(dict.fromkeys(map(_row, places)))
    columns = sorted({condition.steps for condition in places})
    counted = {name: sum(found == name for _, found in gains) for name in MAPPED}
    methods = [name for name in MAPPED if counted[name] > 1]
    elsewhere = np.full((len(methods), len(rows), len(columns), 3), np.nan)
    home = np.full(elsewhere.shape[:3], np.nan)
    for (condition, name), found in gains.items():
        if name in methods:
            at = methods.index(name), rows.index(_row(condition)), columns.index(condition.steps)
            elsewhere[at], home[at] = _ends(found.ood), found.iid.value
    figure = rewards.gain_map(methods, rows, [str(steps) for steps in columns], elsewhere, home, across="steps")
    return papers.save(figure, folder / "figures" / "map.png")


def _map_order(condition: Condition) -> tuple[bool, str, str, float]:
    return condition.backbone != "seeing", condition.backbone, condition.learnability, condition.strength


def _row(condition: Condition) -> str:
    return f"{condition.backbone}, {condition.learnability},\ncue right on {condition.strength:.0%}"


def _draw_place(folder: Path, condition: Condition, here: Sequence[Summary]) -> Path:
    from viz import papers, rewards

    early = [each for each in here if each.method in EARLY]
    shown = [(stopped(each.method), _when_stopped(folder, each)) for each in early]
    shown += [(each.method, each) for each in here]
    seeds = sorted({len(each.seeds) for each in here})
    # In two lines, as it is wider than the figure.
    title = condition.label.replace(", cue", ",\ncue")
    seen = here[0].below_frontier is not None
    line = frontier(here[0].ceiling.value, condition.strength) if seen else None
    figure = rewards.home_and_elsewhere(
        [name if len(each.seeds) > 1 else f"{name} (one seed)" for name, each in shown],
        [_ends_of_several(each.iid) for _, each in shown],
        [_ends_of_several(each.ood) for _, each in shown],
        line,
        title=f"{title}; n = {' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds",
    )
    path = folder / "figures" / f"{'-'.join(map(str, condition.place))}.png"
    return papers.save(figure, path)


def _when_stopped(folder: Path, summary: Summary) -> Summary:
    return summarise(folder, replace(summary.condition, stop=STOPS[0]), summary.method, summary.seeds)


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


def _ends_of_several(estimate: Estimate) -> tuple[float, float, float]:
    """Of one seed the value alone: its interval is everything that there could be, and would hide the others."""
    return _ends(estimate) if estimate.n > 1 else (estimate.value,) * 3
