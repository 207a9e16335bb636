"""Computes the parts of a plan and writes each to the run folder: routing of batches, knock-outs of single questions.

It knows models and shards; it averages nothing. A question that cannot be asked becomes a row with its error. Importing
it loads no torch.
"""

import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from probes.errors import InputError
from probes.experts.files import as_arrays
from probes.experts.margins import margins, moved_by_bias
from probes.experts.saved import SavedRouting, joined_saved
from studies.auditing.progress import Counter
from studies.auditing.tables import Row, described
from studies.multi_image import MultiImageQuestion
from studies.routing.knocking import knocked_out
from studies.routing.preparing import MODEL, Part, Prepared, load
from studies.routing.recording import recorded
from studies.routing.shards import Arrays, knockout_file, routing_file, shard_bytes

if TYPE_CHECKING:
    from probes.experts.records import Routing
    from probes.model import HookedModel
    from studies.runs import RunFolder


def measure(prepared: Prepared, folder: "RunFolder") -> None:
    """Compute and write every part that the folder lacks; a checkpoint's model is loaded when its turn comes.

    Raises:
        UnsupportedRouting: If a router is not known; nothing of that part has been written.
        MemoryError: If a batch does not fit in memory.
    """
    done = folder.done_batches()
    before = sum(len(part.ids) for index, part in enumerate(prepared.plan) if index in done)
    with Counter("routing", sum(len(part.ids) for part in prepared.plan), before) as counter:
        missing = [(index, part) for index, part in enumerate(prepared.plan) if index not in done]
        for checkpoint, parts in groupby(missing, key=lambda each: each[1].checkpoint):
            # No name of this function holds the model, so that one has gone before the next is loaded.
            _write_all(prepared, _model_of(prepared, checkpoint), parts, folder, counter)


def _model_of(prepared: Prepared, checkpoint: int) -> "HookedModel":
    if checkpoint == MODEL:
        return prepared.model
    return load(prepared.checkpoints[checkpoint].name, prepared.config)


def _write_all(
    prepared: Prepared,
    model: "HookedModel",
    parts: Iterable[tuple[int, Part]],
    folder: "RunFolder",
    counter: Counter,
) -> None:
    for index, part in parts:
        _write(prepared, model, index, part, folder)
        counter.advance(len(part.ids))


def _write(prepared: Prepared, model: "HookedModel", index: int, part: Part, folder: "RunFolder") -> None:
    from studies.auditing.memory import one_line_refusal

    records = [prepared.records[name] for name in part.ids]
    rows: list[Row] = []
    with one_line_refusal(len(records)):
        if part.kind == "knockout":
            folder.write_file(
                knockout_file(index), shard_bytes(knocked_out(model, records[0], prepared.config.knockout_tokens))
            )
        else:
            start = time.perf_counter()
            arrays, errors = _routed(model, records, reduced=part.checkpoint == MODEL)
            seconds = (time.perf_counter() - start) / len(records)
            folder.write_file(routing_file(index), shard_bytes(arrays))
            if part.checkpoint == MODEL:
                rows = [
                    {**described(each, prepared.facts), "error": errors.get(each.id), "seconds": seconds}
                    for each in records
                ]
    folder.write_batch(index, {"samples": rows})


def _routed(
    model: "HookedModel", records: Sequence[MultiImageQuestion], reduced: bool
) -> tuple[Arrays, dict[str, str]]:
    """The arrays of a batch, without the questions that cannot be asked; and why these cannot."""
    found, errors = _ask(model, records)
    if not found:
        return {}, errors
    arrays = as_arrays(joined_saved([saved for _, saved in found]))
    if reduced:
        parts = [reductions(routing) for routing, _ in found]
        arrays |= {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
    return arrays, errors


def reductions(routing: "Routing") -> Arrays:
    """What is kept of scores, each (layers, tokens): margins with and without bias, whether bias moved the token."""
    grouping, k = routing.grouping, routing.k
    moved = [
        moved_by_bias(affinities, bias, k, grouping)
        for affinities, bias in zip(routing.kept_affinities, routing.bias, strict=True)
    ]
    return {
        "margins": margins(routing.scores, k),
        "margins_without_bias": margins(routing.unbiased_scores, k),
        "moved": np.stack(moved),
    }


def _ask(
    model: "HookedModel", records: Sequence[MultiImageQuestion]
) -> "tuple[list[tuple[Routing, SavedRouting]], dict[str, str]]":
    from probes.experts.layers import UnsupportedRouting

    try:
        return [recorded(model, records)], {}
    except UnsupportedRouting:
        raise
    except InputError as error:
        if len(records) == 1:
            return [], {records[0].id: str(error)}
    parts = [_ask(model, [record]) for record in records]
    return [each for found, _ in parts for each in found], {
        name: why for _, errors in parts for name, why in errors.items()
    }
