"""Check series over rates. Knows nothing of what is pruned, nor of a plotting library."""

from collections.abc import Sequence

import numpy.typing as npt

from viz.shapes import Curves, FigureError, along, curves


def rate_curves(
    rates: Sequence[float],
    value: npt.ArrayLike,
    low: npt.ArrayLike | None,
    high: npt.ArrayLike | None,
    labels: Sequence[str] | None,
    marked: float | None,
) -> Curves:
    """Check series over rates from 0 to 1, and sort them along these.

    Raises:
        FigureError: if shapes do not match, nothing is finite, or a rate (the marked one too) is no share.
    """
    drawn = curves(rates, value, low, high, None, labels, axis="rates")
    for rate in (*drawn.x.tolist(), *([] if marked is None else [marked])):
        if not 0 <= rate <= 1:
            raise FigureError(f"a rate is a share from 0 to 1, got {rate}")
    return along(drawn)
