"""Preference pairs about drawn pictures, for the tests of training: which of two words names the picture."""

import numpy as np
from PIL import Image

from probes.inputs import ImageRef
from rewardmodels.model import as_turns
from rewardmodels.records import PreferencePair, Response

WORDS = ("red", "green", "blue", "white")
ENDING = " as far as can be seen"
_COLOURS = ((220, 30, 30), (30, 200, 40), (40, 60, 220), (240, 240, 240))


def drawn_pairs(count: int, seed: int = 0, words: int = len(WORDS), ending: str = ENDING) -> list[PreferencePair]:
    """Pairs whose chosen response names the picture's colour; every second pair's rejected one has the ending."""
    rng = np.random.default_rng(seed)
    pairs = []
    for number in range(count):
        right, wrong = rng.choice(words, 2, replace=False)
        noise = rng.integers(-20, 20, (64, 64, 3))
        picture = Image.fromarray(np.clip(np.array(_COLOURS[right]) + noise, 0, 255).astype(np.uint8))
        longer = ending if number % 2 else ""
        pairs.append(
            PreferencePair(
                id=f"pair-{number}",
                prompt=as_turns("What colour is this?", [ImageRef.of(picture)]),
                chosen=Response(WORDS[right]),
                rejected=Response(WORDS[wrong] + longer),
                record=f"pair-{number}",
                group=WORDS[right],
                source="drawn",
                cluster=f"pair-{number}",
            )
        )
    return pairs
