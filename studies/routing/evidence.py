"""Everything that a finished routing study recorded, as arrays. It reads run folders and averages nothing. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from probes.errors import InputError
from probes.experts.files import from_arrays
from probes.experts.saved import SavedRouting, joined_saved, require_same_tokens
from studies.routing.preparing import MODEL, Checkpoint, Part
from studies.routing.shards import knockout_file, read_shard, routing_file

if TYPE_CHECKING:
    from studies.runs import RunFolder

FloatArray = npt.NDArray[np.float64]
_REDUCED = ("margins", "margins_without_bias", "moved")


class Knockouts(NamedTuple):
    """Effects of expert knock-outs, in nats."""

    names: tuple[str, ...]
    """(questions,)."""
    effects: FloatArray
    """(questions, layers, experts)."""
    shared: FloatArray
    """(questions, layers), NaN where a layer has no shared experts."""


class Earlier(NamedTuple):
    """An earlier checkpoint, on the questions that it shares with the model."""

    name: str
    saved: SavedRouting


@dataclass(frozen=True, eq=False)
class RoutingEvidence:
    """What was recorded of the questions that went well."""

    saved: SavedRouting
    """Of the model; questions in the order of the plan."""
    margins: npt.NDArray[np.float32]
    """(layers, tokens)."""
    margins_without_bias: npt.NDArray[np.float32]
    """(layers, tokens)."""
    moved: npt.NDArray[np.bool_]
    """(layers, tokens): whether the bias sends the token elsewhere."""
    tasks: npt.NDArray[np.str_]
    """(questions,)."""
    clusters: npt.NDArray[np.str_]
    """(questions,): the base sample of each."""
    checkpoints: tuple[Earlier, ...]
    knockouts: Knockouts
    failed: dict[str, str]
    """Questions that failed, with the first reason of each."""

    def by_token(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(tokens,) of what is known by question."""
        return np.asarray(values[self.saved.samples])

    def clusters_of(self, names: Sequence[str]) -> list[str]:
        """The base sample of each question named."""
        known = dict(zip(self.saved.names, self.clusters.tolist(), strict=True))
        return [known.get(name, name) for name in names]


def read_evidence(folder: "RunFolder", plan: Sequence[Part], checkpoints: Sequence[Checkpoint]) -> RoutingEvidence:
    """Read every part of a finished run.

    Raises:
        InputError: If no question went well, a checkpoint shares no question with the model, or read other tokens.
    """
    rows = folder.read("samples", columns=["sample_id", "cluster", "task"]).to_pylist()
    known = {row["sample_id"]: row for row in rows}
    wrong = folder.read("samples", columns=["sample_id", "error"], filter=~pc.field("error").is_null()).to_pylist()
    failed = {row["sample_id"]: row["error"] for row in wrong}
    shards = _shards(folder, plan, MODEL)
    if not shards:
        raise InputError(f"no question went well; the first: {next(iter(failed.values()), 'there are none')}")
    saved = joined_saved([from_arrays(shard) for shard in shards])
    reduced = {name: np.concatenate([shard[name] for shard in shards], axis=1) for name in _REDUCED}
    return RoutingEvidence(
        saved=saved,
        **reduced,
        tasks=np.array([known[name]["task"] or "" for name in saved.names], dtype=np.str_),
        clusters=np.array([known[name]["cluster"] for name in saved.names], dtype=np.str_),
        checkpoints=tuple(_earlier(folder, plan, saved, place, each) for place, each in enumerate(checkpoints)),
        knockouts=_knockouts(folder, plan, saved, failed),
        failed=failed,
    )


def _shards(folder: "RunFolder", plan: Sequence[Part], checkpoint: int) -> list[dict[str, npt.NDArray[Any]]]:
    wanted = [index for index, part in enumerate(plan) if part.kind == "routing" and part.checkpoint == checkpoint]
    found = [read_shard(folder.path / routing_file(index)) for index in wanted]
    return [shard for shard in found if shard]


def _earlier(
    folder: "RunFolder", plan: Sequence[Part], model: SavedRouting, place: int, checkpoint: Checkpoint
) -> Earlier:
    saved = checkpoint.saved
    if saved is None:
        shards = _shards(folder, plan, place)
        if not shards:
            raise InputError(f"no question went well in the checkpoint {checkpoint.name}")
        saved = joined_saved([from_arrays(shard) for shard in shards])
    held = set(saved.names)
    common = [name for name in model.names if name in held]
    if not common:
        raise InputError(f"the checkpoint {checkpoint.name} and the model share no question that went well")
    mine = saved.of_questions(common)
    require_same_tokens(model.of_questions(common), mine, "the model", checkpoint.name)
    return Earlier(checkpoint.name, mine)


def _knockouts(folder: "RunFolder", plan: Sequence[Part], model: SavedRouting, failed: dict[str, str]) -> Knockouts:
    """The knock-outs that went well; those that did not are noted among the failed."""
    wanted = [index for index, part in enumerate(plan) if part.kind == "knockout"]
    good = []
    for shard in (read_shard(folder.path / knockout_file(index)) for index in wanted):
        if str(shard["error"]):
            failed.setdefault(str(shard["name"]), f"knock-out: {shard['error']}")
        else:
            good.append(shard)
    layers, experts = len(model.layers), model.experts
    return Knockouts(
        names=tuple(str(shard["name"]) for shard in good),
        effects=np.array([shard["effects"] for shard in good]).reshape(-1, layers, experts),
        shared=np.array([shard["shared"] for shard in good]).reshape(-1, layers),
    )
