"""What every back end that runs a model offers, and what it gives back.

A back end is this package's own `probes.HookedModel`, or one of `probes.bridges`. Studies of causes are written against
`Backend`, and run unchanged on each. Forms only: nothing here runs a model.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from probes.changes import Change
from probes.encoding import Answer, Encoded
from probes.prompts import Question
from probes.trace import Trace


class AnswerScores(NamedTuple):
    """How probable answers are, given their prompts.

    Attributes:
        log_probability: (questions,) natural logarithm, summed over the answer's tokens, its end of sequence not
            counted; NaN for an answer without tokens.
        tokens: (questions,) how many tokens were summed.
    """

    log_probability: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]


class Readings(Protocol):
    """Attention that was recorded in one pass; see `probes.attention.AttentionRecorder`."""

    @property
    def layers(self) -> list[int]:
        """True indices, the order of the layer axis."""

    def factors(self, name: str) -> Tensor:
        """(batch, layers, images), or with heads (batch, layers, heads, images)."""

    def maps(self, name: str) -> list[list[Tensor]]:
        """Per batch row and image, (layers, image tokens)."""


class Recorded(NamedTuple):
    """What one recorded pass gives."""

    readings: Readings
    scores: AnswerScores


class Backend(Protocol):
    """Whoever encodes questions, scores answers, and reads and changes what happens on the way."""

    @property
    def layers(self) -> list[int]:
        """Decoder layers that have attention, true indices."""

    @property
    def residual_layers(self) -> list[int]:
        """Decoder layers of every kind, true indices: where the residual stream can be read and replaced."""

    def encode(
        self, questions: Sequence[Question], answers: Sequence[Answer] | None = None, reserve: int = 0
    ) -> Encoded:
        """Encode a batch of questions, followed by answers where given."""

    def log_probability(self, questions: Sequence[Question], answers: Sequence[Answer]) -> AnswerScores:
        """Score answers, teacher-forced."""

    def score(self, encoded: Encoded, changes: Sequence[Change] = ()) -> AnswerScores:
        """Score the answers of an encoded batch in one forward pass under changes."""

    def residuals(self, encoded: Encoded, tokens: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Read the residual stream of chosen tokens where it enters layers."""

    def trace_batch(
        self,
        questions: Sequence[Question],
        answers: Sequence[Answer] | None = None,
        max_new_tokens: int = 32,
        rows: Sequence[str] = ("paper", "predicting"),
        per_head: bool = False,
        maps: bool = True,
        image_to_image: bool = False,
    ) -> list[Trace]:
        """Answer questions, or take the answers given, and read the attention to each image."""
