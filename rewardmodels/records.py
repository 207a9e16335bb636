"""The one record of a preference: a prompt, two or more responses, and which of them is better.

Knows no published format and reads no data file. No torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

from probes.inputs import ImageRef, InputError, Turn
from probes.reading.keeping import image_as_json

Box = tuple[float, float, float, float]
ROLES = ("system", "user", "assistant")

SKIPPED = "skipped_ratings"
"""Key of ``meta``: the responses that a source rates and that could not be ranked, each with its reason."""
REPORTED = "reported"
"""Key of ``meta``: what is publicly reported to be wrong with a record."""


@dataclass(frozen=True)
class Response:
    """One answer to a prompt.

    Raises:
        InputError: neither text nor image, marks that do not match the images, or a score that is no finite number.
    """

    text: str
    """What is said. ``<image>`` marks say where images of the response stand; without, they come first."""
    images: tuple[ImageRef, ...] = ()
    model: str = ""
    """Who wrote it, where known."""
    score: float | None = None
    """The rating that the source gives it, where it does."""

    def __post_init__(self) -> None:
        if not self.text.strip() and not self.images:
            raise InputError("a response is empty: it has neither text nor image")
        if self.score is not None and not math.isfinite(self.score):
            raise InputError(f"the score {self.score} of a response is no finite number")
        self.parts()

    def parts(self) -> tuple[str | ImageRef, ...]:
        """Return texts and images in the order in which a model reads them."""
        return Turn("assistant", self.text, self.images).parts()

    def said(self) -> tuple[str, tuple[ImageRef, ...]]:
        """Return what two responses that say the same have in common: the text, white space aside, and the images."""
        return " ".join(self.text.split()), self.images


@dataclass(frozen=True)
class PreferencePair:
    """A better and a worse response to one prompt: what a pairwise loss sees, and what accuracy counts."""

    id: str
    """The record's id, with ``#better-worse`` (places of the responses) where the record has more than one pair."""
    prompt: tuple[Turn, ...]
    chosen: Response
    rejected: Response
    record: str
    group: str
    source: str
    cluster: str
    margin: float | None = None
    weight: float = 1.0
    target: int | None = None


