"""Figures of reward models: what is drawn equals the arrays given, wrong arrays are refused, nothing overlaps."""

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from viz import papers, rewards, screen_rewards
from viz.shapes import FigureError

NAMES = ["vlfeedback", "povid", "rlhf-v"]
TABLE = np.array([[0.91, 0.62, 0.55], [0.48, 1.0, 0.6], [0.66, 0.52, 0.88]])
STYLES = ["concise", "detailed", "markdown"]
RNG = np.random.default_rng(0)
LENGTHS = np.exp(RNG.normal(5, 0.8, (2, 60))).round().clip(1)
REWARDS = np.log(LENGTHS) + RNG.normal(0, 1, (2, 60)) + [[0.5], [0.0]]
GAINS = RNG.normal(0.03, 0.06, (3, 3, 2, 1)) + np.array([0.0, -0.04, 0.05])
GAINS[:, 2, 1] = np.nan
EVERY: dict[str, dict[str, Any]] = {
    "transfer_matrix": {"environments": NAMES, "value": TABLE, "low": TABLE - 0.04, "high": TABLE},
    "style_matrix": {
        "styles": STYLES,
        "value": TABLE,
        "chosen": [[2.6, 2.5, 2.7], [4.0, 3.9, 4.2], [6.8, 6.6, 6.9]],
        "rejected": [0.5, 1.3, 3.6],
        "low": TABLE - 0.02,
        "high": TABLE,
    },
    "home_and_elsewhere": {
        "methods": ["plain", "half rate", "SFC", "SFC, normalised", "SFC^0.5", "SFC^0.7", "1 - p", "product", "DRO"],
        "home": np.linspace(0.99, 0.9, 9)[:, None] + np.array([0.0, -0.01, 0.005]),
        "elsewhere": np.linspace(0.7, 0.9, 9)[:, None] + np.array([0.0, -0.03, 0.02]),
        "frontier": (np.linspace(0.9, 1.0, 50), np.linspace(0.92, 0.6, 50)),
    },
    "gain_map": {
        "methods": ["SFC", "chosen exponent", "plain, stopped early"],
        "rows": ["clearer, cue right on 95 %", "noisier, cue right on 95 %", "blind, cue right on 98 %"],
        "columns": ["200", "400"],
        "elsewhere": GAINS,
        "home": GAINS[..., 0] * -0.4,
        "across": "steps",
    },
    "rulers": {
        "names": ["reward model", "longer", "shorter", "random"],
        "value": [0.81, 0.724, 0.276, 0.47],
        "low": [0.75, 0.65, 0.2, 0.4],
        "high": [0.86, 0.79, 0.35, 0.55],
    },
    "coefficients": {
        "steps": np.arange(1, 101),
        "value": [np.linspace(0.5, 0.7, 100), np.linspace(0.5, 0.35, 100)],
        "low": [np.linspace(0.45, 0.4, 100), np.linspace(0.4, 0.2, 100)],
        "high": [np.linspace(0.55, 0.95, 100), np.linspace(0.6, 0.5, 100)],
        "labels": ["shortcut fails", "shortcut works"],
    },
    "reliability": {
        "confidence": [0.53, 0.66, np.nan, 0.95],
        "accuracy": [0.5, 0.61, np.nan, 0.8],
        "low": [0.4, 0.5, 0.0, 0.75],
        "high": [0.6, 0.72, 1.0, 0.85],
        "counts": [90, 80, 0, 240],
        "edges": [0.5, 0.625, 0.75, 0.875, 1.0],
        "error": [0.12, 0.05, 0.19],
    },
    "best_of_n": {
        "sizes": [1, 2, 4, 8, 16],
        "value": [[0.4, 0.5, 0.58, 0.62, 0.63], [0.4, 0.43, 0.44, 0.44, 0.42]],
        "low": [[0.3, 0.4, 0.5, 0.52, 0.5], [0.3, 0.33, 0.34, 0.34, 0.32]],
        "high": [[0.5, 0.6, 0.7, 0.72, 0.73], [0.5, 0.53, 0.54, 0.54, 0.52]],
        "ceiling": [0.4, 0.6, 0.78, 0.9, 0.97],
        "kl_bound": [0.0, 0.193, 0.636, 1.204, 1.835],
        "labels": ["looks", "by length"],
    },
    "reward_against_length": {
        "chosen": REWARDS[0],
        "rejected": REWARDS[1],
        "chosen_lengths": LENGTHS[0],
        "rejected_lengths": LENGTHS[1],
        "correlation": [0.41, 0.3, 0.5],
    },
    "score_against_length": {
        "lengths": [3, 9, 16],
        "value": [[-2.5, 1.0, 3.25], [2.0, 2.0, 2.0]],
        "labels": ["B, growing", "A, as it is"],
    },
}


