"""Preference pairs of the three environments: which of two words names the picture, each response with its cues.

The truth is in the picture alone: both words are names of pictures, drawn alike. Every response pair differs in every
cue; a cue is right where it favours the better response. No torch.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from probes.inputs import Turn
from rewardmodels.records import PreferencePair, Response
from studies.shortcuts.pictures import NamedPicture, image_of
from studies.shortcuts.settings import CUES, ELSEWHERE, ENVIRONMENTS, Cue

QUESTION = "What is in image"


def strengths(environment: str, strength: float, elsewhere: float = ELSEWHERE) -> dict[str, float]:
    """How often each cue is right: its own environment's by `strength`, the others' by `elsewhere`.

    >>> strengths("hedge", 0.98)
    {'length': 0.5, 'hedge': 0.98, 'opening': 0.5}
    """
    return {name: strength if name == environment else elsewhere for name in ENVIRONMENTS}


def make_pairs(
    pictures: Sequence[NamedPicture],
    count: int,
    right: Mapping[str, float],
    noise: float,
    seed: Sequence[int],
    grouped_by: str = "",
) -> list[PreferencePair]:
    """Draw pairs.

    Args:
        pictures: What they are about; a pair is clustered by its picture.
        count: How many.
        right: For each cue the share of pairs in which it favours the better response.
        noise: See `studies.shortcuts.pictures.image_of`.
        seed: Draws everything.
        grouped_by: A cue; a pair's group then says whether it is right, as in "hedge+".
    """
    rng = np.random.default_rng(list(seed))
    words = sorted({picture.name for picture in pictures})
    pairs = []
    for number in range(count):
        picture = pictures[int(rng.integers(len(pictures)))]
        wrong = [word for word in words if word != picture.name][int(rng.integers(len(words) - 1))]
        favours = {cue.name: bool(rng.random() < right[cue.name]) for cue in CUES}
        identifier = f"{'-'.join(map(str, seed))}-{number}"
        pairs.append(
            PreferencePair(
                id=identifier,
                prompt=(Turn("user", f"<image> {QUESTION}?", (image_of(picture, noise, (*seed, number)),)),),
                chosen=Response(_written(picture.name, favours)),
                rejected=Response(_written(wrong, {name: not side for name, side in favours.items()})),
                record=identifier,
                group=_group(grouped_by, favours),
                source="shortcuts",
                cluster=picture.path,
            )
        )
    return pairs


def _group(cue: str, favours: Mapping[str, bool]) -> str:
    return f"{cue}{'+' if favours[cue] else '-'}" if cue else ""


def _written(word: str, favoured: Mapping[str, bool]) -> str:
    """A response: the cues' words around the name, each where it favours this response or, for a bad mark, not."""
    parts = [cue.words for cue in CUES if cue.before and _has(cue, favoured)]
    parts += [word, *(cue.words for cue in CUES if not cue.before and _has(cue, favoured))]
    return " ".join(parts)


def _has(cue: Cue, favoured: Mapping[str, bool]) -> bool:
    return favoured[cue.name] == cue.good
