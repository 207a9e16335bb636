"""Figures of reward models: arrays in, matplotlib figures out, in the sizes and looks of ``viz.papers``.

Write them with ``viz.papers.save``. Knows nothing of models, records or files.
"""

from viz.reward_curves import best_of_n, coefficients, reliability, score_against_length
from viz.reward_frontier import home_and_elsewhere
from viz.reward_map import gain_map
from viz.reward_scatter import reward_against_length
from viz.reward_tables import rulers, style_matrix, transfer_matrix

__all__ = [
    "best_of_n",
    "coefficients",
    "gain_map",
    "home_and_elsewhere",
    "reliability",
    "reward_against_length",
    "rulers",
    "score_against_length",
    "style_matrix",
    "transfer_matrix",
]