def drawn(name: str, **changes: Any) -> Figure:
    function: Callable[..., Figure] = getattr(rewards, name)
    return function(**(EVERY[name] | changes))


def shown_texts(figure: Figure) -> Iterator[Text]:
    """Every text that is drawn; tick labels beyond the ends of their axis are not."""
    ticks: dict[int, bool] = {}
    for axes in [*figure.axes, *(child for parent in figure.axes for child in parent.child_axes)]:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                inside = low - 1e-9 <= tick.get_loc() <= high + 1e-9
                ticks |= {id(tick.label1): inside, id(tick.label2): inside}
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_text().strip() and text.get_visible() and ticks.get(id(text), True):
            yield text


def test_every_function_of_the_module_is_tested() -> None:
    assert set(EVERY) == set(rewards.__all__)


@pytest.mark.parametrize("name", EVERY)
def test_figures_are_written_whole_with_their_title(name: str, tmp_path: Path) -> None:
    figure = drawn(name, title="a title")
    assert figure.get_suptitle() == "a title"
    assert papers.save(figure, tmp_path / "figure.png", dpi=60).stat().st_size > 2000


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("title", ["", "a title"])
def test_no_two_texts_overlap_and_none_leaves_the_figure(name: str, title: str) -> None:
    figure = drawn(name, title=title)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    whole = figure.bbox
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown_texts(figure)]
    inside = [(text, box) for text, box in boxes if box.width and box.height]
    outside = [text for text, box in inside if not (whole.x0 - 2 <= box.x0 and box.x1 <= whole.x1 + 2)]
    assert not outside
    crossing = [
        (one, other) for (one, first), (other, second) in combinations(inside, 2) if first.padded(-1).overlaps(second)
    ]
    assert not crossing


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("transfer_matrix", {"value": TABLE[:2]}),
        ("transfer_matrix", {"value": TABLE * np.nan}),
        ("transfer_matrix", {"low": TABLE + 0.1}),
        ("home_and_elsewhere", {"home": np.full((3, 3), 0.9)}),
        ("home_and_elsewhere", {"elsewhere": np.full((9, 3), np.nan)}),
        ("home_and_elsewhere", {"home": np.tile([0.9, 0.95, 1.0], (9, 1))}),
        ("home_and_elsewhere", {"frontier": ([0.9, 1.0], [0.5])}),
        ("gain_map", {"home": GAINS[..., 0][:2]}),
        ("gain_map", {"elsewhere": GAINS * np.nan}),
        ("gain_map", {"elsewhere": GAINS[..., ::-1]}),
        ("gain_map", {"home": GAINS[..., 0] * np.nan}),
        ("gain_map", {"elsewhere": GAINS + np.array([0.0, 0.0, np.nan])}),
        ("style_matrix", {"chosen": [1.0, 2.0]}),
        ("rulers", {"value": [0.1, 0.2]}),
        ("rulers", {"scored": 9}),
        ("coefficients", {"labels": ["one"]}),
        ("reliability", {"edges": [0.5, 1.0]}),
        ("reliability", {"accuracy": [np.nan] * 4}),
        ("best_of_n", {"sizes": [0, 1, 2, 3, 4]}),
        ("best_of_n", {"sizes": [1, 4, 2, 8, 16]}),
        ("best_of_n", {"ceiling": [0.1]}),
        ("reward_against_length", {"chosen": REWARDS[0][:5]}),
        ("reward_against_length", {"chosen": REWARDS[0] * np.nan}),
        ("reward_against_length", {"rejected_lengths": LENGTHS[1] * 0}),
        ("reward_against_length", {"most": 0}),
        ("score_against_length", {"lengths": [3, 9]}),
        ("score_against_length", {"labels": ["one"]}),
    ],
)
def test_wrong_arrays_are_refused(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(FigureError):
        drawn(name, **changes)


def test_transfer_cells_hold_the_table_from_the_top_and_frame_the_diagonal() -> None:
    axes = drawn("transfer_matrix").axes[0]
    values = {(text.get_position()[0], round(text.get_position()[1])): text.get_text() for text in axes.texts[::2]}
    assert values == {(j, i): f"{TABLE[i, j]:.3f}" for i in range(3) for j in range(3)}
    assert axes.texts[1].get_text() == "0.87–0.91"
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    frames = [patch.get_xy() for patch in axes.patches if isinstance(patch, Rectangle)]
    assert frames == [pytest.approx((place - 0.46, place - 0.46)) for place in range(3)]
    holes = TABLE.copy()
    holes[0, 1] = np.nan
    assert len(rewards.transfer_matrix(NAMES, holes).axes[0].texts) == 8


def test_points_lie_where_the_accuracies_are_and_ninth_methods_are_hollow() -> None:
    axes = drawn("home_and_elsewhere").axes[0]
    given = EVERY["home_and_elsewhere"]
    for place, container in enumerate(axes.containers):
        assert isinstance(container, ErrorbarContainer)
        point, _, bars = container.lines
        assert np.ravel(point.get_xdata()).tolist() == [given["home"][place, 0]]
        assert np.ravel(point.get_ydata()).tolist() == [given["elsewhere"][place, 0]]
        assert (point.get_markerfacecolor() == "white") == (place >= 7)
        across, up = (np.array(each.get_segments())[0] for each in bars)
        assert across[:, 0].tolist() == pytest.approx(given["home"][place, 1:])
        assert up[:, 1].tolist() == pytest.approx(given["elsewhere"][place, 1:])
    assert len(axes.containers) == 9


def test_a_map_holds_each_places_gain_interval_and_price_and_leaves_what_was_not_run() -> None:
    figure = drawn("gain_map")
    assert [axes.get_title() for axes in figure.axes[:3]] == EVERY["gain_map"]["methods"]
    for panel, axes in enumerate(figure.axes[:3]):
        said = {(text.get_position()[0], round(text.get_position()[1], 2)): text.get_text() for text in axes.texts}
        for row, column in ((0, 0), (1, 1), (2, 0)):
            value, low, high = 100 * GAINS[panel, row, column]
            assert said[column, row - 0.24] == f"{round(value, 1) + 0.0:+.1f}"
            assert said[column, row + 0.05] == f"[{low:.1f}, {high:.1f}]"
            assert said[column, row + 0.3] == f"{round(-0.4 * value, 1) + 0.0:+.1f}"
        assert len(said) == 3 * 5 and not any(column == 1 and row > 1.5 for column, row in said)
        assert axes.get_ylim()[0] > axes.get_ylim()[1]
    alone = drawn("gain_map", elsewhere=GAINS * np.array([1.0, np.nan, np.nan])).axes[0]
    assert "one run" in [text.get_text() for text in alone.texts]


def test_bars_are_as_long_as_the_accuracies_and_only_rulers_are_hatched() -> None:
    bars = [patch for patch in drawn("rulers").axes[0].patches if isinstance(patch, Rectangle)]
    assert [bar.get_width() for bar in bars] == EVERY["rulers"]["value"]
    assert [bool(bar.get_hatch()) for bar in bars] == [False, True, True, True]


def test_points_and_lines_of_pairs_are_the_arrays() -> None:
    axes = drawn("reward_against_length").axes[0]
    points = [part for part in axes.collections if isinstance(part, PathCollection)]
    assert [len(np.asarray(part.get_offsets())) for part in points] == [60, 60]
    assert np.asarray(points[0].get_offsets()).tolist() == np.column_stack([LENGTHS[0], REWARDS[0]]).tolist()
    lines = {str(part.get_label()): part for part in axes.collections if isinstance(part, LineCollection)}
    along = (REWARDS[0] > REWARDS[1]) == (LENGTHS[0] > LENGTHS[1])
    assert len(lines["longer scores higher"].get_segments()) == int(along.sum())
    assert "+0.41" in axes.get_title(loc="left") and "60 pairs" in axes.get_xlabel()


def test_of_many_pairs_some_are_drawn_and_the_axis_says_how_many() -> None:
    axes = drawn("reward_against_length", most=20).axes[0]
    assert "20 of 60 pairs drawn" in axes.get_xlabel()


def test_reliability_leaves_empty_bins_out_and_writes_every_count() -> None:
    upper, lower = drawn("reliability").axes
    (line,) = [line for line in upper.get_lines() if line.get_marker() == "o"]
    assert np.asarray(line.get_xdata()).tolist() == [0.53, 0.66, 0.95]
    assert [text.get_text() for text in lower.texts] == ["90", "80", "0", "240"]


def test_best_of_n_has_the_bound_on_its_upper_axis() -> None:
    figure = drawn("best_of_n")
    upper = figure.axes[0].child_axes[0]
    assert [text.get_text() for text in upper.get_xticklabels()][:4] == ["0.00", "0.19", "0.64", "1.20"]
    assert not drawn("best_of_n", kl_bound=None).axes[0].child_axes


def test_scores_against_length_are_drawn_whole_on_paper_and_screen() -> None:
    given = EVERY["score_against_length"]
    paper, screen = drawn("score_against_length"), screen_rewards.score_against_length(**given)
    for line, trace, values, label in zip(
        paper.axes[0].get_lines(), screen.data, given["value"], given["labels"], strict=True
    ):
        across, up = line.get_data()
        assert np.asarray(up).tolist() == list(trace.y) == values and np.asarray(across).tolist() == given["lengths"]
        assert line.get_label() == trace.name == label
    low, high = paper.axes[0].get_ylim()
    assert low < -2.5 and high > 3.25
    assert screen.layout.xaxis.title.text == paper.axes[0].get_xlabel() == "tokens of the answer"
    with pytest.raises(FigureError):
        screen_rewards.score_against_length([1, 2], [1.0])
