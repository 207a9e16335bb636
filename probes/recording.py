"""The recorder of an encoded batch: which layers, and which of their columns, hold its images.

What was recorded goes back to single questions by `own_columns`.

Knows nothing of how a batch is encoded or run.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import nn

from probes.decoder import image_layers
from probes.encoding import Encoded, row_sets
from probes.recorder import AttentionRecorder


def recorder_of(
    model: nn.Module, encoded: Encoded, names: Sequence[str], per_head: bool = False, maps: bool = True
) -> AttentionRecorder:
    """An `AttentionRecorder` of row sets over the batch's images; of a vision axis, in the layers that reach it.

    Raises:
        InputError: As `row_sets`.
        UnsupportedAttention: As `AttentionRecorder`.
    """
    rows = row_sets(encoded, names)
    if encoded.cross_spans is None:
        return AttentionRecorder(model, encoded.spans, rows, per_head=per_head, cells=maps)
    layers = image_layers(model)
    return AttentionRecorder(
        model, [], rows, per_head=per_head, cells=maps, cross_spans=encoded.cross_spans, layers=layers
    )


def own_columns(name: str, factors: npt.NDArray[np.float32], encoded: Encoded, row: int) -> npt.NDArray[np.float32]:
    """One question's factors without the batch's padding; under "anchor", the last image's own column is NaN."""
    spans = encoded.spans[row]
    own = factors[..., : len(spans)].copy()
    if name == "anchor":
        own[..., max(range(len(spans)), key=lambda image: spans[image].start)] = np.nan
    return own
