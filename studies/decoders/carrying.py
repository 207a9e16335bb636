"""Which kind of layer carries an image to the answer: what the answer loses when it is hidden from one kind alone.

An image is hidden from the rows behind the last image, in softmax attention, in mixers, in both, and in each layer
alone. Knows models and questions; what follows from it over several models is for `studies.decoders.findings`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from probes.errors import InputError
from probes.files import write_arrays
from studies.auditing.kinds import ATTENTION
from studies.multi_image import MultiImageQuestion
from studies.position import blinded_rows, is_anchored

if TYPE_CHECKING:
    from probes.model import HookedModel

FloatArray = npt.NDArray[np.float64]

EVERY = "all"
"""The path of every layer that mixes tokens, where these are of two kinds."""


class Carried(NamedTuple):
    """What answers lose without an image, by path."""

    paths: tuple[str, ...]
    """Kinds of layers, `EVERY`, and "layer N" for each layer alone."""
    effects: FloatArray
    """(questions, paths, images): drop in the right answer's log-probability, nats; NaN where there is no such image,
    or no row that could be blinded to it."""
    targets: npt.NDArray[np.int64]
    """(questions,): the image that holds the answer."""
    anchors: npt.NDArray[np.int64]
    """(questions,): the query image of an image-to-image question, which no answer names; -1 where there is none."""
    ids: tuple[str, ...]
    """Of the questions."""
    tasks: tuple[str, ...]
    """Of the questions."""

    def of_target(self) -> FloatArray:
        """(questions, paths): what is lost without the image that holds the answer."""
        chosen = self.targets[:, None, None]
        found: FloatArray = np.take_along_axis(self.effects, np.broadcast_to(chosen, (*self.effects.shape[:2], 1)), 2)
        return found[..., 0]

    def of_candidates(self) -> FloatArray:
        """The effects, without those of query images, which are no candidates."""
        effects = self.effects.copy()
        asked = np.flatnonzero(self.anchors >= 0)
        effects[asked, :, self.anchors[asked]] = np.nan
        return effects

    def without(self, task: str) -> Carried:
        """The other tasks' questions."""
        kept = np.flatnonzero([each != task for each in self.tasks]).tolist()
        return Carried(
            self.paths,
            self.effects[kept],
            self.targets[kept],
            self.anchors[kept],
            tuple(self.ids[place] for place in kept),
            tuple(self.tasks[place] for place in kept),
        )


def paths_of(model: HookedModel) -> dict[str, list[int]]:
    """The layers of each path, by true index: the kinds, all of them where there are two, and each layer alone.

    Raises:
        InputError: If the model has a mixer that cannot be cut.
    """
    from studies.auditing.mixers import find_mixers

    mixers = find_mixers(model.model)
    if mixers.refused:
        layer, reason = next(iter(mixers.refused.items()))
        raise InputError(f"no image can be hidden from layer {layer}, so that nothing tells what it carries: {reason}")
    kinds = {**dict.fromkeys(model.layers, ATTENTION), **mixers.read}
    if len(kinds) < len(model.layers) + len(mixers.read):
        raise InputError(
            "a layer of this model mixes tokens in two ways at once, which paths by layer do not tell apart"
        )
    named = {kind: sorted(each for each in kinds if kinds[each] == kind) for kind in dict.fromkeys(kinds.values())}
    together = {EVERY: sorted(kinds)} if len(named) > 1 else {}
    return {**named, **together, **{f"layer {layer}": [layer] for layer in sorted(kinds)}}


def carry(model: HookedModel, records: Iterable[MultiImageQuestion]) -> Carried:
    """Hide every image of every question along every path, and score the right answer again.

    Args:
        model: The model.
        records: Questions with a target and a right answer.

    Raises:
        InputError: If a question has no target, or cannot be put to the model; if there are none; as `paths_of`.
        UnsupportedAttention: If a layer cannot be cut.
    """
    from probes.interventions import knockout_effects
    from probes.mixers.knockout import joint_knockout_effects
    from probes.model import Question

    paths = paths_of(model)
    cut: Any = joint_knockout_effects if EVERY in paths else knockout_effects
    found: list[FloatArray] = []
    asked = list(records)
    targets = [_target(record) for record in asked]
    for record in asked:
        question = Question(record.images, record.question)
        effects = cut(model, question, record.answer, list(paths.values()), blinded_rows(record))
        found.append(np.asarray(effects, dtype=np.float64))
    return Carried(
        tuple(paths),
        _padded(found),
        np.array(targets, dtype=np.int64),
        np.array([len(record.images) - 1 if is_anchored(record) else -1 for record in asked], dtype=np.int64),
        tuple(record.id for record in asked),
        tuple(record.task for record in asked),
    )


def save_carried(path: Path, carried: Carried) -> None:
    """Write it to an ``.npz`` file, whole or not at all."""
    write_arrays(path, {name: np.asarray(value) for name, value in carried._asdict().items()})


def load_carried(path: Path) -> Carried:
    """Undo `save_carried`."""
    with np.load(path, allow_pickle=False) as found:
        return Carried(
            tuple(found["paths"].tolist()),
            found["effects"],
            found["targets"],
            found["anchors"],
            tuple(found["ids"].tolist()),
            tuple(found["tasks"].tolist()),
        )


def _target(record: MultiImageQuestion) -> int:
    if record.target is None:
        raise InputError(f"{record.id} names no target image: which image carries its answer is not known")
    return record.target


def _padded(effects: Sequence[FloatArray]) -> FloatArray:
    if not effects:
        raise InputError("there are no questions: give some with a target image")
    most = max(each.shape[1] for each in effects)
    return np.stack([np.pad(each, ((0, 0), (0, most - each.shape[1])), constant_values=np.nan) for each in effects])
