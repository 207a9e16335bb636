"""Which experts a fixed set of questions goes to, and which tokens these were, so that checkpoints can be compared.

Weights, scores and biases are left out: it is what stays of a checkpoint that is not kept. Knows arrays: nothing of
models or files, and no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.errors import InputError, counted
from probes.experts.load import as_choices
from probes.experts.records import TEXT, Routing
from probes.experts.rules import IntArray


@dataclass(frozen=True, eq=False, repr=False)
class SavedRouting:
    """Which experts each token of a fixed set of questions goes to, in one checkpoint.

    Tokens are those of all questions without padding, question by question.

    Raises:
        InputError: If arrays do not fit each other, an index is no expert, or a name occurs twice.
    """

    layers: tuple[int, ...]
    """True indices of the layers with experts, ascending."""
    indices: IntArray
    """(layers, tokens, k): the experts chosen."""
    experts: int
    """Routed experts of each layer."""
    samples: IntArray
    """(tokens,): the question that each token belongs to, as its place in `names`, ascending."""
    images: IntArray
    """(tokens,): the image that it belongs to, from 0; -1 for text."""
    ids: IntArray
    """(tokens,): the token itself, by the model's vocabulary: what makes two files comparable."""
    names: tuple[str, ...]
    """(questions,): an id of each question, all different. Their pictures are not in the file: one id has to mean the
    same pictures in every checkpoint."""
    step: int | None = None
    """Training steps behind the checkpoint, where known."""

    def __post_init__(self) -> None:
        if self.indices.ndim != 3 or not self.layers or self.indices.shape[0] != len(self.layers):
            raise InputError(f"saved indices are (layers, tokens, k) of {len(self.layers)} layers, not a "
                             f"{self.indices.shape}")  # fmt: skip
        if list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise InputError(f"layers of a saved routing are different ones, ascending from 0 on: got {self.layers}")
        as_choices(self.indices, self.experts)
        tokens = self.indices.shape[1]
        if not tokens or any(labels.shape != (tokens,) for labels in (self.samples, self.images, self.ids)):
            raise InputError(f"a saved routing of {tokens} tokens needs as many samples, images and ids, and some")
        if len(set(self.names)) != len(self.names) or not np.array_equal(
            np.unique(self.samples), range(len(self.names))
        ):
            raise InputError(f"a saved routing names each of its questions once: got {len(self.names)} names for the "
                             f"samples {np.unique(self.samples)[:5].tolist()} …")  # fmt: skip
        if (np.diff(self.samples) < 0).any() or self.images.min() < TEXT:
            raise InputError("tokens of a saved routing go question by question, and images count from 0, -1 for text")

    @classmethod
    def of(cls, routing: Routing, ids: npt.ArrayLike, names: Sequence[str], step: int | None = None) -> "SavedRouting":
        """What is kept of a recorded routing: experts in ascending order, which takes files a quarter less, and not in
        the router's, which means nothing.

        Args:
            routing: Of all questions, in their order.
            ids: (tokens,) the tokens themselves; `token_ids` gives those of an encoded batch.
            names: An id of each question.
            step: Training steps behind the checkpoint.

        Raises:
            InputError: If they do not fit the routing.
        """
        tokens = np.asarray(ids, dtype=np.int64)
        return cls(
            routing.layers,
            np.sort(routing.indices, axis=-1),
            routing.experts,
            routing.samples,
            routing.images,
            tokens,
            tuple(names),
            step,
        )

    @property
    def k(self) -> int:
        """Experts that each token goes to."""
        return int(self.indices.shape[2])

    def __repr__(self) -> str:
        step = "" if self.step is None else f", step {self.step}"
        return (
            f"SavedRouting({counted(len(self.layers), 'layer')}, {counted(self.indices.shape[1], 'token')} of "
            f"{counted(len(self.names), 'question')}, "
            f"{self.k} of {self.experts} experts{step})"
        )

    def of_questions(self, names: Sequence[str]) -> "SavedRouting":
        """The same of some questions, in the order given.

        Raises:
            InputError: If a question is not in it; names the first.
        """
        place = {name: index for index, name in enumerate(self.names)}
        lost = [name for name in names if name not in place]
        if lost or not names:
            raise InputError(f"the saved routing has no question {lost[0]!r}" if lost else "no question is named")
        bounds = np.searchsorted(self.samples, np.arange(len(self.names) + 1))
        wanted = [place[name] for name in names]
        tokens = np.concatenate([np.arange(bounds[each], bounds[each + 1]) for each in wanted])
        counts = [int(bounds[each + 1] - bounds[each]) for each in wanted]
        return replace(
            self,
            indices=self.indices[:, tokens],
            samples=np.repeat(np.arange(len(wanted)), counts),
            images=self.images[tokens],
            ids=self.ids[tokens],
            names=tuple(names),
        )


