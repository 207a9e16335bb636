"""Looks shared by paper and screen figures: colours, markers, names of things. Knows no plotting library.

Colours are Okabe and Ito's, which stay apart under the common colour-vision deficiencies; every series also has a
marker and a dash of its own, so that a figure survives a grey-scale printer.
"""

SERIES_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Line colours in the order of the series."""
CHANCE_COLOR = "#666666"
"""The chance line."""
GOLD_COLOR = "#00E5FF"
"""The box that holds the answer: bright on both dark and light pictures, and apart from the overlay's warm colours."""
TARGET_COLOR = "#009E73"
"""Frame of the target image, or of its column."""
FOCUS_COLOR = "#D55E00"
"""Frame of the image in focus."""
EMPTY_COLOR = "#E6E6E6"
"""Cells without a value."""
MISSING_COLOR = "#BDBDBD"
"""Cells whose token the model dropped, under a hatching of `MISSING_INK`."""
MISSING_INK = "#4D4D4D"
MISSING_OPACITY = 0.8
MISSING_LABEL = "no token"
FIRST_FRAME_LABEL = "only the first frame left"

PAPER_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SCREEN_MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")
PAPER_DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = (
    "-",
    (0, (5, 2)),
    (0, (1, 1)),
    (0, (5, 1, 1, 1)),
    (0, (3, 1)),
    (0, (8, 2)),
    (0, (2, 2)),
)
SCREEN_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")

HEAT_MAP = "viridis"
"""Colour map of heat maps, by the name that both libraries know."""
GAIN_MAP = "RdBu"
"""Colour map of changes, red where something is lost and blue where it is gained."""
OVERLAY_STOPS = ((0.0, (255, 237, 160), 0.0), (0.5, (253, 141, 60), 0.45), (1.0, (189, 0, 38), 0.8))
"""Overlay colours: position, red-green-blue, opacity. Low scores leave the picture bare."""

COLUMN_WIDTH = 3.5
"""Inches of one column of a paper."""
PAGE_WIDTH = 7.0
"""Inches of a page of two columns."""
FONT_SIZE = 8.0
"""Points, at paper size."""
SMALL_FONT_SIZE = 7.0
"""Points, at paper size: ticks and numbers in cells."""
SCREEN_FONT_SIZE = 14
"""Pixels."""


def series_color(index: int) -> str:
    """Return the colour of a series; after the last one the colours start again, with other markers and dashes."""
    return SERIES_COLORS[index % len(SERIES_COLORS)]


def image_labels(count: int, target: int | None = None, focus: int | None = None, mark: str = " · ") -> list[str]:
    """Name images as people count them, from 1, and mark the target and the image in focus (0-based).

    >>> image_labels(3, target=1, focus=2)
    ['image 1', 'image 2 · target', 'image 3 · focus']
    """
    names: list[list[str]] = [[] for _ in range(count)]
    for name, index in (("target", target), ("focus", focus)):
        if index is not None:
            names[index].append(name)
    numbered = [[f"image {number}", " + ".join(marks)] for number, marks in enumerate(names, 1)]
    return [mark.join(part for part in parts if part) for parts in numbered]


def short_count(count: float) -> str:
    """Write a number of parameters shortly.

    >>> [short_count(n) for n in (300_000, 1_300_000, 7e9)]
    ['0.3M', '1.3M', '7B']
    """
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if count >= size or (letter == "M" and count >= 1e5):
            return f"{count / size:.3g}{letter}"
    return f"{count / 1e3:.3g}k" if count >= 1e3 else f"{count:g}"


def cell_text(value: float) -> str:
    """Write a number into a heat-map cell.

    >>> [cell_text(v) for v in (0.0, 0.00234, 0.5, float("nan"))]
    ['0', '0.0023', '0.5', '']
    """
    return "" if value != value else f"{value:.2g}"


def rgba(color: str, alpha: float) -> str:
    """Return a hex colour with an opacity, as CSS writes it.

    >>> rgba("#0072B2", 0.2)
    'rgba(0,114,178,0.2)'
    """
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def grid_shape(panels: int, columns: int) -> tuple[int, int]:
    """Return rows and columns that hold the panels, at most ``columns`` wide.

    >>> [grid_shape(n, 4) for n in (1, 4, 5, 8)]
    [(1, 1), (1, 4), (2, 3), (2, 4)]
    """
    rows = -(-panels // columns)
    return rows, -(-panels // rows)
