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

from probes.files import write_arrays
from studies.multi_image import MultiImageQuestion
from studies.position import is_anchored

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
    ids: tuple[str, ...]
    """Of the questions."""
    tasks: tuple[str, ...]
    """Of the questions."""

    def of_target(self) -> FloatArray:
        """(questions, paths): what is lost without the image that holds the answer."""
        chosen = self.targets[:, None, None]
        found: FloatArray = np.take_along_axis(self.effects, np.broadcast_to(chosen, (*self.effects.shape[:2], 1)), 2)
        return found[..., 0]

    def names_target(self) -> npt.NDArray[np.bool_]:
        """(questions, paths): whether no image is missed as much as the one that holds the answer."""
        largest: npt.NDArray[np.bool_] = self.of_target() >= np.nanmax(self.effects, axis=2)
        return largest

    def without(self, task: str) -> Carried:
        """The other tasks' questions."""
        kept = np.flatnonzero([each != task for each in self.tasks]).tolist()
        return Carried(
            self.paths,
            self.effects[kept],
            self.targets[kept],
            tuple(self.ids[place] for place in kept),
            tuple(self.tasks[place] for place in kept),
        )


def paths_of(model: HookedModel) -> dict[str, list[int]]:
    """The layers of each path, by true index: the kinds, all of them where there are two, and each layer alone."""
    from probes.mixers.modules import mixers_if_any

    mixers = sorted(mixers_if_any(model.model, ()))
    kinds = {"attention": sorted(model.layers), "state space": mixers}
    mixing = sorted({*model.layers, *mixers})
    named = {kind: layers for kind, layers in kinds.items() if layers}
    together = {EVERY: mixing} if len(named) > 1 else {}
    return {**named, **together, **{f"layer {layer}": [layer] for layer in mixing}}


def carry(model: HookedModel, records: Iterable[MultiImageQuestion]) -> Carried:
    """Hide every image of every question along every path, and score the right answer again.

    Args:
        model: The model. Of mixers, only Mamba-2 layers are known here.
        records: Questions with a target and a right answer.

    Raises:
        InputError: If a question has no target, or cannot be put to the model; if there are none.
        UnsupportedAttention: If a layer cannot be cut.
    """
    from probes.interventions import knockout_effects
    from probes.mixers.knockout import joint_knockout_effects
    from probes.model import Question

    paths = paths_of(model)
    cut: Any = joint_knockout_effects if "state space" in paths else knockout_effects
    found: list[FloatArray] = []
    asked = list(records)
    targets = [_target(record) for record in asked]
    for record in asked:
        question = Question(record.images, record.question)
        # What an image-to-image answer takes from an image may come by way of the anchor's own rows.
        rows = ("after", "anchor") if is_anchored(record) else ("after",)
        found.append(np.asarray(cut(model, question, record.answer, list(paths.values()), rows), dtype=np.float64))
    return Carried(
        tuple(paths),
        _padded(found),
        np.array(targets, dtype=np.int64),
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
            tuple(found["ids"].tolist()),
            tuple(found["tasks"].tolist()),
        )


def _target(record: MultiImageQuestion) -> int:
    from probes.inputs import InputError

    if record.target is None:
        raise InputError(f"{record.id} names no target image: which image carries its answer is not known")
    return record.target


def _padded(effects: Sequence[FloatArray]) -> FloatArray:
    from probes.inputs import InputError

    if not effects:
        raise InputError("there are no questions: give some with a target image")
    most = max(each.shape[1] for each in effects)
    return np.stack([np.pad(each, ((0, 0), (0, most - each.shape[1])), constant_values=np.nan) for each in effects])
