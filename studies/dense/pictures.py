"""Pictures drawn beforehand for training, kept as pixels, with the pool that questions are composed over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from studies.benchmark.questions import Pool, PoolEntry
from studies.benchmark.rendering import CONCEPTS, Concept, draw
from studies.benchmark.sources import NEEDLES, Sources
from studies.dense.augmentation import augment


@dataclass(frozen=True)
class PictureCounts:
    """How many pictures are drawn of each emoji, digit and garment, and of each small thing to hide.

    Digits vary most from one to the next, so they are drawn most.
    """

    emoji: int = 220
    digits: int = 900
    clothes: int = 400
    needles: int = 500


class PictureStore:
    """Pictures of one split, drawn as many times as ``counts`` says.

    Attributes:
        pixels: (pictures, 64, 64, 3) uint8.
        pool: The pictures by what they show; a file name is the picture's index.
        concepts: (pictures,) index into ``CONCEPTS``.
        needles: (pictures,) 0 for none, else 1 + index into ``NEEDLES``.
    """

    def __init__(self, sources: Sources, counts: PictureCounts, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        per_kind = {"emoji": counts.emoji, "digit": counts.digits, "clothes": counts.clothes}
        pictures = [draw(concept, sources, rng) for concept in CONCEPTS for _ in range(per_kind[concept.kind])]
        hosts = [concept for concept in CONCEPTS if concept.kind == "emoji"]
        for needle in NEEDLES:
            pictures += [
                draw(hosts[int(rng.integers(len(hosts)))], sources, rng, needle) for _ in range(counts.needles)
            ]
        order = {concept: index for index, concept in enumerate(CONCEPTS)}
        self.pixels: NDArray[np.uint8] = np.stack([picture.pixels for picture in pictures])
        self.entries = [PoolEntry(str(i), p.concept, p.needle, p.needle_box) for i, p in enumerate(pictures)]
        self.pool = Pool(self.entries)
        self.concepts = np.array([order[entry.concept] for entry in self.entries])
        self.needles = np.array([0 if e.needle is None else 1 + NEEDLES.index(e.needle) for e in self.entries])

    def __repr__(self) -> str:
        return f"PictureStore({len(self.entries)} pictures)"

    def concept(self, file: str) -> Concept:
        """What the picture called ``file`` shows."""
        return self.entries[int(file)].concept

    def values(self, indices: NDArray[np.int64]) -> Tensor:
        """The processor's values of the chosen pictures: (n, 3, 64, 64) float32 in [-1, 1]."""
        return normalise(self.pixels[indices])


@torch.no_grad()
def tower_features(model: Any, store: PictureStore, views: int = 1, seed: int = 0) -> Tensor:
    """What the frozen tower makes of every picture, class token left out.

    Args:
        model: Its tower is used.
        store: The pictures.
        views: The first view is the picture itself, the others are changed by `augment`.
        seed: Of the changes.

    Returns:
        (views * pictures, 16, tower hidden) float32; view v of picture i is row v * pictures + i.
    """
    tower = model.model.vision_tower.eval()
    generator = torch.Generator().manual_seed(seed)
    parts = torch.split(torch.arange(len(store.pixels)), 512)
    rows = []
    for view in range(views):
        for part in parts:
            values = store.values(part.numpy())
            rows.append(tower(augment(values, generator) if view else values).last_hidden_state[:, 1:])
    return torch.cat(rows)


def normalise(pixels: NDArray[np.uint8]) -> Tensor:
    """Pixels (n, 64, 64, 3) uint8 to (n, 3, 64, 64) float32 in [-1, 1], as the bundled image processor does."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
