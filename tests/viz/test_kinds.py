"""Accuracy by layer, coloured by kind, on paper and screen: what is drawn equals the arrays given."""

from typing import Any

import numpy as np
import pytest

from probes.layer_kinds import LayerKind
from tests.viz.drawn import EVERY, named
from viz import papers, screens
from viz.kinds import KIND_COLORS, kind_color
from viz.shapes import FigureError

GIVEN = EVERY["accuracy_by_kind"]
NAMES = GIVEN["labels"]


def test_points_stand_at_their_true_layers_in_the_colour_of_their_kind() -> None:
    above, below = papers.accuracy_by_kind(**GIVEN).axes
    shown = screens.accuracy_by_kind(**GIVEN)
    drawn = {str(each.get_label()): each[0] for each in above.containers}
    for index, name in enumerate(NAMES):
        seen = np.isfinite(GIVEN["value"][index])
        layers, value = np.asarray(GIVEN["layers"])[seen], GIVEN["value"][index][seen]
        screen, beside = named(shown, name), 0.15 * (index == 2)
        np.testing.assert_allclose(drawn[name].get_data(), [layers + beside, value])
        np.testing.assert_allclose([screen.x, screen.y], [layers + beside, value])
        np.testing.assert_array_equal(screen.customdata, layers)
        np.testing.assert_allclose(screen.error_y.array, (GIVEN["high"][index] - GIVEN["value"][index])[seen])
        color = kind_color(GIVEN["kinds"][index])
        assert drawn[name].get_color() == screen.marker.color == color
    assert drawn[NAMES[1]].get_marker() != drawn[NAMES[2]].get_marker()
    assert len({named(shown, name).marker.symbol for name in NAMES}) == len(NAMES)
    assert below.get_xticks().tolist() == GIVEN["layers"]


def test_the_strip_shows_what_every_layer_is_made_of() -> None:
    _, below = papers.accuracy_by_kind(**GIVEN).axes
    shown = screens.accuracy_by_kind(**GIVEN)
    rows = [label.get_text() for label in below.get_yticklabels()]
    assert rows == list(shown.layout.yaxis2.ticktext) == ["attention", "state space", "mixture of experts", "mlp"]
    for row, line in zip(rows, below.get_lines(), strict=True):
        expected = [layer for layer, own in zip(GIVEN["layers"], GIVEN["parts"], strict=True) if row in own]
        assert np.asarray(line.get_xdata()).tolist() == expected == list(named(shown, row).x)
        assert line.get_color() == kind_color(row)


def test_every_kind_that_a_layer_can_have_has_a_colour_of_its_own() -> None:
    assert set(KIND_COLORS) == {str(kind) for kind in LayerKind}
    assert len(set(KIND_COLORS.values())) == len(KIND_COLORS)
    assert kind_color("something new") not in KIND_COLORS.values()


def test_many_layers_get_no_number_each() -> None:
    count = 60
    parts = [("state space",) if layer % 6 else ("attention", "mlp") for layer in range(count)]
    value = np.where([layer % 6 == 0 for layer in range(count)], 0.5, np.nan)
    figure = papers.accuracy_by_kind(range(count), value, kinds=["attention"], parts=parts)
    assert len(figure.axes[1].get_xticks()) < count / 2 and not figure.legends
    assert figure.get_size_inches()[0] > 7


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kinds": ["attention"]}, "kinds must name the kind of each of the 3 series"),
        ({"parts": [["attention"]]}, "parts must be given for each of the 6 layers, got 1"),
        ({"kinds": ["attention", "state space", "attention"]}, "of attention has a value in layer 0, which is made of"),
        ({"value": np.full((3, 6), np.nan)}, "no finite number"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    for draw in (papers.accuracy_by_kind, screens.accuracy_by_kind):
        with pytest.raises(FigureError, match=said):
            draw(**{**GIVEN, **changes})
