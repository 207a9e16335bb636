"""Draw one benchmark picture: an emoji, digit or garment on a background, perhaps with a small thing hidden in it.

Scale, rotation, place and background are drawn from the generator that the caller seeds. Knows nothing of questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studies.benchmark.sources import CLOTHES, EMOJI, NEEDLES, Grey, Sources

PIXELS = 64
NEEDLE_PIXELS = 20
PHOTOGRAPH_SHARE = 0.4

Kind = Literal["emoji", "digit", "clothes"]
PixelBox = tuple[float, float, float, float]


@dataclass(frozen=True)
class Concept:
    """One thing that a picture can show: its kind and the word that names it."""

    kind: Kind
    name: str


CONCEPTS: tuple[Concept, ...] = (
    *(Concept("emoji", name) for name in EMOJI),
    *(Concept("digit", str(digit)) for digit in range(10)),
    *(Concept("clothes", name) for name in CLOTHES.values()),
)


@dataclass(frozen=True)
class Picture:
    """A drawn picture: ``pixels`` (64, 64, 3) uint8, what it shows, and the small thing in it with its pixel box."""

    pixels: NDArray[np.uint8]
    concept: Concept
    needle: str | None = None
    needle_box: PixelBox | None = None


def draw(concept: Concept, sources: Sources, rng: np.random.Generator, needle: str | None = None) -> Picture:
    """Draw one rendering of ``concept``, with ``needle`` hidden in a corner where one is named.

    Raises:
        ValueError: ``needle`` is not one of the small things.
    """
    if needle is not None and needle not in NEEDLES:
        raise ValueError(f"no small thing is called {needle!r}: choose one of {', '.join(NEEDLES)}")
    canvas = _background(sources, rng)
    if concept.kind == "emoji":
        _paste_emoji(canvas, sources.emoji[concept.name], rng)
    elif concept.kind == "digit":
        _paste_grey(canvas, _any(sources.digits[int(concept.name)], rng), rng, saturation=0.9)
    else:
        _paste_grey(canvas, _any(sources.clothes[concept.name], rng), rng, saturation=0.35)
    box = _paste_needle(canvas, sources.needles[needle], rng) if needle is not None else None
    return Picture(np.asarray(canvas), concept, needle, box)


def _any(items: list[Grey], rng: np.random.Generator) -> Grey:
    return items[int(rng.integers(len(items)))]


def _background(sources: Sources, rng: np.random.Generator) -> Image.Image:
    top, bottom = rng.integers(150, 256, size=(2, 3))
    ramp = np.linspace(0.0, 1.0, PIXELS)[:, None, None]
    plain = np.broadcast_to(top * (1 - ramp) + bottom * ramp, (PIXELS, PIXELS, 3))
    canvas = Image.fromarray(plain.astype(np.uint8))
    if rng.random() >= PHOTOGRAPH_SHARE:
        return canvas
    photograph = sources.photographs[int(rng.integers(len(sources.photographs)))]
    side = int(rng.integers(PIXELS, min(photograph.size)))
    left = int(rng.integers(photograph.width - side + 1))
    upper = int(rng.integers(photograph.height - side + 1))
    crop = photograph.crop((left, upper, left + side, upper + side)).resize((PIXELS, PIXELS), Image.Resampling.BILINEAR)
    return Image.blend(canvas, crop, 0.45)


def _paste_emoji(canvas: Image.Image, emoji: Image.Image, rng: np.random.Generator) -> None:
    side = int(rng.integers(38, 58))
    turned = emoji.rotate(float(rng.uniform(-20, 20)), resample=Image.Resampling.BICUBIC)
    turned = turned.resize((side, side), Image.Resampling.LANCZOS)
    canvas.paste(turned, _place(side, rng), turned)


def _paste_grey(canvas: Image.Image, grey: Grey, rng: np.random.Generator, saturation: float) -> None:
    side = int(rng.integers(40, 58))
    mask = Image.fromarray(grey).rotate(float(rng.uniform(-12, 12)), resample=Image.Resampling.BILINEAR)
    mask = mask.resize((side, side), Image.Resampling.BICUBIC)
    colour = tuple(int(c) for c in rng.integers(0, 90, size=3) * saturation)
    ink = Image.new("RGB", (side, side), colour)
    canvas.paste(ink, _place(side, rng), mask)


def _paste_needle(canvas: Image.Image, needle: Image.Image, rng: np.random.Generator) -> PixelBox:
    side = NEEDLE_PIXELS
    small = needle.rotate(float(rng.uniform(-15, 15)), resample=Image.Resampling.BICUBIC)
    small = small.resize((side, side), Image.Resampling.LANCZOS)
    horizontal, vertical = rng.integers(2), rng.integers(2)
    jitter = rng.integers(0, 5, size=2)
    left = int(jitter[0] if horizontal == 0 else PIXELS - side - jitter[0])
    top = int(jitter[1] if vertical == 0 else PIXELS - side - jitter[1])
    canvas.paste(small, (left, top), small)
    return (float(left), float(top), float(left + side), float(top + side))


def _place(side: int, rng: np.random.Generator) -> tuple[int, int]:
    left, top = rng.integers(0, PIXELS - side + 1, size=2)
    return int(left), int(top)
