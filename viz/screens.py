"""Figures for screens: arrays in, plotly figures out, to hover over and zoom into.

The same functions with the same arguments as in ``viz.papers``. Knows nothing of models, runs or files.
"""

import json
import re

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from viz.screen_costs import costs
from viz.screen_curves import causal_agreement, differences, layer_accuracy, positions, scaling, shares
from viz.screen_experts import co_activation, expert_effects, expert_load, specialisation, training_course
from viz.screen_kinds import accuracy_by_kind
from viz.screen_maps import factor_heatmap, image_to_image, overlay
from viz.screen_pruning import pruning
from viz.screen_ranks import head_map, ranking

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
    "html_fragment",
    "image_to_image",
    "layer_accuracy",
    "overlay",
    "plotly_script",
    "positions",
    "pruning",
    "ranking",
    "scaling",
    "shares",
    "specialisation",
    "training_course",
]


def html_fragment(figure: go.Figure, name: str) -> str:
    """Return a figure as HTML for a page that holds :func:`plotly_script` once; opens offline.

    Plain ASCII, so that it reads the same whatever encoding the page declares.

    Args:
        figure: to show.
        name: unique in the page; also makes the same figure give the same HTML.
    """
    settings = {"displaylogo": False, "responsive": True}
    html = str(figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=settings))
    return re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], html)


def plotly_script() -> str:
    """Return the script element, about 4.5 MB, that draws every :func:`html_fragment` of a page without a network."""
    return f"<script>{get_plotlyjs()}</script>"
