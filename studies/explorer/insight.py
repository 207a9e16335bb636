"""One look inside a model: what each layer is made of, and what every kind of layer did with a question's images.

Knows the model's public interface and nothing of the page. Kinds of layers have other units, and stay apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from probes.inputs import InputError
from probes.layer_kinds import LayerKind, layers_with
from studies.explorer.looking import LONGEST, ROWS

if TYPE_CHECKING:
    from probes.layer_kinds import LayerKinds
    from probes.mixers.trace import MixerTrace
    from probes.model import HookedModel, Question, Trace

FloatArray = npt.NDArray[np.floating]
FORMS = {"absolute": "Size, over the row's sum", "value": "Size times value", "signed": "Signed weight"}
"""Forms of hidden attention, in words."""
MIXER_NAMES = {"mamba2": "Mamba-2", "mamba": "Mamba", "delta": "gated delta net"}


class Factors(NamedTuple):
    """What layers of one kind gave each image."""

    kind: str
    layers: tuple[int, ...]
    """True indices."""
    table: Mapping[tuple[str, str], FloatArray]
    """By row set and form, (layers, images); the form of softmax attention is empty."""


class ExpertLoads(NamedTuple):
    """Where one question's tokens went."""

    layers: tuple[int, ...]
    load: FloatArray
    """(layers, experts), all tokens."""
    difference: FloatArray
    """(layers, experts): load of image tokens minus that of the others."""
    even: float
    """Load of every expert were all called alike."""


@dataclass(frozen=True)
class Insight:
    """What a question looked like from inside, kept for the length of a session."""

    answer: str
    log_probability: float
    answer_tokens: int
    images: int
    softmax: Factors
    hidden: tuple[Factors, ...]
    """One for each kind of mixer."""
    experts: ExpertLoads | None
    notes: tuple[str, ...]
    """What this model or question does not show, with reasons."""


def kinds_of(model: "HookedModel") -> "dict[int, LayerKinds]":
    """What each layer is made of, by true index.

    Raises:
        InputError: If the layers' parts are not known.
    """
    return model.layer_kinds


def look_inside(model: "HookedModel", images: Sequence[Image.Image], prompt: str, longest: int = LONGEST) -> Insight:
    """Ask a question, and read every kind of layer that can be read.

    Args:
        model: The model to ask.
        images: What it is shown.
        prompt: The question with its image marks; see `studies.explorer.looking.prompt_of`.
        longest: Most tokens of the answer.

    Raises:
        InputError: If the model cannot take the images or the question.
    """
    from probes.model import Question

    question = Question(tuple(images), prompt)
    (trace,) = model.trace_batch([question], max_new_tokens=longest, rows=ROWS, maps=False)
    notes: list[str] = []
    softmax = {(rows, ""): np.asarray(values) for rows, values in trace.factors_by_rows.items()}
    return Insight(
        answer=trace.answer,
        log_probability=float(trace.log_probability),
        answer_tokens=len(trace.answer_ids),
        images=len(images),
        softmax=Factors("softmax attention", tuple(trace.layers), softmax),
        hidden=_hidden(model, question, trace, notes),
        experts=_experts(model, question, trace, notes),
        notes=tuple(notes),
    )


def _hidden(model: "HookedModel", question: "Question", trace: "Trace", notes: list[str]) -> tuple[Factors, ...]:
    from probes.state_space import trace_mixers

    kinds = model.layer_kinds
    if not any(layers_with(kinds, kind) for kind in (LayerKind.STATE_SPACE, LayerKind.LINEAR_ATTENTION)):
        notes.append("No layer has a state space or linear attention, so there is no hidden attention.")
        return ()
    if not trace.answer_ids:
        notes.append("The answer is empty, so no row predicts it: hidden attention is not read.")
        return ()
    try:
        (found,) = trace_mixers(model, [question], [trace.answer_ids], rows=ROWS, forms=tuple(FORMS))
    except InputError as error:
        notes.append(f"Hidden attention is not read: {error}")
        return ()
    return tuple(_of_kind(found, kind) for kind in dict.fromkeys(found.kinds))


def _of_kind(found: "MixerTrace", kind: str) -> Factors:
    layers = tuple(layer for layer, each in zip(found.layers, found.kinds, strict=True) if each == kind)
    table = {(rows, form): found.factors(form, rows, kind) for rows in ROWS for form in FORMS}
    return Factors(MIXER_NAMES.get(kind, kind), layers, table)


def _experts(model: "HookedModel", question: "Question", trace: "Trace", notes: list[str]) -> ExpertLoads | None:
    from probes.experts.load import expert_load

    if not layers_with(model.layer_kinds, LayerKind.EXPERTS):
        notes.append("No layer has experts.")
        return None
    try:
        routing = model.routing(model.encode([question], [trace.answer_ids] if trace.answer_ids else None))
    except InputError as error:
        notes.append(f"Routing is not read: {error}")
        return None
    shown = routing.is_image
    if not shown.any():
        notes.append("No image is a token of the prompt, so routing tells none apart.")
        return None
    image, text = (expert_load(routing.indices[:, mask], routing.experts) for mask in (shown, ~shown))
    load = expert_load(routing.indices, routing.experts)
    return ExpertLoads(routing.layers, load, image - text, routing.k / routing.experts)
