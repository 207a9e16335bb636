"""All instruments on one sample: what each says of every layer and image.

Linear probes and localisation heads need other samples to be chosen on; for these a sample gives features and per-head
factors, see `probes.instruments.linear_probes` and `probes.instruments.heads`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from probes.clips import VIDEO_MARK
from probes.encoding import Answer
from probes.inputs import IMAGE_MARK, InputError
from probes.instruments.arrays import FloatArray
from probes.instruments.attention_scores import (
    SINK_THRESHOLD,
    gradient_attention,
    head_factors,
    raw_factor,
    relative_factor,
    rollout,
    sink_share,
    sinks_removed,
    value_norm,
)
from probes.instruments.lens import AnswerLens, LogitLens
from probes.instruments.names import (
    GENERIC,
    GRADIENT,
    IMAGE_ROWS,
    LENS,
    RAW,
    RELATIVE,
    ROLLOUT,
    ROWS,
    SINKS,
    VALUE_NORM,
)
from probes.instruments.reading import LIMIT_BYTES, read
from probes.model import HookedModel
from probes.prompts import Question


@dataclass(frozen=True, eq=False, repr=False)
class InstrumentScores:
    """What the instruments say of one sample."""

    layers: tuple[int, ...]
    """Layers with attention: the layer axis of every instrument but the lens."""
    depths: tuple[int, ...]
    """All decoder layers: the layer axis of the lens and of the features."""
    scores: Mapping[tuple[str, str], FloatArray]
    """By instrument and row set, (layers, images)."""
    heads: Mapping[str, FloatArray]
    """By row set, per-head factors (layers, heads, images)."""
    features: FloatArray
    """(depths, hidden): the residual stream at the row that predicts the answer's first token."""
    answer: AnswerLens
    log_probability: float
    sinks: FloatArray
    """(layers,) share of image tokens that are sinks under the predicting rows, the mean over heads."""

    def __repr__(self) -> str:
        names = ", ".join(dict.fromkeys(name for name, _ in self.scores))
        return f"InstrumentScores({names}; {len(self.layers)} layers)"


def instrument_scores(
    model: HookedModel,
    question: Question,
    answer: Answer,
    generic: str = GENERIC,
    sink_threshold: float = SINK_THRESHOLD,
    limit_bytes: int = LIMIT_BYTES,
) -> InstrumentScores:
    """Ask every instrument about one sample.

    Args:
        model: The model.
        question: Images and text.
        answer: Text, or the token ids of a trace.
        generic: The question that "relative" divides by.
        sink_threshold: See `probes.instruments.attention_scores.sink_columns`.
        limit_bytes: Most bytes of attention to hold; see `probes.instruments.reading.read`.

    Raises:
        InputError: As `read`, and if the model's logit lens is not known.
        UnsupportedAttention: As `read`.
    """
    reading = read(model, question, answer, limit_bytes=limit_bytes)
    unasked = generic_factors(model, question, generic)
    lens = LogitLens(model)
    scores: dict[tuple[str, str], FloatArray] = {}
    for rows in ROWS:
        factor = raw_factor(reading, rows)
        scores |= {
            (RAW, rows): factor,
            (SINKS, rows): sinks_removed(reading, rows, sink_threshold),
            (RELATIVE, rows): relative_factor(factor, unasked[rows]),
            (VALUE_NORM, rows): value_norm(reading, rows),
            (ROLLOUT, rows): rollout(reading, rows),
            (GRADIENT, rows): gradient_attention(reading, rows),
        }
    return InstrumentScores(
        layers=reading.layers,
        depths=reading.depths,
        scores=scores | {(LENS, IMAGE_ROWS): lens.images(reading)},
        heads={rows: head_factors(reading, rows) for rows in ROWS},
        features=reading.features(),
        answer=lens.answer(reading),
        log_probability=reading.log_probability,
        sinks=sink_share(reading, ROWS[-1], sink_threshold),
    )


def generic_factors(model: HookedModel, question: Question, generic: str = GENERIC) -> dict[str, FloatArray]:
    """Attention factors, by row set, of the generic question about the same images, without an answer.

    "paper" rows are then the generic question's words, and "predicting" is the row that would begin the answer.
    """
    text = generic_text(question.text, generic, bool(question.videos))
    asked = Question(question.images, text, question.videos)
    trace = model.trace_batch([asked], answers=[()], rows=ROWS, maps=False)[0]
    return {rows: np.asarray(factors, dtype=np.float32) for rows, factors in trace.factors_by_rows.items()}


def generic_text(text: str, generic: str = GENERIC, videos: bool = False) -> str:
    """The question with everything behind its last image (or video, if it has any) replaced; what stands before stays.

    >>> generic_text("1 <image> 2 <image> Which is red?")
    '1 <image> 2 <image> Describe the images.'
    >>> generic_text("Which is red?")
    'Describe the images.'
    """
    if not generic.strip():
        raise InputError("the generic question is empty")
    marks = (IMAGE_MARK, VIDEO_MARK) if videos else (IMAGE_MARK,)
    stop = max(text.rfind(mark) + len(mark) if mark in text else 0 for mark in marks)
    return f"{text[:stop]} {generic.strip()}" if stop else generic.strip()
