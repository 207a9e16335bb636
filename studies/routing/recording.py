"""The routing of questions by one model: what the study records, and what a training run keeps of a checkpoint.

Questions are followed by their right answers, so that every checkpoint reads the same tokens, whatever it would have
answered itself. It knows models; it writes nothing. Importing it loads no torch.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from probes.experts.saved import SavedRouting, joined_saved, token_ids
from studies.multi_image import MultiImageQuestion

if TYPE_CHECKING:
    from probes.encoding import Encoded
    from probes.experts.records import Routing
    from probes.model import HookedModel

BATCH = 16
"""Questions that run together."""


def encoded(model: "HookedModel", records: Sequence[MultiImageQuestion]) -> "Encoded":
    """Questions with their right answers behind them, as the model reads them.

    Raises:
        InputError: As `HookedModel.encode`.
    """
    from probes.model import Question

    questions = [Question(record.images, record.question) for record in records]
    return model.encode(questions, [record.answer for record in records])


def recorded(model: "HookedModel", records: Sequence[MultiImageQuestion]) -> "tuple[Routing, SavedRouting]":
    """The routing of a batch of questions, whole and as it is kept.

    Raises:
        InputError: If a question cannot be put to the model.
        UnsupportedRouting: If a router is not known.
    """
    batch = encoded(model, records)
    routing = model.routing(batch)
    return routing, SavedRouting.of(routing, token_ids(batch), [record.id for record in records])


def probe_routing(
    model: "HookedModel", records: Sequence[MultiImageQuestion], step: int | None = None, batch: int = BATCH
) -> SavedRouting:
    """The routing of a fixed set of questions, to be kept where the checkpoint itself is not.

    `probes.experts.files.save_routing` writes it, and `sightcheck routing --checkpoints` takes the file.

    Args:
        model: The checkpoint; it is left as found.
        records: The questions, the same ones at every checkpoint.
        step: Training steps behind the checkpoint.
        batch: Questions that run together.

    Raises:
        InputError: If there are no questions, or one cannot be put to the model.
        UnsupportedRouting: If a router is not known.
    """
    starts = range(0, len(records), batch)
    parts = [recorded(model, records[start : start + batch])[1] for start in starts]
    whole = joined_saved(parts)
    return SavedRouting(
        whole.layers, whole.indices, whole.experts, whole.samples, whole.images, whole.ids, whole.names, step
    )
