"""Figures for papers: arrays in, matplotlib figures out, sized and lettered for a printed column.

The same functions with the same arguments as in ``viz.screens``. Uses no pyplot and no global settings, so figures can
be made from several threads. Knows nothing of models, runs or files but the one that :func:`save` writes.
"""

import os
from pathlib import Path

from matplotlib.figure import Figure

from viz.paper_curves import causal_agreement, differences, layer_accuracy, positions, scaling, shares
from viz.paper_maps import factor_heatmap, image_to_image, overlay
from viz.paper_ranks import head_map, ranking

__all__ = [
    "causal_agreement",
    "differences",
    "factor_heatmap",
    "head_map",
    "image_to_image",
    "layer_accuracy",
    "overlay",
    "positions",
    "ranking",
    "save",
    "scaling",
    "shares",
]


def save(figure: Figure, path: str | os.PathLike[str], dpi: int = 200) -> Path:
    """Write a figure whole or not at all; the name's ending chooses PNG, PDF or SVG.

    The same figure gives the same bytes as PNG and as PDF: no date is written.
    """
    goal = Path(path)
    draft = goal.with_name(f".{goal.stem}.{os.getpid()}{goal.suffix}")
    plain: dict[str, dict[str, None]] = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    try:
        figure.savefig(draft, dpi=dpi, metadata=plain.get(goal.suffix.lower()))
        draft.replace(goal)
    finally:
        draft.unlink(missing_ok=True)
    return goal
