"""The map of one layer laid over each image, as HTML cards; redrawn on every step of the layer slider.

Pure: arrays in, text out. Every string from a model or a file is escaped here. Knows nothing of Gradio.
"""

from functools import cache
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studies.explorer.shown import Edges, Picture, Shown, data_address
from viz.style import OVERLAY_STOPS

SHARED, OWN = "One for all images", "One per image"
"""What the colours of a card are scaled by: the layer's largest value over all images, or over that image alone."""

_ENDS = ", ".join(f"rgba({r},{g},{b},{max(opacity, 0.08):g}) {at:.0%}" for at, (r, g, b), opacity in OVERLAY_STOPS)


@cache
def _colours() -> NDArray[np.uint8]:
    places = [at for at, _, _ in OVERLAY_STOPS]
    channels = [[*colour, 255 * opacity] for _, colour, opacity in OVERLAY_STOPS]
    steps = np.linspace(0.0, 1.0, 256)
    table = np.stack([np.interp(steps, places, channel) for channel in zip(*channels, strict=True)], axis=1)
    return np.asarray(np.round(table), dtype=np.uint8)


def overlay(picture: Picture, scores: NDArray[np.floating[Any]], top: float) -> Image.Image:
    """Colour each cell by its score.

    Args:
        picture: The image, with the cell of every pixel.
        scores: One score per cell, >= 0.
        top: The score of the brightest colour.

    Returns:
        RGBA image of the picture's size; transparent where no cell lies or the score is not a number.
    """
    scaled = np.nan_to_num(np.asarray(scores, dtype=np.float64) / top if top > 0 else np.zeros(len(scores)), nan=-1.0)
    steps = np.clip(np.round(scaled * 255), -1, 255).astype(np.int64)
    cells = np.concatenate([_colours()[np.clip(steps, 0, 255)], np.zeros((1, 4), dtype=np.uint8)])
    cells[:-1][steps < 0] = 0
    return Image.fromarray(cells[picture.raster], "RGBA")


def cards(shown: Shown | None, rows: str, position: int, scale: str = SHARED) -> str:
    """Draw all images with the map of one layer, or the mean over layers.

    Args:
        shown: What to draw; None draws nothing.
        rows: Row set.
        position: Index into `shown.steps`.
        scale: `SHARED` or `OWN`.

    Returns:
        HTML.
    """
    if shown is None:
        return ""
    maps = _layer_maps(shown, rows, position)
    tops = [float(np.nanmax(scores)) if scores is not None and np.isfinite(scores).any() else 0.0 for scores in maps]
    factors = _layer_factors(shown, rows, position)
    strongest = max(tops, default=0.0)
    drawn = [
        _card(shown, rows, index, maps[index], strongest if scale == SHARED else tops[index], factors)
        for index in range(len(shown.pictures))
    ]
    step = shown.steps[position] if shown.layers else "No layer"
    has_maps = any(scores is not None for scores in maps)
    legend = _legend(step, strongest, scale) if has_maps else _no_maps(step)
    return f'<div class="sc-cards">{"".join(drawn)}</div>{legend}'


def _layer_maps(shown: Shown, rows: str, position: int) -> list[NDArray[np.floating[Any]] | None]:
    held = shown.maps.get(rows) or (None,) * len(shown.pictures)
    return [None if scores is None or np.isnan(scores[position]).all() else scores[position] for scores in held]


def _layer_factors(shown: Shown, rows: str, position: int) -> NDArray[np.floating[Any]] | None:
    factors = shown.factors.get(rows)
    return None if factors is None or not len(factors) else factors[position]


def _card(
    shown: Shown,
    rows: str,
    index: int,
    scores: NDArray[np.floating[Any]] | None,
    top: float,
    factors: NDArray[np.floating[Any]] | None,
) -> str:
    picture = shown.pictures[index]
    width, height = picture.size
    focused = shown.focus.get(rows) == index
    marks = '<span class="sc-mark sc-focus">focus</span>' if focused else ""
    marks += '<span class="sc-mark sc-target">target</span>' if shown.target == index else ""
    marks += '<span class="sc-mark sc-missing">not stored</span>' if picture.missing else ""
    heat = "" if scores is None else f'<img class="sc-map" alt="" src="{_heat(picture, scores, top)}">'
    regions = "".join(map(_region, shown.regions)) if shown.target == index else ""
    return (
        f'<figure class="sc-card{" sc-focused" if focused else ""}" tabindex="0">'
        f'<div class="sc-picture" style="aspect-ratio:{width}/{height}">'
        f'<img src="{escape(picture.address)}" alt="Image {index + 1}">{heat}{regions}</div>'
        f"<figcaption><b>Image {index + 1}</b>{marks}{_share(factors, index)}</figcaption></figure>"
    )


def _region(edges: Edges) -> str:
    left, top, right, bottom = edges
    place = f"left:{left:.2%};top:{top:.2%};width:{right - left:.2%};height:{bottom - top:.2%}"
    return f'<span class="sc-region" title="where the answer lies" style="{place}"></span>'


def _heat(picture: Picture, scores: NDArray[np.floating[Any]], top: float) -> str:
    return data_address(overlay(picture, scores, top))


def _share(factors: NDArray[np.floating[Any]] | None, index: int) -> str:
    if factors is None or not np.isfinite(factors[index]) or not np.nansum(factors) > 0:
        return ""
    share = factors[index] / np.nansum(factors)
    words = f"share of the attention factor, which is {factors[index]:.3g}"
    return (
        f'<span class="sc-measure"><span class="sc-share" title="{words}">'
        f'<i style="width:{share:.1%}"></i></span><span class="sc-number">{share:.0%}</span></span>'
    )


def _legend(step: str, strongest: float, scale: str) -> str:
    end = f"{strongest:.2g}" if scale == SHARED else "each image's largest"
    ramp = f'<span class="sc-ramp" style="background:linear-gradient(90deg,{_ENDS})"></span>'
    return (
        f'<p class="sc-legend">{step}. Attention per image token: 0 {ramp} {end}. Bar: the image\'s share of '
        "the factor there. Point at an image to see it without the map.</p>"
    )


def _no_maps(step: str) -> str:
    return f'<p class="sc-legend">{step}. No map is stored here for these rows; the factors are below.</p>'
