"""What experts of a model are for: image or text, one image or another, one task or another. No torch."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from probes.experts.load import load_estimates
from probes.experts.records import TEXT
from probes.experts.rules import IntArray
from probes.experts.specialisation import Specialisation, specialisation
from studies.auditing.entries import Entry, entry_of
from studies.routing.evidence import RoutingEvidence
from studies.routing.measured import Measured, intervals, together, without_interval

MODALITY, IMAGE, TASK = "modality", "image", "task"
"""What tokens are told apart by."""
SHOWN = {MODALITY: "image or text", IMAGE: "which image", TASK: "task"}


class Labels(NamedTuple):
    """Tokens with a label each."""

    tokens: npt.NDArray[np.bool_]
    """(all tokens,): which take part."""
    labels: npt.NDArray[np.str_]
    """(those tokens,)."""
    missing: str
    """Why they do not differ, should they not."""

    @property
    def differ(self) -> bool:
        """Whether there are two of them at least."""
        return len(np.unique(self.labels)) > 1


def labels_of(evidence: RoutingEvidence) -> dict[str, Labels]:
    """The three kinds of labels. Which image is asked of tokens of images alone."""
    images = evidence.saved.images
    all_tokens, shown = np.ones(len(images), dtype=bool), images != TEXT
    return {
        MODALITY: Labels(all_tokens, np.where(shown, "image", "text"), "no image is a token of the prompt"),
        IMAGE: Labels(shown, _numbered(images[shown]), "no question shows two images as tokens"),
        TASK: Labels(all_tokens, evidence.by_token(evidence.tasks), "the questions are of one task"),
    }


def kinds_told_apart(evidence: RoutingEvidence) -> list[str]:
    """The kinds of labels that the questions have two of."""
    return [kind for kind, told in labels_of(evidence).items() if told.differ]


def specialise(
    evidence: RoutingEvidence,
    samples: IntArray,
    permutations: int,
    seed: int,
    on_shuffle: Callable[[], object] | None = None,
) -> Measured:
    """Specialisation by every kind of label that the questions have two of.

    Args:
        evidence: What was recorded.
        samples: (tokens,): the base sample of each token.
        permutations: Shuffles behind each p-value.
        seed: Of the shuffles.
        on_shuffle: Called after each of them.
    """
    parts = []
    for kind, told in labels_of(evidence).items():
        if not told.differ:
            parts.append(Measured([], {}, [f"specialisation by {SHOWN[kind]}: {told.missing}"]))
            continue
        tokens, labels = told.tokens, told.labels
        indices, experts = evidence.saved.indices[:, tokens], evidence.saved.experts
        found = specialisation(indices, labels, samples[tokens], experts, permutations, seed, on_shuffle)
        loads = [
            [load_estimates(layer[labels == name], experts, samples[tokens][labels == name]) for layer in indices]
            for name in found.labels
        ]
        arrays = {
            "labels": found.labels,
            "tokens": np.array([(labels == name).sum() for name in found.labels]),
            "load": intervals(loads),
            "information": found.information,
            "chance": found.chance,
            "p_value": found.p_value,
            "divergence": found.divergence,
            "expert_information": found.expert_information,
            "expert_p_value": found.expert_p_value,
        }
        named = {f"{kind}_{name}": np.asarray(array) for name, array in arrays.items()}
        parts.append(Measured(_entries(evidence, kind, found), named, _warnings(kind, found)))
    return together(*parts)


def _warnings(kind: str, found: Specialisation) -> list[str]:
    if 2 * found.moved >= found.clusters:
        return []
    return [
        f"specialisation by {SHOWN[kind]} says little: shuffles move the labels of {found.moved} of {found.clusters} "
        "samples, the others having one label each"
    ]


def _entries(evidence: RoutingEvidence, kind: str, found: Specialisation) -> list[Entry]:
    entries = []
    for at, layer in enumerate(evidence.saved.layers):
        apart = np.triu(found.divergence[..., at])
        first, second = divmod(int(apart.argmax()), len(found.labels))
        where = {"layer": layer, "label": kind}
        entries += [
            entry_of(
                "specialisation",
                without_interval(float(found.information[at]), found.tokens, found.clusters),
                where,
                chance=float(found.chance[at]),
                p_value=float(found.p_value[at]),
                shuffled=found.scheme,
                samples_moved=found.moved,
                specialists=np.flatnonzero(found.expert_p_value[at] <= 0.05).tolist(),
            ),
            entry_of(
                "largest_divergence",
                without_interval(float(apart[first, second]), found.tokens, found.clusters),
                where,
                between=[str(found.labels[first]), str(found.labels[second])],
                chance=float(found.divergence_chance[at]),
                p_value=float(found.divergence_p_value[at]),
            ),
        ]
    return entries


def _numbered(images: IntArray) -> npt.NDArray[np.str_]:
    """Images by the numbers that people give them, padded so that they sort as numbers do."""
    width = len(str(int(images.max(initial=0)) + 1))
    return np.array([f"image {image + 1:>{width}}" for image in images], dtype=np.str_)
