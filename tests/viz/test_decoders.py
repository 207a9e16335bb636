"""Figures of decoders side by side: what is drawn equals the arrays given, wrong ones are refused, nothing overlaps."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tests.viz.test_rewards import shown_texts
from viz import decoders, papers
from viz.decoders import DecoderLook
from viz.shapes import FigureError

NAN = float("nan")
HYBRID = [["state space"], ["mixture of experts"], ["state space"], ["attention"], ["mixture of experts"]]
VALUES = np.array([0.25, NAN, 0.3, 0.8, NAN])
LOOKS = [
    DecoderLook("Llama", [["attention", "mlp"]] * 3, [0.3, 0.5, 0.9], [0.2, 0.4, 0.8], [0.4, 0.6, 1.0], [], 0.2),
    DecoderLook("Nemotron-H", HYBRID, VALUES, VALUES - 0.1, VALUES + 0.1, np.stack([VALUES + 0.05, VALUES]), 0.2),
]
LOST = np.array([[[5.0, NAN], [NAN, NAN], [NAN, NAN]], [[4.0, 5.0], [0.2, -0.1], [4.4, 5.2]]])
EVERY: dict[str, dict[str, Any]] = {
    "accuracy_side_by_side": {"looks": LOOKS},
    "carrying": {"names": ["Llama", "Nemotron-H"], "paths": ["attention", "state space", "all"], "value": LOST},
    "settling": {
        "names": ["dots.llm1", "Nemotron-H", "Nemotron-H"],
        "steps": [[0, 100, 200], [0, 100], [0, 100]],
        "value": [[[0.25, 0.6, 1.0], [0.0, 0.3, 0.2]], [[0.3, 1.0], [0.1, 0.2]], [[0.2, 1.0], [0.1, 0.3]]],
        "floors": [[[0.25] * 3, [0.01] * 3], [[0.25] * 2, [0.0] * 2], [[0.25] * 2, [0.0] * 2]],
        "quantities": ["experts shared with the end", "image or text, bits"],
    },
}


def drawn(name: str, **changes: Any) -> Figure:
    function: Callable[..., Figure] = getattr(decoders, name)
    return function(**(EVERY[name] | changes))


def test_every_function_of_the_module_is_tested() -> None:
    assert {*EVERY, "DecoderLook"} == set(decoders.__all__)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("title", ["", "a title"])
def test_figures_are_written_whole_and_no_two_texts_overlap(name: str, title: str, tmp_path: Path) -> None:
    figure = drawn(name, title=title)
    assert figure.get_suptitle() == title
    assert papers.save(figure, tmp_path / "figure.png", dpi=60).stat().st_size > 2000
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown_texts(figure)]
    inside = [(text, box) for text, box in boxes if box.width and box.height]
    assert all(figure.bbox.x0 - 2 <= box.x0 and box.x1 <= figure.bbox.x1 + 2 for _, box in inside)
    crossing = [(one, other) for (one, a), (other, b) in combinations(inside, 2) if a.padded(-1).overlaps(b)]
    assert not crossing


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("accuracy_side_by_side", {"looks": []}),
        ("accuracy_side_by_side", {"looks": [LOOKS[0]._replace(value=[0.1, 0.2])]}),
        ("accuracy_side_by_side", {"looks": [LOOKS[1]._replace(value=VALUES * NAN)]}),
        ("carrying", {"names": ["one"]}),
        ("carrying", {"value": LOST * NAN}),
        ("settling", {"names": []}),
        ("settling", {"names": ["one"]}),
        ("settling", {"quantities": ["one"]}),
    ],
)
def test_wrong_arrays_are_refused(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(FigureError):
        drawn(name, **changes)


def test_panels_hold_each_layers_value_in_its_kinds_colour_and_no_line_crosses_kinds() -> None:
    panel = drawn("accuracy_side_by_side").axes[1]
    points = [each.lines[0] for each in panel.containers if isinstance(each, ErrorbarContainer)]
    at = {int(np.ravel(point.get_xdata())[0]): float(np.ravel(point.get_ydata())[0]) for point in points}
    assert at == {0: 0.25, 2: 0.3, 3: 0.8}
    colors = {int(np.ravel(point.get_xdata())[0]): point.get_color() for point in points}
    assert colors[0] == colors[2] != colors[3]
    joined = [line.get_xdata() for line in panel.lines if line.get_linestyle() == "-" and line.get_marker() == "None"]
    assert sorted(np.ravel(line).tolist() for line in joined if len(np.ravel(line)) < 4) == [[0, 2], [3]]
    below = drawn("accuracy_side_by_side").axes[3]
    squares = {int(np.ravel(line.get_ydata())[0]): np.ravel(line.get_xdata()).tolist() for line in below.lines}
    rows = [label.get_text() for label in drawn("accuracy_side_by_side").axes[2].get_yticklabels()]
    assert {rows[row]: places for row, places in squares.items()} == {
        "attention": [3], "state space": [0, 2], "mixture of experts": [1, 4]
    }  # fmt: skip
    faint = [line for line in panel.lines if line.get_marker() == "_" and np.size(line.get_ydata()) == 2]
    assert np.ravel(faint[0].get_ydata()).tolist() == pytest.approx([0.3, 0.25])


def test_bars_are_means_over_seeds_and_paths_that_a_decoder_lacks_have_none() -> None:
    axes = drawn("carrying").axes[0]
    heights = [bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle)]
    assert heights == pytest.approx([5.0, 4.5, 0.05, 4.8])


def test_each_run_has_a_line_and_runs_of_a_decoder_share_a_colour() -> None:
    axes = drawn("settling").axes[1]
    runs = [line for line in axes.lines if line.get_marker() != "None"]
    assert [np.ravel(line.get_ydata()).tolist() for line in runs] == [[0.0, 0.3, 0.2], [0.1, 0.2], [0.1, 0.3]]
    assert runs[1].get_color() == runs[2].get_color() != runs[0].get_color()
