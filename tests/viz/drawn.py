"""Arrays to draw, and what a drawn figure holds, for tests of both libraries."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

LAYERS = [0, 2, 4, 6]
VALUE = np.array([[0.3, 0.5, 0.8, 0.9], [0.2, 0.4, 0.6, 0.7]])
LOW, HIGH = VALUE - 0.05, VALUE + 0.04
NAMES = ["right", "wrong"]
FACTORS = np.array([[0.1, 0.3, 0.2, np.nan], [0.4, 0.2, 0.1, np.nan], [0.1, 0.2, 0.9, np.nan]])
PAIRS = np.tril(np.arange(1.0, 17.0).reshape(4, 4)) / 100

EXPERTS = np.random.default_rng(3).random((3, 8))
"""Layers by experts."""
RATIO = np.stack([2.0 ** np.add.outer(row[:4], row[:4] - 1) for row in EXPERTS])
"""Layers by pairs of experts; one that is not known, and one that is never seen."""
RATIO[:, np.arange(4), np.arange(4)] = np.nan
RATIO[0, 0, 1] = RATIO[0, 1, 0] = 0


def grid(side: int, width: float, height: float) -> np.ndarray:
    steps = [(x / side, y / side) for y in range(side) for x in range(side)]
    return np.array([[x * width, y * height, (x + 1 / side) * width, (y + 1 / side) * height] for x, y in steps])


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (40, 60, 3)).astype(np.uint8) for _ in range(count)]


def overlay_input(count: int = 3) -> dict[str, Any]:
    scores = list(np.random.default_rng(1).random((count, 16)))
    return {"images": pictures(count), "boxes": [grid(4, 60, 40)] * count, "scores": scores}


POSITIONS: dict[str, Any] = {
    "answer": [0.9, 0.8, 0.7],
    "attention": [0.95, 0.9, 0.92],
    "answer_interval": [[0.85, 0.95], [0.75, 0.85], [0.6, 0.8]],
    "attention_interval": [[0.9, 1.0], [0.85, 0.95], [0.9, 0.95]],
    "answer_spread": [0.2, 0.1, 0.3],
    "attention_spread": [0.05, 0.0, 0.1],
    "chance": 0.33,
}
CAUSAL: dict[str, Any] = {
    "layers": LAYERS,
    "value": VALUE,
    "low": LOW,
    "high": HIGH,
    "chance": 0.25,
    "labels": ["blank", "swap"],
    "rules": ["LND, N = 1", "M-LND, N = 4"],
    "rule_value": [[0.8, 0.85], [0.7, 0.75]],
    "rule_low": [[0.75, 0.8], [0.6, 0.7]],
    "rule_high": [[0.85, 0.9], [0.8, 0.8]],
}
DIFFERENCES: dict[str, Any] = {
    "metrics": ["answers right", "attention accuracy, paper", "nothing counted", "attention accuracy, predicting"],
    "value": [1.0, -4.0, np.nan, 2.5],
    "low": [-1.0, -7.0, -100.0, 1.5],
    "high": [2.0, -2.0, 100.0, 4.5],
}
_BY_KIND = np.array(
    [
        [np.nan, np.nan, np.nan, 0.8, np.nan, np.nan],
        [0.3, np.nan, 0.6, np.nan, np.nan, np.nan],
        [0.2, np.nan, 0.5, np.nan, np.nan, np.nan],
    ]
)
KINDS: dict[str, Any] = {
    "layers": [0, 1, 2, 3, 4, 5],
    "value": _BY_KIND,
    "low": _BY_KIND - 0.1,
    "high": _BY_KIND + 0.05,
    "chance": 0.25,
    "labels": ["attention", "state space: absolute", "state space: value"],
    "kinds": ["attention", "state space", "state space"],
    "parts": [
        ["state space"],
        ["mixture of experts"],
        ["state space"],
        ["attention"],
        ["mixture of experts"],
        ["mlp"],
    ],
}
"""A decoder of the pattern MEM*E-."""
EVERY: dict[str, dict[str, Any]] = {
    "layer_accuracy": {"layers": LAYERS, "value": VALUE, "low": LOW, "high": HIGH, "chance": 0.25, "labels": NAMES},
    "factor_heatmap": {"factors": FACTORS, "layers": [1, 3, 5], "target": 2},
    "image_to_image": {"matrix": PAIRS},
    "overlay": {**overlay_input(), "target": 1, "focus": 2, "gold": [10, 10, 30, 30]},
    "positions": POSITIONS,
    "causal_agreement": CAUSAL,
    "shares": {
        "groups": ["content", "needle", "giveaway"],
        "value": VALUE[:2, :3],
        "low": LOW[:2, :3],
        "high": HIGH[:2, :3],
        "labels": ["blank", "swap"],
    },
    "costs": {
        "lengths": [1024, 4096, 16384],
        "time": [[1.1, 1.05, 1.0], [2.0, 6.0, np.nan]],
        "memory": [[1.0, 1.0, 1.1], [1.3, 5.1, np.nan]],
        "labels": ["ours", "theirs"],
        "foreseen": [[np.nan] * 3, [np.nan, np.nan, 60.0]],
    },
    "differences": DIFFERENCES,
    "scaling": {"parameters": [4e6, 3e5, 1e6], "value": [0.9, 0.7, 0.8], "chance": 0.25},
    "ranking": {
        "names": ["raw factor", "rollout", "probe"],
        "value": [[0.5, 0.2, np.nan], [0.4, 0.3, 0.9]],
        "low": [[0.4, 0.1, np.nan], [0.3, 0.2, 0.8]],
        "high": [[0.6, 0.3, np.nan], [0.5, 0.4, 0.95]],
        "chance": 0.25,
        "labels": ["paper", "predicting"],
    },
    "accuracy_by_kind": KINDS,
    "expert_load": {
        "load": EXPERTS,
        "layers": [1, 2, 4],
        "difference": EXPERTS - 0.4,
        "even": 0.375,
    },
    "co_activation": {"ratio": RATIO, "layers": [1, 2, 4]},
    "specialisation": {
        "layers": LAYERS,
        "value": VALUE,
        "chance": VALUE / 10,
        "labels": ["image or text", "task"],
    },
    "training_course": {
        "points": ["100", "400", "model"],
        "value": np.stack([EXPERTS[:, :3], EXPERTS[:, :3] - 0.05, EXPERTS[:, :3] + 0.1], axis=-1),
        "layers": [1, 2, 4],
        "floors": EXPERTS[:, 3:6] / 2,
        "floor": 0.1,
    },
    "expert_effects": {
        "value": EXPERTS - 0.3,
        "layers": [1, 2, 4],
        "shared": [[0.5, 0.4, 0.7], [np.nan, -np.inf, np.inf], [1.0, 0.9, 1.1]],
    },
    "head_map": {"value": VALUE, "layers": [1, 3], "chosen": [(3, 0), (1, 2)]},
    "pruning": {
        "rates": [0.9, 0.0, 0.5, 0.75],
        "value": VALUE,
        "low": LOW,
        "high": HIGH,
        "labels": NAMES,
        "first_frame_only": 0.75,
    },
}


def lines(figure: Figure, panel: int = 0) -> dict[str, Any]:
    return {str(line.get_label()): line for line in figure.axes[panel].get_lines()}


def points(axes: Axes) -> list[list[float]]:
    return [[float(x), float(y)] for x, y in np.column_stack(axes.get_lines()[0].get_data())]


def bounds(patch: Patch) -> tuple[float, ...]:
    assert isinstance(patch, Rectangle)
    return tuple(float(edge) for edge in patch.get_bbox().bounds)


def traces(figure: Any, kind: str) -> list[Any]:
    return [trace for trace in figure.data if trace.type == kind]


def named(figure: Any, name: str) -> Any:
    return next(trace for trace in figure.data if trace.name == name)
