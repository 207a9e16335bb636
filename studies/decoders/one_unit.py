"""Do contributions, one unit for all kinds of layers, rank images as knock-outs do? Asked of the bundled decoders.

Run as ``python -m studies.decoders.one_unit``. Each kind of layer is held against its own knock-outs: softmax
attention, Mamba-2, experts. A give-away is answered without an image, and an image-to-image question is blinded by
other rows, so both are left out. Knows models and questions; draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tyro

from probes.estimates import Estimate
from probes.files import without_nan, write_json
from probes.instruments.contributions import ATTENTION, EXPERTS, Contributions, knockout_agreement
from studies.bundled import BUNDLED, BUNDLED_DECODERS, model_source
from studies.decoders.findings import GIVEAWAY
from studies.multi_image import MultiImageQuestion
from studies.position import is_anchored

if TYPE_CHECKING:
    from probes.model import HookedModel

Entry = dict[str, Any]
FloatArray = npt.NDArray[np.float64]
SAMPLES = 60
"""Questions asked of each model."""


class Read(NamedTuple):
    """What one question's answer owes to each image, read and cut."""

    contributions: Contributions
    effects: dict[str, FloatArray]
    """By kind (layers, images): what the answer loses without one image in one layer, nats."""


def main(out: Path = Path("docs/study/decoders/one-unit.json"), samples: int = SAMPLES) -> None:
    """Ask every bundled decoder, write what kinds of layers agree in, and print it.

    Args:
        out: The file to write.
        samples: Questions asked of each model, drawn evenly over tasks.
    """
    from rich.progress import track

    from probes.model import HookedModel

    asked = questions(samples)
    entries: list[Entry] = []
    for name in (BUNDLED, *(f"{BUNDLED}-{each}" for each in BUNDLED_DECODERS)):
        model = HookedModel.from_pretrained(model_source(name), device="cpu", dtype="float32")
        entries += agreements(name, [read(model, record) for record in track(asked, name)])
    write_json(out, without_nan(entries))
    for entry in entries:
        print(line(entry))


def questions(samples: int) -> list[MultiImageQuestion]:
    """Questions that images answer and text asks, drawn evenly over tasks."""
    from studies.decoders.questions import drawn_questions

    return drawn_questions(samples, lambda record: record.task != GIVEAWAY and not is_anchored(record))


def read(model: HookedModel, record: MultiImageQuestion) -> Read:
    """Read what the right answer owes to each image, and cut each layer off from each.

    Raises:
        InputError: If the question cannot be put to the model, or a layer cannot be read or cut.
    """
    from probes.experts.effects import expert_knockout_effects
    from probes.instruments.contribution_reading import contributions
    from probes.interventions import knockout_effects
    from probes.mixers.knockout import mixer_knockout_effects
    from probes.model import Question

    question = Question(record.images, record.question)
    found = contributions(model, question, record.answer)
    cuts: dict[str, Any] = {ATTENTION: knockout_effects, EXPERTS: expert_knockout_effects}
    effects = {
        kind: np.asarray(
            cuts.get(kind, mixer_knockout_effects)(model, question, record.answer, found.windows(kind)),
            dtype=np.float64,
        )
        for kind in dict.fromkeys(found.kinds)
    }
    return Read(found, effects)


def agreements(name: str, found: Sequence[Read]) -> list[Entry]:
    """What one model says, an entry for each kind of layer and reading."""
    contributed, cut = [each.contributions for each in found], [each.effects for each in found]
    entries: list[Entry] = []
    for reading in ("nats", "slopes"):
        for kind, agreed in knockout_agreement(contributed, cut, slopes=reading == "slopes").items():
            worst = max(
                float(error)
                for each in contributed
                for error, own in zip(each.errors, each.kinds, strict=True)
                if own == kind
            )
            entries.append(
                {
                    "name": "knockout_agreement",
                    "model": name,
                    "layer_kind": kind,
                    "reading": reading,
                    "layers": len(contributed[0].windows(kind)),
                    "dearest_image": agreed.top.estimate.to_dict(),
                    "chance": agreed.top.chance,
                    "correlation": agreed.correlation.to_dict(),
                    "rank_correlation": agreed.rank_correlation.to_dict(),
                    "largest_effect": max(float(np.nanmax(np.abs(each[kind]))) for each in cut),
                    "largest_completeness_error": worst,
                }
            )
    return entries


def line(entry: Entry) -> str:
    """An entry in words, for the screen."""
    dearest, ranks = (Estimate.from_dict(entry[name]) for name in ("dearest_image", "rank_correlation"))
    return (
        f"{entry['model']:20} {entry['layer_kind']:18} {entry['reading']:7} dearest image {dearest}, chance "
        f"{entry['chance']:.2f}; ranks {ranks}; complete to {entry['largest_completeness_error']:.0e}"
    )


if __name__ == "__main__":
    tyro.cli(main)
