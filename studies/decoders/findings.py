"""What measured training runs say: one run's numbers, from its files, and what seeds of a decoder have in common.

Reads what `studies.decoders.measuring` wrote. An interval of one run is over its questions; one over seeds is Student's
over one number of each. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from probes.estimates import Estimate, mean
from probes.files import read_json
from probes.inputs import InputError
from probes.scores import causal_agreement
from studies.auditing.causal_metrics import MIN_EFFECT
from studies.auditing.entries import Entry, find
from studies.auditing.kinds import ATTENTION
from studies.decoders.carrying import Carried, load_carried
from studies.decoders.measuring import AUDIT_FOLDER, CARRYING_FILE, DENSE, EXPERTS_FOLDER, MEASURED_FILE
from studies.decoders.run import RECORD_FILE
from studies.routing.command import LAST

FloatArray = npt.NDArray[np.float64]

ROWS, SPLIT = "predicting", "test"
"""Where attention is read, and of which questions."""
STATE_SPACE, HIDDEN = "state space", "hidden_attention_value"
"""Kind and measure of Mamba-2 layers: hidden attention, weighted by its values."""
GIVEAWAY = "giveaway"
"""The task that the text answers: no image carries anything there."""
NEAR = 0.1
"""How far from where it ends, as a share of that, something may be and count as settled."""


class Look(NamedTuple):
    """Of right answers, how many have their largest factor on the right image."""

    kind: str
    estimate: Estimate
    chance: float


class Course(NamedTuple):
    """Routing along one training run, by checkpoint and layer with experts."""

    steps: tuple[int, ...]
    layers: tuple[int, ...]
    overlap: FloatArray
    """(checkpoints, layers): share of a token's experts that it goes to in the end as well."""
    overlap_floor: FloatArray
    """(checkpoints, layers): what two routings share that have their loads in common and nothing else."""
    information: FloatArray
    """(checkpoints, layers): bits that one of a token's experts tells of whether it is an image's."""
    chance: FloatArray
    """(checkpoints, layers): what it tells of shuffled labels."""


class Special(NamedTuple):
    """What routing tells of a label in one layer."""

    label: str
    layer: int
    information: float
    chance: float
    p_value: float


@dataclass(frozen=True)
class RunFindings:
    """The numbers of one trained model."""

    name: str
    """Of its decoder."""
    seed: int
    answers: Estimate
    """Right answers."""
    answers_by_task: dict[str, Estimate]
    parts: dict[int, tuple[str, ...]]
    """What every layer is made of, by true index."""
    looks: dict[int, Look]
    """Attention accuracy of each single layer that mixes tokens."""
    kinds: dict[str, Look]
    """Attention accuracy of each kind of layer, by its rule of the dev split."""
    carried: dict[str, Estimate]
    """By path (`Carried.paths`): nats that the right answer's log-probability loses without the right image, over all
    questions drawn but give-aways, whether the model gave that answer or not."""
    named: dict[str, Look]
    """By path: of the questions to which an image matters there, how many miss the right one most; query images, which
    are no candidates, left out."""
    course: Course | None
    """None without experts."""
    special: tuple[Special, ...]

    @property
    def steps(self) -> tuple[int, ...]:
        """Of the checkpoints whose routing was kept."""
        return _course(self).steps

    @property
    def depths(self) -> dict[str, list[int]]:
        """The layers of each kind that mixes tokens, in order."""
        kinds = dict.fromkeys(look.kind for look in self.looks.values())
        return {kind: [layer for layer, look in sorted(self.looks.items()) if look.kind == kind] for kind in kinds}


def read_run(folder: Path, name: str, seed: int) -> RunFindings:
    """The findings of one measured run.

    Args:
        folder: The run's folder.
        name: Its decoder.
        seed: Its seed.

    Raises:
        InputError: If a part is missing.
    """
    told = read_json(folder / MEASURED_FILE)
    needed = {"audit", "carrying"} | ({"routing"} if name != DENSE else set())
    missing = sorted(needed - set(told["done"]))
    if missing:
        raise InputError(f"{folder} has no finished {', '.join(missing)}: run python -m studies.decoders.measuring")
    audited = read_json(folder / AUDIT_FOLDER / "metrics.json")
    carried = load_carried(folder / CARRYING_FILE).without(GIVEAWAY)
    routed = read_json(folder / EXPERTS_FOLDER / "metrics.json") if "routing" in needed else None
    return RunFindings(
        name=name,
        seed=seed,
        answers=_one(audited, "answer_accuracy"),
        answers_by_task={
            str(entry["task"]): Estimate.from_dict(entry["estimate"])
            for entry in find(audited, "answer_accuracy", task=..., split=SPLIT, rows=None)
            if entry["task"] is not None
        },
        parts={int(layer): tuple(own) for layer, own in told["layer_kinds"].items()},
        looks=layer_looks(audited),
        kinds=kind_looks(audited),
        carried={
            path: mean(values[np.isfinite(values)])
            for path, values in zip(carried.paths, carried.of_target().T, strict=True)
        },
        named={path: target_named(carried, place) for place, path in enumerate(carried.paths)},
        course=None if routed is None else course(routed, int(read_json(folder / RECORD_FILE)["config"]["steps"])),
        special=() if routed is None else specials(routed),
    )


