"""The causal check inside an audit: what the answer loses when one image is taken away.

It knows which samples are checked, who lends images to whom, and which windows of layers are knocked out. How an
image is taken away is `probes.interventions`; what the effects mean is `metrics`. Importing it loads no torch.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from probes.inputs import ImageRef, InputError
from studies.auditing.plan import draw, rank
from studies.multi_image import MultiImageQuestion
from studies.position import is_anchored

if TYPE_CHECKING:
    from probes.model import HookedModel, Trace

WINDOWS = 3
"""Windows of layers that are knocked out, besides all layers at once."""

ALL = "all"
Effects = dict[tuple[str, str], npt.NDArray[np.float64]]
"""By (intervention, window) the drop in the answer's log-probability per image, in nats."""


def pair_up(records: Sequence[MultiImageQuestion], count: int, seed: int) -> dict[str, MultiImageQuestion]:
    """Draw the samples of the causal check, and for each another sample that lends its images.

    Drawn are samples outside the dev split that have a target and at least two images.

    Raises:
        InputError: If samples are asked for and the data have no two that could lend each other images.
    """
    if count == 0:
        return {}
    able = {record.id: record for record in records if _able(record)}
    chosen = draw(able, count, seed)
    order = sorted(able, key=lambda name: rank(name, seed))
    partners: dict[str, MultiImageQuestion] = {}
    for name in chosen:
        start = order.index(name) + 1
        ring = (able[other] for other in (*order[start:], *order[:start]))
        lenders = (other for other in ring if other.cluster != able[name].cluster and _lends(other, able[name]))
        partner = next(lenders, None) if _opens(able[name]) else None
        if partner is not None:
            partners[name] = partner
    if not partners:
        raise InputError("--causal needs two different test samples with a target and two images; the data have none")
    return partners


def windows(layers: Sequence[int]) -> dict[str, list[int]]:
    """Name the windows of layers that are knocked out: all, and up to three equal parts from first to last.

    >>> windows([0, 1, 2, 3, 4, 5])
    {'all': [0, 1, 2, 3, 4, 5], '0-1': [0, 1], '2-3': [2, 3], '4-5': [4, 5]}
    """
    parts = [part.tolist() for part in np.array_split(np.asarray(layers), min(WINDOWS, len(layers)))]
    named = {_range(part): part for part in parts} if len(parts) > 1 else {}
    return {ALL: list(layers), **named}


def measure_effects(
    model: "HookedModel", record: MultiImageQuestion, trace: "Trace", partner: MultiImageQuestion
) -> Effects:
    """Blank, swap and knock out each image in turn, and re-score the answer that the model gave.

    Args:
        model: The model under audit.
        record: The question.
        trace: Its trace, whose answer is scored again.
        partner: Another sample; its images replace this one's under "swap", place by place, or the next one where that
            shows the same.

    Returns:
        Per (intervention, window) one drop in log-probability per image; large means the answer needed that image.

    Raises:
        InputError: If an image cannot be read, or the partner shows the same images.
    """
    from probes.interventions import blank_effects, knockout_effects, swap_effects
    from probes.model import Question

    question = Question(record.images, record.question)
    answer = trace.answer_ids
    others = _lent(record, partner)
    if others is None:
        raise InputError(f"sample {partner.id} shows the same images as {record.id}, so it has none to lend")
    effects: Effects = {
        ("blank", ALL): np.asarray(blank_effects(model, question, answer), dtype=np.float64),
        ("swap", ALL): np.asarray(swap_effects(model, question, answer, others), dtype=np.float64),
    }
    named = windows(trace.layers)
    # What an image-to-image answer takes from an image may come by way of the anchor's own rows.
    rows = ("after", "anchor") if is_anchored(record) else ("after",)
    knocked = np.asarray(knockout_effects(model, question, answer, list(named.values()), rows), dtype=np.float64)
    effects |= {("knockout", name): values for name, values in zip(named, knocked, strict=True)}
    return effects


def _range(layers: Sequence[int]) -> str:
    return f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else str(layers[0])


def _opens(record: MultiImageQuestion) -> bool:
    try:
        for image in record.images:
            image.open()
    except InputError:
        return False
    return True


def _lends(other: MultiImageQuestion, record: MultiImageQuestion) -> bool:
    """Whether every image of `record` finds a different one in `other`: a broken lender must not fail the borrower."""
    return _opens(other) and _lent(record, other) is not None


def _lent(record: MultiImageQuestion, other: MultiImageQuestion) -> list[ImageRef] | None:
    """Per image of `record` the first image of `other`, from its own place on, that shows something else."""
    offered = [image.open() for image in other.images]
    lent = []
    for place, image in enumerate(record.images):
        shown = image.open()
        ring = ((place + step) % len(offered) for step in range(len(offered)))
        found = next((index for index in ring if offered[index].resize(shown.size) != shown), None)
        if found is None:
            return None
        lent.append(other.images[found])
    return lent


def _able(record: MultiImageQuestion) -> bool:
    return record.split != "dev" and record.target is not None and len(record.images) > 1
