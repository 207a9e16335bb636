"""The figures of `reward eval`, drawn from its numbers and written into its folder.

It chooses what is drawn and writes the captions; how things are drawn is `viz`. No torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from probes.estimates import Estimate
from rewardmodels.best_of_n import BestOfNCurve
from rewardmodels.evaluation import accuracy_by_group
from rewardmodels.pair_report import PairReport
from rewardmodels.pair_scores import PairColumns
from rewardmodels.reports import Report
from rewardmodels.styles import StyleMatrix
from studies.reward.entries import SEEN

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from studies.reward.looking import Looked

FIGURES = "figures"
MOST_GROUPS = 12
"""Groups that are drawn as bars of their own; the table has them all."""


def draw_report(folder: Path, report: Report, table: PairColumns) -> None:
    """Draw everything that a report has the numbers for, the shortcut-failure degradation aside.

    Args:
        folder: Of the run; figures go into a folder inside.
        report: The numbers.
        table: The scored pairs.
    """
    from viz import rewards

    save(folder, "rulers", _rulers(report))
    if isinstance(report.pairs, PairReport):
        save(folder, "reliability", _reliability(report.pairs))
        if (drawable := np.minimum(table.chosen_lengths, table.rejected_lengths) >= 1).any():
            better, worse, long, other = (column[drawable] for column in table[:4])
            ends = _ends(report.pairs.length_correlation)
            save(folder, "length", rewards.reward_against_length(better, worse, long, other, ends))
    if report.benchmark is not None and isinstance(report.benchmark.numbers, StyleMatrix):
        save(folder, "styles", styles(report.benchmark.numbers))


def save(folder: Path, name: str, figure: "Figure") -> None:
    """Write a figure as PNG."""
    from viz import papers

    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    papers.save(figure, folder / FIGURES / f"{name}.png")


def _ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def _bars(bars: Sequence[tuple[str, Estimate]], scored: int, title: str = "") -> "Figure":
    from viz import rewards

    value, low, high = np.array([_ends(estimate) for _, estimate in bars]).T
    return rewards.rulers([name for name, _ in bars], value, low, high, scored=scored, title=title)


def _rulers(report: Report) -> "Figure":
    accuracy = report.pairs.accuracy
    bars = [("all pairs", accuracy.micro)]
    if len(accuracy.groups) > 1:
        bars += [("mean of groups", accuracy.macro), *list(accuracy.groups.items())[:MOST_GROUPS]]
    for view, found in report.views.items():
        if found.change is not None:
            bars.append((SEEN.get(view, view), found.change.after))
    scored = len(bars)
    bars += [(f"{name} ruler", estimate) for name, estimate in report.pairs.rulers.rulers.items()]
    return _bars([(_short(name), estimate) for name, estimate in bars], scored)


def _short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _reliability(pairs: PairReport) -> "Figure":
    from viz import rewards

    bins = pairs.calibration.bins
    return rewards.reliability(
        [part.confidence for part in bins],
        [part.accuracy.value for part in bins],
        [part.accuracy.low for part in bins],
        [part.accuracy.high for part in bins],
        [part.accuracy.n for part in bins],
        [bins[0].low, *(part.high for part in bins)],
        _ends(pairs.calibration.error),
    )


def draw_shortcut(
    folder: Path, degradation: Estimate, table: PairColumns, by_text: "NDArray[np.bool_]", whose: str
) -> None:
    """Draw accuracy on the pairs that the text alone ranks correctly, and on the others.

    Args:
        folder: Of the run.
        degradation: The first minus the second, in points.
        table: The pairs that both have scores of.
        by_text: (pairs,) whether the text alone ranks the pair correctly.
        whose: Who ranked by the text alone.
    """
    sides = np.where(by_text, "right", "wrong")
    found = accuracy_by_group(table.chosen, table.rejected, sides, table.clusters, ties=0.0).groups
    bars = [(f"text alone {side} (n = {found[side].n:,})", found[side]) for side in ("right", "wrong") if side in found]
    value, low, high = _ends(degradation)
    told = "undefined: one side is empty" if np.isnan(value) else f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"
    save(
        folder,
        "shortcut",
        _bars(bars, len(bars), f"Shortcut-failure degradation {told}\ntext alone: {_short(whose, 64)}"),
    )


def styles(found: StyleMatrix) -> "Figure":
    """Draw a style matrix with its intervals."""
    from viz import rewards

    cells = np.array([[_ends(cell) for cell in row] for row in found.accuracy])
    right, wrong = (np.array([_ends(estimate) for estimate in side]) for side in (found.chosen, found.rejected))
    return rewards.style_matrix(found.styles, cells[..., 0], right, wrong, cells[..., 1], cells[..., 2])


def draw_attention(folder: Path, looked: "Looked") -> None:
    """Draw by layer how much of the scoring token's attention is on images, and how often it is on the right one."""
    from probes.files import write_bytes
    from viz import papers, screens

    drawn: list[tuple[Sequence[Estimate], float | None, str, str]] = [
        (looked.share, None, "share of attention on images", "attention")
    ]
    if looked.by_layer:
        drawn.append((looked.by_layer, looked.chance, "scoring token is on the target", "attention-target"))
    for estimates, chance, quantity, name in drawn:
        value, low, high = np.array([_ends(estimate) for estimate in estimates]).T
        save(folder, name, papers.layer_accuracy(looked.layers, value, low, high, chance, quantity=quantity))
        screen = screens.layer_accuracy(looked.layers, value, low, high, chance, quantity=quantity)
        page = f"<!doctype html><title>{quantity}</title>{screens.plotly_script()}{screens.html_fragment(screen, name)}"
        write_bytes(folder / FIGURES / f"{name}.html", page.encode())


def draw_best_of_n(folder: Path, curve: BestOfNCurve) -> None:
    """Draw a best-of-N curve."""
    from viz import rewards

    value, low, high = np.array([_ends(estimate) for estimate in curve.quality]).T
    figure = rewards.best_of_n(
        curve.sizes,
        value,
        low,
        high,
        curve.ceiling,
        curve.kl_bound,
        ["picked by score"],
        quantity="share of right picks",
    )
    save(folder, "best-of-n", figure)


def draw_sets(folder: Path, names: Sequence[str], accuracies: Sequence[Estimate]) -> None:
    """Draw one scorer's accuracy on several data sets."""
    bars = [(_short(name), estimate) for name, estimate in zip(names, accuracies, strict=True)]
    save(folder, "data-sets", _bars(bars, len(bars)))


def draw_transfer(folder: Path, names: Sequence[str], cells: Sequence[Sequence[Estimate]]) -> None:
    """Draw accuracy by the set that was trained on and the one that was tested on."""
    from viz import rewards

    table = np.array([[_ends(cell) for cell in row] for row in cells])
    save(folder, "transfer", rewards.transfer_matrix(names, table[..., 0], table[..., 1], table[..., 2]))