def token_ids(encoded: Any) -> IntArray:
    """(tokens,): the tokens of an encoded batch (`HookedModel.encode`) without padding, in the order of its routing."""
    inputs = encoded.inputs
    return np.asarray(inputs["input_ids"][inputs["attention_mask"].bool()].cpu(), dtype=np.int64)


def joined_saved(parts: Sequence[SavedRouting]) -> SavedRouting:
    """Several batches of one checkpoint as one.

    Raises:
        InputError: If there are none, they are of unlike routers or steps, or share a question.
    """
    if not parts:
        raise InputError("no saved routings are given to join")
    first = parts[0]
    for each in parts[1:]:
        require_same_routers(first, each, "the first part", "another")
        if each.step != first.step:
            raise InputError(f"parts of one checkpoint are of one step, and here of {first.step} and {each.step}")
    starts = np.cumsum([0, *(len(each.names) for each in parts)])
    return replace(
        first,
        indices=np.concatenate([each.indices for each in parts], axis=1),
        samples=np.concatenate([each.samples + start for each, start in zip(parts, starts, strict=False)]),
        images=np.concatenate([each.images for each in parts]),
        ids=np.concatenate([each.ids for each in parts]),
        names=tuple(name for each in parts for name in each.names),
    )


def require_same_routers(first: SavedRouting, second: SavedRouting, one: str, other: str) -> None:
    """Refuse two checkpoints whose experts cannot be matched by number.

    Args:
        first: One.
        second: The other.
        one: What the first is called.
        other: What the second is called.

    Raises:
        InputError: If layers, experts or k differ; says how.
    """
    shapes = [(list(each.layers), each.experts, each.k) for each in (first, second)]
    for name, left, right in zip(("layers with experts", "experts", "experts a token"), *shapes, strict=True):
        if left != right:
            raise InputError(
                f"{one} and {other} are of different shapes ({name}: {left} and {right}), so their experts cannot be "
                "matched: give checkpoints of one training run"
            )


def require_same_tokens(first: SavedRouting, second: SavedRouting, one: str, other: str) -> None:
    """Refuse two checkpoints that routed different tokens.

    Args:
        first: One.
        second: The other.
        one: What the first is called.
        other: What the second is called.

    Raises:
        InputError: If questions, tokens or images differ; names the first question.
    """
    if first.names != second.names:
        raise InputError(f"{one} and {other} are of different questions, or in another order: see of_questions()")
    whole = [np.stack([each.samples, each.ids, each.images]) for each in (first, second)]
    if np.array_equal(whole[0], whole[1]):
        return
    for place, name in enumerate(first.names):
        mine, theirs = (each[1:, each[0] == place] for each in whole)
        if not np.array_equal(mine, theirs):
            raise InputError(
                f"{one} and {other} read question {name!r} as different tokens ({mine.shape[1]} and "
                f"{theirs.shape[1]} of them): give checkpoints with one tokenizer, asked the same questions"
            )
