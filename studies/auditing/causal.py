"""The causal check inside an audit: what the answer loses when one image is taken away.

It knows which samples are checked, who lends images to whom, and which windows of layers are knocked out. How an
image is taken away is `probes.interventions`; what the effects mean is `metrics`. Importing it loads no torch.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from probes.inputs import InputError
from studies.auditing.plan import draw, rank
from studies.multi_image import MultiImageQuestion

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
        partner = next((other for other in ring if other.cluster != able[name].cluster and _opens(other)), None)
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
        partner: Another sample; its images replace this one's, place by place, under "swap".

    Returns:
        Per (intervention, window) one drop in log-probability per image; large means the answer needed that image.
    """
    from probes.interventions import blank_effects, knockout_effects, swap_effects
    from probes.model import Question

    question = Question(record.images, record.question)
    answer = trace.answer_ids
    count = len(record.images)
    others = [partner.images[index % len(partner.images)] for index in range(count)]
    effects: Effects = {
        ("blank", ALL): np.asarray(blank_effects(model, question, answer), dtype=np.float64),
        ("swap", ALL): np.asarray(swap_effects(model, question, answer, others), dtype=np.float64),
    }
    named = windows(trace.layers)
    knocked = np.asarray(knockout_effects(model, question, answer, list(named.values())), dtype=np.float64)
    effects |= {("knockout", name): values for name, values in zip(named, knocked, strict=True)}
    return effects


def _range(layers: Sequence[int]) -> str:
    return f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else str(layers[0])


def _opens(record: MultiImageQuestion) -> bool:
    """Whether all images can be decoded: a broken lender must not fail the sample that borrows."""
    try:
        for image in record.images:
            image.open()
    except InputError:
        return False
    return True


def _able(record: MultiImageQuestion) -> bool:
    return record.split != "dev" and record.target is not None and len(record.images) > 1
