"""The two heat maps of a sample, sized for the page. Drawing itself is `viz.screens`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.explorer.shown import Shown

_LEAST, _MOST = 300, 400
_PER_IMAGE = 14
_WRITTEN = 3


def factors_chart(shown: Shown | None, rows: str, title: str = "", limits: tuple[float, float] | None = None) -> Any:
    """Heat map of the attention factors, layers by images; None where there are none.

    Args:
        shown: The sample.
        rows: Row set.
        title: Words over the figure; the row set where empty.
        limits: Ends of the colour scale, for figures that are to be compared.
    """
    from viz import screens

    factors = None if shown is None else shown.factors.get(rows)
    if shown is None or factors is None or not np.isfinite(factors).any():
        return None
    figure = screens.factor_heatmap(
        factors[: len(shown.layers)], list(shown.layers), target=shown.target, limits=limits
    )
    figure.update_xaxes(ticktext=_numbers(shown), title={"text": "image", "standoff": 4})
    return sized(figure, title or "Attention factor, layers by images", _height(shown))


def pairwise_chart(shown: Shown | None, position: int) -> Any:
    """Heat map of attention from image to image at one layer; None where it is not held."""
    from viz import screens

    if shown is None or shown.pairwise is None:
        return None
    matrix: NDArray[np.floating[Any]] = shown.pairwise[position]
    figure = screens.image_to_image(matrix)
    names = list(figure.data[0].x)
    figure.update_xaxes(tickvals=names, ticktext=[*_numbers(shown), "text"], title={"standoff": 4})
    figure.update_yaxes(tickvals=names, ticktext=[*_numbers(shown), "text"], title={"standoff": 4})
    if len(shown.pictures) > _WRITTEN:
        figure.update_traces(texttemplate=None, text=None)
    return sized(figure, f"From image to image, layer {shown.layers[position]}", _height(shown))


def common_limits(samples: list[Shown], rows: str) -> tuple[float, float] | None:
    """One colour scale for the factors of several samples; None where none has a positive factor."""
    tops = [float(np.nanmax(one.factors[rows])) for one in samples if np.isfinite(one.factors.get(rows, np.nan)).any()]
    return (0.0, max(tops)) if tops and max(tops) > 0 else None


def _numbers(shown: Shown) -> list[str]:
    return [str(number) for number in range(1, len(shown.pictures) + 1)]


def _height(shown: Shown) -> int:
    return min(_MOST, _LEAST + _PER_IMAGE * max(0, len(shown.pictures) - 3))


def sized(figure: Any, title: str, height: int) -> Any:
    """A heat map of a sample, lettered and spaced for its place on the page."""
    figure.update_layout(
        height=height,
        autosize=True,
        title={"text": title, "font": {"size": 13}, "x": 0.015, "xanchor": "left", "y": 0.985, "yanchor": "top"},
        margin={"l": 8, "r": 8, "t": 50, "b": 8},
        legend={"x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom", "font": {"size": 11}},
        font={"family": "system-ui, DejaVu Sans, sans-serif", "size": 12},
    )
    figure.update_xaxes(automargin=True, tickangle=0)
    figure.update_yaxes(automargin=True)
    figure.update_traces(colorbar={"thickness": 10, "title": None}, selector={"type": "heatmap"})
    return figure
