"""Sources made in the test: coloured discs for emoji, so that pictures can be drawn without the real packages."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from studies.benchmark.sources import CLOTHES, EMOJI, EMOJI_PIXELS, NEEDLES, Sources


def _disc(number: int, total: int) -> Image.Image:
    image = Image.new("RGBA", (EMOJI_PIXELS, EMOJI_PIXELS))
    red, green, blue = (int(255 * c) for c in colorsys.hsv_to_rgb(number / total, 1.0, 0.8))
    ImageDraw.Draw(image).ellipse((4, 4, EMOJI_PIXELS - 4, EMOJI_PIXELS - 4), fill=(red, green, blue, 255))
    return image


def drawn_sources() -> Sources:
    """One split of drawn sources, the same at every call."""
    rng = np.random.default_rng(0)
    return Sources(
        emoji={name: _disc(i, len(EMOJI)) for i, name in enumerate(EMOJI)},
        needles={name: _disc(i, len(NEEDLES)) for i, name in enumerate(NEEDLES)},
        digits={digit: [rng.integers(0, 256, (8, 8), dtype=np.uint8) for _ in range(2)] for digit in range(10)},
        clothes={name: [rng.integers(0, 256, (28, 28), dtype=np.uint8)] for name in CLOTHES.values()},
        photographs=[Image.fromarray(rng.integers(0, 256, (100, 120, 3), dtype=np.uint8))],
    )
