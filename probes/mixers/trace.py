"""What the layers without softmax did with the images of one question, as plain arrays.

The twin of `probes.trace.Trace` for hidden attention. It stands beside softmax attention and is never averaged with it:
the two have different units, and so have different kinds of mixer. A record: no model, no tensor, no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.errors import counted
from probes.inputs import InputError
from probes.layer_kinds import LayerKind

FloatArray = npt.NDArray[np.float32]

_LAYER_KINDS = {
    "mamba2": LayerKind.STATE_SPACE,
    "mamba": LayerKind.STATE_SPACE,
    "delta": LayerKind.LINEAR_ATTENTION,
}


def layer_kind(mixer: str) -> LayerKind:
    """What a layer with a kind of mixer is called where kinds of layers stand side by side.

    Raises:
        InputError: If there is no such kind of mixer.

    >>> print(layer_kind("mamba2"))
    state space
    """
    if mixer not in _LAYER_KINDS:
        raise InputError(f"unknown kind of mixer {mixer!r}: there are {', '.join(_LAYER_KINDS)}")
    return _LAYER_KINDS[mixer]


@dataclass(frozen=True, eq=False)
class Leak:
    """Shares of the convolved tokens at an image's edges that come over the edge; see `probes.mixers.boundary`.

    Attributes:
        entering: By part of the channels, (layers, images, kernel size): the image's first tokens.
        leaving: The same, of the first tokens behind the image.
    """

    entering: Mapping[str, FloatArray]
    leaving: Mapping[str, FloatArray]

    @property
    def reach(self) -> int:
        """How many tokens at an edge hold anything from over it: the kernel size minus one, or fewer."""
        shares = [each for side in (self.entering, self.leaving) for each in side.values()]
        touched = [np.nan_to_num(each).max(axis=(0, 1), initial=0) > 0 for each in shares]
        places = np.flatnonzero(np.any(touched, axis=0))
        return int(places[-1]) + 1 if len(places) else 0


@dataclass(frozen=True, eq=False, repr=False)
class MixerTrace:
    """One question, its answer, and the hidden attention of the answer's rows to each image and video.

    Attributes:
        answer_ids: The answer's tokens.
        layers: Decoder layers with a mixer, true indices; the layer axis of all arrays.
        kinds: What each layer's mixer is: "mamba2", "mamba" or "delta".
        rows: Name of the row set that is taken where none is named.
        factors_by_rows: Per row set and form, (layers, images): the mean over heads, rows and the image's tokens [with
            `per_head`: (layers, heads, images)]. NaN where a row set is empty, and for the anchor image itself under
            "anchor".
        maps_by_rows: Per row set and form, per image (layers, image tokens); NaN where the model dropped a token. Empty
            without maps.
        leak: What the convolution carried over the images' edges; None unless asked for.
        log_probability: Of the answer, in nats, summed over its tokens.
    """

    answer_ids: tuple[int, ...]
    layers: tuple[int, ...]
    kinds: tuple[str, ...]
    rows: str
    factors_by_rows: Mapping[tuple[str, str], FloatArray]
    maps_by_rows: Mapping[tuple[str, str], tuple[FloatArray, ...]]
    leak: Leak | None
    log_probability: float

    def __repr__(self) -> str:
        kinds = ", ".join(dict.fromkeys(self.kinds))
        return f"MixerTrace({counted(len(self.layers), 'layer')} of {kinds}, rows={self.rows!r})"

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms that were recorded."""
        return tuple(dict.fromkeys(form for _, form in self.factors_by_rows))

    def factors(self, form: str = "absolute", rows: str | None = None, kind: str | None = None) -> FloatArray:
        """The factors of a form, (layers, images) [with `per_head`: (layers, heads, images)].

        Args:
            form: "signed", "absolute" or "value"; see `probes.mixers.sums`.
            rows: Row set; None takes the trace's own.
            kind: Only layers of this kind.

        Raises:
            InputError: If there is no such form, row set or kind.
        """
        name = rows or self.rows
        if (name, form) not in self.factors_by_rows:
            kept = ", ".join(f"{form} of {rows}" for rows, form in self.factors_by_rows)
            raise InputError(f"no form {form!r} of rows {name!r} in this trace; it has {kept}")
        table: FloatArray = self.factors_by_rows[name, form]
        if kind is None:
            return table
        if kind not in self.kinds:
            raise InputError(f"no {kind!r} layer in this trace; it has {', '.join(dict.fromkeys(self.kinds))}")
        return table[[place for place, each in enumerate(self.kinds) if each == kind]]

    def focus(
        self,
        rule: str = "M-LND",
        last: int = 4,
        form: str = "absolute",
        rows: str | None = None,
        kind: str | None = None,
    ) -> int:
        """The 0-based image that the rule picks from the last layers of one kind; see `probes.focus`.

        Raises:
            InputError: As `factors`; if layers of several kinds would be taken together.
            ValueError: If the rule is unknown or `last` is below 1.
        """
        from probes.scores import focus

        kinds = tuple(dict.fromkeys(self.kinds))
        if kind is None and len(kinds) > 1:
            raise InputError(f"layers of several kinds are not averaged: give kind, one of {', '.join(kinds)}")
        factors = self.factors(form, rows, kind)
        return focus(factors if factors.ndim == 2 else factors.mean(axis=1), rule, last)
