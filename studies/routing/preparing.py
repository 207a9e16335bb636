"""What a routing study holds before its first batch: model, questions, checkpoints that belong together, and the plan.

Everything that can be refused is refused here, before anything is written. Importing it loads no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from probes.errors import InputError
from probes.experts.files import load_routing
from probes.experts.saved import SavedRouting, require_same_routers, require_same_tokens
from probes.layer_kinds import LayerKind, layers_with
from studies.bundled import data_source, model_source
from studies.multi_image import MultiImageQuestion
from studies.routing.command import STUDY, RoutingConfig
from studies.routing.recording import recorded

if TYPE_CHECKING:
    from probes.model import HookedModel
    from studies.auditing.image_facts import ImageFacts
    from studies.runs import RunFolder

MODEL = -1
"""In a part's `checkpoint`: the model itself."""
PREFLIGHT = 8
"""Questions that may fail before anything is written; one that works is enough."""
_NOT_IDENTITY = ("out", "resume", "overwrite", "trust_remote_code", "allow_pickle", "device", "model", "checkpoints")


class Part(NamedTuple):
    """What is computed and written together; its place in the plan names its files."""

    kind: Literal["routing", "knockout"]
    checkpoint: int
    """Place among the checkpoints, or `MODEL`."""
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Checkpoint:
    """An earlier point of training: a model to run, or the routing that was saved of one."""

    name: str
    digest: str | None
    saved: SavedRouting | None
    """None where there is a model to run."""


@dataclass(frozen=True)
class Prepared:
    """What a study holds before its first batch."""

    config: RoutingConfig
    model: "HookedModel"
    records: dict[str, MultiImageQuestion]
    """The questions drawn, in the order of the data."""
    facts: "ImageFacts"
    checkpoints: tuple[Checkpoint, ...]
    plan: tuple[Part, ...]
    unusable: int
    """Questions that could not be read, so that none of them could be drawn."""


def prepare(config: RoutingConfig) -> Prepared:
    """Read questions and model, hold the checkpoints against it, and plan.

    Models among the checkpoints are loaded here once, to see that they fit, and again when their turn comes.

    Raises:
        InputError: If the model has no experts, sends every token to all of them or cannot be used, data hold no
            question, or checkpoints differ in their routers or their tokens.
    """
    from transformers.utils.logging import disable_progress_bar

    from studies.auditing.image_facts import ImageFacts
    from studies.auditing.inputs import check_device, items
    from studies.auditing.plan import draw_evenly, plan_batches
    from studies.multi_image import read_questions

    check_device(config.device)
    found = read_questions(data_source(config.data), split=config.split, **config.reading())
    drawn = draw_evenly({each.id: each.task for each in found.records}, config.samples, config.seed)
    records = {each.id: each for each in found.records if each.id in set(drawn)}
    if not records:
        raise InputError(f"{config.data} holds no question that can be read: give other data")
    disable_progress_bar()
    model = load(config.model, config)
    first = preflight(model, list(records.values()))
    _need_a_choice(config.model, first)
    checkpoints = tuple(_checked(name, config, model, first, records) for name in config.checkpoints)
    facts = ImageFacts()
    batches = [batch.ids for batch in plan_batches(items(model, list(records.values()), facts), config.batch_size)]
    asked = draw_evenly({name: each.task for name, each in records.items()}, config.knockout, config.seed)
    running = [place for place, each in enumerate(checkpoints) if each.saved is None]
    plan = (
        *(Part("routing", MODEL, ids) for ids in batches),
        *(Part("knockout", MODEL, (name,)) for name in asked),
        *(Part("routing", place, ids) for place in running for ids in batches),
    )
    return Prepared(config, model, records, facts, checkpoints, plan, len(found.bad))


def load(name: str, config: RoutingConfig) -> "HookedModel":
    """Load a model, and see that it has experts.

    Raises:
        InputError: If it cannot be loaded, or has none.
    """
    from probes.model import HookedModel

    model = HookedModel.from_pretrained(model_source(name), dtype=config.dtype, **config.loading())
    kinds = model.layer_kinds
    if not layers_with(kinds, LayerKind.EXPERTS):
        there = ", ".join(dict.fromkeys(str(kind) for each in kinds.values() for kind in each.all))
        raise InputError(
            f"{name} has no experts to route to (its layers hold {there}): give a mixture of experts, or ask where "
            "this model looks by `sightcheck audit`"
        )
    return model


def preflight(model: "HookedModel", records: Sequence[MultiImageQuestion]) -> SavedRouting:
    """Record questions until one works, so that a model that cannot be read is refused before anything is written.

    Raises:
        InputError: The first reason, if none of the first questions works.
        UnsupportedRouting: If a router is not known.
    """
    from probes.experts.layers import UnsupportedRouting

    errors = []
    for record in records[:PREFLIGHT]:
        try:
            return recorded(model, [record])[1]
        except UnsupportedRouting:
            raise
        except InputError as error:
            errors.append(error)
    raise errors[0]


def _need_a_choice(name: str, routing: SavedRouting) -> None:
    if routing.k == routing.experts:
        raise InputError(
            f"{name} sends every token to all {routing.experts} experts, so there is no choice to measure: give a "
            "model that chooses some of them, or ask what each adds by probes.experts.effects"
        )


def open_folder(prepared: Prepared) -> "RunFolder":
    """Start the run, or take it up again.

    Raises:
        InputError: If the folder holds another run.
    """
    from studies.auditing.inputs import data_digest, model_digest
    from studies.runs import Manifest, RunFolder

    config = prepared.config
    shown = {entry.name: getattr(config, entry.name) for entry in fields(config) if entry.name not in _NOT_IDENTITY}
    manifest = Manifest(
        config={
            "study": STUDY,
            **shown,
            "model": config.model,
            "checkpoints": list(config.checkpoints),
            "checkpoint_digests": [each.digest for each in prepared.checkpoints],
            "parameters": sum(weight.numel() for weight in prepared.model.model.parameters()),
        },
        batches=len(prepared.plan),
        seeds={"seed": config.seed},
        model_digest=model_digest(model_source(config.model), prepared.model),
        data_digest=data_digest(prepared.records.values(), {}, prepared.facts),
    )
    return RunFolder.create(config.out, manifest, resume=config.resume)


def _checked(
    name: str,
    config: RoutingConfig,
    model: "HookedModel",
    first: SavedRouting,
    records: dict[str, MultiImageQuestion],
) -> Checkpoint:
    """A checkpoint whose routers are those of the model, and its tokens in one question that both have.

    Raises:
        InputError: If they are not; names both.
    """
    from studies.auditing.inputs import file_digest, model_digest

    if not name.endswith(".npz"):
        other = load(name, config)
        (asked,) = first.names
        theirs = recorded(other, [records[asked]])[1]
        require_same_routers(first, theirs, config.model, name)
        require_same_tokens(first, theirs, config.model, name)
        return Checkpoint(name, model_digest(model_source(name), other), None)
    saved = load_routing(name)
    require_same_routers(first, saved, config.model, name)
    common = [each for each in records if each in saved.names]
    if not common:
        raise InputError(
            f"{name} holds none of the {len(records)} questions drawn from {config.data} (it has "
            f"{saved.names[0]!r} and others): give the data and the --split that it was recorded on, or more --samples"
        )
    mine = first if first.names[0] in common else preflight(model, [records[each] for each in common])
    require_same_tokens(mine, saved.of_questions(mine.names), config.model, name)
    return Checkpoint(name, file_digest(Path(name)), saved)
