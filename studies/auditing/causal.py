"""The causal check inside an audit: what the answer loses when one image is taken away.

It knows which samples are checked, who lends images to whom, and which windows of layers are knocked out. How an
image is taken away is `probes.interventions`; what the effects mean is `causal_metrics`. Importing it loads no torch.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from probes.inputs import ImageRef, InputError, same_picture
from studies.auditing.causal_metrics import KNOCKOUT, MIXERS_TOO
from studies.auditing.mixers import Mixers
from studies.auditing.plan import draw, rank
from studies.multi_image import MultiImageQuestion
from studies.position import blinded_rows

if TYPE_CHECKING:
    from PIL.Image import Image

    from probes.model import HookedModel, Trace

WINDOWS = 3
"""Windows of layers that are knocked out, besides all layers at once."""

ALL = "all"
Effects = dict[tuple[str, str], npt.NDArray[np.float64]]
"""By (intervention, window) the drop in the answer's log-probability per image, in nats."""


class Pairing(NamedTuple):
    """Which samples are checked: by sample the images that replace its own, or why there are none."""

    lent: dict[str, tuple[ImageRef, ...]]
    unpaired: dict[str, str]


NOTHING = Pairing({}, {})
"""No sample is checked."""

NO_MIXERS = Mixers()


def pair_up(records: Sequence[MultiImageQuestion], count: int, seed: int) -> Pairing:
    """Draw the samples of the causal check, and for each another sample that lends its images.

    Drawn are samples outside the dev split that have a target and at least two images; one whose own images cannot be
    opened is passed over.

    Raises:
        InputError: If samples are asked for and none of the data's could be lent images.
    """
    if count == 0:
        return NOTHING
    able = {record.id: record for record in records if _able(record)}
    order = sorted(able, key=lambda name: rank(name, seed))
    pairing = Pairing({}, {})
    for name in draw(able, count, seed):
        own = _opened(able[name])
        if own is None:
            continue
        start = order.index(name) + 1
        others = [able[other] for other in (*order[start:], *order[:start])]
        lent = next(filter(None, (_lent(own, other) for other in others if other.cluster != able[name].cluster)), None)
        if lent is None:
            pairing.unpaired[name] = "no other sample has images that open and show something else, to swap in"
        else:
            pairing.lent[name] = lent
    if not pairing.lent:
        reason = next(iter(pairing.unpaired.values()), "the data have none")
        raise InputError(f"--causal needs two different test samples with a target and two images: {reason}")
    return pairing


def windows(layers: Sequence[int]) -> dict[str, list[int]]:
    """Name the windows of layers that are knocked out: all, and up to three equal parts from first to last.

    >>> windows([0, 1, 2, 3, 4, 5])
    {'all': [0, 1, 2, 3, 4, 5], '0-1': [0, 1], '2-3': [2, 3], '4-5': [4, 5]}
    """
    parts = [part.tolist() for part in np.array_split(np.asarray(layers), min(WINDOWS, len(layers)))]
    named = {_range(part): part for part in parts} if len(parts) > 1 else {}
    return {ALL: list(layers), **named}


def measure_effects(
    model: "HookedModel",
    record: MultiImageQuestion,
    trace: "Trace",
    lent: Sequence[ImageRef],
    mixers: Mixers = NO_MIXERS,
) -> Effects:
    """Blank, swap and knock out each image in turn, and re-score the answer that the model gave.

    "knockout" cuts softmax attention alone: layers of another kind go on carrying the image. Where all of these can be
    cut, "knockout, mixers too" cuts both, in windows of the layers of either kind.

    Args:
        model: The model under audit.
        record: The question.
        trace: Its trace, whose answer is scored again.
        lent: Per image the one that replaces it under "swap" (see `pair_up`).
        mixers: The layers without softmax that the audit reads.

    Returns:
        Per (intervention, window) one drop in log-probability per image; large means the answer needed that image.

    Raises:
        InputError: If an image cannot be read, or a lent one shows just what it would replace.
    """
    from probes.interventions import blank_effects, knockout_effects, swap_effects
    from probes.model import Question

    question = Question(record.images, record.question)
    answer = trace.answer_ids
    effects: Effects = {
        ("blank", ALL): np.asarray(blank_effects(model, question, answer), dtype=np.float64),
        ("swap", ALL): np.asarray(swap_effects(model, question, answer, lent), dtype=np.float64),
    }
    named = windows(trace.layers)
    rows = blinded_rows(record)
    knocked = np.asarray(knockout_effects(model, question, answer, list(named.values()), rows), dtype=np.float64)
    effects |= {(KNOCKOUT, name): values for name, values in zip(named, knocked, strict=True)}
    if mixers.cuttable:
        from probes.mixers.knockout import joint_knockout_effects

        named = windows(sorted({*trace.layers, *mixers.read}))
        joint = joint_knockout_effects(model, question, answer, list(named.values()), rows)
        effects |= {(MIXERS_TOO, name): values for name, values in zip(named, joint, strict=True)}
    return effects


def _range(layers: Sequence[int]) -> str:
    return f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else str(layers[0])


def _opened(record: MultiImageQuestion) -> "list[Image] | None":
    """The sample's images, decoded; None if one is broken."""
    try:
        return [image.open() for image in record.images]
    except InputError:
        return None


def _lent(own: "Sequence[Image]", other: MultiImageQuestion) -> tuple[ImageRef, ...] | None:
    """Per image of `own` the first image of `other`, from its own place on, that shows something else."""
    offered = _opened(other)
    if offered is None:
        return None
    lent = []
    for place, shown in enumerate(own):
        ring = ((place + step) % len(offered) for step in range(len(offered)))
        found = next((index for index in ring if not same_picture(offered[index].resize(shown.size), shown)), None)
        if found is None:
            return None
        lent.append(other.images[found])
    return tuple(lent)


def _able(record: MultiImageQuestion) -> bool:
    return record.split != "dev" and record.target is not None and len(record.images) > 1
