"""What a reading holds, as plain arrays. Knows nothing of models, and imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.inputs import InputError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class HeadOutputs:
    """What the heads of one attention layer did."""

    attention: FloatArray
    """(heads, tokens, tokens), rows attend to columns."""
    values: FloatArray
    """(key-value heads, tokens, size)."""
    projection: FloatArray
    """(hidden, heads, size): the output projection, cut by head."""
    gradient: FloatArray
    """(heads, tokens, size): of the answer's log-probability, by each head's output (attention times values)."""

    def spread_values(self) -> FloatArray:
        """The values that each head takes, (heads, tokens, size): neighbouring heads share key-value heads."""
        spread: FloatArray = np.repeat(self.values, len(self.attention) // len(self.values), axis=0)
        return spread


@dataclass(frozen=True, eq=False, repr=False)
class Streams:
    """One sample, its answer teacher-forced: the residual stream behind every layer, whatever kind the layer is."""

    depths: tuple[int, ...]
    """All decoder layers, true indices."""
    residuals: FloatArray
    """(depths, tokens, hidden): the residual stream that each layer leaves."""
    images: tuple[IntArray, ...]
    """Columns of each image's tokens."""
    predicting: IntArray
    """The rows whose next token is an answer token, in order."""
    answer_ids: tuple[int, ...]
    log_probability: float
    """Of the answer, in nats, summed over its tokens."""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.images)} images, {self.residuals.shape[1]} tokens, {len(self.depths)} "
            f"layers, log_probability={self.log_probability:.3f})"
        )

    def features(self) -> FloatArray:
        """The residual stream at the row that predicts the answer's first token, (depths, hidden)."""
        row: FloatArray = self.residuals[:, self.predicting[0]]
        return row


@dataclass(frozen=True, eq=False, repr=False)
class Reading(Streams):
    """The streams, and what went on in every attention layer."""

    layers: tuple[int, ...]
    """Decoder layers that have attention, true indices."""
    heads: tuple[HeadOutputs, ...]
    """One for each of `layers`."""
    rows: Mapping[str, IntArray]
    """Query rows by row set."""

    def query_rows(self, name: str) -> IntArray:
        """The rows of a row set.

        Raises:
            InputError: If the reading has no such set, or it is empty.
        """
        if name not in self.rows:
            raise InputError(f"no row set {name!r} in this reading; it has {', '.join(self.rows)}")
        if not len(self.rows[name]):
            raise InputError(f"row set {name!r} has no row in this sample")
        return self.rows[name]
