"""Spans that lose tokens: places, values and cells before and after, for any choice of columns."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.families.geometry import Box, Tile
from probes.image_span import ImageSpan, runs_of_places
from probes.inputs import InputError

ROWS, COLUMNS = 3, 4
TOKENS = ROWS * COLUMNS


@st.composite
def spans(draw: st.DrawFn) -> tuple[ImageSpan, np.ndarray]:
    """A span whose tokens stand apart here and there, and columns of a longer prompt that are left."""
    gaps = draw(st.lists(st.integers(0, 2), min_size=TOKENS, max_size=TOKENS))
    places = (np.cumsum(gaps) + np.arange(TOKENS)).tolist()
    runs = runs_of_places(places)
    span = ImageSpan(0, runs[0][0], runs[-1][1], runs, (Tile(ROWS, COLUMNS, Box(0, 0, 8, 6)),), (8, 6))
    columns = np.array(draw(st.lists(st.booleans(), min_size=places[-1] + 3, max_size=places[-1] + 3)))
    columns[places[draw(st.integers(0, TOKENS - 1))]] = True
    return span, columns


@given(spans())
def test_tokens_keep_what_they_hold_in_the_shorter_prompt(given_span: tuple[ImageSpan, np.ndarray]) -> None:
    span, columns = given_span
    prompt = np.arange(len(columns), dtype=float)
    shorter, thin = prompt[columns], span.thinned(columns)
    np.testing.assert_array_equal(shorter[thin.tokens], span.tokens[columns[span.tokens]])
    assert tuple(thin) == (thin.tokens[0], thin.tokens[-1] + 1)
    assert thin.retention.tolist() == columns[span.tokens].tolist()
    spread = thin.spread(shorter[thin.tokens])
    np.testing.assert_array_equal(spread[thin.retention], span.tokens[thin.retention])
    assert np.isnan(spread).tolist() == (~thin.retention).tolist()
    assert (thin.places >= 0).tolist() == thin.retention.tolist()
    assert [cell.kept for cell in thin.cells()] == thin.retention.tolist()
    assert [cell.box for cell in thin.cells()] == [cell.box for cell in span.cells()]
    assert np.isnan(thin.grid(spread)).tolist() == (~thin.grid(thin.retention)).tolist()


@given(st.sets(st.integers(0, 40), min_size=1))
def test_runs_hold_exactly_the_places(places: set[int]) -> None:
    runs = runs_of_places(sorted(places))
    assert [place for start, stop in runs for place in range(start, stop)] == sorted(places)
    assert all(before < start for (_, before), (start, _) in pairwise(runs))


def test_a_span_loses_tokens_once_and_never_all() -> None:
    span = ImageSpan(2, 1, 4, ((1, 4),))
    whole = span.thinned(np.ones(6, dtype=bool))
    assert whole.kept is None and whole.spread(np.ones(3)).tolist() == [1, 1, 1]
    thin = span.thinned(np.array([True, True, False, True, True, True]))
    with pytest.raises(InputError, match="image 2: it lost tokens before"):
        thin.thinned(np.ones(5, dtype=bool))
    with pytest.raises(InputError, match="image 2: none of its tokens is left"):
        span.thinned(np.zeros(6, dtype=bool))
