"""Hidden attention of layers without softmax: Mamba-2, Mamba and gated delta nets, chosen rows only.

The model computes as it always does; beside each such layer, the weights by which its scan sums earlier tokens' values
are made from the layer's own tensors, for chosen rows and in blocks of tokens, and summed over each image at once.
`probes.attention` is the same for softmax attention. Results of the two stand side by side, and are never averaged.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from probes.attention import real_tokens, row_mask
from probes.encoding import Answer
from probes.forwards import run_once
from probes.inputs import InputError
from probes.mixers.modules import mixer_modules
from probes.mixers.readers import reader_of
from probes.mixers.recorder import MixerRecorder
from probes.mixers.sums import FORMS, attention_rows
from probes.mixers.trace import MixerTrace
from probes.mixers.tracing import mixer_recorder, mixer_traces
from probes.model import HookedModel
from probes.prompts import Question

__all__ = [
    "FORMS",
    "MixerRecorder",
    "MixerTrace",
    "hidden_attention",
    "hidden_attention_factors",
    "mixer_layers",
    "trace_mixers",
]


def mixer_layers(model: nn.Module) -> dict[int, str]:
    """The text decoder's layers with a mixer, by true index, and each one's kind: "mamba2", "mamba" or "delta".

    Raises:
        UnsupportedAttention: If there is none, or one of a class that is not known.
    """
    return {layer: reader_of(module).kind for layer, module in mixer_modules(model).items()}


@torch.no_grad()
def hidden_attention(
    mixer: nn.Module,
    hidden_states: Tensor,
    query_rows: Any,
    attention_mask: Tensor | None = None,
    form: str = "signed",
) -> Tensor:
    """Hidden attention of one mixer's chosen rows to every token.

    Of Mamba-2, `alpha_h(i, j) = (C_i . B_j) exp(S_i - S_j) dt_j` for `j <= i` (the dual form of Dao and Gu 2024); of
    Mamba that of Ali, Zimerman and Wolf 2024, each channel a head; of gated delta nets the weights that the delta rule
    (Yang et al. 2024) comes to, by our own derivation. Summed with the values it is the layer's scan: what comes
    behind, gate, norm and projection, is not in it, but for the gate in the form `value`.

    Args:
        mixer: A mixer module of transformers.
        hidden_states: (batch, tokens, hidden): what enters it, from the sequence's first token on.
        query_rows: Token indices shared by the batch (negative ones count from the end), or bool (batch, tokens) with
            the same number of rows for each of the batch.
        attention_mask: (batch, tokens), 0 on padding.
        form: "signed" is alpha itself; "absolute" is `|alpha|` over its sum along the row; "value" is `|alpha|` times
            the norm of the value under the row's gate.

    Returns:
        fp32 (batch, heads, rows, tokens), rows in the order of their tokens, 0 behind each row.

    Raises:
        InputError: If rows or the form do not fit.
        UnsupportedAttention: If the mixer's class is not known.
    """
    reader = reader_of(mixer)
    if hidden_states.dim() != 3:
        raise InputError(f"hidden states have shape {tuple(hidden_states.shape)}: give (batch, tokens, hidden)")
    mask = row_mask(query_rows, torch.ones(hidden_states.shape[:2], dtype=torch.bool))
    counts = mask.sum(1)
    if int(counts.min()) != int(counts.max()) or not int(counts.max()):
        raise InputError(f"the batch has {counts.tolist()} query rows: give each the same number, one or more")
    rows = mask.nonzero()[:, 1].view(len(mask), -1)
    projected = reader.project(mixer, hidden_states, attention_mask)
    return attention_rows(reader.scan(mixer, projected, attention_mask), rows, form)


def hidden_attention_factors(
    model: nn.Module,
    inputs: Any,
    query_rows: Any,
    image_spans: Sequence[Any],
    form: str = "absolute",
    per_head: bool = False,
    layers: Sequence[int] | None = None,
) -> Tensor:
    """Hidden-attention factors of chosen rows, from one forward of the model.

    The mean over heads, rows and the tokens of image i of a layer's hidden attention: `probes.attention_factors` with
    hidden attention in place of softmax.

    Args:
        model: A transformers model, or its decoder. It runs without gradients and without a cache.
        inputs: What `model(**inputs)` takes, a batch.
        query_rows: Token indices shared by the batch (negative ones count from the end), or bool (batch, tokens). Rows
            of padding are not counted.
        image_spans: One list of (start, stop) for the batch, or one per batch row.
        form: See `hidden_attention`.
        per_head: Keep heads apart.
        layers: True indices; None is every layer with a mixer, as `mixer_layers`.

    Returns:
        fp32 on the CPU, (batch, layers, images) or (batch, layers, heads, images); NaN where a batch row has fewer
        images.

    Raises:
        InputError: If rows, spans, form or layers do not fit, or a batch row is left without a row.
        UnsupportedAttention: If a layer's hidden attention is not known, or cannot be read.
    """
    rows = row_mask(query_rows, real_tokens(inputs))
    bare = (~rows.any(1)).nonzero().flatten().tolist()
    if bare:
        raise InputError(f"batch rows {bare} have no query row outside their padding: choose rows of their own tokens")
    recorder = MixerRecorder(model, image_spans, {"rows": rows}, (form,), per_head=per_head, layers=layers)
    with recorder:
        run_once(model, inputs)
    return recorder.factors("rows", form)


def trace_mixers(
    model: HookedModel,
    questions: Sequence[Question],
    answers: Sequence[Answer],
    rows: Sequence[str] = ("paper", "predicting"),
    forms: Sequence[str] = FORMS,
    per_head: bool = False,
    maps: bool = False,
    leaks: bool = False,
    layers: Sequence[int] | None = None,
) -> list[MixerTrace]:
    """Read the hidden attention to each image and video, the answers teacher-forced.

    Args:
        model: The model.
        questions: A batch; prompts of unequal length are padded.
        answers: Text, or the token ids of traces, one per question.
        rows: Row sets, the first of which is the traces' own; see `probes.encoding.row_sets`.
        forms: See `hidden_attention`.
        per_head: Keep heads apart in the factors.
        maps: Keep the hidden attention to each image token.
        leaks: Measure what the convolution carries over the edges of images.
        layers: True indices; None is every layer with a mixer.

    Raises:
        InputError: If the model cannot take the questions, a row set, form or layer is unknown, images are no tokens of
            the prompt, or the logits are not numbers.
        UnsupportedAttention: If a layer's hidden attention is not known, or cannot be read.
    """
    names = (rows,) if isinstance(rows, str) else tuple(rows)
    if not names:
        raise InputError("hidden attention needs at least one row set, for example rows=('paper',)")
    encoded = model.encode(questions, answers)
    recorder = mixer_recorder(model.model, encoded, names, forms, per_head, maps, leaks, layers)
    with recorder:
        scores = model.score(encoded)
    return mixer_traces(recorder, encoded, scores, names, forms, maps, leaks)
