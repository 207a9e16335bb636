"""Figures for papers: arrays in, matplotlib figures out, sized and lettered for a printed column.

The same functions with the same arguments as in ``viz.screens``. Uses no pyplot and no global settings, so figures can
be made from several threads. Knows nothing of models, runs or files but the one that :func:`save` writes.
"""

import os
from pathlib import Path

from matplotlib.figure import Figure

from viz.paper_costs import costs
from viz.paper_curves import causal_agreement, differences, layer_accuracy, positions, scaling, shares
from viz.paper_experts import co_activation, expert_effects, expert_load, specialisation, training_course
from viz.paper_kinds import accuracy_by_kind
from viz.paper_maps import factor_heatmap, image_to_image, overlay
from viz.paper_pruning import pruning
from viz.paper_ranks import head_map, ranking
from viz.shapes import FigureError

__all__ = [
    "accuracy_by_kind",
    "causal_agreement",
    "co_activation",
    "costs",
    "differences",
    "expert_effects",
    "expert_load",
    "factor_heatmap",
    "head_map",
    "image_to_image",
    "layer_accuracy",
    "overlay",
    "positions",
    "pruning",
    "ranking",
    "save",
    "scaling",
    "shares",
    "specialisation",
    "training_course",
]


def save(figure: Figure, path: str | os.PathLike[str], dpi: int = 200, source: str = "") -> Path:
    """Write a figure whole or not at all; the name's ending chooses PNG, PDF or SVG.

    The same figure gives the same bytes as PNG and as PDF: no date is written.

    Args:
        figure: to write.
        path: where to.
        dpi: pixels an inch.
        source: what the figure was drawn from, such as a digest, kept in a PNG's text under "Source".

    Raises:
        FigureError: if a source is given and the figure is no PNG.
    """
    goal = Path(path)
    draft = goal.with_name(f".{goal.stem}.{os.getpid()}{goal.suffix}")
    kind = goal.suffix.lower()
    if source and kind != ".png":
        raise FigureError(f"{goal.name}: a source is kept in PNG files only; leave it out")
    plain: dict[str, dict[str, str | None]] = {
        ".pdf": {"CreationDate": None},
        ".svg": {"Date": None},
        ".png": {"Source": source} if source else {},
    }
    try:
        figure.savefig(draft, dpi=dpi, metadata=plain.get(kind))
        draft.replace(goal)
    finally:
        draft.unlink(missing_ok=True)
    return goal
