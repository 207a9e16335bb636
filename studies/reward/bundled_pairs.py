"""Preference pairs over the bundled benchmark's pictures, so that a reward model can be trained with nothing at hand.

Questions are composed anew, as the benchmark composes its own, over the pictures whose contents its rows tell:
*content* ("What is in image 3?") and *caption* ("Which image shows a cat?"). The better response is the right answer;
the worse one is what another of the shown images would give or, for half of the content questions, something that none
shows. Training pairs show pictures of the dev split, test pairs those of the test split. No torch.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import numpy as np

from probes.inputs import ImageRef, InputError, Turn
from rewardmodels.records import Preference, Response
from studies.benchmark.questions import Draft, Pool, PoolEntry, compose
from studies.benchmark.rendering import CONCEPTS
from studies.bundled import BUNDLED_DATA

Split = Literal["train", "test"]

SPLITS = {"train": "dev", "test": "test"}
"""The benchmark's split whose pictures each of ours shows."""
COUNTS = {"train": 2400, "test": 1000}
MOST_IMAGES = 4
"""Images a prompt: 2 to 4, so that a minute of training is enough on a laptop."""
TASKS = ("content", "caption")
SOURCE = "sightcheck bundled pairs"

_SHOWN = re.compile(r"Which image shows (?:an? |the digit )?(.+)\?")


def bundled_pairs(split: Split, count: int | None = None, seed: int = 0) -> tuple[Preference, ...]:
    """Compose preferences of two responses; the same split, count and seed give the same ones.

    Args:
        split: "train" or "test"; they share no picture.
        count: How many, half of each task; by default `COUNTS`.
        seed: Of every draw. A smaller count gives the first ones of a larger.

    Raises:
        InputError: If there is no such split, or the count is below 1.
    """
    if split not in SPLITS:
        raise InputError(f"the bundled pairs have the splits {', '.join(SPLITS)}, and not {split!r}")
    wanted = COUNTS[split] if count is None else count
    if wanted < 1:
        raise InputError(f"{wanted} bundled pairs are asked for: give 1 or more")
    pool = Pool(_labelled(SPLITS[split]))
    rng = np.random.default_rng([seed, sorted(SPLITS).index(split)])
    return tuple(_preference(split, number, pool, rng) for number in range(wanted))


def _preference(split: str, number: int, pool: Pool, rng: np.random.Generator) -> Preference:
    task = TASKS[number % len(TASKS)]
    draft = compose(task, pool, int(rng.integers(2, MOST_IMAGES + 1)), rng)
    wrong = _wrong(draft, pool, rng)
    name = f"{split}-{task}-{number:05d}"
    images = tuple(ImageRef(path=str(BUNDLED_DATA / "images.zip" / file)) for file in draft.files)
    return Preference(
        id=name,
        prompt=(Turn("user", draft.question, images),),
        responses=(Response(draft.answer), Response(wrong)),
        ranks=(0, 1),
        target=draft.target,
        group=task,
        source=SOURCE,
    )


def _wrong(draft: Draft, pool: Pool, rng: np.random.Generator) -> str:
    others = [place for place in range(len(draft.files)) if place != draft.target]
    if draft.task == "caption":
        return str(others[int(rng.integers(len(others)))] + 1)
    shown = {_contents()[file] for file in draft.files}
    if rng.random() < 0.5:
        return _contents()[draft.files[others[int(rng.integers(len(others)))]]]
    unseen = [concept.name for concept in pool.concepts if concept.name not in shown]
    return unseen[int(rng.integers(len(unseen)))]


@cache
def _labelled(split: str) -> tuple[PoolEntry, ...]:
    concepts = {concept.name: concept for concept in CONCEPTS}
    return tuple(
        PoolEntry(file, concepts[name]) for file, name in sorted(_contents().items()) if file.startswith(f"{split}/")
    )


@cache
def _contents() -> dict[str, str]:
    """What each picture shows that some question of the benchmark tells."""
    return {row["images"][row["target"]].removeprefix("images.zip/"): name for row, name in _told()}


def _told() -> Iterator[tuple[dict[str, Any], str]]:
    with (BUNDLED_DATA / "questions.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["task"] in ("content", "giveaway"):
                yield row, row["answer"]
            elif row["task"] == "caption":
                match = _SHOWN.fullmatch(row["meta"]["question_template"])
                assert match is not None
                yield row, match[1]
