"""Compose multi-image questions over a pool of pictures, each with one target image. Knows nothing of pixels.

Six tasks. ``content``: what is in image k. ``caption``: which image shows X. ``needle``: which image hides a small X.
``comparison``: which image shows the largest digit. ``retrieval``: which image shows the same thing as the last one.
``giveaway``: a content question whose text mostly tells the answer, so that it can be answered without looking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from studies.benchmark.rendering import Concept, PixelBox
from studies.benchmark.sources import NEEDLES

TASKS = ("content", "caption", "needle", "comparison", "retrieval", "giveaway")
MOST_IMAGES = 8
HINT_RIGHT = 0.97
_ARTICLE = {True: "an", False: "a"}


@dataclass(frozen=True)
class PoolEntry:
    """What the composer knows of one picture: its file name, what it shows and the small thing in it."""

    file: str
    concept: Concept
    needle: str | None = None
    needle_box: PixelBox | None = None


@dataclass(frozen=True)
class Draft:
    """A composed question. ``{position}`` in the templates stands for the target's 1-based place.

    ``files`` lists the images in order, ``target`` is 0-based; ``last_fixed`` says that the last image is the anchor
    and keeps its place when the target moves. ``hint`` is the answer that the question's text tells.
    """

    task: str
    files: tuple[str, ...]
    target: int
    question_template: str
    answer_template: str
    box: PixelBox | None = None
    last_fixed: bool = False
    hint: str | None = None

    @property
    def hint_right(self) -> bool | None:
        """Whether the text tells the right answer; None where it tells none."""
        return None if self.hint is None else self.hint == self.answer

    @property
    def question(self) -> str:
        """The question's text, with an image mark after each image's number."""
        return prompt(len(self.files), self.question_template.format(position=self.target + 1))

    @property
    def answer(self) -> str:
        """The answer, one word or number."""
        return self.answer_template.format(position=self.target + 1)


def prompt(n_images: int, question: str) -> str:
    """Number the images and put the question after them.

    >>> prompt(2, "Which image shows a cat?")
    '1 <image> 2 <image> Which image shows a cat?'
    """
    marks = " ".join(f"{number} <image>" for number in range(1, n_images + 1))
    return f"{marks} {question}"


class Pool:
    """The pictures of one split, by what they show."""

    def __init__(self, entries: Sequence[PoolEntry]) -> None:
        self.by_concept: dict[Concept, list[PoolEntry]] = {}
        self.by_needle: dict[str, list[PoolEntry]] = {needle: [] for needle in NEEDLES}
        for entry in entries:
            if entry.needle is None:
                self.by_concept.setdefault(entry.concept, []).append(entry)
            else:
                self.by_needle[entry.needle].append(entry)
        self.concepts = sorted(self.by_concept, key=lambda concept: (concept.kind, concept.name))
        self.digits = [concept for concept in self.concepts if concept.kind == "digit"]

    def picture(self, concept: Concept, rng: np.random.Generator) -> PoolEntry:
        """Any picture of ``concept``."""
        entries = self.by_concept[concept]
        return entries[int(rng.integers(len(entries)))]

    def hiding(self, needle: str, rng: np.random.Generator) -> PoolEntry:
        """Any picture that hides ``needle``."""
        entries = self.by_needle[needle]
        return entries[int(rng.integers(len(entries)))]


def compose(task: str, pool: Pool, n_images: int, rng: np.random.Generator, hint_right: float = HINT_RIGHT) -> Draft:
    """Compose one question of ``task`` over ``n_images`` images (2 to 8; retrieval takes 3 or more).

    ``hint_right`` is the share of give-away questions whose text tells the right answer.

    Raises:
        ValueError: An unknown task, or a number of images that the task does not take.
    """
    if task not in TASKS:
        raise ValueError(f"no task is called {task!r}: choose one of {', '.join(TASKS)}")
    least = 3 if task == "retrieval" else 2
    if not least <= n_images <= MOST_IMAGES:
        raise ValueError(f"{task} takes {least} to {MOST_IMAGES} images, not {n_images}")
    if task == "giveaway":
        return _giveaway(pool, n_images, rng, hint_right)
    return _COMPOSERS[task](pool, n_images, rng)


def image_count(task: str, rng: np.random.Generator) -> int:
    """How many images a question of ``task`` has: 2 to 8, and 2 to 4 where digits are compared."""
    least = 3 if task == "retrieval" else 2
    most = 4 if task == "comparison" else MOST_IMAGES
    return int(rng.integers(least, most + 1))


def _distinct(items: Sequence[Concept], count: int, rng: np.random.Generator) -> list[Concept]:
    return [items[int(i)] for i in rng.choice(len(items), size=count, replace=False)]


def named(concept: Concept) -> str:
    """The concept with its article, as a question speaks of it."""
    if concept.kind == "digit":
        return f"the digit {concept.name}"
    if concept.name in ("scissors", "trousers", "cherries"):
        return concept.name
    return f"{_ARTICLE[concept.name[0] in 'aeio']} {concept.name}"


def _content(pool: Pool, n_images: int, rng: np.random.Generator) -> Draft:
    concepts = _distinct(pool.concepts, n_images, rng)
    target = int(rng.integers(n_images))
    files = tuple(pool.picture(concept, rng).file for concept in concepts)
    return Draft("content", files, target, "What is in image {position}?", concepts[target].name)


def _caption(pool: Pool, n_images: int, rng: np.random.Generator) -> Draft:
    concepts = _distinct(pool.concepts, n_images, rng)
    target = int(rng.integers(n_images))
    files = tuple(pool.picture(concept, rng).file for concept in concepts)
    return Draft("caption", files, target, f"Which image shows {named(concepts[target])}?", "{position}")


def _needle(pool: Pool, n_images: int, rng: np.random.Generator) -> Draft:
    names = [NEEDLES[int(i)] for i in rng.choice(len(NEEDLES), size=n_images, replace=False)]
    target = int(rng.integers(n_images))
    pictures = [pool.hiding(name, rng) for name in names]
    article = _ARTICLE[names[target][0] in "aeio"]
    question = f"Which image hides {article} {names[target]}?"
    files = tuple(picture.file for picture in pictures)
    return Draft("needle", files, target, question, "{position}", box=pictures[target].needle_box)


def _comparison(pool: Pool, n_images: int, rng: np.random.Generator) -> Draft:
    digits = _distinct(pool.digits, n_images, rng)
    target = max(range(n_images), key=lambda index: int(digits[index].name))
    files = tuple(pool.picture(digit, rng).file for digit in digits)
    return Draft("comparison", files, target, "Which image shows the largest digit?", "{position}")


def _retrieval(pool: Pool, n_images: int, rng: np.random.Generator) -> Draft:
    concepts = _distinct(pool.concepts, n_images - 1, rng)
    target = int(rng.integers(n_images - 1))
    pictures = [pool.picture(concept, rng) for concept in concepts]
    anchor = pictures[target]
    while anchor == pictures[target]:
        anchor = pool.picture(concepts[target], rng)
    files = tuple(picture.file for picture in (*pictures, anchor))
    question = "Which image shows the same as the last?"
    return Draft("retrieval", files, target, question, "{position}", last_fixed=True)


def _giveaway(pool: Pool, n_images: int, rng: np.random.Generator, hint_right: float) -> Draft:
    draft = _content(pool, n_images, rng)
    right = bool(rng.random() < hint_right)
    hinted = draft.answer
    while not right and hinted == draft.answer:
        hinted = pool.concepts[int(rng.integers(len(pool.concepts)))].name
    question = f"Someone says {hinted}. What is in image {{position}}?"
    return Draft("giveaway", draft.files, draft.target, question, draft.answer_template, hint=hinted)


_COMPOSERS: dict[str, Callable[[Pool, int, np.random.Generator], Draft]] = {
    "content": _content,
    "caption": _caption,
    "needle": _needle,
    "comparison": _comparison,
    "retrieval": _retrieval,
}
