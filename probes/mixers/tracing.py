"""From an encoded batch to a `MixerRecorder`, and from what that summed to traces, one for each question.

Knows nothing of how a batch is encoded, or how the model runs while the recorder is entered.
"""

from collections.abc import Collection, Sequence

import numpy as np
from torch import nn

from probes.backend import AnswerScores
from probes.encoding import Encoded, row_sets
from probes.mixers.recorder import MixerRecorder
from probes.mixers.sums import FORMS
from probes.mixers.trace import FloatArray, Leak, MixerTrace
from probes.recording import own_columns


def mixer_recorder(
    model: nn.Module,
    encoded: Encoded,
    rows: Sequence[str],
    forms: Sequence[str] = FORMS,
    per_head: bool = False,
    maps: bool = False,
    leaks: bool = False,
    layers: Collection[int] | None = None,
) -> MixerRecorder:
    """A recorder of row sets over the images of an encoded batch; arguments as `probes.state_space.trace_mixers`.

    Raises:
        InputError: If images are no tokens of the prompt, or a row set, form or layer is unknown.
        UnsupportedAttention: As `MixerRecorder`.
    """
    encoded.need_image_tokens("hidden attention")
    return MixerRecorder(model, encoded.spans, row_sets(encoded, rows), forms, per_head, maps, leaks, layers)


def mixer_traces(
    recorder: MixerRecorder,
    encoded: Encoded,
    scores: AnswerScores,
    rows: Sequence[str],
    forms: Sequence[str] = FORMS,
    maps: bool = False,
    leaks: bool = False,
) -> list[MixerTrace]:
    """What a recorder heard in the pass that scored the batch's answers, by question.

    Args:
        recorder: Of the batch; it has been entered and left.
        encoded: The batch.
        scores: Its answers' scores.
        rows: The recorder's row sets, the first of which is the traces' own.
        forms: The recorder's forms.
        maps: Whether it kept maps.
        leaks: Whether it measured leaks.
    """
    keys = [(name, form) for name in rows for form in forms]
    factors = {key: recorder.factors(*key).numpy() for key in keys}
    recorded = {key: recorder.maps(*key) for key in keys} if maps else {}
    return [
        MixerTrace(
            answer_ids=ids,
            layers=tuple(recorder.layers),
            kinds=tuple(recorder.kinds),
            rows=rows[0],
            factors_by_rows={key: own_columns(key[0], table[row], encoded, row) for key, table in factors.items()},
            maps_by_rows={
                key: tuple(span.spread(each.numpy()) for span, each in zip(encoded.spans[row], value[row], strict=True))
                for key, value in recorded.items()
            },
            leak=_leak(recorder, encoded, row) if leaks else None,
            log_probability=float(scores.log_probability[row]),
        )
        for row, ids in enumerate(encoded.answer_ids)
    ]


def _leak(recorder: MixerRecorder, encoded: Encoded, row: int) -> Leak:
    """One row's leaks, (layers, images, kernel size) by part; layers of one model share their parts."""
    by_layer, images = list(recorder.leaks().values()), len(encoded.spans[row])

    def stacked(side: str) -> dict[str, FloatArray]:
        tables = [getattr(leak, side) for leak in by_layer]
        shared = [part for part in tables[0] if all(part in table for table in tables)]
        return {part: np.stack([table[part][row, :images].numpy() for table in tables]) for part in shared}

    return Leak(stacked("entering"), stacked("leaving"))