@dataclass(frozen=True)
class Preference:
    """One prompt, two or more responses, and which is better.

    Raises:
        InputError: an empty id; a prompt that is empty, does not end with the user's turn, has other roles than
            system, user and assistant, or marks that do not match its images; fewer than two responses; ranks that
            are not one whole number a response with 0 the best; a better and a worse response that say the same; a
            target or box out of range; a margin or weight that is no finite number, or a negative weight. The files
            of the images are not looked at.
    """

    id: str
    prompt: tuple[Turn, ...]
    """Images live in the turns; the last turn is the user's."""
    responses: tuple[Response, ...]
    ranks: tuple[int, ...]
    """One a response: 0 is best, equal ranks are ties."""
    target: int | None = None
    """Which of the prompt's images decides, from 0, where known."""
    boxes: tuple[Box, ...] = ()
    """Left, top, right, bottom in pixels of the target image: the regions that decide."""
    group: str = ""
    """The category that accuracies are given by; a part of one stands behind a slash, as in ``safety/bias``."""
    source: str = ""
    """The data set."""
    base: str | None = None
    """Records made from one thing share it: intervals are clustered by it."""
    margin: float | None = None
    weight: float = 1.0
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.id.strip():
            raise InputError("the id is empty")
        self._check_prompt()
        self._check_ranks()
        self._check_target()
        if self.margin is not None and not math.isfinite(self.margin):
            raise InputError(f"the margin {self.margin} is no finite number")
        if not math.isfinite(self.weight) or self.weight < 0:
            raise InputError(f"the weight {self.weight} is no finite number from 0 on")

    def _check_prompt(self) -> None:
        if not self.prompt:
            raise InputError("the prompt is empty")
        for turn in self.prompt:
            if turn.role not in ROLES:
                raise InputError(f"a turn of the prompt is by {turn.role!r}, not by one of {', '.join(ROLES)}")
            turn.parts()
        last = self.prompt[-1]
        if last.role != "user":
            raise InputError(f"the last turn of the prompt is by {last.role!r}, and must be the user's")
        if not last.text.strip() and not last.images:
            raise InputError("the last turn of the prompt is empty")

    def _check_ranks(self) -> None:
        if len(self.responses) < 2:
            raise InputError(f"there is {len(self.responses)} response: a preference needs two")
        if len(self.ranks) != len(self.responses):
            raise InputError(f"there are {len(self.ranks)} ranks for {len(self.responses)} responses")
        if any(isinstance(rank, bool) or not isinstance(rank, int) or rank < 0 for rank in self.ranks):
            raise InputError(f"the ranks {self.ranks} must be whole numbers from 0 on")
        if min(self.ranks) != 0:
            raise InputError(f"the ranks {self.ranks} name no best response: its rank is 0")
        said = [response.said() for response in self.responses]
        if len(set(said)) == len(said):
            return
        for better, worse in self.pair_places():
            if said[better] == said[worse]:
                raise InputError(f"responses {better + 1} and {worse + 1} say the same, and one is called better")

    def _check_target(self) -> None:
        count = len(self.images)
        if self.target is not None and not 0 <= self.target < count:
            raise InputError(f"the target, counted from 0, is {self.target}, and the prompt has {count} images")
        if self.boxes and self.target is None:
            raise InputError("there are boxes and no target image that they lie in")
        for box in self.boxes:
            if len(box) != 4 or not all(math.isfinite(edge) for edge in box) or box[0] >= box[2] or box[1] >= box[3]:
                raise InputError(f"the box {box} must be left, top, right, bottom in pixels, and not empty")

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """All images of the prompt, in order."""
        return tuple(image for turn in self.prompt for image in turn.images)

    @property
    def cluster(self) -> str:
        """What this record is clustered by: its base, or itself."""
        return self.base or self.id

    @property
    def ties(self) -> int:
        """The number of pairs of responses with equal ranks."""
        return sum(first == second for first, second in combinations(self.ranks, 2))

    @property
    def pair_count(self) -> int:
        """The number of pairs of a better and a worse response."""
        return math.comb(len(self.ranks), 2) - self.ties

    def noted(self, key: str) -> tuple[str, ...]:
        """Return the remarks that ``meta`` holds under a key such as ``SKIPPED``."""
        remarks = self.meta.get(key)
        return tuple(str(remark) for remark in remarks) if isinstance(remarks, list | tuple) else ()

    def pair_places(self) -> tuple[tuple[int, int], ...]:
        """Return the places of the better and the worse response of each of ``pairs``."""
        places = permutations(range(len(self.ranks)), 2)
        return tuple((better, worse) for better, worse in places if self.ranks[better] < self.ranks[worse])

    def pairs(self) -> tuple[PreferencePair, ...]:
        """Return every pair of a better and a worse response; ties make none."""
        places = self.pair_places()
        return tuple(
            PreferencePair(
                id=self.id if len(places) == 1 else f"{self.id}#{better}-{worse}",
                prompt=self.prompt,
                chosen=self.responses[better],
                rejected=self.responses[worse],
                record=self.id,
                group=self.group,
                source=self.source,
                cluster=self.cluster,
                margin=self.margin,
                weight=self.weight,
                target=self.target,
            )
            for better, worse in places
        )

    def as_json(self, root: Path | None = None) -> dict[str, Any]:
        """Return the record as a row of our own JSONL; images in memory become base64, paths start at ``root``."""
        return {
            "id": self.id,
            "prompt": [
                {"role": turn.role, "text": turn.text, "images": [image_as_json(image, root) for image in turn.images]}
                for turn in self.prompt
            ],
            "responses": [
                {
                    "text": response.text,
                    "images": [image_as_json(image, root) for image in response.images],
                    "model": response.model,
                    "score": response.score,
                }
                for response in self.responses
            ],
            "ranks": list(self.ranks),
            "target": self.target,
            "boxes": [list(box) for box in self.boxes],
            "group": self.group,
            "source": self.source,
            "base": self.base,
            "margin": self.margin,
            "weight": self.weight,
            "meta": dict(self.meta),
        }