def target_named(carried: Carried, path: int) -> Look:
    """How often the right image is the one that is missed most along a path, and how often a blind choice is."""
    effects = carried.of_candidates()[:, path]
    there = np.isfinite(effects[np.arange(len(effects)), carried.targets])
    found = causal_agreement(carried.targets[there], effects[there], min_effect=MIN_EFFECT)
    return Look(carried.paths[path], found.estimate, found.chance)


def layer_looks(audited: Sequence[Entry]) -> dict[int, Look]:
    """Attention accuracy by layer, each in the measure of its kind."""
    return {
        int(entry["layer"]): Look(kind, Estimate.from_dict(entry["estimate"]), _number(entry, "chance"))
        for kind, measure in _MEASURES.items()
        for entry in find(audited, "attention_accuracy", layer=..., split=SPLIT, rows=ROWS, **measure)
        if entry["layer"] is not None
    }


def kind_looks(audited: Sequence[Entry]) -> dict[str, Look]:
    """Attention accuracy by kind of layer."""
    found = {}
    for kind, measure in _MEASURES.items():
        for entry in find(audited, "attention_accuracy", split=SPLIT, rows=ROWS, **measure):
            found[kind] = Look(kind, Estimate.from_dict(entry["estimate"]), _number(entry, "chance"))
    return found


def course(routed: Sequence[Entry], last_step: int) -> Course:
    """Routing along training, from the numbers of `sightcheck routing`.

    Args:
        routed: Of its metrics.json; the model itself is the last checkpoint.
        last_step: The step of that, which is not told.
    """
    along = [entry for entry in routed if entry["name"] == "checkpoint_specialisation"]
    held = {
        (entry["checkpoint"], entry["layer"]): entry
        for entry in routed
        if entry["name"] == "overlap" and entry["against"] == LAST
    }
    points = list(dict.fromkeys(entry["checkpoint"] for entry in along))
    layers = sorted({int(entry["layer"]) for entry in along})
    told = {(entry["checkpoint"], entry["layer"]): entry for entry in along}

    def table(entries: Mapping[tuple[str, int], Entry], key: str) -> FloatArray:
        chosen = [[entries[point, layer] for layer in layers] for point in points]
        return np.array([[_number(entry, key) for entry in row] for row in chosen], dtype=np.float64)

    return Course(
        steps=tuple(last_step if point == LAST else int(told[point, layers[0]]["step"]) for point in points),
        layers=tuple(layers),
        overlap=table(held, "estimate"),
        overlap_floor=table(held, "floor_of_loads"),
        information=table(told, "estimate"),
        chance=table(told, "chance"),
    )


def specials(routed: Sequence[Entry]) -> tuple[Special, ...]:
    """Specialisation of the trained model, by label and layer."""
    return tuple(
        Special(
            str(entry["label"]),
            int(entry["layer"]),
            _number(entry, "estimate"),
            _number(entry, "chance"),
            _number(entry, "p_value"),
        )
        for entry in routed
        if entry["name"] == "specialisation"
    )


def settles(steps: Sequence[int], values: npt.ArrayLike, near: float = NEAR) -> int | None:
    """The first checkpoint from which on something stays near where it ends, above it or below; None if that is the
    last one, where everything is where it ends.

    Raises:
        ValueError: If a number is missing.

    >>> settles([0, 100, 200, 300, 400], [0.1, 0.95, 1.3, 0.97, 1.0])
    300
    >>> settles([0, 100], [0.2, 1.0]) is None
    True
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"what settles needs a number at every checkpoint, got {numbers.tolist()}")
    far = np.flatnonzero(np.abs(numbers - numbers[-1]) > near * abs(numbers[-1]))
    first = int(far[-1]) + 1 if len(far) else 0
    return int(steps[first]) if first < len(numbers) - 1 else None


def depth_gain(run: RunFindings, kind: str) -> float:
    """Attention accuracy of the last layer of a kind minus that of its first; NaN with one layer."""
    layers = run.depths[kind]
    if len(layers) < 2:
        return float("nan")
    return run.looks[layers[-1]].estimate.value - run.looks[layers[0]].estimate.value


def bits_above_chance(run: RunFindings, label: str) -> float:
    """What routing tells of a label beyond what it tells of shuffled ones, bits, mean over layers with experts."""
    return float(np.mean([each.information - each.chance for each in run.special if each.label == label]))


def gained_bits(run: RunFindings) -> FloatArray:
    """(checkpoints,): what routing tells of image or text beyond chance along training, mean over layers."""
    course = _course(run)
    found: FloatArray = (course.information - course.chance).mean(1)
    return found


def shared_experts(run: RunFindings) -> FloatArray:
    """(checkpoints,): share of a token's experts that it goes to in the end as well, mean over layers."""
    found: FloatArray = _course(run).overlap.mean(1)
    return found


def _course(run: RunFindings) -> Course:
    if run.course is None:
        raise ValueError(f"{run.name} {run.seed} has no experts, and so no routing along training")
    return run.course


_MEASURES: dict[str, dict[str, Any]] = {
    ATTENTION: {"measure": None, "layer_kind": None},
    STATE_SPACE: {"measure": HIDDEN, "layer_kind": STATE_SPACE},
}


def _one(audited: Sequence[Entry], name: str) -> Estimate:
    (entry,) = find(audited, name, split=SPLIT, rows=None)
    return Estimate.from_dict(entry["estimate"])


def _number(entry: Entry, key: str) -> float:
    value = entry["estimate"]["value"] if key == "estimate" else entry[key]
    return float("nan") if value is None else float(value)
